"""A training seen from outside its process: its arguments, its summary, the child process, its rows
for the warehouse, and how far it is. No MLX.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.corpus.case import SETS
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import load_prompt
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend, versions
from tasks.runtime.children import run_step
from tasks.runtime.device import total_memory
from tasks.runtime.errors import Diverged, OutOfMemory, TriageError
from tasks.runtime.events import (
    CurvePoint,
    Device,
    Emit,
    Event,
    StepWarning,
    TrainingReport,
    ValidationReport,
)
from tasks.runtime.files import write_atomic
from tasks.runtime.locks import is_locked
from tasks.runtime.store import Manifest, intact_manifest
from tasks.spec import ENGINE_VERSION, ExperimentSpec, short_digest
from tasks.tuning.memory import SMALLEST, MemoryChoice, budget, read_choice


class TrainingJob(BaseModel):
    """Arguments of the training job. `folder` becomes the sealed adapter folder.

    `choice`: how to use the memory after an earlier attempt ran out of it; None lets the training
    choose. `pause_at`: the training stops at the first checkpoint from this update on, and continues
    there when it runs again; None trains to the end.
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
    """How a training went, in bytes, seconds and losses."""

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
    """The manifest of a training's folder."""

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
    """Train into `folder` unless it is complete; returns the training id, the folder's name.

    A training that runs out of memory is retried with less, until nothing smaller is left.
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


Columns = dict[str, Any]  # a landing row, or a part of one
Rows = list[Columns]
# Summary and curve of a training up to the update at which it diverged.
DIVERGED = "diverged.json"
RECIPE_COLUMNS = (
    *("learning_rate", "batch_size", "rank", "scale", "peft_alpha", "dropout", "iterations"),
    *("target_ed_recall", "cost_weight"),
)
# Settings of a recipe that decide how its evaluation is judged, but not the training.
JUDGING_SETTINGS = {"target_ed_recall", "primary_rule"}


@dataclass(frozen=True)
class TrainingOutcome:
    """How a training ended; `error` is the sentence that says why it failed."""

    status: str = "completed"
    error: str | None = None
    summary: TrainingSummary = field(default_factory=TrainingSummary)
    curve: tuple[CurvePoint, ...] = ()

    @classmethod
    def of_complete(cls, folder: Path) -> TrainingOutcome:
        """That of a complete folder. Raises BrokenFolder if its digests do not match."""
        summary = TrainingManifest.read(folder, deep=True).summary
        training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        return cls(summary=summary, curve=tuple(CurvePoint(**p) for p in training["curve"]))

    @classmethod
    def of_failure(cls, folder: Path, error: Exception) -> TrainingOutcome:
        """That of a training that ended with `error`, with summary and curve if it diverged."""
        if not isinstance(error, Diverged):
            return cls("failed", str(error))
        path = folder / DIVERGED
        if not path.exists():  # nothing was recorded, as when the untuned scores are not finite
            return cls("diverged", str(error))

        reached = json.loads(path.read_text(encoding="utf-8"))
        summary = TrainingSummary.model_validate(reached["summary"])
        return cls(
            "diverged", str(error), summary, tuple(CurvePoint(**p) for p in reached["curve"])
        )


def training_rows(
    spec: ExperimentSpec,
    training_id: str,
    variant: VariantManifest,
    dataset: DatasetManifest,
    outcome: TrainingOutcome,
) -> dict[str, Rows]:
    """Rows of the tables `experiment` and `training_curve`."""
    recipe = spec.recipe
    summary = outcome.summary
    device = summary.device
    row = {
        "training_id": training_id,
        "cell_id": spec.cell_id,
        **cell_columns(spec),
        "group_size": spec.precision.group_size_in(spec.training.group_size),
        "num_layers": spec.training.num_layers,
        **{name: getattr(recipe, name) for name in RECIPE_COLUMNS},
        "has_cost_matrix": recipe.cost_matrix is not None,
        "has_class_weights": recipe.class_weights is not None,
        **weights_columns(variant),
        "settings_digest": settings_digest(spec, dataset),
        "source_training_id": None,
        "source_scores_id": None,
        "moved_rules": None,
        "dataset_digest": dataset.dataset_digest,
        "status": outcome.status,
        "error": outcome.error,
        "compute_path": backend().compute_path,
        "backend": backend().name,
        "compute_dtype": backend().compute_dtype,
        "triage_version": metadata.version("triage-sweep"),
        "mlx_version": versions()["mlx"],
        "mlx_lm_version": versions()["mlx-lm"],
        "engine_version": ENGINE_VERSION,
        "blas": device.blas if device else None,
        "gflops": device.gflops if device else None,
        "machine": device.machine if device else None,
        **summary.model_dump(
            exclude={"device", "frozen_blocks_stored", "started_at", "finished_at"}
        ),
        "started_at": _utc(summary.started_at),
        "finished_at": _utc(summary.finished_at),
    }
    points = [{"training_id": training_id, **asdict(point)} for point in outcome.curve]
    return {"experiment": [row], "training_curve": points}


def variant_row(variant_id: str, variant: VariantManifest) -> Rows:
    """Row of the table `variant`."""
    return [
        {
            "variant_id": variant_id,
            "base_model": variant.base_model,
            "bits": variant.bits,
            "precision": variant.precision_name,
            "group_size": variant.group_size,
            **weights_columns(variant),
            "licence": variant.licence,
            "parameters": variant.parameters,
            "embedding_bytes": variant.bytes_by_part["embedding"],
            "projection_bytes": variant.bytes_by_part["projections"],
            "embedding_bits": variant.bits,
            "norm_bytes": variant.bytes_by_part["norms"],
            "terms": variant.terms.at if variant.terms else None,
            "terms_shown_at": _utc(variant.terms.shown) if variant.terms else None,
        }
    ]


def weights_columns(variant: VariantManifest) -> Columns:
    """The columns of experiments and variants that say which weights were used."""
    return {
        "weights_source": variant.weights_source,
        "source_digest": variant.fetched_file_digest,
        "original_precision": variant.original_precision,
        "random_weights": variant.random_weights,
        "weights_digest": variant.digest,
        "stored_bytes": variant.stored_bytes,
        "bits_per_weight": variant.bits_per_weight,
    }


def sets_digest(dataset: DatasetManifest) -> str:
    """Digest of a dataset's four own sets: a further evaluation set changes nothing in it."""
    return short_digest({name: dataset.digest_of(name) for name in SETS})


