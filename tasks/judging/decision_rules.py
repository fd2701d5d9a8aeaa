"""Decision rules: argmax, threshold on p(ED), minimum expected cost; chosen on the calibration cases,
recorded, then applied.

The record, `rules.json` in a scores folder, is written before the first case of the test set is
scored, and what decides on that set is read from it. It holds numbers alone, no case. Ties go to
the more urgent label everywhere (LABELS is in order of urgency).

Conformal sets: the labels that cannot be ruled out for a case, with a guaranteed ED miss rate. A
case whose set is not exactly one label is an abstention: the model does not decide it. Method:
class-conditional (Mondrian) split conformal prediction (Vovk, 2012). Cases of another source than
the calibration cases are not exchangeable with them, and nothing is guaranteed for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter
from scipy.optimize import minimize
from scipy.special import log_softmax

from tasks.judging.intervals import Groups, clopper_pearson, joined_notes
from tasks.judging.metrics import label_probabilities, share_metric
from tasks.judging.point_metrics import (
    Costs,
    Floats,
    Row,
    cost_array,
    label_codes,
    metric_values,
)
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Label

SMALLEST_P = 1e-12  # a probability that float32 rounded to 0 still needs a finite logarithm
INVERSE_TEMPERATURE = (0.05, 10.0)  # separable calibration cases would push it to infinity
BIAS = (-8.0, 8.0)
BOUNDS = (INVERSE_TEMPERATURE, BIAS, BIAS)


@dataclass(frozen=True)
class Threshold:
    """A threshold on p(ED). Of the `n_ed` ED cases of calibration at most `allowed_misses` may fall
    below `value`, and `misses` do; `bound`: lower 95 % bound of the ED recall.
    """

    value: float
    allowed_misses: int
    misses: int
    n_ed: int
    bound: float


@dataclass(frozen=True)
class VectorScaling:
    """softmax(log p / temperature + biases); the last bias is 0, since only differences matter;
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
    """The label of least expected cost, argmin_a sum_t p(t) C[t, a] (Elkan, IJCAI 2001), of
    calibrated p (cases, 3).
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

    allowed_misses = min(_allowed_misses(n_ed, 1 - target), n_ed - 1)
    value = float(ed_scores[allowed_misses])
    misses = int((ed_scores < value).sum())
    return Threshold(value, allowed_misses, misses, n_ed, clopper_pearson(n_ed - misses, n_ed)[0])


def _allowed_misses(cases: int, miss_rate: float) -> int:
    # The small term makes up for products such as 0.05 x 20, which may fall just below 1.
    return math.floor(miss_rate * (cases + 1) + 1e-9)


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
    """A rule with the parameters that were fitted on the calibration cases; `note` says why it is not
    available, or what to mind. `scaling`: of min_cost, and of argmax where rules are chosen again.
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
        """The rule's decisions on probabilities, shape (cases, 3); None if it is not available."""
        if not self.available:
            return None
        if self.threshold is not None:
            return threshold_rule(p, self.threshold.value)
        if self.scaling is not None and self.rule == "argmax":
            return argmax_rule(self.scaling.apply(log_probabilities(p)))
        if self.scaling is not None and costs is not None:
            return min_cost_rule(self.scaling.apply(log_probabilities(p)), costs)
        return argmax_rule(p)


@dataclass(frozen=True)
class RuleRecord:
    """The rules of one evaluation, in the order RULES, and the digest of the set that they were
    chosen on; `chosen_at`: UTC, ISO 8601; `target`: the ED recall that target_recall aims at.
    """

    rules: dict[str, ChosenRule]
    target: float | None
    calibration_digest: str
    chosen_at: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> RuleRecord:
        return TypeAdapter(RuleRecord).validate_json(text)


def record_rules(
    p: ArrayLike,
    labels: Sequence[str],
    digest: str,
    *,
    target: float | None = None,
    costs: Costs | None = None,
    constant: bool = False,
    own_p: ArrayLike | None = None,
    primary: str = "argmax",
) -> RuleRecord:
    """Choose every rule on the calibration cases, with the present time as `chosen_at`.

    `p` (cases, 3) and `labels`: of the calibration cases; `digest`: of their set; `constant`: the
    model answers all cases alike, so that no parameter can be fitted and only argmax is available.
    `own_p`: the same cases by a moved adapter at its own precision, for argmax chosen again; raises
    BadInput where a label has no case that the recipe's `primary` rule needs.
    """
    if constant:
        fitted = [ChosenRule.not_available(rule, CONSTANT) for rule in RULES[1:]]
    else:
        fitted = [_target_recall_rule(p, labels, target), _min_cost_rule(p, labels, costs)]
    argmax = ChosenRule("argmax") if own_p is None else _argmax_again(p, own_p, labels, primary)
    rules = {rule.rule: rule for rule in (argmax, *fitted)}
    return RuleRecord(rules, target, digest, datetime.now(UTC).isoformat())


