"""4 bits against 8 bits: each pair with its figures, whole and at a glance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from flows.report.figures import counted, difference, figure, is_number, megabytes, pair_name
from flows.report.table import ReportTable
from flows.report.typed_rows import Board, Ids, Row, rows_of
from warehouse.comparison.resampling import MARGIN

PAIRS = (
    "4 bits (first line) against 8 bits (second line); differences are 4 minus 8, paired by case"
)
VERDICT = f"at {100 * MARGIN:g} points"  # the heading above a verdict on non-inferiority
UNDECIDED = "cannot conclude"
NOT_MEASURABLE = "not measurable on this backend"
METRICS = {"Accuracy": "accuracy", "ED recall": "ed_recall"}


def pair_rows(only: Ids = None) -> list[Row]:
    """Pairs of the latest evaluations, or of those whose ids are in `only`."""
    return rows_of("quantization_comparison", only=only)


def pairs_on(board: Board, pairs: Collection[Row]) -> list[Row]:
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
    return table.noted(None if measurable else f"memory and time are {NOT_MEASURABLE}")


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
    """How often each verdict stands, its reason in brackets, which reads well inside a sentence."""
    counts = []
    for words, n in Counter(map(verdict_words, verdicts)).most_common():
        verdict, _, reason = words.partition(": ")
        in_brackets = f" ({reason})" if reason else ""
        counts.append(f"{verdict}{in_brackets} in {n} of {len(verdicts)}")
    return "; ".join(counts)


def verdict_words(verdict: str | None) -> str:
    """A verdict in the words of its view; a pair that is not compared has none."""
    return verdict or UNDECIDED


def _record(pair: Row, with_resources: bool) -> dict[str, str]:
    record = {
        "pair": pair_name(pair),
        "MB": _both(pair.stored_bytes_4bit / 1e6, pair.stored_bytes_8bit / 1e6, digits=1),
        "accuracy": _both(pair.accuracy_4bit, pair.accuracy_8bit),
        "difference": difference(pair, "accuracy"),
        VERDICT: verdict_words(pair.accuracy_verdict),
        "ED recall": _both(pair.ed_recall_4bit, pair.ed_recall_8bit),
        "ED difference": difference(pair, "ed_recall"),
        f"ED {VERDICT}": verdict_words(pair.ed_recall_verdict),
        "AUROC difference": difference(pair, "ed_auroc"),
        f"AUROC {VERDICT}": verdict_words(pair.ed_auroc_verdict),
        "test loss": _both(pair.loss_4bit, pair.loss_8bit),
    }
    return record | {"memory, time": _resources(pair)} if with_resources else record


def _both(four: float | None, eight: float | None, digits: int = 3) -> str:
    return f"{figure(four, digits=digits)}\n{figure(eight, digits=digits)}"


def _resources(pair: Row) -> str:
    """Peak memory and time of both trainings."""
    if pair.resources == NOT_MEASURABLE:
        return NOT_MEASURABLE

    lines = []
    for peak_bytes, seconds in (
        (pair.peak_memory_bytes_4bit, pair.train_seconds_4bit),
        (pair.peak_memory_bytes_8bit, pair.train_seconds_8bit),
    ):
        memory = f"{megabytes(peak_bytes)} MB" if is_number(peak_bytes) else "n/a"
        lines.append(f"{memory}, {seconds:.0f} s" if is_number(seconds) else memory)
    return "\n".join(lines)


def pair_lines(pairs: Collection[Row], most: int) -> list[ReportTable]:
    """A table for accuracy and one for ED recall, each of the `most` pairs that lose most at 4
    bits; the reason of a verdict stands last, since only a wide terminal has room for it.
    """
    marked = not all(pair.random_weights for pair in pairs)
    shown_count = min(most, len(pairs))
    which = "all pairs" if shown_count == len(pairs) else f"{shown_count} of {len(pairs)} pairs"

    tables = []
    for name, metric in METRICS.items():
        lines = [_line(pair, metric, marked) for pair in pairs]
        # Pairs without a figure stand last.
        lines.sort(key=lambda line: (line[0] is None, line[0] or 0.0))
        title = f"{name}, {which}, largest loss at 4 bits first; differences in points"
        tables.append(ReportTable.of(title, [record for _, record in lines[:most]]))
    return tables


def _line(pair: Row, metric: str, marked: bool) -> tuple[float | None, dict[str, str]]:
    """The difference of a pair in a metric, e.g. `ed_recall`, in points, and the line about it."""
    names = ("4bit", "8bit", "diff", "low", "high", "verdict")
    four, eight, *differences, verdict = (getattr(pair, f"{metric}_{name}") for name in names)
    points = [100 * value if is_number(value) else None for value in differences]
    words, _, reason = verdict_words(verdict).partition(": ")
    record = {
        "pair": pair_name(pair, marked),
        "4bit": figure(four, digits=2),
        "8bit": figure(eight, digits=2),
        "4 minus 8": figure(*points, digits=1, sign=True),
        VERDICT: words,
        "because": reason or "-",
    }
    return points[0], record
