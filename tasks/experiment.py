"""Steps of one experiment: train it; score it on calibration and test, with its dropout passes, and
on the further evaluation sets of its grid, each reported separately; land it; and judge the same
adapter at another precision, where only the frozen weights differ: by the same rules, and by rules
that are chosen again there. Models run in child processes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.caching import as_cached, cached_folder, run_job, step
from tasks.corpus.manifest import DatasetManifest
from tasks.identity import (
    INGREDIENTS,
    experiment_folder,
    scores_folder,
    scores_of,
    training_ingredients,
)
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import Rows, is_landed, land_rows, land_together, landed_status
from tasks.models.manifest import VariantManifest
from tasks.precisions import Precision
from tasks.progress import publisher
from tasks.runtime.events import Emit, Note
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home
from tasks.runtime.shared import bring_adapter, share_adapter, shared_folder
from tasks.runtime.store import intact_manifest
from tasks.scoring.arguments import ScoringJob, TrainedJob
from tasks.spec import CHOSEN_AGAIN, KEPT, ExperimentSpec, evaluation_id, short_digest
from tasks.tuning.rows import TrainingOutcome, reporting_to, train_experiment, training_rows


@step("train {spec.title}", cache_key_fn=cached_folder("train", experiment_folder))
def train(spec: ExperimentSpec, variant: Path, data: Path, at_most: float | None = None) -> str:
    """training_id of the trained experiment; its folder holds adapters, curve and summary."""
    folder = experiment_folder(spec, variant, data)
    # A run that was killed after it had brought an adapter left none.
    if (folder / INGREDIENTS).is_file() and intact_manifest(folder, deep=True) is not None:
        return as_cached(folder.name, folder.name)

    publish = publisher(f"train {spec.cell_id}")
    shared = shared_folder()
    if shared is not None and bring_adapter(shared, folder, publish):
        publish(Note(f"{folder.name} was trained on another machine, and is not trained again."))

    weights = VariantManifest.read(variant)
    dataset = DatasetManifest.read(data)
    # By which `triage data forget` knows the cases that the adapter learned from.
    ingredients = json.dumps(training_ingredients(spec, weights, dataset), indent=1)
    write_atomic(folder / INGREDIENTS, ingredients)
    emit = reporting_to(folder, publish)
    training = train_experiment(spec, folder, variant, data, home(), emit, at_most=at_most)
    if shared is not None:
        share_adapter(shared, folder)

    return training


@step("evaluate {spec.title}", cache_key_fn=cached_folder("evaluate", scores_folder))
def evaluate(
    spec: ExperimentSpec,
    training: str,
    variant: Path,
    data: Path,
    at_most: float | None = None,
) -> str:
    """scores_id; the folder of that name holds probabilities per case, and no patient text."""
    scores = scores_folder(spec, training, data)
    trained = _trained_job(spec, training, variant, data)
    emit = publisher(f"evaluate {spec.cell_id}")
    if score(trained, {"test": scores}, None, f"evaluate-{scores.name}", emit, at_most):
        return scores.name
    return as_cached(scores.name, scores.name)


def _trained_job(spec: ExperimentSpec, training: str, variant: Path, data: Path) -> TrainedJob:
    adapter = home() / "experiments" / training
    return TrainedJob(experiment=spec, variant=variant, data=data, home=home(), adapter=adapter)


def score(
    trained: TrainedJob,
    folders: dict[str, Path],
    rules_from: Path | None,
    log: str,
    emit: Emit,
    at_most: float | None,
    judged_from: dict[str, Path] | None = None,
) -> bool:
    """Score the sets whose folders are not complete, in one job; whether there were any."""
    unscored = {
        name: folder
        for name, folder in folders.items()
        if intact_manifest(folder, deep=True) is None
    }
    if unscored:
        job = ScoringJob(
            **dict(trained), sets=unscored, rules_from=rules_from, judged_from=judged_from or {}
        )
        run_job("tasks.scoring.job:run", job, log, emit, at_most)
    return bool(unscored)


@step("sets {spec.title}")
def evaluate_sets(
    spec: ExperimentSpec,
    training: str,
    scores: str,
    variant: Path,
    data: Path,
    names: list[str],
    at_most: float | None = None,
) -> list[str]:
    """evaluation_ids of the named sets, in that order; what is scored is not scored again, and what
    has landed is not judged again.

    `scores`: id of those on the test set, whose rules are used here too.
    """
    folders = {name: scores_folder(spec, training, data, name) for name in names}
    trained = _trained_job(spec, training, variant, data)
    emit = publisher(f"evaluation sets {spec.cell_id}")
    rules_from = trained.adapter / "scores" / scores
    were_scored = score(trained, folders, rules_from, f"sets-{scores}", emit, at_most)

    ids = {name: evaluation_id(folder.name) for name, folder in folders.items()}
    unlanded = {name: id for name, id in ids.items() if not is_landed(id)}
    dataset = DatasetManifest.read(data)
    for name, evaluation in unlanded.items():
        rows = evaluation_rows(spec, folders[name], dataset, name)
        land_rows(evaluation, "evaluation", rows)

    evaluation_ids = list(ids.values())
    if were_scored or unlanded:
        return evaluation_ids
    return as_cached(evaluation_ids, ", ".join(evaluation_ids))


@step("land {spec.title}", retries=3, delay=2)
def land(spec: ExperimentSpec, training: str, scores: str, variant: Path, data: Path) -> str:
    """evaluation_id, once training and evaluation are in the warehouse; what has landed is not
    computed again. `scores`: the id of the scores that are judged.
    """
    evaluation = evaluation_id(scores)
    # A training that lost its folder and could not be repeated has a row that says so, and is
    # complete by now.
    if is_landed(evaluation) and landed_status(training) == "completed":
        return as_cached(evaluation, evaluation)

    folder = home() / "experiments" / training
    weights = VariantManifest.read(variant)
    dataset = DatasetManifest.read(data)
    outcome = TrainingOutcome.of_complete(folder)
    of_training = training_rows(spec, training, weights, dataset, outcome)
    judged = evaluation_rows(spec, folder / "scores" / scores, dataset)
    land_together([(training, "training", of_training), (evaluation, "evaluation", judged)])

    return evaluation


@step("move {spec.model.name} {spec.precision.name} {spec.recipe.name} to {precision.name}")
def move_adapter(
    spec: ExperimentSpec,
    training: str,
    scores: str,
    precision: Precision,
    variant: Path,
    data: Path,
    sets: Sequence[str] = (),
    at_most: float | None = None,
) -> list[str]:
    """evaluation_ids of a trained adapter on the variant of another precision: on test, then on the
    further `sets`; lands as an experiment of kind moved_adapter.

    `scores`: id of the adapter's own, whose threshold and scaling are used here too: chosen again,
    as in choose_again, they make up for the shift. `at_most` holds for an attempt on test, and for
    one on the further sets.
    """
    weights = VariantManifest.read(variant)
    cell, moved_id = moved_training(spec, training, scores, precision, weights)
    folders = _moved_folders(spec, moved_id, data, sets)
    ids = [evaluation_id(folder.name) for folder in folders.values()]
    if is_landed(moved_id) and all(map(is_landed, ids)):
        return as_cached(ids, moved_id)

    trained = _trained_job(spec, training, variant, data)
    rules_from = trained.adapter / "scores" / scores
    score_moved(trained, rules_from, folders, publisher(f"move {cell}"), at_most)
    origin = {"source_training_id": training, "source_scores_id": scores, "moved_rules": KEPT}
    _land_moved(spec, cell, moved_id, precision, weights, data, folders, origin)

    return ids


@step(
    "move {spec.model.name} {spec.precision.name} {spec.recipe.name} to {precision.name}, "
    "threshold chosen again"
)
def choose_again(
    spec: ExperimentSpec,
    training: str,
    scores: str,
    precision: Precision,
    variant: Path,
    data: Path,
    sets: Sequence[str] = (),
    at_most: float | None = None,
) -> list[str]:
    """As move_adapter, which comes first, by rules that are chosen again on calibration at this
    precision: the probabilities of test and of the further sets are those of the kept rules, and
    the model runs over calibration alone.
    """
    weights = VariantManifest.read(variant)
    _, kept_id = moved_training(spec, training, scores, precision, weights)
    cell, moved_id = moved_training(spec, training, scores, precision, weights, again=True)
    folders = _moved_folders(spec, moved_id, data, sets)
    ids = [evaluation_id(folder.name) for folder in folders.values()]
    if is_landed(moved_id) and all(map(is_landed, ids)):
        return as_cached(ids, moved_id)

    trained = _trained_job(spec, training, variant, data)
    rules_from = trained.adapter / "scores" / scores
    emit = publisher(f"move {cell}")
    kept = _moved_folders(spec, kept_id, data, sets)
    score_moved(trained, rules_from, kept, emit, at_most)  # where another machine has landed them
    score_moved(trained, rules_from, folders, emit, at_most, judged_from=kept)
    origin = {
        "source_training_id": training,
        "source_scores_id": scores,
        "moved_rules": CHOSEN_AGAIN,
    }
    _land_moved(spec, cell, moved_id, precision, weights, data, folders, origin)

    return ids


def _moved_folders(
    spec: ExperimentSpec, moved_id: str, data: Path, sets: Sequence[str]
) -> dict[str, Path]:
    """The scores folders of a moved adapter, by set."""
    return {
        name: home() / "moved" / scores_of(spec, moved_id, data, name) for name in ("test", *sets)
    }


def _land_moved(
    spec: ExperimentSpec,
    cell: str,
    moved_id: str,
    precision: Precision,
    weights: VariantManifest,
    data: Path,
    folders: dict[str, Path],
    origin: dict[str, str],
) -> None:
    """Land a moved adapter, in the place of a training, with its evaluations. `origin`: columns of
    its experiment.
    """
    dataset = DatasetManifest.read(data)
    is_kept = origin["moved_rules"] == KEPT
    rows = {
        name: evaluation_rows(spec, folder, dataset, name, is_moved=is_kept)
        for name, folder in folders.items()
    }
    on_variant = spec.model_copy(update={"precision": precision})
    tables: Rows = training_rows(on_variant, moved_id, weights, dataset, TrainingOutcome())
    recipe = f"{spec.recipe.name} from {spec.precision.name}"
    tables["experiment"][0] |= origin | {
        "cell_id": cell,
        "recipe": recipe if is_kept else f"{recipe} again",
        "recipe_kind": "moved_adapter",
        "finished_at": rows["test"]["evaluation"][0]["created_at"],
    }
    evaluations = [
        (evaluation_id(folders[name].name), "evaluation", evaluated)
        for name, evaluated in rows.items()
    ]
    land_together([(moved_id, "training", tables), *evaluations])


def moved_training(
    spec: ExperimentSpec,
    training: str,
    scores: str,
    precision: Precision,
    weights: VariantManifest,
    again: bool = False,
) -> tuple[str, str]:
    """The cell of a moved adapter, and its id as an experiment of its own. `again`: its rules are
    chosen again.
    """
    recipe = f"{spec.recipe.name}-from{spec.precision.name}{'-again' if again else ''}"
    cell = f"{spec.model.name}-{precision.name}-{recipe}-s{spec.seed}"
    ingredients: dict[str, Any] = {
        "training": training,
        "variant": weights.digest,
        "rules": scores,
    }
    if spec.recipe.dropout > 0 and not spec.scoring.moved_passes:
        ingredients["passes"] = False
    if again:
        ingredients["again"] = True
    return cell, f"{cell}-{short_digest(ingredients)}"


def score_moved(
    trained: TrainedJob,
    rules_from: Path,
    folders: dict[str, Path],
    emit: Emit,
    at_most: float | None = None,
    judged_from: dict[str, Path] | None = None,
) -> None:
    """Score the sets whose folders are not complete: test first, since the others use its rules.
    `judged_from`: as in ScoringJob.
    """
    test = folders["test"]
    score(trained, {"test": test}, rules_from, f"move-{test.name}", emit, at_most, judged_from)

    sets = {name: folder for name, folder in folders.items() if name != "test"}
    # A log of its own for other sets: `forget` reads in it what was made of which data set.
    names = short_digest({name: folder.name for name, folder in folders.items()})
    score(trained, sets, test, f"move-sets-{test.name}-{names}", emit, at_most, judged_from)
