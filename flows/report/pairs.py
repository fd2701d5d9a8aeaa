"""4 bits against 8 bits: each pair with its figures, whole and at a glance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from flows.report.figures import counted, figure, is_number, random_mark, recipe_name
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, rows_of
from warehouse.comparison.resampling import MARGIN

PAIRS = (
    "4 bits (first line) against 8 bits (second line); differences are 4 minus 8, paired by case"
)
VERDICT = f"at {100 * MARGIN:g} points"  # the heading above a verdict on non-inferiority
UNDECIDED = "cannot conclude"
NOT_MEASURABLE = "not measurable on this backend"


def pair_rows(only: Collection[str] | None = None) -> list[Row]:
    """Pairs of the latest evaluations, or of those whose ids are in `only`."""
    return rows_of("quantization_comparison", only=only)


def pairs_on(board: Collection[EvaluationRow], pairs: Collection[Row]) -> list[Row]:
    """The pairs that were judged on a test set of `board`."""
    digests = {row.set_digest for row in board}
    return [pair for pair in pairs if pair.set_digest in digests]


def quantization(pairs: Collection[Row]) -> ReportTable:
    """One row per pair of a 4-bit and an 8-bit experiment; without memory and time where no pair
    has them.
    """
    measurable = any(pair.resources != NOT_MEASURABLE for pair in pairs)
    table = ReportTable.of(
        PAIRS, [_record(pair, measurable) for pair in pairs], '"FROM quantization_comparison"'
    )
    return table if measurable else table.with_note(f"; memory and time are {NOT_MEASURABLE}")


def headline(pairs: Collection[Row], set_name: str = "") -> str:
    """The answer to the question of 4 against 8 bits in one sentence: how many pairs came to which
    verdict. `set_name`: of their test set, where there are several.
    """
    question = "4 bits against 8 bits" + (f" on {set_name}" if set_name else "")
    if not pairs:
        return f"{question}: no pair of otherwise equal experiments yet."
    count = counted(len(pairs), "pair")
    accuracy = _verdicts([pair.accuracy_verdict for pair in pairs])
    ed_recall = _verdicts([pair.ed_recall_verdict for pair in pairs])
    return f"{question}, {count}. Accuracy: {accuracy}. ED recall: {ed_recall}."


def _verdicts(verdicts: list[str | None]) -> str:
    counts = Counter(verdict_words(verdict) for verdict in verdicts)
    return "; ".join(
        f"{_in_brackets(words)} in {n} of {len(verdicts)}" for words, n in counts.most_common()
    )


def _in_brackets(words: str) -> str:
    """`cannot conclude: the reason` as `cannot conclude (the reason)`, which reads well inside a
    sentence.
    """
    verdict, _, reason = words.partition(": ")
    return f"{verdict} ({reason})" if reason else verdict


def _record(pair: Row, with_resources: bool) -> dict[str, str]:
    recipe = recipe_name(pair.recipe, pair.seed)
    record = {
        "pair": f"{pair.base_model} {recipe}{random_mark(pair)}",
        "MB": _both_figures(pair.stored_bytes_4bit / 1e6, pair.stored_bytes_8bit / 1e6, digits=1),
        "accuracy": _both_figures(pair.accuracy_4bit, pair.accuracy_8bit),
        "difference": _difference(pair.accuracy_diff, pair.accuracy_low, pair.accuracy_high),
        VERDICT: verdict_words(pair.accuracy_verdict),
        "ED recall": _both_figures(pair.ed_recall_4bit, pair.ed_recall_8bit),
        "ED difference": _difference(pair.ed_recall_diff, pair.ed_recall_low, pair.ed_recall_high),
        f"ED {VERDICT}": verdict_words(pair.ed_recall_verdict),
        "AUROC difference": _difference(pair.ed_auroc_diff, pair.ed_auroc_low, pair.ed_auroc_high),
        f"AUROC {VERDICT}": verdict_words(pair.ed_auroc_verdict),
        "test loss": _both_figures(pair.loss_4bit, pair.loss_8bit),
    }
    return record | {"memory, time": _resources(pair)} if with_resources else record


def _both_figures(four: float | None, eight: float | None, digits: int = 3) -> str:
    return f"{figure(four, digits=digits)}\n{figure(eight, digits=digits)}"


def _difference(value: float | None, low: float | None, high: float | None) -> str:
    return figure(value, low, high, sign=True, below=True)


def verdict_words(verdict: str | None) -> str:
    """A verdict in the words of its view; a pair that is not compared has none."""
    return verdict or UNDECIDED


def _resources(pair: Row) -> str:
    if pair.resources == NOT_MEASURABLE:
        return pair.resources
    four = _resources_of(pair.peak_memory_bytes_4bit, pair.train_seconds_4bit)
    eight = _resources_of(pair.peak_memory_bytes_8bit, pair.train_seconds_8bit)
    return f"{four}\n{eight}"


def _resources_of(peak_bytes: int | None, seconds: float | None) -> str:
    memory = f"{peak_bytes / 1e6:.0f} MB" if is_number(peak_bytes) else "n/a"
    return f"{memory}, {seconds:.0f} s" if is_number(seconds) else memory


METRICS = {"Accuracy": "accuracy", "ED recall": "ed_recall"}


@dataclass(frozen=True)
class _Line:
    """One figure of a pair; the difference is 4 bits minus 8 bits."""

    pair: Row
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


def pair_lines(pairs: Collection[Row], most: int) -> list[ReportTable]:
    """A table for accuracy and one for ED recall, each of the `most` pairs that lose most at 4
    bits; the reason of a verdict stands last, since only a wide terminal has room for it.
    """
    marked = not all(pair.random_weights for pair in pairs)
    return [
        _table(name, [_line(pair, metric) for pair in pairs], marked, most)
        for name, metric in METRICS.items()
    ]


def _line(pair: Row, metric: str) -> _Line:
    """The columns of a pair about a metric, e.g. `ed_recall`."""
    names = ("4bit", "8bit", "diff", "low", "high", "verdict")
    return _Line(pair, *(getattr(pair, f"{metric}_{name}") for name in names))


def _table(name: str, lines: list[_Line], marked: bool, most: int) -> ReportTable:
    shown = sorted(lines, key=lambda line: line.order)[:most]
    which = "all pairs" if len(shown) == len(lines) else f"{len(shown)} of {len(lines)} pairs"
    title = f"{name}, {which}, largest loss at 4 bits first; differences in points"
    return ReportTable.of(title, [_line_record(line, marked) for line in shown])


def _line_record(line: _Line, marked: bool) -> dict[str, str]:
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
