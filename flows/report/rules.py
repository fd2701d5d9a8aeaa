"""The decision rules side by side: what each makes of the same probabilities, and how often it confuses which labels."""

from __future__ import annotations

from typing import Any

import pandas as pd

from flows.report.figures import rows_of, stacked, why_not, with_interval
from flows.report.names import experiment_name, on_cases
from flows.report.prevalence import restated
from tasks.spec import LABELS
from warehouse.query import query

RULES = {"argmax": "argmax", "target_recall": "target recall", "min_cost": "min cost"}
HOW = "* marks the primary rule, which is gated; brackets: 95 %"
# Three figures a table: so many fit beside each other.
RULE_TABLES = {
    f"Decision rules: how emergencies fare on the test set ({HOW})": {
        "ed_recall": "ED recall", "ed_precision": "ED precision", "ed_f2": "ED F2",
    },
    f"Decision rules: errors of all cases ({HOW}; over: sent to a more urgent place, of all cases)": {
        "over_triage": "over-triage", "under_triage": "under-triage", "macro_f1": "macro-F1",
    },
    f"Decision rules: what the decisions cost ({HOW}; skill: 0 as always-ED, 1 perfect)": {
        "expected_cost": "expected cost", "cost_skill": "cost skill",
    },
}  # fmt: skip
CHOICES = "What each rule chose on the calibration cases, and when: before the judged cases were scored (UTC; * primary)"
CONFUSION = "Confusion matrices, cases: a line for each true label, a column for each decision"
RESTATED = ("ed_precision", "ed_f2")


def rules(board: pd.DataFrame, prevalence: float | None = None) -> list[tuple[str, pd.DataFrame]]:
    """Titles and tables: a row per experiment of `board`, a line for each of RULES. `prevalence` restates precision and F2."""
    found = _metrics()
    tables = []
    for title, metrics in RULE_TABLES.items():
        rows = [_rules_of(r, found, metrics, prevalence) for r in rows_of(board)]
        tables.append((_titled(title, metrics, prevalence), pd.DataFrame(rows)))
    return tables


def _titled(title: str, metrics: dict[str, str], prevalence: float | None) -> str:
    if prevalence is None:
        return title
    if set(RESTATED) & set(metrics):
        return f"{title}; precision and F2 restated at {prevalence:.1%} ED"
    return f"{title}; --prevalence does not apply"


def _metrics() -> dict[tuple[str, str, str], Any]:
    names = ", ".join(f"'{name}'" for metrics in RULE_TABLES.values() for name in metrics)
    rows = query(
        f"SELECT evaluation_id, rule, metric, value, low, high, note FROM metric WHERE metric IN ({names})"
    )
    return {(r.evaluation_id, r.rule, r.metric): r for r in rows_of(rows)}


def _rules_of(
    r: Any, found: dict[Any, Any], metrics: dict[str, str], prevalence: float | None
) -> dict[str, str]:
    records = []
    for rule, words in RULES.items():
        record = {"rule": f"{words}{' *' if rule == r.primary_rule else ''}"}
        own = {name: found.get((r.evaluation_id, rule, name)) for name in metrics}
        if all(m is None or pd.isna(m.value) for m in own.values()):
            note = next(
                (m.note for m in own.values() if m is not None), "this evaluation has no such rule"
            )
            figures = dict.fromkeys(metrics.values(), "n/a") | {
                next(iter(metrics.values())): why_not(note)
            }
        else:
            others = {
                name: found.get((r.evaluation_id, rule, name))
                for name in ("ed_recall", "ed_precision")
            }
            figures = {
                title: _figure(own[name], name, others, r, prevalence)
                for name, title in metrics.items()
            }
        records.append(record | figures)
    return stacked({"experiment": on_cases(r)}, records)


def _figure(m: Any, name: str, others: dict[str, Any], r: Any, prevalence: float | None) -> str:
    if m is None:
        return "n/a"
    if pd.isna(m.value):
        return why_not(m.note)
    if prevalence is None or name not in RESTATED:
        return with_interval(m.value, m.low, m.high, digits=2 if "cost" in name else 3)
    recall, precision = (None if other is None else other.value for other in others.values())
    found = dict(
        zip(RESTATED, restated(recall, precision, r.ed_prevalence, prevalence), strict=True)
    )
    return with_interval(found[name])


def choices(board: pd.DataFrame) -> pd.DataFrame:
    """Per experiment of `board`: parameters of each rule, what they did on calibration, and both times."""
    found = {(d.evaluation_id, d.rule): d for d in rows_of(query("FROM decision_rule"))}
    return pd.DataFrame(
        [
            stacked(
                {"experiment": experiment_name(r)},
                [
                    {"rule": f"{words}{' *' if rule == r.primary_rule else ''}"} | _choice(found.get((r.evaluation_id, rule)))
                    for rule, words in RULES.items()
                ],
                widest=26,
            )
            for r in rows_of(board)
        ]
    )  # fmt: skip


def _choice(d: Any) -> dict[str, str]:
    if d is None:
        said = "n/a: landed by a version that did not record it"
        return {"chosen": said, "calibration": "n/a", "chosen at": "n/a", "judged from": "n/a"}
    times = {
        "chosen at": f"{d.chosen_at:%Y-%m-%d %H:%M:%S}",
        "judged from": f"{d.test_scored_at:%Y-%m-%d %H:%M:%S}",
    }
    if not pd.isna(d.threshold):
        chosen = f"p(ED) >= {d.threshold:.3g}\nfor recall {d.target:g}"
        missed = f"{d.misses:.0f} of {d.n_ed:.0f} ED missed\n{d.allowed_misses:.0f} allowed, bound {d.bound:.3f}"
        return {"chosen": chosen, "calibration": missed} | times
    if not pd.isna(d.temperature):
        biases = f"biases {d.bias_ed:.2f}, {d.bias_gp:.2f}, {d.bias_home:.2f}"
        edge = "fit at its bound" if d.at_bound else ""
        return {"chosen": f"temperature {d.temperature:.2f}\n{biases}", "calibration": edge} | times
    return {
        "chosen": "nothing to choose" if d.rule == "argmax" else why_not(d.note),
        "calibration": "",
    } | times


def confusion(board: pd.DataFrame) -> pd.DataFrame:
    """Per experiment of `board`: how many cases of each label argmax and the primary rule sent where."""
    counts = query(
        "SELECT evaluation_id, label, 'argmax' AS rule, argmax AS choice, count(*) AS n FROM prediction GROUP BY ALL "
        "UNION ALL SELECT evaluation_id, label, 'primary', decision, count(*) FROM prediction "
        "WHERE decision IS NOT NULL GROUP BY ALL"
    )
    known = {(c.evaluation_id, c.rule, c.label, c.choice): int(c.n) for c in rows_of(counts)}
    decided = {(key[0], key[1]) for key in known}
    rows = []
    for r in rows_of(board):
        records = []
        for truth in LABELS:
            record: dict[str, str] = {"truly": truth}
            for rule in ("argmax", "primary"):
                for choice in LABELS:
                    n = known.get((r.evaluation_id, rule, truth, choice), 0)
                    record[f"{rule}: {choice}"] = (
                        str(n) if (r.evaluation_id, rule) in decided else "n/a"
                    )
            records.append(record)
        rows.append(stacked({"experiment": on_cases(r)}, records))
    return pd.DataFrame(rows)