def settings_digest(spec: ExperimentSpec, dataset: DatasetManifest) -> str:
    """Digest of what decides a training except weights, bits and seed: experiments with the same
    digest, recipe name and base model may be compared.
    """
    return short_digest(
        {
            "recipe": spec.recipe.model_dump(mode="json", exclude={"name", *JUDGING_SETTINGS}),
            # The memory budget never changes results.
            "training": spec.training.model_dump(mode="json", exclude={"memory"}),
            "sets": {name: dataset.digest_of(name) for name in ("train", "valid")},
            "prompt": load_prompt(spec.prompt).digest,
            "engine": ENGINE_VERSION,
            "versions": versions(),
            "backend": backend().name,
            "compute_dtype": backend().compute_dtype,
            **backend().id_ingredients,
        }
    )


def cell_columns(spec: ExperimentSpec) -> Columns:
    """Which cell of a grid a row is of."""
    return {
        "base_model": spec.model.name,
        "bits": spec.bits,
        "precision": spec.precision.name,
        "recipe": spec.recipe.name,
        "recipe_kind": spec.recipe.kind,
        "seed": spec.seed,
    }


def _utc(text: str | None) -> datetime | None:
    # The warehouse's columns have no time zone: they hold UTC.
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None) if text else None


FILE = "reported.json"


class Reported(BaseModel):
    """The last reports of a training: updates made of `iterations`, losses, seconds to the end."""

    model_config = ConfigDict(frozen=True)

    iteration: int
    iterations: int
    loss: float
    validation: float | None = None
    seconds_left: float

    @classmethod
    def of_running(cls, folder: Path) -> Reported | None:
        """That of the training that runs in `folder`, if it has reported."""
        # The file stays when a training ends or is killed; its lock is released.
        if not is_locked(folder):
            return None
        try:
            return cls.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None


def reporting_to(folder: Path, emit: Emit) -> Emit:
    """`emit`, and the reports of a training in its folder's file, too."""
    (folder / FILE).unlink(missing_ok=True)
    last: dict[str, Any] = {}

    def emit_and_write(event: Event) -> None:
        emit(event)
        match event:
            case TrainingReport():
                last.update(asdict(event))
            case ValidationReport():
                last["validation"] = event.loss
            case _:
                return

        if "iteration" in last:
            # A picture of the progress is no reason to lose the training.
            with contextlib.suppress(OSError, TriageError):
                write_atomic(folder / FILE, Reported(**last).model_dump_json())

    return emit_and_write
