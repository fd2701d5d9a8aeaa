"""The answer to the question of 4 against 8 bits: one sentence, and the primary comparison behind it.

With a primary claim it is that of the study; without one, that of the recipe of most seeds whose
models learned something beside the linear baseline. A claim about other precisions follows it. All
else is secondary: figures and intervals.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from flows.report.figures import counted, in_points, listed_name, p_value, percent, random_mark
from flows.report.further_seeds import (
    Figures,
    Pairs,
    adjust,
    by_metric,
    differences_of,
    diverged_seeds,
    further_seeds,
    named_seeds,
    trained_alike,
)
from flows.report.rows import (
    Row,
    Study,
    by_common_rules,
    grouped,
    is_number,
    only_random_weights,
    rows_of,
)
from tasks.spec import CHOSEN_AGAIN, ED_AUROC, KEPT
from warehouse.comparison.crossed import (
    CANNOT_CONCLUDE,
    LOWER_IS_BETTER,
    NOT_WORSE,
    WITHIN,
    WORSE,
    in_words,
)
from warehouse.connect import listed

ALL_RANDOM = "All weights are random: the figures show that every stage runs, no more."
NO_PAIR = (
    "Nothing can be said about 4 bits against 8 bits: no trained model was judged at both on these "
    "test cases."
)
NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    ED_AUROC: "ED AUROC",
    "ed_recall": "ED recall by each model's threshold",
    "ed_f2": "ED F2 by each model's threshold",
    "over_triage": "over-triage by each model's threshold",
}
# What a verdict means for emergencies; other figures have the words of the verdict alone.
EMERGENCIES = {
    CANNOT_CONCLUDE: "Cannot tell whether {side} miss more emergencies than {reference}",
    WITHIN: "{side} miss as many emergencies as {reference}, within {margin}",
    NOT_WORSE: "{side} do not miss {margin} more emergencies than {reference}",
    WORSE: "{side} miss more emergencies than {reference}, by more than {margin}",
}
FIGURES = ("ed_recall", "accuracy")  # of which the answer speaks without a claim
MOST_OTHERS = 2  # recipes that the answer names beside the one that it is about
AGAINST_BASELINE = ("macro_f1", "over_triage")
SIDES = ("4bit", "8bit")
NOT_MEASURABLE = "not measurable on this backend"


@dataclass(frozen=True)
class Primary:
    """The comparison that the answer is about: side minus reference in one metric.

    `row`: its difference with interval, margin and verdict; `seeds`: the difference of each training.
    """

    name: str
    sides: Sequence[str]
    row: Row
    seeds: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """`sentence` answers; `details` say what it rests on, and what else was compared. `others`: a claim's
    second arm of moved adapters, beside its first.
    """

    sentence: str
    details: list[str] = field(default_factory=list)
    primary: Primary | None = None
    others: Sequence[Primary] = ()


def answer(study: Study) -> Answer:
    """The answer that a study gives on its test set."""
    recipes = [
        by_metric(rows)
        for rows in grouped(study.recipes, lambda row: row.seed_group).values()
        if not rows[0].random_weights
    ]
    claim = study.claim
    parts = []
    if only_random_weights(study.board):
        parts = [Answer(ALL_RANDOM)]
    else:
        is_about_bits = claim is not None and (claim.side, claim.reference) == SIDES
        if study.pairs and recipes and not is_about_bits:
            parts.append(_of_recipes(recipes, study))
        if claim is not None:
            parts.append(_of_claim(claim, study))
    parts = parts or [Answer(NO_PAIR)]

    sentence = " ".join(part.sentence for part in parts)
    details = dict.fromkeys(line for part in parts for line in part.details)
    return Answer(
        f"{sentence} {_gates(study.board)}".strip(),
        [*details, *_resources(study.pairs)],
        parts[-1].primary,
        parts[-1].others,
    )


# --- Without a claim --------------------------------------------------------------------------------


def _of_recipes(recipes: list[Figures], study: Study) -> Answer:
    """The recipe of most seeds that learned something; of the others the table of recipes speaks."""
    recipes.sort(key=lambda figures: -figures["accuracy"].seeds)
    learned = [figures for figures in recipes if figures["accuracy"].qualifies]
    why = "a model gains less than half of what the linear baseline gains over a constant answer"
    if study.baseline is None:
        why = "no linear baseline says how much there is to learn"
    details = [_about_intervals([figures["accuracy"] for figures in recipes])]
    if others := len(recipes) - len(learned):
        details.insert(0, f"{counted(others, 'recipe')} without a verdict, since {why}.")

    figures = (learned or recipes)[0]
    recall, accuracy = (figures[metric] for metric in FIGURES)
    if not learned:
        row = max(
            (of_recipe[metric] for of_recipe in recipes for metric in FIGURES),
            key=lambda row: abs(row.difference or 0),
        )
        largest = (
            f"The largest difference is {in_points(row, ' points')} in {NAMES[row.metric]} "
            f"({row.base_model} {row.recipe})."
        )
        sentence = f"Nothing can be said about 4 bits against 8 bits, since {why}."
        return Answer(sentence, [largest, *details], primary_of(row, study))

    # A claim of other precisions follows, and is what the study is about.
    is_followed = study.claim is not None
    # Without emergencies in calibration no seed has a threshold.
    seeds = recall.seeds or accuracy.seeds
    about = f"{recall.base_model} {recall.recipe}, {counted(seeds, 'seed')}"
    if seeds == 1:
        about += ", so that chance in training is left out"
    also = f"{NAMES['accuracy']} {in_points(accuracy)}: {verdict_in_words(accuracy)}"
    also = "" if is_followed else also
    sentences = [_sentence(recall, about, also=also)]
    # Of the whole study: a sweep shows its own models, and the estimate is of all seeds.
    every = trained_alike(study, recall.base_model, recall.recipe, SIDES)
    own = next(alike for alike in every if alike.row.seed_group == recall.seed_group)
    if not is_followed:
        sentences += further_seeds(study, every, own, None, FIGURES)
    if study.baseline is not None:
        beside_baseline, detail = _against(study.baseline, accuracy, own.pairs.values())
        sentences += [] if is_followed else [beside_baseline]
        details.insert(0, detail)
    # The same recipe, trained otherwise, is named above.
    rows = [
        of_other["ed_recall"]
        for of_other in learned[1:]
        if (of_other["ed_recall"].base_model, of_other["ed_recall"].recipe)
        != (recall.base_model, recall.recipe)
    ]
    if rows and not is_followed:
        named = [
            f"{row.base_model} {row.recipe} {in_points(row)}: {verdict_in_words(row)}"
            for row in rows[:MOST_OTHERS]
        ]
        if unnamed := len(rows) - len(named):
            named.append(f"{unnamed} more with --pairs")
        sentences.append(f"ED recall of other recipes that learn: {'; '.join(named)}.")
    return Answer(" ".join(sentences), details, primary_of(recall, study))


def primary_of(row: Row, study: Study) -> Primary:
    """The comparison of the two precisions of a recipe in the metric of its row."""
    pairs = {
        pair.seed: (pair.evaluation_4bit, pair.evaluation_8bit)
        for pair in study.pairs
        if study.seed_groups.get(pair.evaluation_4bit) == row.seed_group
    }
    name = f"{row.base_model} {row.recipe}{random_mark(row)}"
    return Primary(name, SIDES, row, _seed_differences(pairs, row.metric))


def _seed_differences(pairs: Pairs, metric: str) -> dict[int, float]:
    """By seed the difference of two evaluations in a metric, by the rule that all share."""
    ids = listed({id for pair in pairs.values() for id in pair})
    models = by_common_rules(rows_of(f"evaluation_summary WHERE evaluation_id IN {ids}"))
    values = {row.evaluation_id: getattr(row, metric) for row in models}
    differences = {}
    for seed, evaluations in sorted(pairs.items()):
        first, second = map(values.get, evaluations)
        if is_number(first) and is_number(second):
            differences[seed] = first - second
    return differences


def _sentence(
    row: Row, about: str, sides: Sequence[str] = SIDES, also: str = "", moved_rules: str = ""
) -> str:
    """`4 bits are not worse by 2 points than 8 bits in accuracy: -0.2 points [-0.9, +0.5] (tuned, 3 seeds).`

    `also`: what stands beside the figure; `moved_rules`: whether the first side, which has the
    adapters of the second, kept their rules or chose them again.
    """
    side, reference = map(bits_of, sides)
    name = NAMES[row.metric]
    of_recall = "ED recall at each model's threshold"
    if moved_rules:
        # A sentence without what it is about goes on with the adapters of the one before.
        moved = f"{sides[1].replace('bit', '-bit')} adapters moved to {side}" if about else "they"
        side = f"{moved}, threshold {moved_rules.replace('_', ' ')},"
        reference = "unmoved ones"
        name, of_recall = name.partition(" by ")[0], "ED recall"
    about = about and f" ({about})"
    if not is_number(row.difference):
        words = f"Nothing can be said about {side} against {reference} in {name}: {row.note}"
        return f"{'; '.join(filter(None, (words, also)))}{about}."

    verdict, _, needs = in_words(row, bool(moved_rules)).partition(": ")
    figure = in_points(row, " points")
    if row.metric == "ed_recall":
        margin = f"{100 * row.margin:g} points"
        kind = CANNOT_CONCLUDE if verdict == CANNOT_CONCLUDE else row.verdict
        words = EMERGENCIES[kind].format(side=side, reference=reference, margin=margin)
        figure = f"{of_recall} {figure}"
    elif verdict == CANNOT_CONCLUDE:
        words = f"Cannot tell whether {side} are as good as {reference} in {name}"
    else:
        than = "of" if row.verdict == WITHIN else "than"
        words = f"{side} are {verdict} {than} {reference} in {name}"
    if not is_number(row.low):
        needs = row.note
    elif "more" in needs or "second" in needs:
        needs = f"it would take {needs}"
    words = words.replace("they", "They", 1) if words.startswith("they") else words
    return f"{'; '.join(filter(None, (f'{words}: {figure}', needs, also)))}{about}."


def verdict_in_words(row: Row) -> str:
    """`not worse by 2 points`, or why there is no verdict."""
    return in_words(row) if is_number(row.low) else row.note or "no interval"


def bits_of(precision: str) -> str:
    """`4 bits` for `4bit`, and `mxfp4` as it is."""
    return f"{precision.removesuffix('bit')} bits" if precision.endswith("bit") else precision


def _against(baseline: Row, recipe: Row, pairs: Collection[tuple[str, str]]) -> tuple[str, str]:
    """How both sides of a recipe compare with the baseline, its one evaluation beside each seed: in
    words, and with figures.
    """
    beside = [
        differences_of([(id, baseline.evaluation_id) for id in side], AGAINST_BASELINE)
        for side in zip(*pairs, strict=True)
    ]

    words = []
    parts = []
    for metric in AGAINST_BASELINE:
        rows = [figures[metric] for figures in beside]
        standings = [_standing(row) for row in rows]
        standing = standings[0]
        if len(set(standings)) > 1:
            of_sides = zip(map(bits_of, SIDES), standings, strict=True)
            standing = " and ".join(f"{side} {one}" for side, one in of_sides)
        words.append(f"{standing} in {NAMES[metric].partition(' by ')[0]}")
        parts.append(f"{NAMES[metric]} {' and '.join(map(in_points, rows))} ({standing})")
    of_recipe = f"{recipe.base_model} {recipe.recipe} at 4 and 8 bits"
    figures = f"{of_recipe} minus {listed_name(baseline)}: {', '.join(parts)}."
    return (
        f"Beside the linear model: {', '.join(words)}.",
        f"{figures} {_share(recipe, SIDES[1], baseline)}".strip(),
    )


def against_linear(model: Row, baseline: Row) -> str:
    """Whether the linear baseline triages better than one trained model, on the model's test set."""
    figures = differences_of([(model.evaluation_id, baseline.evaluation_id)], AGAINST_BASELINE)
    standings = {_standing(figures[metric]) for metric in AGAINST_BASELINE}
    verdict = "It is not shown that this model or the linear one triages better"
    if "worse" in standings and "better" not in standings:
        verdict = "The linear model triages better than this one"
    elif "better" in standings and "worse" not in standings:
        verdict = "This model triages better than the linear one"

    parts = (f"{NAMES[metric]} {in_points(figures[metric])}" for metric in AGAINST_BASELINE)
    return f"{verdict}. Their difference in points, on test: {', '.join(parts)}."


