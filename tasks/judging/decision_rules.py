"""Decision rules: argmax, threshold on p(ED), minimum expected cost; chosen on the calibration cases,
recorded, then applied.

The record, `rules.json` in a scores folder, is written before the first case of the test set is
scored, and what decides on that set is read from it. It holds numbers alone, no case. Ties go to
the more urgent label everywhere (LABELS is in order of urgency).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import ArrayLike
from pydantic import TypeAdapter
from scipy.optimize import minimize
from scipy.special import log_softmax

from tasks.judging.inputs import Costs, cost_array, label_codes, label_probabilities
from tasks.judging.intervals import clopper_pearson
from tasks.judging.point_metrics import Floats
from tasks.spec import LABELS, Label

SMALLEST_P = 1e-12  # a probability that float32 rounded to 0 still needs a finite logarithm
INVERSE_TEMPERATURE = (0.05, 10.0)  # separable calibration cases would push it to infinity
BIAS = (-8.0, 8.0)
BOUNDS = (INVERSE_TEMPERATURE, BIAS, BIAS)


@dataclass(frozen=True)
class Threshold:
    """A threshold on p(ED), and how it does on the calibration cases.

    Of their `n_ed` ED cases at most `allowed_misses` may fall below `value`, and `misses` do;
    `bound`: lower 95 % bound of the ED recall.
    """

    value: float
    allowed_misses: int
    misses: int
    n_ed: int
    bound: float


@dataclass(frozen=True)
class VectorScaling:
    """softmax(log p / temperature + biases); the last bias is 0, since only differences matter.

    `at_bound`: the fit stopped at one of BOUNDS.
    """

    temperature: float
    biases: tuple[float, float, float]
    at_bound: bool = False

    def apply(self, log_p: ArrayLike) -> Floats:
        """Calibrated probabilities, shape (cases, 3), from log-probabilities of the same shape."""
        scaled = np.asarray(log_p, dtype=np.float64) / self.temperature + np.asarray(self.biases)
        return np.asarray(np.exp(log_softmax(scaled, axis=-1)))


def _label_names(codes: ArrayLike) -> list[Label]:
    return [LABELS[int(code)] for code in np.asarray(codes)]


def log_probabilities(p: ArrayLike) -> Floats:
    """Finite logarithms of checked label probabilities."""
    return np.log(np.maximum(label_probabilities(p), SMALLEST_P))


def argmax_rule(p: ArrayLike) -> list[Label]:
    """The most probable label of each case, p of shape (cases, 3)."""
    return _label_names(label_probabilities(p).argmax(axis=1))


def threshold_rule(p: ArrayLike, threshold: float) -> list[Label]:
    """ED if p(ED) >= threshold, else the more probable of GP and HOME."""
    values = label_probabilities(p)
    gp_or_home = 1 + values[:, 1:].argmax(axis=1)
    return _label_names(np.where(values[:, 0] >= threshold, 0, gp_or_home))


def min_cost_rule(p: ArrayLike, cost_matrix: Costs) -> list[Label]:
    """The label of least expected cost, argmin_a sum_t p(t) C[t, a] (Elkan, IJCAI 2001).

    `p` (cases, 3) must be calibrated.
    """
    return _label_names((label_probabilities(p) @ cost_array(cost_matrix)).argmin(axis=1))


def target_recall_threshold(
    p_ed: ArrayLike, labels: Sequence[str], target: float
) -> Threshold | None:
    """The highest threshold on p(ED) with at most floor((1 - target)(n_ED + 1)) misses.

    The recall that an unseen ED case can expect is (n_ED - misses) / (n_ED + 1); `bound` is the
    exact two-sided lower bound, valid although the threshold was chosen on these cases, since it is
    an order statistic of them. At least one ED case stays caught. None without an ED case.
    """
    scores = np.asarray(p_ed, dtype=np.float64)
    ed_scores = np.sort(scores[label_codes(labels) == 0])
    n_ed = len(ed_scores)
    if n_ed == 0:
        return None

    # 1 - 0.9 is a little under 0.1 in floating point, hence the small term.
    allowed_misses = min(math.floor((1 - target) * (n_ed + 1) + 1e-9), n_ed - 1)
    value = float(ed_scores[allowed_misses])
    misses = int((ed_scores < value).sum())
    return Threshold(value, allowed_misses, misses, n_ed, clopper_pearson(n_ed - misses, n_ed)[0])


def fit_vector_scaling(log_p: ArrayLike, labels: Sequence[str]) -> VectorScaling:
    """Temperature and two free biases of least NLL on calibration cases, log_p of shape (cases, 3).

    Biases are needed since a temperature cannot undo the tilt of weighted training. In
    (1/temperature, biases) the NLL is convex. There is no penalty, but there are bounds, because
    separable cases have no finite optimum. Each label must occur.
    """
    x = np.asarray(log_p, dtype=np.float64)
    onehot = np.eye(3)[label_codes(labels)]

    def nll_and_gradient(parameters: Floats) -> tuple[float, Floats]:
        log_q = log_softmax(parameters[0] * x + np.append(parameters[1:], 0.0), axis=1)
        slope = (np.exp(log_q) - onehot) / len(x)
        gradient = np.array([(slope * x).sum(), slope[:, 0].sum(), slope[:, 1].sum()])
        return -float((log_q * onehot).sum()) / len(x), gradient

    solution = minimize(
        nll_and_gradient,
        np.array([1.0, 0.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=BOUNDS,
        options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000},
    ).x
    at_bound = any(
        min(value - low, high - value) < 1e-6
        for value, (low, high) in zip(solution, BOUNDS, strict=True)
    )
    return VectorScaling(
        float(1 / solution[0]), (float(solution[1]), float(solution[2]), 0.0), at_bound
    )


RULES = ("argmax", "target_recall", "min_cost")
RECORD = "rules.json"
CONSTANT = "a constant answer has no scores to choose a rule on"
AT_BOUND = (
    "the fit of the probabilities stopped at its bound: too few or separable calibration cases"
)


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

    def decide(self, p: ArrayLike, costs: Costs | None = None) -> list[Label] | None:
        """The rule's decisions on probabilities, shape (cases, 3); None if it is not available.
        Nothing is fitted here.
        """
        if not self.available:
            return None
        if self.threshold is not None:
            return threshold_rule(p, self.threshold.value)
        if self.scaling is not None and costs is not None:
            return min_cost_rule(self.scaling.apply(log_probabilities(p)), costs)
        return argmax_rule(p)


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
    p: ArrayLike,
    labels: Sequence[str],
    digest: str,
    *,
    target: float | None = None,
    costs: Costs | None = None,
    constant: bool = False,
) -> RuleRecord:
    """Choose every rule on the calibration cases, with the present time as `chosen_at`.

    `p` (cases, 3) and `labels`: of the calibration cases; `digest`: of their set; `constant`: the
    model answers all cases alike, so that no parameter can be fitted and only argmax is available.
    """
    if constant:
        fitted = [ChosenRule.not_available(rule, CONSTANT) for rule in RULES[1:]]
    else:
        fitted = [_target_recall_rule(p, labels, target), _min_cost_rule(p, labels, costs)]
    rules = {rule.rule: rule for rule in (ChosenRule("argmax"), *fitted)}
    return RuleRecord(rules, target, digest, datetime.now(UTC).isoformat())


def _target_recall_rule(p: ArrayLike, labels: Sequence[str], target: float | None) -> ChosenRule:
    if target is None:
        return ChosenRule.not_available("target_recall", "the recipe has no target ED recall")
    threshold = target_recall_threshold(label_probabilities(p)[:, 0], labels, target)
    if threshold is None:
        return ChosenRule.not_available("target_recall", "no ED case in the calibration set")
    return ChosenRule("target_recall", threshold=threshold)


def _min_cost_rule(p: ArrayLike, labels: Sequence[str], costs: Costs | None) -> ChosenRule:
    if costs is None:
        return ChosenRule.not_available("min_cost", "no cost matrix")
    if missing := [label for label in LABELS if label not in labels]:
        reason = f"no {' or '.join(missing)} case in the calibration set"
        return ChosenRule.not_available("min_cost", reason)
    scaling = fit_vector_scaling(log_probabilities(p), labels)
    return ChosenRule("min_cost", AT_BOUND if scaling.at_bound else None, scaling=scaling)


def recall_at_over_triage(p: ArrayLike, labels: Sequence[str], over_triage: float) -> float:
    """The highest ED recall of a threshold on p(ED) whose over-triage is at most `over_triage`.

    `p` of shape (cases, 3). Below the threshold the more probable of GP and HOME is answered, as
    under the rule target_recall. Over-triage is the share of all cases that are sent somewhere more
    urgent than labelled, GP instead of HOME included; where these alone are too many, the recall
    is 0. NaN without an ED case.
    """
    values = label_probabilities(p)
    truth = label_codes(labels)
    emergencies = truth == 0
    if not emergencies.any():
        return float("nan")

    too_high_anyway = 1 + values[:, 1:].argmax(axis=1) < truth
    best_recall = 0.0
    for threshold in np.unique(values[:, 0]):
        sent_to_ed = values[:, 0] >= threshold
        too_high = np.where(sent_to_ed, ~emergencies, too_high_anyway).mean()
        # A mean of whole cases may round to just above the bound.
        if too_high <= over_triage + 1e-12:
            best_recall = max(best_recall, float(sent_to_ed[emergencies].mean()))

    return best_recall
