"""Step: a trained experiment on the further evaluation sets of its grid, each reported as a source of its own."""

from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import is_transient
from tasks.identity import scores_folder
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import is_landed, land_rows
from tasks.progress import follow
from tasks.runtime.child import run_child
from tasks.runtime.store import complete, home, verify
from tasks.spec import ExperimentSpec


@task(
    task_run_name="sets {experiment[model][name]} {experiment[bits]}bit {experiment[recipe][name]} s{experiment[seed]}",
    retries=2, retry_delay_seconds=5, retry_condition_fn=is_transient,
)  # fmt: skip
def evaluate_sets(
    experiment: dict[str, Any],
    training: str,
    evaluation: str,
    variant: str,
    data: str,
    names: list[str],
) -> list[str]:
    """evaluation_ids of the named sets, in that order; what has landed is not scored again.

    `evaluation`: the one on the test set, whose rules serve here too.
    """
    spec, dataset = ExperimentSpec.model_validate(experiment), verify(Path(data), deep=False)
    folders = {name: scores_folder(spec, training, data, name) for name in names}
    missing = {
        name: str(path) for name, path in folders.items() if complete(path, deep=True) is None
    }
    if missing:
        folder = home() / "experiments" / training
        args = {
            "experiment": experiment, "variant": variant, "data": data, "home": str(home()), "folder": str(folder),
            "chosen": str(folder / "scores" / evaluation), "sets": missing,
        }  # fmt: skip
        title = f"evaluation sets {spec.cell_id}"
        run_child(
            "tasks.scoring.job:run_sets",
            args,
            home() / "logs" / f"sets-{evaluation}",
            follow(title),
        )
    for name, scores in folders.items():
        if not is_landed(scores.name):
            rows = evaluation_rows(spec, training, scores.name, scores, dataset, name)
            land_rows(scores.name, "evaluation", rows)
    return [path.name for path in folders.values()]
