"""Step: a trained experiment on the further evaluation sets of its grid, each reported separately."""

from pathlib import Path

from prefect import task

from tasks.caching import as_cached, is_transient
from tasks.corpus.manifest import DatasetManifest
from tasks.identity import scores_folder
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import is_landed, land_rows
from tasks.progress import publisher
from tasks.runtime.children import run_step
from tasks.runtime.home import home
from tasks.runtime.store import intact_manifest
from tasks.scoring.arguments import SetsScoringJob
from tasks.spec import ExperimentSpec, evaluation_id


@task(
    task_run_name="sets {spec.title}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
)
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

    `scores`: id of those on the test set, whose rules are used here too. `at_most`: seconds that
    an attempt may take.
    """
    dataset = DatasetManifest.read(data)
    folders = {name: scores_folder(spec, training, data, name) for name in names}
    adapter = home() / "experiments" / training
    emit = publisher(f"evaluation sets {spec.cell_id}")
    unscored = {
        name: folder
        for name, folder in folders.items()
        if intact_manifest(folder, deep=True) is None
    }
    if unscored:
        job = SetsScoringJob(
            experiment=spec,
            variant=variant,
            data=data,
            home=home(),
            adapter=adapter,
            rules_from=adapter / "scores" / scores,
            sets=unscored,
        )
        log = home() / "logs" / f"sets-{scores}"
        arguments = job.model_dump(mode="json")
        run_step("tasks.scoring.job:run_sets", arguments, log, emit, at_most=at_most)

    ids = {name: evaluation_id(folder.name) for name, folder in folders.items()}
    unlanded = {name: id for name, id in ids.items() if not is_landed(id)}
    for name, evaluation in unlanded.items():
        rows = evaluation_rows(spec, training, folders[name], dataset, name)
        land_rows(evaluation, "evaluation", rows)

    evaluation_ids = list(ids.values())
    return (
        evaluation_ids
        if unscored or unlanded
        else as_cached(evaluation_ids, ", ".join(evaluation_ids))
    )
