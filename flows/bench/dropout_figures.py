"""The figures of `triage bench dropout`: seconds of whole tasks, and how far two engines are apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.stats import permutation_test

from tasks.runtime.events import Device

PASSES = ("ours", "full")
GENERATIONS = ("generate", "generate_stock")
SET_CASES = 1500  # of a whole evaluation set
AGAINST = {"full": "ours", "generate": "ours", "generate_stock": "ours", "score_full": "score_ours"}


class Tokens(BaseModel):
    """Tokens of a prompt over the cases."""

    model_config = ConfigDict(frozen=True)

    mean: float = 0.0
    least: int = 0
    most: int = 0


class EngineMeasurement(BaseModel):
    """What the process of an engine returns.

    `seconds` of each pass, generation or repeat; `probabilities` (passes, cases, 3) of the dropout
    engines.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    seconds: list[float]
    cases: int
    probabilities: list[list[list[float]]] | None = None
    tokens: Tokens = Tokens()
    device: Device | None = None


@dataclass(frozen=True)
class TaskTime:
    """Seconds of the whole task with one engine: median and range of `n` timed pieces, scaled as
    `note` says.
    """

    seconds: float
    least: float
    most: float
    n: int
    note: str
    times_slower: float | None = None  # than ours

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that land, by name."""
        metrics = {"seconds": self.seconds, "least": self.least, "most": self.most}
        return (
            metrics if self.times_slower is None else metrics | {"times_slower": self.times_slower}
        )


@dataclass(frozen=True)
class EngineAgreement:
    """How far two engines' means and standard deviations over passes are apart, and whether chance
    does as much.

    `apart`: root mean square of the difference over cases and labels, in standard deviations over
    all passes. `p`: the share of random exchanges of passes between the engines that are at least
    as far apart.
    """

    mean_apart: float
    mean_p: float
    sd_apart: float
    sd_p: float


def task_times(measurements: dict[str, EngineMeasurement], passes: int) -> dict[str, TaskTime]:
    """Seconds of the whole task by engine, and how many times slower than ours."""
    seconds = {
        engine: [time * _scale(engine, measurement, passes) for time in measurement.seconds]
        for engine, measurement in measurements.items()
    }
    return {
        engine: TaskTime(
            seconds=median(times),
            least=min(times),
            most=max(times),
            n=len(times),
            note=_note(engine, measurements[engine], passes),
            times_slower=(
                median(times) / median(seconds[AGAINST[engine]]) if engine in AGAINST else None
            ),
        )
        for engine, times in seconds.items()
    }


def _scale(engine: str, measurement: EngineMeasurement, passes: int) -> float:
    """How many of the timed pieces make the whole task."""
    if engine in PASSES:
        return passes
    if engine in GENERATIONS:
        return passes * measurement.cases
    return 1 if measurement.cases >= SET_CASES else SET_CASES / measurement.cases


def _note(engine: str, measurement: EngineMeasurement, passes: int) -> str:
    """What was timed, and of how much."""
    timed = len(measurement.seconds)
    cases = measurement.cases
    if engine in PASSES:
        return (
            f"{passes} passes" if timed == passes else f"scaled: {timed} timed of {passes} passes"
        )
    if engine in GENERATIONS:
        return f"scaled: {timed} timed of {passes * cases} generations"

    return f"{cases} cases" if cases >= SET_CASES else f"scaled: {cases} timed of {SET_CASES} cases"


def agreement(our_measurement: EngineMeasurement, full: EngineMeasurement) -> EngineAgreement:
    """A permutation test of 999 seeded exchanges of passes between the two engines.

    It asks for no normal distribution, which probabilities near 0 or 1 are far from.
    """
    passes = np.concatenate(
        [np.asarray(measurement.probabilities) for measurement in (our_measurement, full)]
    )
    # Numbers of passes are exchanged: the test takes numbers, and a pass is an array.
    split = np.split(np.arange(len(passes)), [len(our_measurement.probabilities or [])])
    # Not 0 where all passes agree, since it divides.
    unit = np.maximum(passes.std(axis=0, ddof=1), 1e-7)

    def distance(statistic: Callable[..., Any]) -> tuple[float, float]:
        def rms_difference(first: np.ndarray, second: np.ndarray) -> float:
            first_value = statistic(passes[first.astype(int)], axis=0)
            second_value = statistic(passes[second.astype(int)], axis=0)
            return float(np.sqrt((((first_value - second_value) / unit) ** 2).mean()))

        test = permutation_test(
            split, rms_difference, n_resamples=999, vectorized=False, alternative="greater", rng=0
        )
        return float(test.statistic), float(test.pvalue)

    return EngineAgreement(*distance(np.mean), *distance(partial(np.std, ddof=1)))
