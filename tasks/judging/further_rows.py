"""Rows beside the metrics of the decision rules: calibration, answers, dropout, review, subgroups, conformal sets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from tasks.judging.calibration import calibration_table, reliability_rows
from tasks.judging.choose_rules import Decisions
from tasks.judging.conformal import Conformal, judge_conformal
from tasks.judging.metrics import Metric
from tasks.judging.review_flag import judge_review
from tasks.judging.subgroups import subgroup_recalls
from tasks.judging.uncertainty import entropy_nats, summarise_passes
from tasks.judging.written_answers import Answer, generation_metrics
from tasks.spec import LABELS, Scoring

Rows = list[dict[str, Any]]


def probabilities(p: Any) -> dict[str, float]:
    """Columns p_ed, p_gp and p_home."""
    return {f"p_{label.lower()}": float(value) for label, value in zip(LABELS, p, strict=True)}


def probability_table(rows: Rows) -> Any:
    """Probabilities of scored lines, (cases, 3) in the order LABELS."""
    return np.array([[r["p"][label] for label in LABELS] for r in rows]).reshape(-1, len(LABELS))


def metric_row(evaluation_id: str, rule: str, m: Metric) -> dict[str, Any]:
    """A row of the table `metric`."""
    return {
        "evaluation_id": evaluation_id, "rule": rule, "metric": m.name, "value": m.value, "low": m.low, "high": m.high,
        "method": m.method, "n": m.n, "note": m.note, "exact_low": m.exact_low, "exact_high": m.exact_high,
        "clustered_low": m.clustered_low, "clustered_high": m.clustered_high,
    }  # fmt: skip


def extra_metrics(
    evaluation_id: str,
    test: Rows,
    argmax: list[Any],
    groups: list[str] | None,
    answers: Rows | None,
    seed: int,
) -> Rows:
    """Metric rows that belong to no decision rule and stand with argmax: calibration, and what was generated."""
    found = calibration_table([r["label"] for r in test], probability_table(test), groups, seed)
    if answers is not None:
        place = {r["case_id"]: i for i, r in enumerate(test)}
        rows = [place[a["case_id"]] for a in answers]
        read = [Answer(a["exact"], a["label"]) for a in answers]
        own = [groups[i] for i in rows] if groups else None
        found += generation_metrics(read, [argmax[i] for i in rows], len(test), own, seed)
    return [metric_row(evaluation_id, "argmax", m) for m in found]


def mc_rows(
    evaluation_id: str, passes: tuple[list[str], Any] | None, primary: Decisions, scoring: Scoring
) -> Rows:
    """One row per case that went through dropout; its votes by argmax and by the primary rule."""
    if passes is None:
        return []
    ids, p = passes
    decided = _primary_votes(p, primary, scoring)
    return [
        {
            "evaluation_id": evaluation_id, "case_id": case_id, "passes": len(p), "majority": case.majority,
            "confidence": case.confidence, "confidence_se": case.confidence_se, "entropy_nats": case.entropy_nats,
            **probabilities(case.mean_probabilities), "predictive_entropy_nats": case.predictive_entropy_nats,
            "mutual_information_nats": case.mutual_information_nats, "review": case.review, **votes,
        }
        for case_id, case, votes in zip(ids, summarise_passes(p, scoring.review_entropy), decided, strict=True)
    ]  # fmt: skip


def _primary_votes(p: Any, primary: Decisions, scoring: Scoring) -> Rows:
    """What the primary rule decides in each pass, summed up per case; ties go to the more urgent label."""
    passes, cases = p.shape[:2]
    if primary.labels is None:
        empty = {
            "decision_majority": None,
            "decision_confidence": None,
            "decision_entropy_nats": None,
        }
        return [dict(empty) for _ in range(cases)]
    named = np.array(primary.apply(p.reshape(-1, len(LABELS)), scoring.cost_matrix)).reshape(
        passes, cases
    )
    shares = np.stack([(named == label).mean(axis=0) for label in LABELS], axis=1)
    return [
        {
            "decision_majority": LABELS[int(share.argmax())], "decision_confidence": float(share.max()),
            "decision_entropy_nats": float(entropy_nats(share)),
        }
        for share in shares
    ]  # fmt: skip


def trust_rows(
    evaluation_id: str, calibration: Rows, test: Rows, primary: Decisions, dropout: Rows, groups: list[str] | None,
    scoring: Scoring, seed: int, external: bool = False,
) -> dict[str, Rows]:  # fmt: skip
    """Rows of subgroup_metric, reliability, review_flag and conformal. `external`: the set is not of the dataset."""
    labels = [r["label"] for r in test]
    reliable = reliability_rows(labels, probability_table(test)[:, 0])
    own = {"evaluation_id": evaluation_id}
    found: dict[str, Rows] = {
        "reliability": [own | asdict(row) for row in reliable],
        "conformal": [own | asdict(_conformal(calibration, test, scoring, groups, seed, external))],
        "subgroup_metric": [],
        "review_flag": [],
    }
    if primary.labels is None:
        return found
    recalls = subgroup_recalls(
        [r.get("subgroup") or {} for r in test], labels, primary.labels, groups, seed
    )
    found["subgroup_metric"] = [_subgroup_row(evaluation_id, *key, m) for key, m in recalls.items()]
    if dropout:
        found["review_flag"] = _review_rows(
            evaluation_id, test, primary.labels, dropout, groups, seed
        )
    return found


def _conformal(
    calibration: Rows,
    test: Rows,
    scoring: Scoring,
    groups: list[str] | None,
    seed: int,
    external: bool,
) -> Conformal:
    known, labels = [r["label"] for r in calibration], [r["label"] for r in test]
    return judge_conformal(
        probability_table(calibration), known, probability_table(test), labels, scoring.conformal_miss_rate, groups, seed,
        external,
    )  # fmt: skip


def _subgroup_row(evaluation_id: str, field: str, value: str, m: Metric) -> dict[str, Any]:
    return {
        "evaluation_id": evaluation_id, "field": field, "subgroup": value, "metric": m.name, "value": m.value,
        "low": m.low, "high": m.high, "method": m.method, "n": m.n, "note": m.note,
    }  # fmt: skip


def _review_rows(
    evaluation_id: str,
    test: Rows,
    decisions: list[Any],
    dropout: Rows,
    groups: list[str] | None,
    seed: int,
) -> Rows:
    place = {r["case_id"]: i for i, r in enumerate(test)}
    rows = [place[r["case_id"]] for r in dropout]
    judged = judge_review(
        [r["review"] for r in dropout], [r["entropy_nats"] for r in dropout], probability_table(test)[rows],
        [test[i]["label"] for i in rows], [decisions[i] for i in rows], [groups[i] for i in rows] if groups else None,
        seed,
    )  # fmt: skip
    return [
        {
            "evaluation_id": evaluation_id, "score": j.score, "cases": len(rows), "load": j.quality.load,
            "aurc": j.aurc, "error_kept": j.quality.error_kept, "error_flagged": j.quality.error_flagged,
            "missed_ed": j.quality.missed_ed, "missed_ed_flagged": j.quality.missed_ed_flagged,
            "aurc_difference": j.aurc_difference, "difference_low": j.difference_low,
            "difference_high": j.difference_high, "verdict": j.verdict, "note": j.note,
        }
        for j in judged
    ]  # fmt: skip
