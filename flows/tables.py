"""The comparison as people read it: figures with their intervals, words where the data cannot tell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd

from flows.display import RANDOM, clock
from tasks.runtime.errors import BadInput
from warehouse.query import query

NOT_A_DEVICE = "Research software, not a medical device; synthetic cases are no evidence about patients."


def leaderboard(only: Collection[str] | None = None, prevalence: float | None = None) -> pd.DataFrame:
    """One row per experiment, best first, baselines among them; `only`: ids of evaluations, instead of the latest ones.

    The interval is a cell's second line. `prevalence` restates ED precision and F2 at another share of emergencies.
    """
    frame = query("SELECT * FROM leaderboard", only=only)
    rows = [
        {
            "experiment": experiment_name(r),
            "accuracy": figure(r.accuracy, r.accuracy_low, r.accuracy_high),
            "ED recall": figure(r.ed_recall, r.ed_recall_low, r.ed_recall_high),
            **at_prevalence(r, prevalence),
            "over-triage": figure(r.over_triage, r.over_triage_low, r.over_triage_high),
            "gates": verdict(r), "test\nloss": figure(r.test_loss), "trained\nin": _trained_in(r),
        }
        for r in rows_of(frame)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def experiment_name(r: Any) -> str:
    """The name of a leaderboard row, on two lines."""
    if r.base_model == "none":
        return f"{r.recipe}\nbaseline"
    seed = "" if r.recipe_kind == "baseline" else f" s{r.seed}"
    return f"{r.base_model} {int(r.bits)}bit\n{r.recipe}{seed}{random_mark(r)}"


def on_cases(r: Any) -> str:
    """The name of an evaluation: the experiment, and below it the cases that it was judged on."""
    named = "" if r.evaluation_set == "test" else f"{r.evaluation_set}: "
    return f"{experiment_name(r)}\n{named}{r.cases} cases, {percent(r.ed_prevalence)} ED"


def random_mark(r: Any) -> str:
    """What stands behind the name of an experiment whose weights are random."""
    return RANDOM if not pd.isna(r.random_weights) and r.random_weights else ""


def _trained_in(r: Any) -> str:
    return "-" if pd.isna(r.train_seconds) else clock(r.train_seconds)


def at_prevalence(r: Any, prevalence: float | None) -> dict[str, str]:
    """F2 and precision of a row of evaluation_summary with their prevalence: the set's own, or restated."""
    precision, f2 = r.ed_precision, figure(r.ed_f2, r.ed_f2_low, r.ed_f2_high)
    if prevalence is not None:
        precision, value = restated(r.ed_recall, r.ed_precision, r.ed_prevalence, prevalence)
        f2 = figure(value)
    share = percent(prevalence if prevalence is not None else r.ed_prevalence)
    return {"ED F2": f2, "ED precision": f"{figure(precision)}\nof {share} ED"}


def percent(share: float) -> str:
    """A share in words of three digits, so that neither half a percent nor two and a half are rounded to a whole one."""
    return f"{100 * share:.3g}%"


def verdict(r: Any) -> str:
    """The verdict of a row of evaluation_summary, or why its set could give none: `unsafe` would be a finding."""
    from tasks.scoring.gates import ED_RECALL  # SciPy comes with it

    if r.verdict != "unsafe" or 0 < r.ed_prevalence < 1:
        return str(r.verdict)
    if r.ed_prevalence == 0:
        return "not judged:\nno ED case"
    return "not judged:\nemergencies only" if r.ed_recall >= ED_RECALL else "unsafe"


def check_prevalence(prevalence: float | None) -> None:
    """Raise BadInput for a `--prevalence` that is no share."""
    if prevalence is not None and not 0 < prevalence < 1:
        raise BadInput(f"--prevalence {prevalence:g} is no share; give one between 0 and 1, e.g. 0.1.")


def restated(recall: Any, precision: Any, prevalence: float, other: float) -> tuple[float | None, float | None]:
    """ED precision and F2 at another prevalence, recall and the rate of false alarms unchanged (Bayes).

    None where they are not available: no emergency or nothing else in the set; precision where nothing is decided ED.
    """
    if pd.isna(recall) or not 0 < prevalence < 1:
        return None, None
    if pd.isna(precision) or not precision:  # nothing decided ED, or only wrongly: no hit at any prevalence
        return (None if pd.isna(precision) else 0.0), 0.0
    alarms = prevalence * recall * (1 - precision) / precision / (1 - prevalence)  # per case that is no emergency
    hits, false = other * recall, (1 - other) * alarms
    return hits / (hits + false), 5 * hits / (4 * other + hits + false)


def quantization(only: Collection[str] | None = None) -> pd.DataFrame:
    """One row per pair of a 4-bit and an 8-bit experiment; every difference is 4 bits minus 8 bits."""
    rows = [
        {
            "pair": _pair(r),
            "MB": both(r.stored_bytes_4bit / 1e6, r.stored_bytes_8bit / 1e6, 1),
            "accuracy": both(r.accuracy_4bit, r.accuracy_8bit),
            "difference": figure(r.accuracy_diff, r.accuracy_low, r.accuracy_high, sign=True),
            "within 2 %?": words(r.accuracy_verdict), "ED recall": both(r.ed_recall_4bit, r.ed_recall_8bit),
            "ED difference": figure(r.ed_recall_diff, r.ed_recall_low, r.ed_recall_high, sign=True),
            "ED within 2 %?": words(r.ed_recall_verdict), "test loss": both(r.loss_4bit, r.loss_8bit),
            "memory, time": _resources(r),
        }
        for r in rows_of(query("SELECT * FROM quantization_comparison", only=only))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _pair(r: Any) -> str:
    return f"{r.base_model}\n{r.recipe} s{r.seed}{random_mark(r)}"


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """Rows of a frame; figures of any type."""
    return list(frame.itertuples())


def figure(value: Any, low: Any = None, high: Any = None, digits: int = 3, sign: bool = False) -> str:
    """A figure with its 95 % interval, e.g. `0.912` and below it `0.871 to 0.944`; `n/a` where there is none."""
    if value is None or pd.isna(value):
        return "n/a"
    plus = "+" if sign else ""
    text = f"{value:{plus}.{digits}f}"
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return text
    return f"{text}\n{low:{plus}.{digits}f} to {high:{plus}.{digits}f}"


def both(four: Any, eight: Any, digits: int = 3) -> str:
    """The 4-bit and the 8-bit figure."""
    return f"{figure(four, digits=digits)}\n{figure(eight, digits=digits)}"


def words(verdict: Any) -> str:
    return "cannot conclude" if verdict is None or pd.isna(verdict) else str(verdict)


def _resources(r: Any) -> str:
    if r.resources == "not measurable on this backend":
        return str(r.resources)
    lines = [f"{getattr(r, f'peak_memory_bytes_{bits}') / 1e6:.0f} MB" for bits in ("4bit", "8bit")]
    if not pd.isna(r.train_seconds_4bit):
        lines = [
            f"{line}, {getattr(r, f'train_seconds_{bits}'):.0f} s"
            for line, bits in zip(lines, ("4bit", "8bit"), strict=True)
        ]
    return "\n".join(lines)
