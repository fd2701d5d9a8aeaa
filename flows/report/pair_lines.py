"""4 bits against 8 bits at a glance, for the terminal: a table for each figure, a line a pair."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flows.report.figures import figure, is_number
from flows.report.names import random_mark, recipe_name
from flows.report.pairs import VERDICT, PairRow, verdict_words
from flows.report.table import ReportTable

METRICS = {"Accuracy": "accuracy", "ED recall": "ed_recall"}


@dataclass(frozen=True)
class _Line:
    """One figure of a pair; the difference is 4 bits minus 8 bits."""

    pair: PairRow
    four: float | None
    eight: float | None
    difference: float | None
    low: float | None
    high: float | None
    verdict: str | None

    @property
    def order(self) -> tuple[bool, float]:
        """The largest loss at 4 bits first, pairs without a figure last."""
        if not is_number(self.difference):
            return True, 0.0
        return False, self.difference


def pair_lines(pairs: Collection[PairRow], most: int) -> list[ReportTable]:
    """A table for accuracy and one for ED recall, each of the `most` pairs that lose most at 4
    bits; the reason of a verdict stands last, since only a wide terminal has room for it.
    """
    marked = not all(pair.random_weights for pair in pairs)
    return [
        _table(name, [_line(pair, metric) for pair in pairs], marked, most)
        for name, metric in METRICS.items()
    ]


def _line(pair: PairRow, metric: str) -> _Line:
    """The columns of a pair about a metric, e.g. `ed_recall`."""
    names = ("4bit", "8bit", "diff", "low", "high", "verdict")
    return _Line(pair, *(getattr(pair, f"{metric}_{name}") for name in names))


def _table(name: str, lines: list[_Line], marked: bool, most: int) -> ReportTable:
    shown = sorted(lines, key=lambda line: line.order)[:most]
    which = "all pairs" if len(shown) == len(lines) else f"{len(shown)} of {len(lines)} pairs"
    title = f"{name}, {which}, largest loss at 4 bits first; differences in points"
    return ReportTable.of(title, [_record(line, marked) for line in shown])


def _record(line: _Line, marked: bool) -> dict[str, str]:
    pair = line.pair
    mark = random_mark(pair) if marked else ""
    words, _, reason = verdict_words(line.verdict).partition(": ")
    return {
        "pair": f"{pair.base_model} {recipe_name(pair.recipe, pair.seed)}{mark}",
        "4bit": figure(line.four, digits=2),
        "8bit": figure(line.eight, digits=2),
        "4 minus 8": _points(line),
        VERDICT: words,
        "because": reason or "-",
    }


def _points(line: _Line) -> str:
    ends = [100 * value if is_number(value) else None for value in (line.low, line.high)]
    value = 100 * line.difference if is_number(line.difference) else None
    return figure(value, *ends, digits=1, sign=True)
