"""Which rules decide: chosen on the calibration cases, written down, and only then applied to the cases to be judged.

The record, `rules.json` in a scores folder, is written before the first case of the test set is scored, and what is
applied to that set is read from it. It holds numbers alone, no case.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from numpy.typing import ArrayLike

from tasks.judging.decision_rules import (
    Threshold,
    VectorScaling,
    argmax_rule,
    fit_vector_scaling,
    log_probabilities,
    min_cost_rule,
    target_recall_threshold,
    threshold_rule,
)
from tasks.judging.inputs import Costs, label_probabilities
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Label

RULES = ("argmax", "target_recall", "min_cost")
RECORD = "rules.json"
CONSTANT = "not available: a constant answer has no scores to choose a rule on"


@dataclass(frozen=True)
class ScoredCases:
    """Label probabilities of one set, shape (cases, 3). Labels are read from calibration sets only."""

    case_ids: Sequence[str]
    p: ArrayLike
    labels: Sequence[str] | None = None
    digests: Sequence[str] | None = None


@dataclass(frozen=True)
class Chosen:
    """A rule as the calibration cases fixed it. `note`: why it is not available, or what to mind."""

    rule: str
    note: str | None = None
    available: bool = True
    threshold: Threshold | None = None
    scaling: VectorScaling | None = None

    def apply(self, p: ArrayLike, costs: Costs | None = None) -> list[Label]:
        """What the rule decides on probabilities, shape (cases, 3): of a set, or of a dropout pass. Learns nothing."""
        if self.threshold is not None:
            return threshold_rule(p, self.threshold.value)
        if self.scaling is not None:
            if costs is None:
                raise ValueError("the rule min_cost decides by a cost matrix, and none was given")
            return min_cost_rule(self.scaling.apply(log_probabilities(p)), costs)
        return argmax_rule(p)

    def decide(self, p: ArrayLike, costs: Costs | None = None) -> Decisions:
        labels = self.apply(p, costs) if self.available else None
        return Decisions(self.rule, self.note, self.available, self.threshold, self.scaling, labels)


@dataclass(frozen=True)
class Decisions(Chosen):
    """What one rule decided on a set; `labels` is None, with the reason in `note`, where the rule is not available."""

    labels: list[Label] | None = None


@dataclass(frozen=True)
class RuleRecord:
    """The rules of one evaluation, in the order RULES, and when and on what they were chosen (UTC, ISO 8601)."""

    rules: dict[str, Chosen]
    target: float | None
    calibration_digest: str
    chosen_at: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> RuleRecord:
        values = json.loads(text)
        return RuleRecord(
            **values | {"rules": {name: _chosen(rule) for name, rule in values["rules"].items()}}
        )


def _chosen(values: dict[str, Any]) -> Chosen:
    threshold, scaling = values["threshold"], values["scaling"]
    return Chosen(
        values["rule"], values["note"], values["available"],
        Threshold(**threshold) if threshold else None,
        VectorScaling(scaling["temperature"], tuple(scaling["biases"]), scaling["at_bound"]) if scaling else None,
    )  # fmt: skip


def record_rules(
    calibration: ScoredCases, digest: str, *, target: float | None = None, costs: Costs | None = None,
    constant: bool = False,
) -> RuleRecord:  # fmt: skip
    """Choose every rule on the calibration cases, now. `digest`: of that set's cases; `constant`: one answer for all."""
    rules = {rule: choose(rule, calibration, target=target, costs=costs) for rule in RULES}
    if constant:  # one probability for all cases: no threshold can be chosen on it
        rules |= {
            name: Chosen(name, CONSTANT, available=False) for name in RULES if name != "argmax"
        }
    return RuleRecord(rules, target, digest, datetime.now(UTC).isoformat())


def choose(
    rule: str, calibration: ScoredCases, *, target: float | None = None, costs: Costs | None = None
) -> Chosen:  # fmt: skip
    """One of RULES, with whatever it learns taken from the calibration cases."""
    if rule == "argmax":
        return Chosen(rule)
    if rule == "target_recall":
        return _choose_target_recall(calibration, target)
    if rule == "min_cost":
        return _choose_min_cost(calibration, costs)
    raise BadInput(f"There is no decision rule {rule!r}; use one of {', '.join(RULES)}.")


def refuse_overlap(calibration: ScoredCases, test: ScoredCases) -> None:
    """BadInput when a case is in both sets, by id or by digest: a rule chosen on test cases proves nothing."""
    pairs = [(calibration.case_ids, test.case_ids, "case id")]
    if calibration.digests is not None and test.digests is not None:
        pairs.append((calibration.digests, test.digests, "text digest"))
    for ours, theirs, what in pairs:
        shared = sorted(set(ours) & set(theirs))
        if shared:
            raise BadInput(
                f"The calibration set overlaps the test set in {len(shared)} cases (same {what}, first {shared[0]!r}): "
                "split the cases again so that each is in one set only."
            )


def _choose_target_recall(calibration: ScoredCases, target: float | None) -> Chosen:
    if target is None:
        return Chosen(
            "target_recall", "not available: the recipe has no target ED recall", available=False
        )
    labels = calibration.labels or []
    p_ed: ArrayLike = label_probabilities(calibration.p)[:, 0] if labels else []
    threshold = target_recall_threshold(p_ed, labels, target)
    if threshold is None:
        return Chosen(
            "target_recall", "not available: no ED case in the calibration set", available=False
        )
    return Chosen("target_recall", threshold=threshold)


def _choose_min_cost(calibration: ScoredCases, costs: Costs | None) -> Chosen:
    if costs is None:
        return Chosen("min_cost", "not available: no cost matrix", available=False)
    labels = calibration.labels or []
    if missing := [label for label in LABELS if label not in labels]:
        note = f"not available: no {' or '.join(missing)} case in the calibration set"
        return Chosen("min_cost", note, available=False)
    scaling = fit_vector_scaling(log_probabilities(calibration.p), labels)
    stopped = (
        "the fit of the probabilities stopped at its bound: too few or separable calibration cases"
    )
    return Chosen("min_cost", stopped if scaling.at_bound else None, scaling=scaling)


def rule_rows(evaluation_id: str, record: RuleRecord, scored_at: str) -> list[dict[str, Any]]:
    """Rows of `decision_rule`, one per rule. `scored_at`: when the scoring of the judged set began."""
    return [
        {
            "evaluation_id": evaluation_id, "rule": rule.rule, **_parameters(rule),
            "target": record.target if rule.rule == "target_recall" else None,
            "calibration_digest": record.calibration_digest, "chosen_at": record.chosen_at, "test_scored_at": scored_at,
            "note": rule.note,
        }
        for rule in record.rules.values()
    ]  # fmt: skip


def _parameters(rule: Chosen) -> dict[str, Any]:
    threshold, scaling = rule.threshold, rule.scaling
    biases = scaling.biases if scaling else (None, None, None)
    return {
        "threshold": threshold.value if threshold else None,
        "allowed_misses": threshold.allowed_misses if threshold else None,
        "misses": threshold.misses if threshold else None, "n_ed": threshold.n_ed if threshold else None,
        "bound": threshold.bound if threshold else None,
        "temperature": scaling.temperature if scaling else None,
        **{f"bias_{label.lower()}": bias for label, bias in zip(LABELS, biases, strict=True)},
        "at_bound": scaling.at_bound if scaling else None,
    }  # fmt: skip
