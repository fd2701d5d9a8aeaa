"""The decision rules of an evaluation: chosen on the calibration cases, recorded, then applied.

The record, `rules.json` in a scores folder, is written before the first case of the test set is
scored, and what decides on that set is read from it. It holds numbers alone, no case. The
arithmetic of each rule is in `tasks/judging/decision_rules.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from numpy.typing import ArrayLike
from pydantic import TypeAdapter

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
AT_BOUND = (
    "the fit of the probabilities stopped at its bound: too few or separable calibration cases"
)


@dataclass(frozen=True)
class SetScores:
    """Label probabilities of one set of cases, shape (cases, 3).

    Labels are read from calibration sets only. `digests` identify the texts of the cases.
    """

    case_ids: Sequence[str]
    p: ArrayLike
    labels: Sequence[str] | None = None
    digests: Sequence[str] | None = None


@dataclass(frozen=True)
class ChosenRule:
    """A rule with the parameters that were fitted on the calibration cases.

    `note` says why it is not available, or what to mind.
    """

    rule: str
    note: str | None = None
    available: bool = True
    threshold: Threshold | None = None
    scaling: VectorScaling | None = None

    @classmethod
    def not_available(cls, rule: str, reason: str) -> ChosenRule:
        return cls(rule, f"not available: {reason}", available=False)

    def apply(self, p: ArrayLike, costs: Costs | None = None) -> list[Label]:
        """The rule's decisions on probabilities, shape (cases, 3). Nothing is fitted here."""
        if self.threshold is not None:
            return threshold_rule(p, self.threshold.value)
        if self.scaling is not None:
            if costs is None:
                raise ValueError("the rule min_cost needs a cost matrix, and there is none")
            return min_cost_rule(self.scaling.apply(log_probabilities(p)), costs)
        return argmax_rule(p)

    def decide(self, p: ArrayLike, costs: Costs | None = None) -> Decisions:
        """The rule with its decisions, or without any if it is not available."""
        labels = self.apply(p, costs) if self.available else None
        return Decisions(self.rule, self.note, self.available, self.threshold, self.scaling, labels)


@dataclass(frozen=True)
class Decisions(ChosenRule):
    """A rule and its decisions on a set; `labels` is None if the rule is not available."""

    labels: list[Label] | None = None


@dataclass(frozen=True)
class RuleRecord:
    """The rules of one evaluation, in the order RULES.

    `calibration_digest`: of the set that they were chosen on; `chosen_at`: UTC, ISO 8601; `target`:
    the ED recall that target_recall aims at.
    """

    rules: dict[str, ChosenRule]
    target: float | None
    calibration_digest: str
    chosen_at: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> RuleRecord:
        return TypeAdapter(RuleRecord).validate_python(json.loads(text))


def record_rules(
    calibration: SetScores,
    digest: str,
    *,
    target: float | None = None,
    costs: Costs | None = None,
    constant: bool = False,
) -> RuleRecord:
    """Choose every rule on the calibration cases, with the present time as `chosen_at`.

    `digest`: of the calibration set; `constant`: the model answers all cases alike, so that no
    parameter can be fitted and only argmax is available.
    """
    rules = {
        rule: choose_rule(rule, calibration, target=target, costs=costs)
        if rule == "argmax" or not constant
        else ChosenRule(rule, CONSTANT, available=False)
        for rule in RULES
    }
    return RuleRecord(rules, target, digest, datetime.now(UTC).isoformat())


def choose_rule(
    rule: str, calibration: SetScores, *, target: float | None = None, costs: Costs | None = None
) -> ChosenRule:
    """One of RULES, its parameters fitted on the calibration cases."""
    if rule == "argmax":
        return ChosenRule(rule)
    if rule == "target_recall":
        return _choose_target_recall(calibration, target)
    if rule == "min_cost":
        return _choose_min_cost(calibration, costs)
    raise BadInput(f"There is no decision rule {rule!r}; use one of {', '.join(RULES)}.")


def _choose_target_recall(calibration: SetScores, target: float | None) -> ChosenRule:
    if target is None:
        return ChosenRule.not_available("target_recall", "the recipe has no target ED recall")

    labels = calibration.labels or []
    p_ed: ArrayLike = label_probabilities(calibration.p)[:, 0] if labels else []
    threshold = target_recall_threshold(p_ed, labels, target)
    if threshold is None:
        return ChosenRule.not_available("target_recall", "no ED case in the calibration set")

    return ChosenRule("target_recall", threshold=threshold)


def _choose_min_cost(calibration: SetScores, costs: Costs | None) -> ChosenRule:
    if costs is None:
        return ChosenRule.not_available("min_cost", "no cost matrix")

    labels = calibration.labels or []
    if missing := [label for label in LABELS if label not in labels]:
        reason = f"no {' or '.join(missing)} case in the calibration set"
        return ChosenRule.not_available("min_cost", reason)

    scaling = fit_vector_scaling(log_probabilities(calibration.p), labels)
    return ChosenRule("min_cost", AT_BOUND if scaling.at_bound else None, scaling=scaling)


def refuse_overlap(calibration: SetScores, test: SetScores) -> None:
    """Raise BadInput if a case is in both sets, by id or by digest.

    A rule chosen on test cases proves nothing.
    """
    _refuse_shared(calibration.case_ids, test.case_ids, "case id")
    if calibration.digests is not None and test.digests is not None:
        _refuse_shared(calibration.digests, test.digests, "text digest")


def _refuse_shared(calibration: Sequence[str], test: Sequence[str], identifier: str) -> None:
    shared = sorted(set(calibration) & set(test))
    if shared:
        raise BadInput(
            f"The calibration set overlaps the test set in {len(shared)} cases "
            f"(same {identifier}, first {shared[0]!r}): "
            "split the cases again so that each is in one set only."
        )
