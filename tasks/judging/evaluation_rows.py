"""Scores to the rows that the warehouse keeps: decisions, metrics with intervals, gates, dropout summaries.

The rules are those that were chosen on `calibration` and stored with the scores; here they are applied to `test`, once.
No patient text passes through here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tasks.judging.choose_rules import Decisions, refuse_overlap, rule_rows
from tasks.judging.further_rows import extra_metrics, mc_rows, metric_row, probabilities, trust_rows
from tasks.judging.gates import Gate, judge_gates
from tasks.judging.intervals import interval_columns
from tasks.judging.metrics import NO_INTERVAL, Metric, metric_table
from tasks.judging.point_metrics import METRICS
from tasks.judging.scores_folder import Scored, read_scores, scored_cases
from tasks.spec import LABELS, SCORING_VERSION, ExperimentSpec, Scoring

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Judging:
    """What an evaluation is called, and how its scores are judged."""

    evaluation_id: str
    training_id: str
    set_digest: str
    has_groups: bool
    rule: str
    scoring: Scoring
    seed: int
    evaluation_set: str = "test"


def evaluation_rows(
    spec: ExperimentSpec,
    training_id: str,
    evaluation_id: str,
    scores: Path,
    dataset: dict[str, Any],
    name: str = "test",
) -> dict[str, Rows]:
    """All landing rows of one evaluation; `scores` is the sealed scores folder, `dataset` the data folder's manifest.

    `name`: the evaluated set. Rules are chosen on the training dataset's calibration set, whichever set is judged.
    """
    recipe, judged = spec.recipe, dataset["sets"][name]
    what = Judging(
        evaluation_id, training_id, judged["digest"], judged["has_groups"], recipe.rule, spec.scoring,
        spec.seed, name,
    )  # fmt: skip
    return judged_rows(what, read_scores(scores))


def judged_rows(what: Judging, scored: Scored) -> dict[str, Rows]:
    """All landing rows of one evaluation, a model's or a baseline's."""
    test, manifest = scored.test, scored.manifest
    labels = [r["label"] for r in test]
    groups = [r["group"] for r in test] if what.has_groups else None
    rules = _rules(what, scored)
    primary, argmax = rules[what.rule], rules["argmax"].labels or []
    gates, verdict = _judged(primary, labels, groups, what.seed)
    dropout = mc_rows(what.evaluation_id, scored.passes, primary, what.scoring)
    evaluation = {
        "evaluation_id": what.evaluation_id, "training_id": what.training_id, "evaluation_set": what.evaluation_set,
        "set_digest": what.set_digest, "cases": len(test), "calibration_cases": len(scored.calibration),
        "has_groups": what.has_groups, **_likelihood(test),
        "accuracy": float(np.mean([a == b for a, b in zip(argmax, labels, strict=True)])),
        "primary_rule": what.rule, "threshold": primary.threshold.value if primary.threshold else None,
        "verdict": verdict, "mc_status": "available" if dropout else "not available",
        "mc_reason": None if dropout else manifest["mc_status"].removeprefix("not available: "),
        "mc_passes": dropout[0]["passes"] if dropout else None, "mc_cases": len(dropout) if dropout else None,
        "ed_prevalence": Counter(labels)["ED"] / len(labels), "score_seconds": manifest["score_seconds"],
        "mc_seconds": manifest["mc_seconds"] if dropout else None, "scoring_version": SCORING_VERSION,
        "created_at": datetime.fromisoformat(manifest["created"]).astimezone(UTC).replace(tzinfo=None),
        "shortened_cases": manifest["shortened_cases"],
        "cost_matrix": json.dumps(what.scoring.cost_matrix) if what.scoring.cost_matrix else None,
    }  # fmt: skip
    metrics = [row for rule in rules.values() for row in _metrics(what, rule, labels, groups)]
    return {
        "evaluation": [evaluation],
        "prediction": _predictions(what.evaluation_id, test, rules, what.rule),
        "metric": metrics
        + extra_metrics(what.evaluation_id, test, argmax, groups, scored.answers, what.seed),
        "decision_rule": rule_rows(what.evaluation_id, scored.rules, manifest["test_scored_at"]),
        "gate": [_gate(what.evaluation_id, gate) for gate in gates],
        "mc_dropout": dropout,
        **trust_rows(
            what.evaluation_id,
            scored.calibration,
            test,
            primary,
            dropout,
            groups,
            what.scoring,
            what.seed,
            external=what.evaluation_set != "test",
        ),
    }


def _rules(what: Judging, scored: Scored) -> dict[str, Decisions]:
    judged = scored_cases(scored.test, what.evaluation_set)
    refuse_overlap(scored_cases(scored.calibration), judged)
    return {
        name: rule.decide(judged.p, what.scoring.cost_matrix)
        for name, rule in scored.rules.rules.items()
    }


def _likelihood(test: Rows) -> dict[str, float | None]:
    """Mean negative log-likelihood of a completion token, and its exponential; None for what is no language model."""
    if any(r["label_loss"] is None for r in test):
        return {"loss": None, "perplexity": None}
    loss = sum(r["label_loss"] + r["other_loss"] for r in test) / sum(r["tokens"] for r in test)
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def _predictions(evaluation_id: str, test: Rows, rules: dict[str, Decisions], primary: str) -> Rows:
    none: list[Any] = [None] * len(test)
    decided = {name: rule.labels or none for name, rule in rules.items()}
    return [
        {
            "evaluation_id": evaluation_id, "case_id": r["case_id"], "case_digest": r["case_digest"],
            "case_group": r["group"], "label": r["label"], **probabilities([r["p"][label] for label in LABELS]),
            "nll": None if r["label_loss"] is None else (r["label_loss"] + r["other_loss"]) / r["tokens"],
            "decision": decided[primary][i], **{name: labels[i] for name, labels in decided.items()},
        }
        for i, r in enumerate(test)
    ]  # fmt: skip


def _metrics(what: Judging, rule: Decisions, labels: list[str], groups: list[str] | None) -> Rows:
    if rule.labels is None:
        empty = [
            Metric(name, None, None, None, NO_INTERVAL, len(labels), rule.note) for name in METRICS
        ]
        return [metric_row(what.evaluation_id, rule.rule, m) for m in empty]
    table = metric_table(labels, rule.labels, groups, what.scoring.cost_matrix, what.seed)
    return [
        metric_row(
            what.evaluation_id,
            rule.rule,
            replace(m, note="; ".join(filter(None, (m.note, rule.note))) or None),
        )
        for m in table
    ]


def _judged(
    primary: Decisions, labels: list[str], groups: list[str] | None, seed: int
) -> tuple[list[Gate], str]:
    """Gates of the primary rule; a rule that is not available passes none of them."""
    if primary.labels is not None:
        return judge_gates(labels, primary.labels, groups, seed)
    judged, _ = judge_gates(labels, labels, groups, seed)
    empty = {
        "state": "NOT AVAILABLE",
        "value": None,
        "bound": None,
        "successes": None,
        "note": primary.note,
        **interval_columns(None, None),
    }
    return [replace(gate, **empty) for gate in judged], "unsafe"  # type: ignore[arg-type]


def _gate(evaluation_id: str, gate: Gate) -> dict[str, Any]:
    return {
        "evaluation_id": evaluation_id, "gate": gate.name, "state": gate.state, "threshold": gate.threshold,
        "value": gate.value, "bound": gate.bound, "successes": gate.successes, "n": gate.n, "method": gate.method,
        "note": gate.note, "exact_low": gate.exact_low, "exact_high": gate.exact_high,
        "clustered_low": gate.clustered_low, "clustered_high": gate.clustered_high,
    }  # fmt: skip
