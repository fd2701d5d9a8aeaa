"""Step: a trained experiment on the further evaluation sets of its grid, each reported separately."""

from pathlib import Path

from prefect import task

from tasks.caching import is_transient
from tasks.corpus.manifest import DatasetManifest
from tasks.identity import scores_folder
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import is_landed, land_rows
from tasks.progress import publisher
from tasks.runtime.child import run_child
from tasks.runtime.store import complete, home
from tasks.scoring.arguments import SetsScoringJob
from tasks.spec import ExperimentSpec


@task(
    task_run_name="sets {spec.title}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
)
def evaluate_sets(
    spec: ExperimentSpec,
    training: str,
    evaluation: str,
    variant: Path,
    data: Path,
    names: list[str],
) -> list[str]:
    """evaluation_ids of the named sets, in that order; what has landed is not scored again.

    `evaluation`: the one on the test set, whose rules are used here too.
    """
    dataset = DatasetManifest.read(data)
    folders = {name: scores_folder(spec, training, data, name) for name in names}
    unscored = {
        name: scores for name, scores in folders.items() if complete(scores, deep=True) is None
    }
    if unscored:
        folder = home() / "experiments" / training
        job = SetsScoringJob(
            experiment=spec,
            variant=variant,
            data=data,
            home=home(),
            adapter=folder,
            rules_from=folder / "scores" / evaluation,
            sets=unscored,
        )
        log = home() / "logs" / f"sets-{evaluation}"
        emit = publisher(f"evaluation sets {spec.cell_id}")
        run_child("tasks.scoring.job:run_sets", job.model_dump(mode="json"), log, emit)

    for name, scores in folders.items():
        if not is_landed(scores.name):
            rows = evaluation_rows(spec, training, scores.name, scores, dataset, name)
            land_rows(scores.name, "evaluation", rows)
    return [scores.name for scores in folders.values()]
