"""Step: a trained and scored experiment to the landing folder, and from there into the warehouse."""

from pathlib import Path

from prefect import task

from tasks.caching import as_cached, is_transient
from tasks.corpus.manifest import DatasetManifest
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import Landing, is_landed, land_together, landed_status
from tasks.models.manifest import VariantManifest
from tasks.runtime.home import home
from tasks.spec import ExperimentSpec, evaluation_id
from tasks.tuning.rows import TrainingOutcome, training_rows


@task(
    task_run_name="land {spec.title}",
    retries=3,
    retry_delay_seconds=2,
    retry_condition_fn=is_transient,
)
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
    training_tables = training_rows(spec, training, weights, dataset, outcome)
    evaluation_tables = evaluation_rows(spec, training, folder / "scores" / scores, dataset)
    land_together(
        [
            Landing(training, "training", training_tables),
            Landing(evaluation, "evaluation", evaluation_tables),
        ]
    )

    return evaluation
