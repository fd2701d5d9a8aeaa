"""What a training is asked to do (TrainingJob), and the summary that it keeps in the manifest of its
folder.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.runtime.events import Device
from tasks.runtime.store import Manifest
from tasks.spec import ExperimentSpec
from tasks.tuning.memory import MemoryChoice


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

    `settings_digest`: see `training_rows.settings_digest`.
    """

    training_id: str
    settings_digest: str | None = None
    summary: TrainingSummary