def _argmax_again(
    p: ArrayLike, own_p: ArrayLike, labels: Sequence[str], primary: str
) -> ChosenRule:
    """The most probable label of a moved adapter, with the temperature and biases that move its
    calibrated probabilities onto those at its own precision, where the plain one decided: there
    they change no decision. Where GP or HOME has no case, it has neither, and a note says so.
    """
    if missing := [label for label in LABELS if label not in labels]:
        reason = f"calibration has no {' or '.join(missing)} case"
        # A threshold needs emergencies alone.
        if primary != "target_recall" or "ED" in missing:
            raise BadInput(reason)
        return ChosenRule("argmax", f"offsets not chosen again: {reason}")
    moved, own = (fit_vector_scaling(log_probabilities(q), labels) for q in (p, own_p))
    ed, gp, _ = np.subtract(moved.biases, own.biases).tolist()
    at_bound = moved.at_bound or own.at_bound
    scaling = VectorScaling(moved.temperature, (ed, gp, 0.0), at_bound)
    return ChosenRule("argmax", AT_BOUND if at_bound else None, scaling=scaling)


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
    """The highest ED recall of a threshold on p(ED), as under the rule target_recall, whose
    over-triage is at most `over_triage`; p (cases, 3).

    Over-triage is the share of all cases that are sent somewhere more urgent than labelled, GP
    instead of HOME included; where these alone are too many, the recall is 0. NaN without an ED case.
    """
    truth = label_codes(labels)
    if not (truth == 0).any():
        return float("nan")

    values = label_probabilities(p)
    gp_or_home = 1 + values[:, 1:].argmax(axis=1)
    tables = [
        np.bincount(truth * 3 + np.where(values[:, 0] >= threshold, 0, gp_or_home), minlength=9)
        for threshold in np.unique(values[:, 0])
    ]
    figures = metric_values(np.reshape(tables, (-1, 3, 3)))
    # A share of whole cases may round to just above the bound.
    is_allowed = figures["over_triage"] <= over_triage + 1e-12
    return float(figures["ed_recall"][is_allowed].max(initial=0.0))


EXTERNAL = "no guarantee here: the cases come from elsewhere than the calibration cases"
MOVED = "no guarantee here: the thresholds were chosen for the adapter at its own precision"


def conformal_threshold(scores: ArrayLike, miss_rate: float) -> float:
    """The k-th smallest probability that calibration cases of a class have of it.

    k = floor(miss_rate (n + 1)): where the n cases and a new one of the class are exchangeable, the
    new one falls below with probability at most k / (n + 1), on average over calibration sets. 0,
    which rules nothing out, where k is 0.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    k = _allowed_misses(len(values), miss_rate)
    return float(values[k - 1]) if k >= 1 else 0.0


def conformal_sets(p: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    """Whether each label's probability reaches its threshold, shape (cases, 3)."""
    return np.asarray(label_probabilities(p) >= np.asarray(thresholds))


def judge_conformal(
    calibration: tuple[ArrayLike, Sequence[str]],
    judged_set: tuple[ArrayLike, Sequence[str]],
    miss_rate: float,
    groups: Groups | None = None,
    seed: int = 0,
    caveat: str | None = None,
) -> Row:
    """Thresholds from the calibration cases, and how their sets do on the judged cases: columns of
    the table `conformal`, None where there is nothing to count.

    Of either set the label probabilities, shape (cases, 3), and the labels; `groups`: of the judged
    cases; `caveat`: why the miss rate is not guaranteed, EXTERNAL or MOVED.
    """
    calibration_p = label_probabilities(calibration[0])
    calibration_truth = label_codes(calibration[1])
    own_probabilities = [calibration_p[calibration_truth == i, i] for i in range(len(LABELS))]
    thresholds = [conformal_threshold(of_class, miss_rate) for of_class in own_probabilities]

    truth = label_codes(judged_set[1])
    sets = conformal_sets(judged_set[0], thresholds)
    set_sizes = sets.sum(axis=1)
    is_decided = set_sizes == 1
    is_missed = ~sets[np.arange(len(truth)), truth]
    is_ed = truth == 0
    has_ed = bool(is_ed.any())

    miss = share_metric("miss", is_missed, groups, seed, among=is_ed)
    # A case whose set has one label is decided wrongly where the true label is missing from it.
    error = share_metric("error", is_missed, groups, seed, among=is_decided)
    abstain = share_metric("abstain", ~is_decided, groups, seed)
    too_few = [
        f"{len(p)} calibration cases of {label} are too few to rule it out at {miss_rate:g}"
        for label, p in zip(LABELS, own_probabilities, strict=True)
        if _allowed_misses(len(p), miss_rate) < 1
    ]
    no_ed = None if has_ed else "not available: no ED case in this set, so no miss rate"

    return {
        "miss_rate": miss_rate,
        **dict(zip(("threshold_ed", "threshold_gp", "threshold_home"), thresholds, strict=True)),
        "calibration_ed": len(own_probabilities[0]),
        "ed_cases": int(is_ed.sum()),
        "ed_missed": int(is_missed[is_ed].sum()) if has_ed else None,
        "ed_miss_rate": miss["value"],
        "miss_low": miss["low"],
        "miss_high": miss["high"],
        "miss_method": miss["method"] if has_ed else None,
        "abstain_rate": float((~is_decided).mean()),
        "abstain_low": abstain["low"],
        "abstain_high": abstain["high"],
        "mean_set_size": float(set_sizes.mean()),
        "error_decided": error["value"],
        "error_low": error["low"],
        "error_high": error["high"],
        "note": joined_notes(caveat, *too_few, no_ed),
    }
