"""The answer to the question of 4 against 8 bits, in a few lines made from the rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from flows.report.figures import counted, is_number
from flows.report.leaderboard import by_test_set
from flows.report.pairs import NOT_MEASURABLE, pairs_on
from flows.report.typed_rows import Board, Row
from warehouse.comparison.crossed import in_words

NO_PAIR = "4 bits against 8 bits: no pair of otherwise equal experiments yet."
NO_PAIR_HERE = (
    "4 bits against 8 bits: no pair of otherwise equal experiments yet on the test cases that were "
    "judged last; it takes both widths judged on them."
)
NO_POOL = "No pair of trained models yet, so that nothing follows about accuracy."
NO_POOL_HERE = (
    "No pair of trained models yet on the test cases that were judged last, so that nothing follows "
    "about accuracy."
)
# What the lines are about, with the rule that decides.
METRICS = (
    ("accuracy", "argmax", "accuracy"),
    ("ed_recall", "target_recall", "ED recall by each model's threshold"),
)


def answer(board: Board, pairs: Collection[Row], recipes: Collection[Row]) -> list[str]:
    """Lines, the answer first: bytes, a line a recipe and figure, gates, memory and time.

    `recipes`: rows of quantization_summary. Of several test sets, that of the latest evaluations
    counts, the first of `board`: every line is about its cases.
    """
    first_set, *other_sets = by_test_set(board) or [[]]
    gates = list(_gates(first_set))
    pairs_here = pairs_on(first_set, pairs)
    if not pairs_here:
        return [NO_PAIR_HERE if pairs else NO_PAIR, *gates]

    lines = [_bytes(pairs_here)]
    digests = {row.set_digest for row in first_set}
    here = [row for row in recipes if row.evaluation_set == "test" and row.set_digest in digests]
    if not here:
        lines.append(NO_POOL_HERE if other_sets else NO_POOL)
    for metric, rule, name in METRICS:
        lines += [_figure(row, name) for row in here if (row.metric, row.rule) == (metric, rule)]
    return [*lines, *gates, *_resources(pairs_here)]


def _bytes(pairs: Collection[Row]) -> str:
    ratios = sorted(pair.stored_bytes_4bit / pair.stored_bytes_8bit for pair in pairs)
    low = f"x{ratios[0]:.2f}"
    high = f"x{ratios[-1]:.2f}"
    return f"4 bits against 8: stored size {low if low == high else f'{low} to {high}'}."


def _figure(row: Row, name: str) -> str:
    """`smollm2-135m tuned, 3 seeds, accuracy -0.5 points [-3.5, +2.5]: within 2 points.`"""
    of = f"{row.base_model} {row.recipe}, {counted(row.seeds, 'seed')}, {name}"
    if not is_number(row.difference):
        return f"{of}: {row.note}."
    interval = f" [{points(row.low)}, {points(row.high)}]" if is_number(row.low) else ""
    return f"{of} {points(row.difference)} points{interval}: {in_words(row)}."


def points(difference: float) -> str:
    """A difference of shares in points of a hundred, with its sign: -0.4; -0.01 is not 0."""
    rounded = f"{100 * difference:+.1f}"
    return rounded if float(rounded) or not difference else f"{100 * difference:+.1g}"


def _gates(board: Board) -> Iterator[str]:
    """How many trained models pass; never the best of them as if it were the only one."""
    verdicts = [row.verdict for row in board if row.is_trained]
    if not verdicts:
        return

    passing = verdicts.count("passes_gates")
    provisional = verdicts.count("provisional")
    more = f", {provisional} provisionally" if provisional else ""
    models = counted(len(verdicts), "trained model")
    yield f"Gates: {passing} of {models} pass{'es' if passing == 1 else ''}{more}."


def _resources(pairs: Collection[Row]) -> Iterator[str]:
    """Memory, where it could be measured."""
    if all(pair.resources == NOT_MEASURABLE for pair in pairs):
        yield f"Memory and time are {NOT_MEASURABLE}."
        return

    ratios = [
        pair.peak_memory_bytes_4bit / pair.peak_memory_bytes_8bit
        for pair in pairs
        if pair.peak_memory_bytes_4bit and pair.peak_memory_bytes_8bit
    ]
    if ratios:
        yield f"Peak memory of a training x{sum(ratios) / len(ratios):.2f} on average."
