"""Scores to the rows that the warehouse keeps: decisions, metrics with intervals, gates, dropout summaries.

Rules are chosen on `calibration` and applied to `test` once. No patient text passes through here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tasks.runtime.store import verify
from tasks.scoring.gates import Gate, judge_gates
from tasks.scoring.metrics import METRICS, NO_INTERVAL, metric_table
from tasks.scoring.rules import Decisions, ScoredCases, decide_all
from tasks.scoring.uncertainty import summarise_passes
from tasks.spec import LABELS, SCORING_VERSION, ExperimentSpec

Rows = list[dict[str, Any]]


def evaluation_rows(
    spec: ExperimentSpec, training_id: str, evaluation_id: str, scores: Path, dataset: dict[str, Any]
) -> dict[str, Rows]:
    """All landing rows of one evaluation; `scores` is the sealed scores folder, `dataset` the data folder's manifest."""
    manifest = verify(scores, deep=True)
    calibration, test = _read(scores / "calibration.jsonl"), _read(scores / "test.jsonl")
    groups = [r["group"] for r in test] if dataset["has_groups"] else None
    rules = decide_all(
        _scored(calibration), _scored(test), target=spec.recipe.target_ed_recall, costs=spec.scoring.cost_matrix
    )
    primary = rules[spec.recipe.rule]
    labels = [r["label"] for r in test]
    gates, verdict = _judged(primary, labels, groups, spec)
    mc_rows = _mc_rows(evaluation_id, scores, spec)
    tokens = sum(r["tokens"] for r in test)
    loss = sum(r["label_loss"] + r["other_loss"] for r in test) / tokens
    argmax = rules["argmax"].labels or []
    evaluation = {
        "evaluation_id": evaluation_id, "training_id": training_id, "evaluation_set": "test",
        "set_digest": dataset["sets"]["test"]["digest"], "cases": len(test), "calibration_cases": len(calibration),
        "has_groups": dataset["has_groups"], "loss": loss, "perplexity": math.exp(min(loss, 700.0)),
        "accuracy": float(np.mean([a == b for a, b in zip(argmax, labels, strict=True)])),
        "primary_rule": spec.recipe.rule, "threshold": primary.threshold.value if primary.threshold else None,
        "verdict": verdict, "mc_status": "available" if mc_rows else "not available",
        "mc_reason": None if mc_rows else manifest["mc_status"].removeprefix("not available: "),
        "mc_passes": mc_rows[0]["passes"] if mc_rows else None, "mc_cases": len(mc_rows) if mc_rows else None,
        "ed_prevalence": Counter(labels)["ED"] / len(labels), "score_seconds": manifest["score_seconds"],
        "mc_seconds": manifest["mc_seconds"] if mc_rows else None, "scoring_version": SCORING_VERSION,
        "created_at": datetime.fromisoformat(manifest["created"]).astimezone(UTC).replace(tzinfo=None),
        "cost_matrix": json.dumps(spec.scoring.cost_matrix) if spec.scoring.cost_matrix else None,
    }  # fmt: skip
    return {
        "evaluation": [evaluation],
        "prediction": _predictions(evaluation_id, test, argmax, primary.labels or [None] * len(test)),
        "metric": [row for rule in rules.values() for row in _metrics(evaluation_id, rule, labels, groups, spec)],
        "gate": [_gate(evaluation_id, gate) for gate in gates],
        "mc_dropout": mc_rows,
    }


def _read(path: Path) -> Rows:
    with path.open(encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def _scored(rows: Rows) -> ScoredCases:
    p = np.array([[r["p"][label] for label in LABELS] for r in rows])
    return ScoredCases([r["case_id"] for r in rows], p, [r["label"] for r in rows], [r["case_digest"] for r in rows])


def _probabilities(p: Any) -> dict[str, float]:
    return {f"p_{label.lower()}": float(value) for label, value in zip(LABELS, p, strict=True)}


def _predictions(evaluation_id: str, test: Rows, argmax: list[Any], decisions: list[Any]) -> Rows:
    return [
        {
            "evaluation_id": evaluation_id, "case_id": r["case_id"], "case_digest": r["case_digest"],
            "case_group": r["group"], "label": r["label"], **_probabilities([r["p"][label] for label in LABELS]),
            "nll": (r["label_loss"] + r["other_loss"]) / r["tokens"], "argmax": a, "decision": d,
        }
        for r, a, d in zip(test, argmax, decisions, strict=True)
    ]  # fmt: skip


def _metrics(
    evaluation_id: str, rule: Decisions, labels: list[str], groups: list[str] | None, spec: ExperimentSpec
) -> Rows:
    if rule.labels is None:
        empty = {"value": None, "low": None, "high": None, "method": NO_INTERVAL, "n": len(labels), "note": rule.note}
        return [{"evaluation_id": evaluation_id, "rule": rule.rule, "metric": name, **empty} for name in METRICS]
    table = metric_table(labels, rule.labels, groups, spec.scoring.cost_matrix, spec.seed)
    return [
        {
            "evaluation_id": evaluation_id, "rule": rule.rule, "metric": m.name, "value": m.value, "low": m.low,
            "high": m.high, "method": m.method, "n": m.n, "note": "; ".join(filter(None, (m.note, rule.note))) or None,
        }
        for m in table
    ]  # fmt: skip


def _judged(
    primary: Decisions, labels: list[str], groups: list[str] | None, spec: ExperimentSpec
) -> tuple[list[Gate], str]:
    """Gates of the primary rule; a rule that is not available passes none of them."""
    if primary.labels is not None:
        return judge_gates(labels, primary.labels, groups, spec.seed)
    judged, _ = judge_gates(labels, labels, groups, spec.seed)
    empty = {"state": "NOT AVAILABLE", "value": None, "bound": None, "successes": None, "note": primary.note}
    return [replace(gate, **empty) for gate in judged], "unsafe"  # type: ignore[arg-type]


def _gate(evaluation_id: str, gate: Gate) -> dict[str, Any]:
    return {
        "evaluation_id": evaluation_id, "gate": gate.name, "state": gate.state, "threshold": gate.threshold,
        "value": gate.value, "bound": gate.bound, "successes": gate.successes, "n": gate.n, "method": gate.method,
        "note": gate.note,
    }  # fmt: skip


def _mc_rows(evaluation_id: str, scores: Path, spec: ExperimentSpec) -> Rows:
    if not (scores / "passes.npy").is_file():
        return []
    passes = np.load(scores / "passes.npy", allow_pickle=False)
    ids = json.loads((scores / "passes.json").read_text())
    return [
        {
            "evaluation_id": evaluation_id, "case_id": case_id, "passes": len(passes), "majority": case.majority,
            "confidence": case.confidence, "confidence_se": case.confidence_se, "entropy_nats": case.entropy_nats,
            **_probabilities(case.mean_probabilities), "predictive_entropy_nats": case.predictive_entropy_nats,
            "mutual_information_nats": case.mutual_information_nats, "review": case.review,
        }
        for case_id, case in zip(ids, summarise_passes(passes, spec.scoring.review_entropy), strict=True)
    ]  # fmt: skip
