"""Step: score a trained experiment on calibration and test, with its dropout passes, in a child
process.
"""

from pathlib import Path

from prefect import task

from tasks.caching import cached_folder, is_transient
from tasks.identity import scores_folder
from tasks.progress import publisher
from tasks.runtime.children import run_step
from tasks.runtime.home import home
from tasks.runtime.store import intact_manifest
from tasks.scoring.arguments import ScoringJob
from tasks.spec import ExperimentSpec


@task(
    task_run_name="evaluate {spec.title}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
    cache_key_fn=cached_folder("evaluate", scores_folder),
    persist_result=True,
    result_serializer="json",
)
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
    adapter = home() / "experiments" / training
    emit = publisher(f"evaluate {spec.cell_id}")
    if intact_manifest(scores, deep=True) is None:
        job = ScoringJob(
            experiment=spec,
            variant=variant,
            data=data,
            home=home(),
            adapter=adapter,
            scores=scores,
        )
        log = home() / "logs" / f"evaluate-{scores.name}"
        arguments = job.model_dump(mode="json")
        run_step("tasks.scoring.job:run", arguments, log, emit, at_most=at_most)

    return scores.name
