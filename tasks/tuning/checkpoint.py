"""How far a training is, and its checkpoints.

All randomness is a function of (seed, update), so a checkpoint holds the adapters, the optimizer,
the update number and the curve so far, and nothing else decides the next update. It is a sealed
folder; the newest intact one is used, and a damaged one is skipped.

    <experiment>/checkpoint/<update>/  state.safetensors  best.safetensors  progress.json  manifest.json
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from tasks.runtime.device import peak_resident_bytes
from tasks.runtime.events import CurvePoint, Emit, StepWarning
from tasks.runtime.store import build_folder, intact_manifest
from tasks.tuning.lora import Adapted, Arrays, adapter_weights


@dataclass
class Progress:
    """How far a training is. `best_value`: the validation value of the best adapter.

    `peak_memory_bytes` (MLX) and `peak_rss_bytes` (process) are the largest of all processes that
    trained it. `unreported`: (loss, parts) of the updates since the last point of the curve.
    """

    update: int = 0
    best_value: float | None = None
    best_macro_f1: float | None = None
    best_update: int = 0
    train_seconds: float = 0.0
    trained_tokens: int = 0
    peak_memory_bytes: int = 0
    peak_rss_bytes: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    unreported: list[tuple[float, list[float]]] = field(default_factory=list)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def keep_peaks(self) -> None:
        """Take this process's peaks into account: a resumed run starts with an empty memory."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, int(mx.get_peak_memory()))
        self.peak_rss_bytes = max(self.peak_rss_bytes, peak_resident_bytes())

    def note_validation(self, value: float, macro_f1: float | None = None) -> bool:
        """Whether the current adapter is the best so far: that of the lowest value, or, with a
        macro-F1, of the highest one and the lower value of two equal ones.
        """
        best_value = math.inf if self.best_value is None else self.best_value
        # Of two equal adapters the earlier stays.
        if (-(macro_f1 or 0.0), value) >= (-(self.best_macro_f1 or 0.0), best_value):
            return False

        self.best_value = value
        self.best_macro_f1 = macro_f1
        self.best_update = self.update
        return True


def save_checkpoint(
    folder: Path,
    adapted: Adapted,
    optimizer: optim.Optimizer,
    best_arrays: Arrays,
    progress: Progress,
) -> None:
    """Write a checkpoint atomically and remove the older ones."""

    def build(temporary: Path) -> dict[str, Any]:
        state = {"adapter": adapter_weights(adapted), "optimizer": optimizer.state}
        mx.save_safetensors(str(temporary / "state.safetensors"), dict(tree_flatten(state)))
        mx.save_safetensors(str(temporary / "best.safetensors"), best_arrays)
        (temporary / "progress.json").write_text(json.dumps(asdict(progress)))
        return {"update": progress.update}

    # With zeros in front the order of names is that of updates, by which the newest is found.
    newest = f"{progress.update:07d}"
    build_folder(folder / newest, build)

    # Only now: until the new one is in place, a killed training goes on from an older one.
    for path in folder.iterdir():
        if path.name != newest and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != newest:
            path.unlink(missing_ok=True)


def restore_checkpoint(
    folder: Path, adapted: Adapted, optimizer: optim.Optimizer, emit: Emit
) -> tuple[Arrays, Progress] | None:
    """Load the newest intact checkpoint into model and optimizer: (best adapters, progress)."""
    for candidate in sorted(folder.glob("[0-9]*"), reverse=True):
        if intact_manifest(candidate, deep=True) is not None:
            arrays: Arrays = mx.load(str(candidate / "state.safetensors"))  # type: ignore[assignment]
            best: Arrays = mx.load(str(candidate / "best.safetensors"))  # type: ignore[assignment]
            # Arrays are read lazily, and the files are deleted with the next checkpoint.
            mx.eval(arrays, best)
            state = tree_unflatten(list(arrays.items()))
            adapted.stack.model.update(state["adapter"], strict=False)
            optimizer.state = state["optimizer"]
            values = json.loads((candidate / "progress.json").read_text())
            values["curve"] = [CurvePoint(**point) for point in values["curve"]]
            return best, Progress(**values)
        emit(StepWarning(f"{candidate} is damaged: training continues from an earlier state."))

    return None
