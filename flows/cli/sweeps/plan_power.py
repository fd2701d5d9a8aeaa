"""What `triage sweep --plan` says about the test set: which verdicts on 4 against 8 bits it allows."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from flows.cli.sweeps.plan_trainings import TITLES, trainings_sentence
from flows.cli.terminal import print_line
from flows.power.outlook import MOST_CASES, MOST_GROUPS, POWER, MetricOutlook, PlannedSize, outlook
from flows.power.planned_cases import PlannedCases
from flows.power.planned_set import planned_set
from flows.power.stored_pair import StoredPair, stored_pair
from flows.power.studies import SEED, STUDIES, VALUES, Studies
from flows.power.training_chance import planned_pairs, stored_spread
from flows.report.names import RANDOM
from flows.selection import Selection
from tasks.judging.paired_cells import PlannedSet
from tasks.judging.study_draws import ASSUMED_CLUSTERING, ASSUMED_DISCORDANCE, Behaviour
from tasks.spec import LABELS
from warehouse.comparison.resampling import MARGIN
from warehouse.comparison.verdicts import VerdictShares

VERDICTS = "not inferior / inferior / cannot conclude"
SURE = f"{POWER:.0%} of studies"


def print_power(console: Console, selection: Selection, cases: PlannedCases | None = None) -> None:
    """Print what the test set can conclude about 4 against 8 bits. `cases`: those of the plan."""
    if not {"4bit", "8bit"} <= {spec.precision.name for spec in selection.cells}:
        return

    planned = planned_set(selection.grid, cases)
    if planned is None:
        line = "the test set is not known yet: its source does not answer"
        print_line(console, f"verdicts {line}")
        return

    pair = stored_pair(selection.cells)
    studies = _studies(pair, planned)
    outlooks = [outlook(metric, studies[metric]) for metric in VALUES]
    console.print(_table(planned, outlooks))

    lines = [
        _source(pair, studies["ed_recall"].behaviour, planned),
        *map(_sentence, outlooks),
        _reading(),
        trainings_sentence(stored_spread(selection.cells), planned_pairs(selection.cells)),
    ]
    for line in lines:
        print_line(console, f"verdicts {line}")


def _studies(pair: StoredPair | None, planned: PlannedSet) -> dict[str, Studies]:
    """By metric: accuracy is that of the most probable label, all else follows the own rule."""
    by_rule = dict.fromkeys(VALUES, Studies(Behaviour.of(pair.counts if pair else None), planned))
    if pair is None or pair.has_one_rule:
        return by_rule
    return by_rule | {"accuracy": Studies(Behaviour.of(pair.by_argmax), planned)}


def _table(planned: PlannedSet, outlooks: list[MetricOutlook]) -> Table:
    title = f"4 against 8 bits on test: {_size(PlannedSize.of(planned))}; {VERDICTS}"
    table = Table(title=title, title_justify="left")
    for column in ("metric", "at a true difference of 0", "at the pair's difference"):
        table.add_column(column, overflow="fold")

    for metric_outlook in outlooks:
        if metric_outlook.obstacle:
            table.add_row(TITLES[metric_outlook.metric], f"n/a: {metric_outlook.obstacle}", "")
            continue
        pair_shares = "n/a: no pair"
        if metric_outlook.measured is not None:
            pair_shares = (
                f"{_points(metric_outlook.measured)}: {_shares(metric_outlook.as_measured)}"
            )
        table.add_row(TITLES[metric_outlook.metric], _shares(metric_outlook.at_zero), pair_shares)

    return table


def _shares(shares: VerdictShares | None) -> str:
    if shares is None:
        return "n/a"
    parts = (shares.not_inferior, shares.inferior, shares.cannot_conclude)
    return " / ".join(f"{part:.0%}" for part in parts)


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _source(pair: StoredPair | None, behaviour: Behaviour, planned: PlannedSet) -> str:
    """Where discordance and clustering come from."""
    if pair is None:
        clustering = f", which agree within groups with a correlation of {ASSUMED_CLUSTERING:g}"
        return (
            "there is no pair to go by in the warehouse, so it is ASSUMED that exactly one of the "
            f"two models is right in {ASSUMED_DISCORDANCE:.0%} of the cases"
            f"{clustering if planned.grouped else ''}."
        )

    name = f"{pair.base_model} {pair.recipe} s{pair.seed}{RANDOM if pair.random_weights else ''}"
    pair_count = (
        f" (of {pair.others + 1} pairs the one of median discordance)" if pair.others else ""
    )
    sentence = (
        f"decisions differ as those of {name} in the warehouse{pair_count}: exactly one of the two "
        f"models is right in {pair.counts.discordance:.1%} of {pair.counts.counts.sum():,} cases"
    )
    if not pair.has_one_rule:
        sentence += f", by their most probable labels in {pair.by_argmax.discordance:.1%}"
    if not planned.grouped:
        return f"{sentence}."

    values = zip(LABELS, behaviour.clustering, strict=True)
    clustering = ", ".join(f"{label} {value:.2f}" for label, value in values)
    assumed = f" (assumed for {len(behaviour.assumed)} labels)" if behaviour.assumed else ""
    return f"{sentence}, with correlations within groups of {clustering}{assumed}."


def _sentence(metric_outlook: MetricOutlook) -> str:
    title = TITLES[metric_outlook.metric]
    if metric_outlook.obstacle:
        return f"{title}: cannot be concluded on: {metric_outlook.obstacle}."
    return (
        f"{title}: {_not_inferior(metric_outlook)}; {_inferior(metric_outlook)}. "
        f"{_enough(metric_outlook)}"
    )


def _not_inferior(metric_outlook: MetricOutlook) -> str:
    difference = metric_outlook.not_inferior_from
    if difference is None:
        return f'no true difference that these decisions allow gives "not inferior" in {SURE}'
    size = f"{100 * abs(difference):.1f} points"
    if difference < 0:
        return f'"not inferior" in {SURE} up to a true loss of {size}'
    return f'"not inferior" in {SURE} only from a true gain of {size} on'


def _inferior(metric_outlook: MetricOutlook) -> str:
    if metric_outlook.inferior_from is None:
        return f'no true loss that these decisions allow gives "inferior" in {SURE}'
    return f'"inferior" from a true loss of {-100 * metric_outlook.inferior_from:.1f} points on'


def _enough(metric_outlook: MetricOutlook) -> str:
    start = f"For {POWER:.0%} at a true difference of 0,"
    if metric_outlook.enough_cases:
        return f"{start} it takes about {_size(metric_outlook.enough_cases, about=True)}."
    if metric_outlook.groups is None:
        return f"{start} {MOST_CASES:g} times as many cases do not suffice."

    suffice = f"{start} {metric_outlook.groups} groups do not suffice with any number of cases"
    if metric_outlook.enough_groups:
        return f"{suffice}: it takes about {_size(metric_outlook.enough_groups, about=True)}."

    return f"{suffice}, and neither do {MOST_GROUPS:,} groups as large."


def _size(size: PlannedSize, about: bool = False) -> str:
    cases, emergencies = (
        (_rounded(size.cases), _rounded(size.emergencies))
        if about
        else (size.cases, size.emergencies)
    )
    groups = "" if size.groups is None else f" of {size.groups:,} groups"
    return f"{cases:,} cases{groups}, {emergencies:,} of them emergencies"


def _rounded(count: int) -> int:
    """Two digits, since the estimate is no better."""
    digits = max(len(str(count)) - 2, 0)
    return round(count, -digits)


def _reading() -> str:
    return (
        f"from {STUDIES:,} seeded studies a figure (seed {SEED}), judged as a finished pair at the "
        f"margin of {100 * MARGIN:g} points, 4 bits minus 8 bits. Each verdict is for one recipe "
        'and seed; "not inferior" also needs a model that beats the best constant answer in accuracy.'
    )
