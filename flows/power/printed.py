"""What `triage sweep --plan` says about the test set: which verdicts on 4 against 8 bits it allows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from flows.cli.terminal import print_line
from flows.power.outlook import MOST_CASES, MOST_GROUPS, POWER, MetricOutlook, PlannedSize, outlook
from flows.power.stored_pair import StoredPair, stored_pair
from flows.power.studies import SEED, STUDIES, VALUES, Studies, planned_set
from flows.power.training_chance import PlannedPairs, StoredSpread, planned_pairs, stored_spread
from flows.report.figures import RANDOM
from flows.report.table import ReportTable, print_table
from flows.selection import Selection
from tasks.judging.point_metrics import ED_AUROC
from tasks.judging.study_draws import ASSUMED_CLUSTERING, ASSUMED_DISCORDANCE, Behaviour
from warehouse.comparison.resampling import MARGIN, SeedSpread, pairs_that_could_show
from warehouse.comparison.verdicts import VerdictShares

MOST_NAMED = 3  # recipes
TITLES = {
    "accuracy": "accuracy",
    "ed_recall": "ED recall",
    "macro_f1": "macro-F1",
    ED_AUROC: "ED AUROC",
}


def print_power(console: Console, selection: Selection, cases: Path | None) -> None:
    """Print what the test set can conclude about 4 against 8 bits. `cases`: see planned_cases."""
    if not {"4bit", "8bit"} <= {spec.precision.name for spec in selection.cells}:
        return

    planned = planned_set(selection.grid, cases)
    if planned is None:
        print_line(console, "verdicts the test set is not known yet: its source does not answer")
        return

    pair = stored_pair(selection.cells)
    by_rule = Studies(Behaviour.of(pair.counts if pair else None), planned)
    by_label = by_rule  # by which accuracy is judged; all else follows the recipe's own rule
    if pair is not None and not pair.has_one_rule:
        by_label = Studies(Behaviour.of(pair.by_argmax), planned)

    found = [outlook(metric, by_label if metric == "accuracy" else by_rule) for metric in VALUES]
    title = f"4 minus 8 bits on test: {_size(PlannedSize.of(planned))}"
    print_table(console, ReportTable.of(title, [_record(one) for one in found]))
    for one in found:
        if one.obstacle:
            print_line(console, f"verdicts {TITLES[one.metric]}: {one.obstacle}.")

    lines = [
        'shares of studies that read "not inferior" / "inferior" / "cannot conclude"; the true '
        f'difference at which {POWER:.0%} of them do; and the size that lets as many read "not '
        'inferior" where there is no difference.',
        f"{_behaviour(pair, planned.grouped)}. {STUDIES:,} seeded studies (seed {SEED}) are judged as a finished pair "
        f'at the margin of {100 * MARGIN:g} points. Each verdict is for one recipe and seed; "not '
        'inferior" also needs a model that beats the best constant answer in accuracy.',
        trainings_sentence(stored_spread(selection.cells), planned_pairs(selection.cells)),
    ]
    for line in lines:
        print_line(console, f"verdicts {line}")


def _record(found: MetricOutlook) -> dict[str, str]:
    """A row of the table; n/a where the set can conclude nothing on the metric."""
    as_measured = "n/a: no pair"
    if found.measured is not None:
        as_measured = f"{_points(found.measured)}: {_shares(found.as_measured)}"

    enough = found.enough_cases or found.enough_groups
    if enough is not None:
        needed = _size(enough, about=True)
    elif found.groups is None:
        needed = f"more than {MOST_CASES:g} times as many cases"
    else:
        needed = f"more than {MOST_GROUPS:,} groups as large"

    row = {
        "at no difference": _shares(found.at_zero),
        "at the pair's difference": as_measured,
        "not inferior from": _points(found.not_inferior_from),
        "inferior up to": _points(found.inferior_from),
        "enough at no difference": needed,
    }
    if found.obstacle:
        row = dict.fromkeys(row, "n/a")
    return {"metric": TITLES[found.metric]} | row


def _shares(shares: VerdictShares | None) -> str:
    if shares is None:
        return "n/a"
    parts = (shares.not_inferior, shares.inferior, shares.cannot_conclude)
    return " / ".join(f"{part:.0%}" for part in parts)


def _points(difference: float | None) -> str:
    return "never" if difference is None else f"{100 * difference:+.1f} points"


def _size(size: PlannedSize, about: bool = False) -> str:
    """`about`: in two digits, since an estimate is no better."""
    cases, emergencies = size.cases, size.emergencies
    if about:
        cases, emergencies = (
            round(count, -max(len(str(count)) - 2, 0)) for count in (cases, emergencies)
        )
    groups = "" if size.groups is None else f", {size.groups:,} groups"
    return f"{cases:,} cases ({emergencies:,} ED){groups}"


def _behaviour(pair: StoredPair | None, grouped: bool) -> str:
    """Where it is from how often decisions differ."""
    if pair is None:
        clustering = f", with a correlation within groups of {ASSUMED_CLUSTERING:g}"
        return (
            "There is no pair to go by in the warehouse, so it is ASSUMED that exactly one of the "
            f"two models is right in {ASSUMED_DISCORDANCE:.0%} of the cases"
            f"{clustering if grouped else ''}"
        )

    name = f"{pair.base_model} {pair.recipe} s{pair.seed}{RANDOM if pair.random_weights else ''}"
    others = f" (of {pair.others + 1} pairs the one of median discordance)" if pair.others else ""
    sentence = (
        f"Decisions differ as those of {name} in the warehouse{others}: exactly one of the two "
        f"models is right in {pair.counts.discordance:.1%} of {pair.counts.counts.sum():,} cases"
    )
    if not pair.has_one_rule:
        sentence += f", by their most probable labels in {pair.by_argmax.discordance:.1%}"
    return sentence


def trainings_sentence(spread: StoredSpread | None, planned: PlannedPairs) -> str:
    """How the difference varies between seeds, and what the pairs of the grid can show of it."""
    if not planned.total:
        return "trainings: no model, recipe and seed is planned at both 4 and 8 bits."

    several = (
        "A pooled verdict is given only if Student's interval over the trainings says the same."
        if planned.freedom
        else "Give a recipe several seeds, as in seeds = [42, 43, 44], and a pooled verdict allows "
        "for chance in training."
    )
    if spread is None:
        return (
            "trainings: the shares above are for two trained models and leave out chance in "
            "training; the warehouse has no recipe with two seeds to estimate it from. "
            f"{several}"
        )

    def in_each(text: Callable[[SeedSpread], str]) -> str:
        """`1.8 points in accuracy, 7.4 points in ED recall`."""
        parts = (f"{text(one)} in {TITLES[metric]}" for metric, one in spread.by_metric.items())
        return ", ".join(parts)

    def could_show(one: SeedSpread) -> str:
        half = SeedSpread(one.sd, planned.freedom).half_width(planned.total)
        return f"{100 * half:.1f} points"

    names = ", ".join(spread.recipes[:MOST_NAMED])
    if len(spread.recipes) > MOST_NAMED:
        names += f" and {len(spread.recipes) - MOST_NAMED} more"
    if planned.freedom:
        several = (
            f"The {planned.total} pairs planned here could show {in_each(could_show)} (half of "
            "Student's 95 % interval over trainings)."
        )
    return (
        f"trainings: on {spread.cases:,} cases the difference varied between seeds by "
        f"{in_each(lambda one: f'{100 * one.sd:.1f} points')} (standard deviation over "
        f"{spread.pairs} pairs of {names}), which more cases lower only in part. {several} For "
        f"{100 * MARGIN:g} points it takes about "
        f"{in_each(lambda one: f'{pairs_that_could_show(one.sd):,} pairs')}."
    )
