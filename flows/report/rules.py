"""What the decision rules and the probabilities of each experiment are worth on the same cases."""

from __future__ import annotations

from flows.report.figures import (
    CONSTANT_ANSWERS,
    figure,
    is_number,
    listed_name,
    metric_cell,
    on_cases,
    percent,
    stacked,
    why_not,
)
from flows.report.gates import restated
from flows.report.table import ReportTable
from flows.report.typed_rows import Board, Row, metrics_named, rows_of
from tasks.judging.point_metrics import ED_AUROC
from tasks.spec import LABELS

RULES = {"argmax": "argmax", "target_recall": "target recall", "min_cost": "min cost"}
HOW = "* marks the primary rule, which is gated; brackets: 95 %"
FARE = "Decision rules: how emergencies fare on the test set"
# Three figures a table: so many fit beside each other.
RULE_TABLES = {
    f"{FARE} ({HOW})": {
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
CONFUSION = (
    "Confusion matrices, cases: a line for each true label, a column for each decision, by the most "
    "probable label and by each one's threshold"
)


# The rule by which tables show every model and baseline in a figure, so that all are compared alike.
THRESHOLD = "target_recall"
COMMON_RULES = {
    "accuracy": "argmax",
    "macro_f1": "argmax",
    "ed_recall": THRESHOLD,
    "ed_precision": THRESHOLD,
    "ed_f2": THRESHOLD,
    "over_triage": THRESHOLD,
    "under_triage": THRESHOLD,
    ED_AUROC: "argmax",
}


def by_common_rules(board: Board, rule: str | None = None) -> list[Row]:
    """The evaluations with their figures by COMMON_RULES, or all by `rule`, and not each by its own.

    A constant answer has no scores to choose a threshold on, and decides alike by every rule.
    """
    metrics = metrics_named(COMMON_RULES)
    rows = []
    for row in board:
        figures = {}
        for name, common_rule in COMMON_RULES.items():
            applied = "argmax" if row.recipe in CONSTANT_ANSWERS else rule or common_rule
            metric = metrics.get((row.evaluation_id, applied, name))
            for column, end in ((name, "value"), (f"{name}_low", "low"), (f"{name}_high", "high")):
                figures[column] = getattr(metric, end, None)
        rows.append(Row(**vars(row) | figures))
    return rows


def cheap_baseline(board: Board) -> Row | None:
    """The strongest baseline that needs no language model: of a warehouse of before, its bag of words."""
    by_recipe = {row.recipe: row for row in board if row.precision is None}
    return by_recipe.get("linear") or by_recipe.get("tfidf_lr")


def rules_note(board: Board) -> str:
    """By which rules `by_common_rules` compares the evaluations."""
    targets = sorted({row.target_ed_recall for row in board if is_number(row.target_ed_recall)})
    aim = (
        f" for an ED recall of {' or '.join(f'{target:g}' for target in targets)}"
        if targets
        else ""
    )
    return (
        "accuracy and macro-F1 by the most probable label; the figures of ED and over-triage by "
        f"each one's threshold, chosen on calibration{aim}"
    )


def rules(board: Board, prevalence: float | None = None) -> list[ReportTable]:
    """A table per group of figures: a row per experiment, a line for each rule.

    `prevalence` restates precision and F2 at another share of emergencies.
    """
    metrics = metrics_named([name for titles in RULE_TABLES.values() for name in titles])
    tables = []
    for title, titles in RULE_TABLES.items():
        records = []
        for row in board:
            lines = []
            for rule in RULES:
                of_rule = {
                    name: metric
                    for name in titles
                    if (metric := metrics.get((row.evaluation_id, rule, name))) is not None
                }
                if prevalence is not None and "ed_f2" in titles:
                    _restate(of_rule, row.ed_prevalence, prevalence)
                lines.append({"rule": _rule_words(rule, row)} | _figures(of_rule, titles))
            records.append(stacked({"experiment": on_cases(row)}, lines))
        tables.append(ReportTable.of(title, records, "rules_side_by_side"))
    return tables


def _rule_words(rule: str, row: Row) -> str:
    return f"{RULES[rule]}{' *' if rule == row.primary_rule else ''}"


def _restate(of_rule: dict[str, Row], own_prevalence: float, prevalence: float) -> None:
    """Put precision and F2 of a rule at another prevalence in their places, without intervals;
    those without a value stay.
    """
    recall, precision = (
        of_rule[name].value if name in of_rule else None for name in ("ed_recall", "ed_precision")
    )
    values = restated(recall, precision, own_prevalence, prevalence)
    for name, value in zip(("ed_precision", "ed_f2"), values, strict=True):
        if name in of_rule and is_number(of_rule[name].value):
            of_rule[name] = Row(value=value, low=None, high=None)


def _figures(of_rule: dict[str, Row], titles: dict[str, str]) -> dict[str, str]:
    """The figures of one rule, or in the first column the reason why it has none."""
    if any(is_number(metric.value) for metric in of_rule.values()):
        return {
            title: metric_cell(of_rule.get(name), digits=2 if "cost" in name else 3)
            for name, title in titles.items()
        }

    notes = [metric.note for metric in of_rule.values()] or ["this evaluation has no such rule"]
    cells = dict.fromkeys(titles.values(), "n/a")
    return cells | {next(iter(cells)): why_not(notes[0])}


def choices(board: Board) -> list[ReportTable]:
    """Per experiment: parameters of each rule and what they did on calibration; and both times."""
    rows = {(row.evaluation_id, row.rule): row for row in rows_of("decision_rule")}
    records = []
    times = []
    for row in board:
        by_rule = {rule: rows.get((row.evaluation_id, rule)) for rule in RULES}
        lines = []
        for rule in CHOOSING:
            chosen, calibration = _choice(by_rule[rule])
            lines.append(
                {"rule": _rule_words(rule, row), "chosen": chosen, "calibration": calibration}
            )
        name = {"experiment": listed_name(row)}
        records.append(stacked(name, lines))

        recorded = [choice for choice in by_rule.values() if choice]
        chosen_at, judged_from = NOT_RECORDED, "n/a"
        if recorded:
            chosen_at = f"{max(choice.chosen_at for choice in recorded):%Y-%m-%d %H:%M:%S}"
            judged_from = f"{min(choice.test_scored_at for choice in recorded):%Y-%m-%d %H:%M:%S}"
        times.append(name | {"chosen at": chosen_at, "judged from": judged_from})

    return [
        ReportTable.of(CHOICES, records, RULES_QUERY),
        ReportTable.of(TIMES, times, RULES_QUERY),
    ]


def _choice(row: Row | None) -> tuple[str, str]:
    """What a rule chose, and what that did on the calibration cases."""
    if row is None:
        return NOT_RECORDED, "n/a"
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


def confusion(board: Board) -> ReportTable:
    """Per experiment: how many cases of each label argmax and its threshold sent where."""
    cases = {
        (row.evaluation_id, row.rule, row.label, row.decision): str(row.cases)
        for row in rows_of("confusion_matrix")
    }
    records = []
    for row in board:
        lines = []
        for truth in LABELS:
            line = {"truly": str(truth)}
            for rule, words in (("argmax", "argmax"), (THRESHOLD, "threshold")):
                for choice in LABELS:
                    # A rule that could not be applied has no cells.
                    count = cases.get((row.evaluation_id, rule, truth, choice), "n/a")
                    line[f"{words}: {choice}"] = count
            lines.append(line)
        records.append(stacked({"experiment": on_cases(row)}, lines))

    return ReportTable.of(CONFUSION, records, "confusion")


CALIBRATION = (
    "Can the probabilities be trusted? Likelihood and calibration on the test set; brackets: 95 %"
)
DISCRIMINATION = (
    "What is p(ED) worth? Slope 1 and intercept 0: calibrated; slope below 1: too sure; net "
    "benefit of ED from p(ED) 0.02 or 0.1 on (nobody: 0), below it that over always-ED; brackets: "
    "95 %"
)
SETS = (
    "Conformal sets (at most so many emergencies missed on average), "
    "and answers as the model writes them"
)
# The columns of a table that are metrics of the argmax.
PROBABILITY_METRICS = {
    "brier": "Brier",
    "ed_brier": "Brier of ED",
    "ece": "ECE",
    "ed_ece": "ECE of ED",
}
DISCRIMINATION_METRICS = {
    "ed_auroc": "AUROC of ED",
    "ed_average_precision": "average precision",
    "ed_calibration_slope": "slope",
    "ed_calibration_intercept": "intercept",
}
ANSWER_METRICS = {
    "format_compliance": "writes one label",
    "generation_agreement": "writes what it scores",
}
THRESHOLDS = (0.02, 0.1)
NOT_MEASURED = "n/a: not measured"


def calibration(board: Board) -> list[ReportTable]:
    """Per experiment with likelihoods or learned scores: likelihood, Brier scores and ECE; ranking,
    recalibration and net benefit; its conformal sets, and whether it writes one label.
    """
    metrics = metrics_named([*PROBABILITY_METRICS, *DISCRIMINATION_METRICS, *ANSWER_METRICS])
    benefits = {(row.evaluation_id, row.threshold): row for row in rows_of("net_benefit")}
    conformal = {row.evaluation_id: row for row in rows_of("conformal")}

    trust, worth, sets = [], [], []
    for row in with_probabilities(board):
        id = row.evaluation_id
        head = {"experiment": listed_name(row)}
        likelihood = {"NLL": figure(row.test_loss), "perplexity": figure(row.perplexity, digits=2)}
        trust.append(head | likelihood | _cells(metrics, id, PROBABILITY_METRICS))
        net_benefits = {
            f"net benefit at {threshold:g}": _benefit(benefits.get((id, threshold)))
            for threshold in THRESHOLDS
        }
        worth.append(head | _cells(metrics, id, DISCRIMINATION_METRICS) | net_benefits)
        answers = _cells(metrics, id, ANSWER_METRICS, counted=True)
        sets.append(head | _conformal(conformal.get(id)) | answers)

    return [
        ReportTable.of(CALIBRATION, trust, '"FROM metric"'),
        ReportTable.of(DISCRIMINATION, worth, '"FROM metric"'),
        ReportTable.of(SETS, sets, "conformal_sets"),
    ]


def with_probabilities(board: Board) -> list[Row]:
    """All but the constant answers, which have no scores."""
    return [row for row in board if row.recipe not in CONSTANT_ANSWERS]


def _cells(
    metrics: dict[tuple[str, str, str], Row],
    evaluation_id: str,
    titles: dict[str, str],
    counted: bool = False,
) -> dict[str, str]:
    """Metrics of the argmax with their intervals, or why there are none; `counted`: and of how many
    cases.
    """
    cells = {}
    for name, title in titles.items():
        metric = metrics.get((evaluation_id, "argmax", name))
        cells[title] = metric_cell(metric, missing=NOT_MEASURED)
        if counted and metric is not None and is_number(metric.value):
            cells[title] += f" of {metric.n} cases"
    return cells


def _benefit(row: Row | None) -> str:
    if row is None:
        return NOT_MEASURED
    over = row.over_always_ed, row.over_always_ed_low, row.over_always_ed_high
    return f"{figure(row.net_benefit, row.low, row.high)}\n{figure(*over, sign=True)}"


def _conformal(row: Row | None) -> dict[str, str]:
    if row is None:
        return dict.fromkeys(("ED missed", "abstains", "mind"), "n/a")

    missed = why_not(row.note)
    if row.ed_missed is not None:
        share = figure(row.ed_miss_rate, row.miss_low, row.miss_high)
        missed = f"{row.ed_missed} of {row.ed_cases}: {share}"

    return {
        "ED missed": f"{missed}\n(aim: {percent(row.miss_rate)} at most)",
        "abstains": figure(row.abstain_rate, row.abstain_low, row.abstain_high),
        "mind": row.note or "",
    }