def _standing(row: Row) -> str:
    """How the first side of a difference compares with the second, by the whole interval."""
    if not is_number(row.low) or row.low <= 0 <= row.high:
        return "no difference shown"
    return "better" if (row.low > 0) != (row.metric in LOWER_IS_BETTER) else "worse"


def _share(row: Row, reference: str, baseline: Row | None) -> str:
    """The margin as a share of what the model gains over the linear baseline; empty without one."""
    value = getattr(baseline, row.metric, None)
    if not is_number(value):
        return ""
    gain = (row.value_8bit or 0) - value
    if row.metric in LOWER_IS_BETTER:
        gain = -gain
    name = NAMES[row.metric]
    if gain <= 0:
        return f"In {name} {bits_of(reference)} gain nothing over the baseline."
    times = row.margin / gain
    share = f"{percent(round(times, 2))} of" if times < 2 else f"{float(f'{times:.2g}'):g} times"
    return (
        f"The margin, {100 * row.margin:g} points, is {share} what {bits_of(reference)} gain over the "
        f"baseline in {name}."
    )


# --- With a claim -----------------------------------------------------------------------------------


def _of_claim(claim: Row, study: Study) -> Answer:
    """A sentence for each of its figures; the margin beside what is gained over the baseline follows."""
    sides = (claim.side, claim.reference)
    about = f"{claim.base_model} {claim.recipe}"
    when = f"{claim.registered_at:%Y-%m-%d}"
    fixed = f"This is the study's primary claim, fixed on {when} before its first result."
    if claim.changed_after_results:
        fixed = f"This claim was made or changed on {when}, after results existed: not beforehand."
    is_adjusted = claim.adjust == "holm"
    both = (KEPT, CHOSEN_AGAIN) if claim.threshold == "both" else (claim.threshold,)
    every = {
        rules: trained_alike(study, claim.base_model, claim.recipe, sides, rules) for rules in both
    }
    # Of trainings that differ in more than chance those are claimed that hold most of its seeds.
    claimed = claim.seeds
    arms = {
        rules: max(alike, key=lambda one: len(one.of(claimed)))
        for rules, alike in every.items()
        if any(one.of(claimed) for one in alike)
    }
    held = [arms[rules].of(claimed) if rules in arms else {} for rules in both]
    if not arms:
        against = " against ".join(map(bits_of, sides))
        sentence = (
            f"Nothing can be said about {against} yet: the study's primary claim, about {about}, "
            "has no result on these cases."
        )
        return Answer(sentence, [fixed])

    sentences = []
    stated: set[str] = set()
    further = []
    shares = []
    intervals: list[Row] = []
    primaries: list[Primary] = []
    for rules, own in arms.items():
        pairs = own.of(claimed)
        compared = differences_of(pairs.values(), NAMES, claim.margin)
        if is_adjusted:
            adjust([compared[metric] for metric in claim.figures])
        is_moved = own.row.is_moved
        name = f"{about}, threshold {rules.replace('_', ' ')}" if is_moved else about
        for metric in claim.figures:
            row = compared[metric]
            units = counted(row.groups, "group") if row.groups else counted(row.cases, "case")
            trainings = counted(row.seeds, "training") + ("" if is_moved else " a side")
            of = f"{about}, {trainings}, {units}"
            if row.seeds == 1:
                of += "; nothing follows about others"
            also = ""
            if is_adjusted and is_number(row.p_value):
                by_holm = f", by Holm for {counted(len(claim.figures), 'figure')}"
                also = f"one-sided {p_value(row.p_value)}{'' if by_holm in stated else by_holm}"
                stated.add(by_holm)
            elif is_moved and metric == "ed_recall" and "over_triage" not in claim.figures:
                also = f"over-triage {in_points(compared['over_triage'])}"
            # Both arms are about the same trainings and cases, and mostly all figures are.
            about_it = "" if of in stated else of
            sentences.append(_sentence(row, about_it, sides, also, rules if is_moved else ""))
            stated.add(of)
            shares.append(_share(row, claim.reference, study.baseline))
        changes = further_seeds(
            study, every[rules], own, claimed, claim.figures, claim.margin, is_adjusted
        )
        arm = f"Threshold {rules.replace('_', ' ')}: " if is_moved and changes else ""
        further.append(arm + " ".join(changes))
        first = claim.figures[0]
        seeds = _seed_differences(pairs, first)
        primaries.append(Primary(name, sides, compared[first], seeds))
        intervals += compared.values()

    if claim.opened_at is not None:
        fixed += f" It was opened on {claim.opened_at:%Y-%m-%d} for {named_seeds(claimed)}."
    diverged = diverged_seeds(claim, {seed for pairs in held for seed in pairs})
    if diverged:
        fixed += f" Left out at both, since a training diverged: {named_seeds(diverged)}."
    missing = [seed for seed in claimed if any(seed not in pairs for pairs in held)]
    if missing := [seed for seed in missing if seed not in diverged]:
        fixed += f" Missing: {named_seeds(missing)}, so it is not complete yet."
    details = [*dict.fromkeys(filter(None, shares)), fixed, _about_intervals(intervals)]
    sentence = " ".join([*sentences, *filter(None, further)])
    return Answer(sentence, details, primaries[0], primaries[1:])


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


