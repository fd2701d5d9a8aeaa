"""Exact resume: a checkpoint holds everything that decides the next update.

All randomness is a function of (seed, update), so the state is the adapters, the optimizer, the update number and what
has been seen so far. A checkpoint is a sealed folder; the newest intact one is used, and a damaged one is passed over.

    <experiment>/checkpoint/<update>/  state.safetensors  best.safetensors  progress.json  manifest.json
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from tasks.runtime.device import peak_resident_bytes
from tasks.runtime.events import CurvePoint, Emit, StepWarning
from tasks.runtime.store import build_folder, complete
from tasks.tuning.lora import Adapted, adapter_weights


@dataclass
class Progress:
    """How far a training has come. `best_value` is the lowest validation value of the recipe's own objective.

    `peak_memory_bytes` (MLX) and `peak_rss_bytes` (process) are the largest of all processes that trained it so far.
    """

    update: int = 0
    best_value: float | None = None
    best_update: int = 0
    train_seconds: float = 0.0
    trained_tokens: int = 0
    peak_memory_bytes: int = 0
    peak_rss_bytes: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    unreported: list[Any] = field(
        default_factory=list
    )  # (loss, parts) of the updates since the last point of the curve

    @classmethod
    def parse(cls, text: str) -> Progress:
        """The progress that a checkpoint's `progress.json` holds; its fields as JSON, see `asdict`."""
        values = json.loads(text)
        values["curve"] = [CurvePoint(**point) for point in values["curve"]]
        return cls(**values)

    def keep_peaks(self) -> None:
        """Take this process's peaks into account: a resumed run starts with an empty memory."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, int(mx.get_peak_memory()))
        self.peak_rss_bytes = max(self.peak_rss_bytes, peak_resident_bytes())


def save(
    folder: Path,
    adapted: Adapted,
    optimizer: optim.Optimizer,
    best: dict[str, mx.array],
    progress: Progress,
) -> None:
    """Write a checkpoint atomically and remove the older ones."""

    def build(temporary: Path) -> dict[str, Any]:
        state = {f"adapter.{k}": v for k, v in adapter_weights(adapted).items()}
        state |= {f"optimizer.{k}": v for k, v in tree_flatten(optimizer.state)}
        mx.save_safetensors(str(temporary / "state.safetensors"), state)
        mx.save_safetensors(str(temporary / "best.safetensors"), best)
        (temporary / "progress.json").write_text(json.dumps(asdict(progress)))
        return {"update": progress.update}

    name = f"{progress.update:07d}"
    build_folder(folder / name, build)
    for other in folder.iterdir():
        if other.name != name:
            shutil.rmtree(other, ignore_errors=True) if other.is_dir() else other.unlink(
                missing_ok=True
            )


def restore(
    folder: Path,
    adapted: Adapted,
    optimizer: optim.Optimizer,
    emit: Emit | None = None,
) -> tuple[dict[str, mx.array], Progress] | None:
    """Put the newest intact checkpoint into model and optimizer; returns (best adapters, progress), or None.

    `emit` is told of each damaged one that is passed over.
    """
    for candidate in sorted(folder.glob("[0-9]*"), reverse=True) if folder.is_dir() else []:
        if complete(candidate, deep=True) is None:
            if emit:
                where = f"The checkpoint of update {int(candidate.name)}, {candidate}, is damaged"
                emit(StepWarning(f"{where}: the training goes on from an earlier state."))
            continue
        state: dict[str, mx.array] = mx.load(str(candidate / "state.safetensors"))  # type: ignore[assignment]
        best: dict[str, mx.array] = mx.load(str(candidate / "best.safetensors"))  # type: ignore[assignment]
        mx.eval(state, best)
        weights = [
            (k.removeprefix("adapter."), v) for k, v in state.items() if k.startswith("adapter.")
        ]
        adapted.stack.model.load_weights(weights, strict=False)
        optimizer.state = tree_unflatten(
            [
                (k.removeprefix("optimizer."), v)
                for k, v in state.items()
                if k.startswith("optimizer.")
            ]
        )
        return best, Progress.parse((candidate / "progress.json").read_text())
    return None
