"""How far a training is, read from its folder without MLX: the newest checkpoint, or the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.runtime.store import intact_manifest
from tasks.tuning.summary import TrainingManifest


@dataclass(frozen=True)
class TrainingProgress:
    """A training at its newest checkpoint, or at its end.

    `best_adapter`: the file of its best adapter so far; `validations`: the validation value by
    update; `macro_f1s`: the macro-F1 on `valid`, too, None where an earlier version trained.
    """

    update: int
    ended: bool
    train_seconds: float
    validations: dict[int, float]
    macro_f1s: dict[int, float | None]
    best_adapter: Path | None

    @classmethod
    def read(cls, folder: Path) -> TrainingProgress:
        """The progress of the training in `folder`, which need not exist yet."""
        if (manifest := TrainingManifest.read_if_complete(folder)) is not None:
            training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
            summary = manifest.summary
            return cls(
                update=summary.last_iteration or 0,
                ended=True,
                train_seconds=summary.train_seconds or 0.0,
                validations=_on_valid(training["curve"], "loss"),
                macro_f1s=_on_valid(training["curve"], "macro_f1"),
                best_adapter=folder / "adapters.safetensors",
            )

        # The newest first, past one that is damaged.
        for checkpoint in sorted((folder / "checkpoint").glob("[0-9]*"), reverse=True):
            if intact_manifest(checkpoint) is not None:
                text = (checkpoint / "progress.json").read_text(encoding="utf-8")
                return cls._at_checkpoint(checkpoint, json.loads(text))

        return cls(0, False, 0.0, {}, {}, None)

    @classmethod
    def _at_checkpoint(cls, folder: Path, progress: dict[str, Any]) -> TrainingProgress:
        return cls(
            update=progress["update"],
            ended=False,
            train_seconds=progress["train_seconds"],
            validations=_on_valid(progress["curve"], "loss"),
            macro_f1s=_on_valid(progress["curve"], "macro_f1"),
            best_adapter=folder / "best.safetensors",
        )

    def best_validation(self, update: int) -> float:
        """The lowest validation value up to an update."""
        values = [value for at, value in self.validations.items() if at <= update]
        return min(values)

    def best_macro_f1(self, update: int) -> float | None:
        """The highest macro-F1 up to an update; None where it is not known at each evaluation."""
        values = [value for at, value in self.macro_f1s.items() if at <= update]
        measured_values = [value for value in values if value is not None]
        return (
            max(measured_values)
            if measured_values and len(measured_values) == len(values)
            else None
        )


def _on_valid(curve: list[dict[str, Any]], figure: str) -> dict[int, Any]:
    """A figure of the evaluations on `valid` by update."""
    return {p["iteration"]: p.get(figure) for p in curve if p["split"] == "valid"}
