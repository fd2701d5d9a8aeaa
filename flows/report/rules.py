"""The decision rules side by side: what each makes of the same probabilities, and which labels it
confuses.
"""

from __future__ import annotations

from collections.abc import Collection

from flows.report.figures import figure, is_number, listed_name, on_cases, stacked, why_not
from flows.report.gates import not_restated_note, restated, restated_note
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, metrics_named, rows_of
from tasks.spec import LABELS

RULES = {"argmax": "argmax", "target_recall": "target recall", "min_cost": "min cost"}
HOW = "* marks the primary rule, which is gated; brackets: 95 %"
# Three figures a table: so many fit beside each other.
RULE_TABLES = {
    f"Decision rules: how emergencies fare on the test set ({HOW})": {
        "ed_recall": "ED recall",
        "ed_precision": "ED precision",
        "ed_f2": "ED F2",
    },
    f"Decision rules: errors of all cases ({HOW}; over: sent to a more urgent place, of all cases)": {
        "over_triage": "over-triage",
        "under_triage": "under-triage",
        "macro_f1": "macro-F1",
    },
    f"Decision rules: what the decisions cost ({HOW}; skill: 0 as always-ED, 1 perfect)": {
        "expected_cost": "expected cost",
        "cost_skill": "cost skill",
    },
}
CHOICES = "What each rule chose on the calibration cases (* primary; argmax chooses nothing)"
TIMES = "When rules were chosen, the last of them: before the judged cases were scored (UTC)"
CHOOSING = ("target_recall", "min_cost")
NOT_RECORDED = "n/a: landed by a version that did not record it"
RULES_QUERY = '"FROM decision_rule"'
CONFUSION = "Confusion matrices, cases: a line for each true label, a column for each decision"
RESTATED = ("ed_precision", "ed_f2")

Metrics = dict[tuple[str, str, str], Row]  # by evaluation, rule and metric


def rules(board: Collection[EvaluationRow], prevalence: float | None = None) -> list[ReportTable]:
    """A table per group of figures: a row per experiment, a line for each rule.

    `prevalence` restates precision and F2 at another share of emergencies.
    """
    metrics = metrics_named([name for titles in RULE_TABLES.values() for name in titles])
    tables = []
    for title, titles in RULE_TABLES.items():
        note = restated_note if set(RESTATED) & set(titles) else not_restated_note
        records = [_rules_record(row, metrics, titles, prevalence) for row in board]
        tables.append(ReportTable.of(title + note(prevalence), records, "rules_side_by_side"))
    return tables


def _rules_record(
    row: EvaluationRow, metrics: Metrics, titles: dict[str, str], prevalence: float | None
) -> dict[str, str]:
    lines = [
        {"rule": _rule_words(rule, row)} | _figures(row, rule, metrics, titles, prevalence)
        for rule in RULES
    ]
    return stacked({"experiment": on_cases(row)}, lines)


def _rule_words(rule: str, row: EvaluationRow) -> str:
    return f"{RULES[rule]}{' *' if rule == row.primary_rule else ''}"


def _figures(
    row: EvaluationRow,
    rule: str,
    metrics: Metrics,
    titles: dict[str, str],
    prevalence: float | None,
) -> dict[str, str]:
    """The figures of one rule, or in the first column the reason why it has none."""
    by_name = {
        name: metric
        for name in titles
        if (metric := metrics.get((row.evaluation_id, rule, name))) is not None
    }
    if any(is_number(metric.value) for metric in by_name.values()):
        if prevalence is not None:
            by_name |= _restated_metrics(row, rule, metrics, prevalence)
        return {title: _figure(by_name.get(name)) for name, title in titles.items()}

    notes = [metric.note for metric in by_name.values()] or ["this evaluation has no such rule"]
    cells = dict.fromkeys(titles.values(), "n/a")
    return cells | {next(iter(cells)): why_not(notes[0])}


def _restated_metrics(
    row: EvaluationRow, rule: str, metrics: Metrics, prevalence: float
) -> dict[str, Row]:
    """Precision and F2 of a rule at another prevalence, without intervals; those without a value
    stay.
    """
    recall = metrics.get((row.evaluation_id, rule, "ed_recall"))
    precision = metrics.get((row.evaluation_id, rule, "ed_precision"))
    values = restated(
        recall.value if recall else None,
        precision.value if precision else None,
        row.ed_prevalence,
        prevalence,
    )

    return {
        name: Row(metric=name, value=value, low=None, high=None)
        for name, value in zip(RESTATED, values, strict=True)
        if (metric := metrics.get((row.evaluation_id, rule, name))) and is_number(metric.value)
    }


