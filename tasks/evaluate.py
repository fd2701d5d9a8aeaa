"""Steps: score a trained experiment on calibration and test, with its dropout passes, and on the
further evaluation sets of its grid, each reported separately; in child processes.
"""

from pathlib import Path

from tasks.caching import as_cached, cached_folder, run_job, step
from tasks.corpus.manifest import DatasetManifest
from tasks.identity import scores_folder
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import is_landed, land_rows
from tasks.progress import publisher
from tasks.runtime.home import home
from tasks.runtime.store import intact_manifest
from tasks.scoring.arguments import ScoringJob
from tasks.spec import ExperimentSpec, evaluation_id


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
        job = ScoringJob(
            experiment=spec,
            variant=variant,
            data=data,
            home=home(),
            adapter=home() / "experiments" / training,
            sets={"test": scores},
        )
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
    unscored = {
        name: folder
        for name, folder in folders.items()
        if intact_manifest(folder, deep=True) is None
    }
    if unscored:
        adapter = home() / "experiments" / training
        job = ScoringJob(
            experiment=spec,
            variant=variant,
            data=data,
            home=home(),
            adapter=adapter,
            rules_from=adapter / "scores" / scores,
            sets=unscored,
        )
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
