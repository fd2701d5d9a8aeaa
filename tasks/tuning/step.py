"""The training step seen from outside: what a training is asked to do, the summary that it keeps in
the manifest of its folder, and the child process, with less memory each time that it runs out.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.runtime.children import run_step
from tasks.runtime.errors import OutOfMemory
from tasks.runtime.events import Device, Emit, StepWarning
from tasks.runtime.memory import total_memory
from tasks.runtime.store import Manifest, intact_manifest
from tasks.spec import ExperimentSpec
from tasks.tuning.memory import SMALLEST, MemoryChoice, budget, read_choice


class TrainingJob(BaseModel):
    """Arguments of the training job.

    `folder` becomes the sealed adapter folder; `variant` and `data` are complete ones.

    `choice`: how to use the memory after an earlier attempt ran out of it; None lets the training
    choose. `pause_at`: the training stops at the first checkpoint from this update on, and goes on
    from there when it runs again; None, and a pause at the last update, train to the end.
    """

    model_config = ConfigDict(frozen=True)

    experiment: ExperimentSpec
    training_id: str
    variant: Path
    data: Path
    home: Path
    folder: Path
    choice: MemoryChoice | None = None
    pause_at: int | None = None


class TrainingSummary(BaseModel):
    """How a training went. Bytes, seconds and losses.

    A field that an earlier version did not write is None.

    `last_iteration` is less than the recipe's iterations where patience ended the training or where
    it diverged.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    train_loss: float | None = None
    valid_loss: float | None = None
    best_iteration: int | None = None
    last_iteration: int | None = None
    train_seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    peak_rss_bytes: int | None = None
    micro_batch: int | None = None
    checkpointed_blocks: bool | None = None
    memory_budget_bytes: int | None = None
    padding_share: float | None = None
    device: Device | None = None
    weights_memory_bytes: int | None = None
    cache_memory_bytes: int | None = None
    trainable_parameters: int | None = None
    shortened_cases: int | None = None
    frozen_blocks_stored: int | None = None
    started_at: str | None = None
    finished_at: str | None = None


class TrainingManifest(Manifest):
    """The manifest of a training's folder.

    `settings_digest`: see `rows.settings_digest`.
    """

    training_id: str
    settings_digest: str | None = None
    summary: TrainingSummary


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
                # Its newest checkpoint, empty where there is none.
                progress=lambda: max(
                    (path.name for path in (folder / "checkpoint").glob("[0-9]*")), default=""
                ),
            )
            # A training that pauses is not sealed: the loop would start it again.
            if pause_at is not None:
                break
        except OutOfMemory:
            chosen = job.choice or read_choice(folder)
            # One that saved no choice died in the frozen prefix or in a probe step.
            choice = SMALLEST if chosen is None else chosen.smaller()
            if choice is None:
                raise
            words = f"micro-batch {choice.micro_batch}"
            if choice.checkpointing:
                words += " and checkpointed blocks"
            on_event(StepWarning(f"Out of memory: retrying with {words}."))
            job = job.model_copy(update={"choice": choice})

    return folder.name
