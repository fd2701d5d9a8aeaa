"""The training step seen from outside: run the child process, with less memory each time that it
runs out.
"""

from __future__ import annotations

from pathlib import Path

from tasks.runtime.children import run_step
from tasks.runtime.errors import OutOfMemory
from tasks.runtime.events import Emit, StepWarning
from tasks.runtime.memory import total_memory
from tasks.runtime.store import intact_manifest
from tasks.spec import ExperimentSpec
from tasks.tuning.memory import MemoryChoice, after_out_of_memory, budget
from tasks.tuning.summary import TrainingJob

JOB = "tasks.tuning.job:run"


def train_experiment(
    spec: ExperimentSpec,
    folder: Path,
    variant: Path,
    data: Path,
    home: Path,
    on_event: Emit,
    pause_at: int | None = None,
    at_most: float | None = None,
) -> str:
    """Train into `folder` unless it is complete, and return the training id (the folder's name).

    With `pause_at` it stops at the first checkpoint from that update on, unless it ends before.

    A child that is killed while it holds nearly its whole budget counts as out of memory: the
    training is retried with less, until nothing smaller is left.
    """
    job = TrainingJob(
        experiment=spec,
        training_id=folder.name,
        variant=variant,
        data=data,
        home=home,
        folder=folder,
        pause_at=pause_at,
    )
    memory_budget = min(budget(spec), total_memory())

    while intact_manifest(folder, deep=True) is None:
        try:
            run_step(
                JOB,
                job.model_dump(mode="json"),
                folder,
                on_event,
                at_most,
                memory_budget=memory_budget,
                progress=lambda: _newest_checkpoint(folder),
            )
            # A training that pauses is not sealed: the loop would start it again.
            if pause_at is not None:
                break
        except OutOfMemory:
            choice = after_out_of_memory(job.choice, folder)
            if choice is None:
                raise
            on_event(StepWarning(f"Out of memory: retrying with {_in_words(choice)}."))
            job = job.model_copy(update={"choice": choice})

    return folder.name


def _newest_checkpoint(folder: Path) -> str:
    """The name of the newest checkpoint of a training, empty where there is none."""
    return max((path.name for path in (folder / "checkpoint").glob("[0-9]*")), default="")


def _in_words(choice: MemoryChoice) -> str:
    checkpointed = " and checkpointed blocks" if choice.checkpointing else ""
    return f"micro-batch {choice.micro_batch}{checkpointed}"
