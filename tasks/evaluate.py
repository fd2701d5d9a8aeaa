"""Steps: score a trained experiment on calibration and test, with its dropout passes, and on the
further evaluation sets of its grid, each reported separately; and the same adapter, judged by the
same rules, at another precision, where only the frozen weights differ. All in child processes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.caching import as_cached, cached_folder, run_job, step
from tasks.corpus.manifest import DatasetManifest
from tasks.identity import scores_folder, scores_of
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import Landing, Rows, is_landed, land_rows, land_together
from tasks.models.manifest import VariantManifest
from tasks.precisions import Precision
from tasks.progress import publisher
from tasks.runtime.events import Emit
from tasks.runtime.home import home
from tasks.runtime.store import intact_manifest
from tasks.scoring.arguments import ScoringJob, TrainedJob
from tasks.spec import ExperimentSpec, evaluation_id, short_digest
from tasks.tuning.rows import TrainingOutcome, training_rows


@step("evaluate {spec.title}", cache_key_fn=cached_folder("evaluate", scores_folder))
def evaluate(
    spec: ExperimentSpec,
    training: str,
    variant: Path,
    data: Path,
    at_most: float | None = None,
) -> str:
    """scores_id; the folder of that name holds probabilities per case, and no patient text.

    `at_most`: seconds that an attempt may take.
    """
    scores = scores_folder(spec, training, data)
    if intact_manifest(scores, deep=True) is None:
        job = ScoringJob(**_trained(spec, training, variant, data), sets={"test": scores})
        emit = publisher(f"evaluate {spec.cell_id}")
        run_job("tasks.scoring.job:run", job, f"evaluate-{scores.name}", emit, at_most)

    return scores.name


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
    unscored = _unscored(folders)
    if unscored:
        trained = _trained(spec, training, variant, data)
        rules_from = trained["adapter"] / "scores" / scores
        job = ScoringJob(**trained, rules_from=rules_from, sets=unscored)
        emit = publisher(f"evaluation sets {spec.cell_id}")
        run_job("tasks.scoring.job:run", job, f"sets-{scores}", emit, at_most)

    ids = {name: evaluation_id(folder.name) for name, folder in folders.items()}
    unlanded = {name: id for name, id in ids.items() if not is_landed(id)}
    dataset = DatasetManifest.read(data)
    for name, evaluation in unlanded.items():
        rows = evaluation_rows(spec, training, folders[name], dataset, name)
        land_rows(evaluation, "evaluation", rows)

    evaluation_ids = list(ids.values())
    if unscored or unlanded:
        return evaluation_ids
    return as_cached(evaluation_ids, ", ".join(evaluation_ids))


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

    `scores`: id of the adapter's own, whose threshold and scaling are used here too. Chosen again,
    they would compensate the very shift that is to be seen. `at_most`: seconds that an
    attempt may take on test, and on the further sets.
    """
    weights = VariantManifest.read(variant)
    cell, moved_id = moved_training(spec, training, scores, precision, weights)
    folders = {
        name: home() / "moved" / scores_of(spec, moved_id, data, name) for name in ("test", *sets)
    }
    ids = {name: evaluation_id(folder.name) for name, folder in folders.items()}
    if is_landed(moved_id) and all(is_landed(id) for id in ids.values()):
        return as_cached(list(ids.values()), moved_id)

    trained = TrainedJob(**_trained(spec, training, variant, data))
    rules_from = trained.adapter / "scores" / scores
    score_moved(trained, rules_from, folders, publisher(f"move {cell}"), at_most)

    dataset = DatasetManifest.read(data)
    rows = {
        name: evaluation_rows(spec, moved_id, folder, dataset, name, is_moved=True)
        for name, folder in folders.items()
    }
    # The moved adapter takes the place of a training.
    on_variant = spec.model_copy(update={"precision": precision})
    tables: Rows = training_rows(on_variant, moved_id, weights, dataset, TrainingOutcome())
    tables["experiment"][0] |= {
        "cell_id": cell,
        "recipe": f"{spec.recipe.name} from {spec.precision.name}",
        "recipe_kind": "moved_adapter",
        "source_training_id": training,
        "source_scores_id": scores,
        "finished_at": rows["test"]["evaluation"][0]["created_at"],
    }
    evaluations = [Landing(ids[name], "evaluation", evaluated) for name, evaluated in rows.items()]
    land_together([Landing(moved_id, "training", tables), *evaluations])

    return list(ids.values())


def moved_training(
    spec: ExperimentSpec, training: str, scores: str, precision: Precision, weights: VariantManifest
) -> tuple[str, str]:
    """The cell of a moved adapter, and its id as an experiment of its own."""
    recipe = f"{spec.recipe.name}-from{spec.precision.name}"
    cell = f"{spec.model.name}-{precision.name}-{recipe}-s{spec.seed}"
    ingredients: dict[str, Any] = {
        "training": training,
        "variant": weights.digest,
        "rules": scores,
    }
    if spec.recipe.dropout > 0 and not spec.scoring.moved_passes:
        ingredients["passes"] = False
    return cell, f"{cell}-{short_digest(ingredients)}"


def score_moved(
    trained: TrainedJob,
    rules_from: Path,
    folders: dict[str, Path],
    emit: Emit,
    at_most: float | None = None,
) -> None:
    """Score the sets whose folders are not complete: test first, since the others use its rules."""
    unscored = _unscored(folders)
    test = unscored.pop("test", None)
    if test is not None:
        job = ScoringJob(**dict(trained), sets={"test": test}, rules_from=rules_from)
        run_job("tasks.scoring.job:run", job, f"move-{test.name}", emit, at_most)

    if unscored:
        test = folders["test"]
        sets = ScoringJob(**dict(trained), sets=unscored, rules_from=test)
        # A log of its own for other sets: `forget` reads in it what was made of which data set.
        names = short_digest({name: folder.name for name, folder in folders.items()})
        log = f"move-sets-{test.name}-{names}"
        run_job("tasks.scoring.job:run", sets, log, emit, at_most)


def _trained(spec: ExperimentSpec, training: str, variant: Path, data: Path) -> dict[str, Any]:
    """The fields of a TrainedJob."""
    adapter = home() / "experiments" / training
    return {
        "experiment": spec,
        "variant": variant,
        "data": data,
        "home": home(),
        "adapter": adapter,
    }


def _unscored(folders: dict[str, Path]) -> dict[str, Path]:
    """The folders of scores that are not complete, by set."""
    return {
        name: folder
        for name, folder in folders.items()
        if intact_manifest(folder, deep=True) is None
    }