def _figure(metric: Row | None) -> str:
    if metric is None:
        return "n/a"
    if not is_number(metric.value):
        return why_not(metric.note)
    digits = 2 if "cost" in metric.metric else 3
    return figure(metric.value, metric.low, metric.high, digits=digits)


def choices(board: Collection[EvaluationRow]) -> list[ReportTable]:
    """Per experiment: parameters of each rule and what they did on calibration; and both times."""
    rows = {(row.evaluation_id, row.rule): row for row in rows_of("decision_rule")}
    records = []
    times = []
    for row in board:
        choices_by_rule = {rule: rows.get((row.evaluation_id, rule)) for rule in RULES}
        name = {"experiment": listed_name(row)}
        lines = [
            {"rule": _rule_words(rule, row)} | _choice(choices_by_rule[rule]) for rule in CHOOSING
        ]
        records.append(stacked(name, lines))
        times.append(name | _times([choice for choice in choices_by_rule.values() if choice]))

    return [
        ReportTable.of(CHOICES, records, RULES_QUERY),
        ReportTable.of(TIMES, times, RULES_QUERY),
    ]


def _choice(row: Row | None) -> dict[str, str]:
    if row is None:
        return {"chosen": NOT_RECORDED, "calibration": "n/a"}
    parameters, calibration = _parameters(row)
    return {"chosen": parameters, "calibration": calibration}


def _times(rows: Collection[Row]) -> dict[str, str]:
    if not rows:
        return {"chosen at": NOT_RECORDED, "judged from": "n/a"}
    chosen_at = max(row.chosen_at for row in rows)
    judged_from = min(row.test_scored_at for row in rows)
    return {
        "chosen at": f"{chosen_at:%Y-%m-%d %H:%M:%S}",
        "judged from": f"{judged_from:%Y-%m-%d %H:%M:%S}",
    }


def _parameters(row: Row) -> tuple[str, str]:
    """What a rule chose, and what that did on the calibration cases."""
    if is_number(row.threshold):
        missed = f"{row.misses} of {row.n_ed} ED missed\n{row.allowed_misses} allowed"
        return (
            f"p(ED) >= {row.threshold:.3g}\nfor recall {row.target:g}",
            f"{missed}, bound {row.bound:.3f}",
        )
    if is_number(row.temperature):
        biases = f"biases {row.bias_ed:.2f}, {row.bias_gp:.2f}, {row.bias_home:.2f}"
        edge = "fit at its bound" if row.at_bound else ""
        return f"temperature {row.temperature:.2f}\n{biases}", edge

    return why_not(row.note), ""


DECISION_COUNTS = """(
    SELECT evaluation_id, label, 'argmax' AS rule, argmax AS choice, count(*) AS n
    FROM prediction GROUP BY ALL
    UNION ALL
    SELECT evaluation_id, label, 'primary', decision, count(*)
    FROM prediction WHERE decision IS NOT NULL GROUP BY ALL
)"""


def confusion(board: Collection[EvaluationRow]) -> ReportTable:
    """Per experiment: how many cases of each label argmax and the primary rule sent where."""
    counts = {
        (row.evaluation_id, row.rule, row.label, row.choice): row.n
        for row in rows_of(DECISION_COUNTS)
    }
    # A rule that decided nothing has no counts, which is not the same as counts of 0.
    applied_rules = {(evaluation, rule) for evaluation, rule, _, _ in counts}

    records = []
    for row in board:
        lines = []
        for truth in LABELS:
            line = {"truly": str(truth)}
            for rule in ("argmax", "primary"):
                for choice in LABELS:
                    n = counts.get((row.evaluation_id, rule, truth, choice), 0)
                    is_applied = (row.evaluation_id, rule) in applied_rules
                    line[f"{rule}: {choice}"] = str(n) if is_applied else "n/a"
            lines.append(line)

        records.append(stacked({"experiment": on_cases(row)}, lines))

    return ReportTable.of(CONFUSION, records, "confusion")
