"""The answer to the question of 4 against 8 bits, in a few lines made from the rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from flows.report.figures import counted, is_number
from flows.report.leaderboard import by_test_set
from flows.report.pairs import NOT_MEASURABLE, pairs_on
from flows.report.typed_rows import Board, Row
from tasks.judging.point_metrics import ED_AUROC
from warehouse.comparison.pooled import ALL, BETWEEN_SEEDS, Pooled
from warehouse.comparison.resampling import CANNOT_CONCLUDE, MARGIN, pairs_that_could_show
from warehouse.comparison.summary import PooledSet

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
# What the lines are about, with the rule that decides, and what its cases are called.
METRICS = (
    ("accuracy", "argmax", "Accuracy", "cases"),
    ("ed_recall", "primary", "ED recall", "emergencies"),
)
# Stands behind ED recall, which moves with the threshold.
AUROC = (ED_AUROC, "argmax", "ED AUROC (independent of the threshold)", "cases")
# The models are also compared where each decides by its own threshold, and what that costs.
BY_THRESHOLD = (
    ("ed_recall", "ED recall by each model's threshold", "emergencies"),
    ("over_triage", "Over-triage by each model's threshold", "cases"),
)


def answer(board: Board, pairs: Collection[Row], sets: Collection[PooledSet]) -> list[str]:
    """Lines, the answer first: bytes, a line a figure, what is left out, gates, memory and time.

    `sets`: the pooled figures of these evaluations. Of several test sets, that of the latest
    evaluations counts, the first of `board`: every line is about its cases.
    """
    first_set, *other_sets = by_test_set(board) or [[]]
    gates = list(_gates(first_set))
    pairs_here = pairs_on(first_set, pairs)
    if not pairs_here:
        return [NO_PAIR_HERE if pairs else NO_PAIR, *gates]

    lines = [_bytes(pairs_here)]
    digests = {row.set_digest for row in first_set}
    pools = [pool for pool in sets if pool.evaluation_set == "test" and pool.set_digest in digests]
    # That of real weights before that of random ones.
    pool = min(pools, key=lambda pool: pool.random_weights, default=None)
    if pool is None:
        lines.append(NO_POOL_HERE if other_sets else NO_POOL)
    else:
        rows = [*_by_own_rule(pool), *_by_threshold(pool)]
        lines += [_figure(row, name, cases) for row, name, cases in rows]
        lines += _remarks([row for row, _, _ in rows])

    return [*lines, *gates, *_resources(pairs_here)]


def _by_own_rule(pool: PooledSet) -> list[tuple[Pooled, str, str]]:
    """The figures that decide; the AUROC only where there is one."""
    shown = []
    for metric, rule, name, cases in (*METRICS, AUROC):
        row = pool.figures.get((ALL, rule, metric))
        if row is not None and (metric != ED_AUROC or is_number(row.difference)):
            shown.append((row, name, cases))
    return shown


def _by_threshold(pool: PooledSet) -> list[tuple[Pooled, str, str]]:
    """What the models do by their thresholds; nothing where that is the rule of all recipes."""
    shown = []
    differs = False
    for metric, name, cases in BY_THRESHOLD:
        row = pool.figures.get((ALL, "target_recall", metric))
        primary_row = pool.figures.get((ALL, "primary", metric))
        if row is None or not is_number(row.difference):
            return []
        differs |= primary_row is None or primary_row.difference != row.difference
        shown.append((row, name, cases))

    return shown if differs else []


def _bytes(pairs: Collection[Row]) -> str:
    ratios = sorted(pair.stored_bytes_4bit / pair.stored_bytes_8bit for pair in pairs)
    low = f"x{ratios[0]:.2f}"
    high = f"x{ratios[-1]:.2f}"
    return f"4 bits against 8: stored size {low if low == high else f'{low} to {high}'}."


def _figure(row: Pooled, name: str, cases: str) -> str:
    """`Accuracy -0.4 points, over cases [-1.6, +0.8], 20 pairs: not inferior at 2 points.`

    Where there is an interval over trainings, too, the verdict needs both.
    """
    if not is_number(row.difference):
        reason = row.verdict.partition(": ")[2] or row.note or "no figure"
        return f"{name}: {CANNOT_CONCLUDE}; {reason}."

    over = f"{name} {points(row.difference)} points{_intervals(row)}"
    if not row.verdict.startswith(CANNOT_CONCLUDE):
        return f"{over}: {row.verdict} at {100 * MARGIN:g} points."
    if row.verdict.endswith(BETWEEN_SEEDS) or _seeds_limit_more(row):
        needed = pairs_that_could_show(row.seed_sd) if is_number(row.seed_sd) else 0
        # Where more trainings than there are could show the margin.
        more = f", about {needed} pairs could show {100 * MARGIN:g} points"
        return f"{over}: {CANNOT_CONCLUDE}; {BETWEEN_SEEDS}{more if needed > row.pairs else ''}."
    if not is_number(row.could_show):
        return f"{over}: {CANNOT_CONCLUDE}; {row.note}."

    resolution = f"{row.cases} {cases} could show {100 * row.could_show:.1f} points"
    return f"{over}: {CANNOT_CONCLUDE}; {resolution}."


def _seeds_limit_more(row: Pooled) -> bool:
    """Whether the interval over trainings is wider than the band over cases: more cases would not
    help then.
    """
    if not (is_number(row.seed_low) and is_number(row.seed_high) and is_number(row.could_show)):
        return False
    return (row.seed_high - row.seed_low) / 2 > row.could_show


def _intervals(row: Pooled) -> str:
    """What the figure's intervals are over, and how many pairs it is the mean of."""
    parts = []
    for name, low, high in (
        ("over cases", row.low, row.high),
        ("over trainings", row.seed_low, row.seed_high),
    ):
        if is_number(low) and is_number(high):
            parts.append(f"{name} [{points(low)}, {points(high)}]")
    return "".join(f", {part}" for part in (*parts, counted(row.pairs, "pair")))


def points(difference: float) -> str:
    """A difference of shares in points of a hundred, with its sign: -0.4; -0.01 is not 0."""
    rounded = f"{100 * difference:+.1f}"
    return rounded if float(rounded) or not difference else f"{100 * difference:+.1g}"


def _remarks(rows: list[Pooled]) -> Iterator[str]:
    """How many pairs say nothing where others do, and whether chance between trainings is known."""
    if not any(row.pairs for row in rows):
        return

    # Every pair has a decision by the argmax; those of another rule may lack one instead.
    accuracy_rows = [row for row in rows if (row.rule, row.metric) == ("argmax", "accuracy")]
    if out := sum(row.pairs_left_out for row in accuracy_rows):
        are = "is" if out == 1 else "are"
        reason = "neither model beats the best constant answer in accuracy"
        yield f"{counted(out, 'pair')} {are} left out: {reason}."
    if not any(is_number(row.seed_sd) for row in rows):
        yield (
            "No recipe has two seeds under one setting: these intervals leave out chance in "
            "training."
        )


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
