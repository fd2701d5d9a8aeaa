"""The answer to the question of 4 against 8 bits, in a few sentences made from the rows.

With a primary claim it speaks of that alone; without one, of each recipe whose models learned
something beside the linear baseline. All else is secondary: figures and intervals, no verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from flows.report.figures import (
    baseline_name,
    counted,
    in_points,
    is_number,
    percent,
)
from flows.report.leaderboard import ALL_RANDOM, by_test_set, only_random_weights
from flows.report.pairs import NO_PAIR, NOT_MEASURABLE, pairs_on
from flows.report.rules import COMMON_RULES, THRESHOLD, by_common_rules, cheap_baseline
from flows.report.typed_rows import Board, Row, grouped, rows_of
from tasks.judging.point_metrics import ED_AUROC
from tasks.precisions import UNPACKED
from warehouse.comparison.crossed import (
    CANNOT_CONCLUDE,
    LOWER_IS_BETTER,
    MARGIN,
    WITHIN,
    in_words,
)
from warehouse.connect import listed, quoted, reading

NO_PAIR_HERE = (
    f"{NO_PAIR} on the test cases that were judged last; it takes both widths judged on them"
)
NO_MODELS = (
    "4 bits against 8 bits: no pair of trained models yet on these test cases, so that nothing "
    "follows about accuracy."
)
NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    ED_AUROC: "ED AUROC",
    "ed_recall": "ED recall by each model's threshold",
    "ed_f2": "ED F2 by each model's threshold",
    "over_triage": "over-triage by each model's threshold",
}
FIGURES = ("accuracy", "ed_recall")  # of which the answer speaks without a claim
AGAINST_BASELINE = ("macro_f1", "over_triage")
SIDES = ("4bit", "8bit")
MOST_RECIPES = 3  # that have sentences of their own
MOST_OTHERS = 4  # that one sentence names
Figures = dict[str, Row]  # rows of differences by metric, each by its rule of COMMON_RULES


def claim_of(study: str | None) -> Row | None:
    """The primary claim of a study, a row of `primary_claim`."""
    rows = rows_of(f"primary_claim WHERE study = {quoted(study)}") if study else []
    return next(iter(rows), None)


def answer(
    board: Board, pairs: Collection[Row], recipes: Collection[Row], claim: Row | None = None
) -> list[str]:
    """Sentences, the answer first; the last line is about bytes, gates, memory and time.

    `recipes`: rows of quantization_summary. Of several test sets, that of the latest evaluations
    counts, the first of `board`: every sentence is about its cases.
    """
    first_set = next(iter(by_test_set(board)), [])
    pairs_here = pairs_on(first_set, pairs)
    found = [
        by_metric(rows)
        for rows in grouped(recipes, lambda row: (row.set_digest, row.seed_group)).values()
        if rows[0].evaluation_set == "test"
        and rows[0].set_digest in {row.set_digest for row in first_set}
        and not rows[0].random_weights
    ]
    if only_random_weights(first_set):
        lines = [ALL_RANDOM]
    elif claim is not None:
        lines = _of_claim(claim, first_set)
    elif not pairs_here:
        lines = [f"4 bits against 8 bits: {NO_PAIR_HERE if pairs else NO_PAIR}."]
    elif not found:
        lines = [NO_MODELS]
    else:
        lines = _of_recipes(found, pairs_here, _baseline_on(first_set))

    rest = [*_bytes(pairs_here), *_gates(first_set), *_resources(pairs_here)]
    return [*lines, " ".join(rest)] if rest else lines


def _baseline_on(board: Board) -> Row | None:
    """The linear baseline on these cases, whichever study fitted it, as in quantization_summary."""
    digests = listed({row.set_digest for row in board})
    rows = rows_of(
        f"evaluation_summary WHERE evaluation_set = 'test' AND set_digest IN {digests} "
        "AND recipe IN ('linear', 'tfidf_lr') ORDER BY created_at, evaluation_id"
    )
    return cheap_baseline(by_common_rules(rows))


def by_metric(rows: Collection[Row]) -> Figures:
    """Differences of one recipe in each metric, by the rule that all share."""
    return {row.metric: row for row in rows if row.rule == COMMON_RULES[row.metric]}


# --- Without a claim --------------------------------------------------------------------------------


def _of_recipes(found: list[Figures], pairs: Collection[Row], baseline: Row | None) -> list[str]:
    """Recipes that learned something, those of most seeds first; then the others, without a verdict."""
    found.sort(key=lambda figures: -figures["accuracy"].seeds)
    learned = [figures for figures in found if figures["accuracy"].qualifies]
    others = [figures for figures in found if not figures["accuracy"].qualifies]
    why = "a model gains less than half of what the linear baseline gains over a constant answer"
    if baseline is None:
        why = "no linear baseline says how much there is to learn"

    lines = []
    for figures in learned[:MOST_RECIPES]:
        lines.append(_sentence(figures["accuracy"], _recipe(figures)))
        lines.append(_short(figures["ed_recall"]))
        if baseline is not None:
            lines.append(_against(baseline, figures["accuracy"], pairs))
    if not learned:
        rows = [figures[metric] for figures in found for metric in FIGURES]
        row = max(rows, key=lambda row: abs(row.difference or 0))
        lines.append(
            f"4 bits against 8 bits: nothing can be said, since {why} in every pair; the largest "
            f"difference is {_points(row, ' points')} in {NAMES[row.metric]} ({row.base_model} {row.recipe})."
        )

    if (left := len(learned) - MOST_RECIPES) > 0:
        lines.append(f"{counted(left, 'more recipe')}: see the table of recipes.")
    if others:
        named = [
            f"{_recipe(figures)} {' and '.join(_points(figures[metric]) for metric in FIGURES)}"
            for figures in others[:MOST_OTHERS]
        ]
        if (left := len(others) - MOST_OTHERS) > 0:
            named.append(f"and {left} more")
        reason = f", since {why}" if learned else ""
        lines.append(f"Without a verdict{reason} (accuracy and ED recall): {'; '.join(named)}.")
    return [*lines, _about_intervals([figures["accuracy"] for figures in found])]


def _recipe(figures: Figures) -> str:
    row = figures["accuracy"]
    return f"{row.base_model} {row.recipe}, {counted(row.seeds, 'seed')}"


def _points(row: Row, unit: str = "") -> str:
    return in_points(row.difference, row.low, row.high, unit)


def _sentence(row: Row, about: str, sides: Sequence[str] = SIDES) -> str:
    """`tuned, 3 seeds: 4 bits are not worse by 2 points than 8 bits in accuracy: -0.2 [-0.9, +0.5].`"""
    side, reference = map(_bits, sides)
    name = NAMES[row.metric]
    if not is_number(row.difference):
        return f"{about}: {name} of {side} against {reference}: {row.note}."

    verdict, _, needs = in_words(row).partition(": ")
    if verdict == CANNOT_CONCLUDE:
        words = f"whether {side} are as good as {reference} in {name} cannot be concluded"
    else:
        than = "of" if row.verdict == WITHIN else "than"
        words = f"{side} are {verdict} {than} {reference} in {name}"
    if not is_number(row.low):
        needs = row.note
    elif "more" in needs or "second" in needs:
        needs = f"it would take {needs}"
    return f"{about}: {words}: {_points(row, ' points')}{f'; {needs}' if needs else ''}."


def _short(row: Row) -> str:
    """`ED recall by each model's threshold -0.3 [-2.2, +1.6]: not worse by 2 points.`"""
    name = f"{NAMES[row.metric][0].upper()}{NAMES[row.metric][1:]}"
    if not is_number(row.low):
        return f"{name} {_points(row)}: {row.note}."
    return f"{name} {_points(row)}: {in_words(row)}."


def _bits(precision: str) -> str:
    return f"{precision.removesuffix('bit')} bits" if precision.endswith("bit") else precision


def _against(baseline: Row, recipe: Row, pairs: Collection[Row]) -> str:
    """How both sides of a recipe compare with the baseline, its one evaluation beside each seed."""
    four = {
        row.evaluation_4bit: row.evaluation_8bit
        for row in pairs
        if (row.base_model, row.recipe) == (recipe.base_model, recipe.recipe)
    }
    groups = rows_of(f"seed_group WHERE evaluation_id IN {listed(four)}")
    own = [row.evaluation_id for row in groups if row.seed_group == recipe.seed_group]
    both = [own, [four[id] for id in own]]
    compared = [
        _compared([(id, baseline.evaluation_id) for id in side], AGAINST_BASELINE) for side in both
    ]

    parts = []
    for metric in AGAINST_BASELINE:
        rows = [figures[metric] for figures in compared]
        standing = " and ".join(dict.fromkeys(map(_standing, rows)))
        parts.append(f"{NAMES[metric]} {' and '.join(map(_points, rows))} ({standing})")
    name = baseline_name(baseline)
    return f"4 and 8 bits minus {name}: {', '.join(parts)}. {_share(recipe, SIDES[1])}".strip()


def _standing(row: Row) -> str:
    """Whether a model beats the baseline, by its whole interval."""
    if not is_number(row.low) or row.low <= 0 <= row.high:
        return "no difference shown"
    return "better" if (row.low > 0) != (row.metric in LOWER_IS_BETTER) else "worse"


def _share(row: Row, reference: str) -> str:
    """The margin as a share of what the model gains over the linear baseline; empty without one."""
    if not is_number(row.linear_value):
        return ""
    if not is_number(row.margin_share):
        return f"In {NAMES[row.metric]} {_bits(reference)} gain nothing over the baseline."
    return (
        f"The margin, {100 * row.margin:g} points, is {percent(round(row.margin_share, 2))} of what "
        f"{_bits(reference)} gain over the baseline in {NAMES[row.metric]}."
    )


def _compared(
    pairs: Collection[tuple[str, str]], metrics: Collection[str], margin: float = MARGIN
) -> Figures:
    """Differences of evaluations in these metrics, first minus second, over trainings and groups of cases."""
    from warehouse.comparison.cells import judged_cases  # NumPy and SciPy come with both
    from warehouse.comparison.differences import differences

    with reading() as con:
        cases = judged_cases(con, [id for pair in pairs for id in pair])
    one: list[tuple[dict[str, Any], range]] = [({}, range(len(pairs)))]
    rows = differences(cases, one, ("argmax", THRESHOLD), tuple(metrics), margin=margin)
    return by_metric([Row(**row) for row in rows])


# --- With a claim -----------------------------------------------------------------------------------


def _of_claim(claim: Row, board: Board) -> list[str]:
    """A sentence for each of its figures, with the margin beside what is gained over the baseline."""
    sides = (claim.side, claim.reference)
    about = f"{claim.base_model} {claim.recipe}"
    when = f"{claim.registered_at:%Y-%m-%d}"
    fixed = f"This is the study's primary claim, fixed on {when} before its first result."
    if claim.changed_after_results:
        fixed = f"This claim was made or changed on {when}, after results existed: not beforehand."
    pairs = _claimed_pairs(claim, board)
    if not pairs:
        none = "the study's primary claim has no result on these cases yet"
        return [f"{about}, {' against '.join(map(_bits, sides))}: {none}.", fixed]

    compared = _compared(pairs.values(), NAMES, claim.margin)
    of_baseline = _baseline_on(board)
    lines = []
    for metric in claim.figures:
        row = compared[metric]
        row.linear_value = getattr(of_baseline, metric, None)
        gain = (row.value_8bit or 0) - (row.linear_value or 0)
        gain *= -1 if metric in LOWER_IS_BETTER else 1
        row.margin_share = row.margin / gain if gain > 0 else None
        units = counted(row.groups, "group") if row.groups else counted(row.cases, "case")
        of = f"{about}, {counted(row.seeds, 'training')} a side, {units}"
        lines.append(f"{_sentence(row, of, sides)} {_share(row, claim.reference)}".strip())

    if missing := [str(seed) for seed in claim.seeds if seed not in pairs]:
        fixed += f" Seeds {', '.join(missing)} are missing: it is not complete yet."
    return [*lines, fixed, _about_intervals(compared.values())]


def _claimed_pairs(claim: Row, board: Board) -> dict[int, tuple[str, str]]:
    """By seed, the evaluations of both sides. A side that was not trained has the adapters of the
    reference, moved.
    """
    found: dict[int, dict[str, str]] = {}
    for row in board:
        precision = "bf16" if (row.precision or "").startswith(UNPACKED) else row.precision
        if row.base_model != claim.base_model or row.seed not in claim.seeds or row.random_weights:
            continue
        of_seed = found.setdefault(row.seed, {})
        if row.recipe == claim.recipe and row.is_trained:
            of_seed[precision] = row.evaluation_id
        elif row.recipe == f"{claim.recipe} from {claim.reference}":
            of_seed.setdefault(precision, row.evaluation_id)
    wanted = (claim.side, claim.reference)
    return {
        seed: (of_seed[claim.side], of_seed[claim.reference])
        for seed, of_seed in sorted(found.items())
        if of_seed.keys() >= set(wanted)
    }


# --- What holds for both ----------------------------------------------------------------------------


def _about_intervals(rows: Collection[Row]) -> str:
    seeds = {row.seeds for row in rows}
    groups = max(row.groups or 0 for row in rows)
    units = f"{counted(groups, 'group')} of cases" if groups else "cases, which have no groups"
    over = f"trainings and {units}" if max(seeds) > 1 else units
    left_out = "chance in calibration, which sets the thresholds"
    if 1 in seeds:
        left_out += ", and with one training a side chance in training"
    return f"Points of a hundred, with 95 % intervals over {over}; left out: {left_out}."


def _bytes(pairs: Collection[Row]) -> list[str]:
    ratios = sorted(pair.stored_bytes_4bit / pair.stored_bytes_8bit for pair in pairs)
    if not ratios:
        return []
    ends = dict.fromkeys(f"x{ratio:.2f}" for ratio in (ratios[0], ratios[-1]))
    return [f"4 bits take {' to '.join(ends)} of the bytes of 8."]


def _gates(board: Board) -> list[str]:
    """How many trained models pass; never the best of them as if it were the only one."""
    verdicts = [row.verdict for row in board if row.is_trained]
    if not verdicts:
        return []

    passing = verdicts.count("passes_gates")
    provisional = verdicts.count("provisional")
    more = f", {provisional} provisionally" if provisional else ""
    models = counted(len(verdicts), "trained model")
    return [f"Gates: {passing} of {models} pass{'es' if passing == 1 else ''}{more}."]


def _resources(pairs: Collection[Row]) -> list[str]:
    """Memory, where it could be measured."""
    if pairs and all(pair.resources == NOT_MEASURABLE for pair in pairs):
        return [f"Memory and time are {NOT_MEASURABLE}."]

    ratios = [
        pair.peak_memory_bytes_4bit / pair.peak_memory_bytes_8bit
        for pair in pairs
        if pair.peak_memory_bytes_4bit and pair.peak_memory_bytes_8bit
    ]
    if not ratios:
        return []
    return [f"Peak memory of a training x{sum(ratios) / len(ratios):.2f} on average."]