def _gates(board: Collection[Row]) -> str:
    """How many trained models pass; never the best of them as if it were the only one."""
    verdicts = [row.verdict for row in board if row.is_trained]
    if not verdicts:
        return ""
    passing = verdicts.count("passes_gates")
    provisional = verdicts.count("provisional")
    more = f", {provisional} provisionally" if provisional else ""
    models = f"{passing or 'None'} of {len(verdicts)} trained models"
    return f"{models} pass{'' if passing > 1 else 'es'} the safety gates{more}."


def _resources(pairs: Collection[Row]) -> list[str]:
    """Stored bytes, and memory where it could be measured."""
    if not pairs:
        return []
    stored = [pair.stored_bytes_4bit / pair.stored_bytes_8bit for pair in pairs]
    ends = dict.fromkeys(f"x{ratio:.2f}" for ratio in (min(stored), max(stored)))
    peaks = [
        pair.peak_memory_bytes_4bit / pair.peak_memory_bytes_8bit
        for pair in pairs
        if pair.peak_memory_bytes_4bit and pair.peak_memory_bytes_8bit
    ]
    memory = ""
    if all(pair.resources == NOT_MEASURABLE for pair in pairs):
        memory = (
            " Memory and speed of 4 against 8 bits cannot be compared on this backend, which "
            "computes both in float32."
        )
    elif peaks:
        memory = f" Peak memory of a training x{fmean(peaks):.2f} on average."
    return [f"4 bits take {' to '.join(ends)} of the bytes of 8.{memory}"]
