"""Arguments of the benchmarks' jobs.

This file imports no MLX: parents build these classes, child processes parse them.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class StepJob(BaseModel):
    """One engine's training step: `batch` cases of `length` tokens, LoRA on the last `layers`
    blocks.

    `repeats`: timed steps. `memory`: budget in bytes of a step that is measured within one.
    `gradients`: the file of each engine's gradients, to compare them.
    """

    model_config = ConfigDict(frozen=True)

    engine: str
    variant: Path
    folder: Path
    batch: int
    length: int
    layers: int
    repeats: int
    memory: int | None = None
    gradients: dict[str, Path] = {}


class DropoutJob(BaseModel):
    """One engine's dropout passes, generations or scores over the test set of `data`.

    `cases`: of the dropout engines; `scored`: cases of the scoring engines, timed `repeats` times.
    `seconds`: about how long to measure.
    """

    model_config = ConfigDict(frozen=True)

    engine: str
    variant: Path
    data: Path
    folder: Path
    layers: int
    passes: int
    cases: int
    scored: int
    repeats: int
    seconds: float
