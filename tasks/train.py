"""Step: fine-tune one experiment in a child process."""

import json
from pathlib import Path

from tasks.caching import cached_folder, step
from tasks.identity import INGREDIENTS, experiment_folder, ingredients_of
from tasks.progress import publisher
from tasks.runtime.events import Note
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home
from tasks.runtime.shared import bring_adapter, share_adapter, shared_folder
from tasks.spec import ExperimentSpec
from tasks.tuning.rows import reporting_to, train_experiment


@step("train {spec.title}", cache_key_fn=cached_folder("train", experiment_folder))
def train(
    spec: ExperimentSpec,
    variant: Path,
    data: Path,
    at_most: float | None = None,
) -> str:
    """training_id of the trained experiment; its folder holds adapters, curve and summary.

    `at_most`: seconds that an attempt may take.
    """
    folder = experiment_folder(spec, variant, data)
    publish = publisher(f"train {spec.cell_id}")
    shared = shared_folder()
    if shared is not None and bring_adapter(shared, folder, publish):
        publish(Note(f"{folder.name} was trained on another machine, and is not trained again."))

    # By which `triage data forget` knows the cases that the adapter learned from.
    ingredients = json.dumps(ingredients_of(spec, variant, data), indent=1)
    write_atomic(folder / INGREDIENTS, ingredients)
    emit = reporting_to(folder, publish)
    training = train_experiment(spec, folder, variant, data, home(), emit, at_most=at_most)
    if shared is not None:
        share_adapter(shared, folder)

    return training
