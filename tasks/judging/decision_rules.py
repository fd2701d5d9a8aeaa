"""Decision rules as arithmetic: argmax, threshold on p(ED), minimum expected cost.

Here are the rules and how their parameters are fitted. `tasks/judging/choose_rules.py` fits them on
the calibration cases of an evaluation and records the result. Ties go to the more urgent label
everywhere (LABELS is in order of urgency).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import log_softmax

from tasks.judging.inputs import Costs, cost_array, label_codes, label_probabilities
from tasks.judging.intervals import clopper_pearson
from tasks.judging.point_metrics import Floats
from tasks.runtime.errors import BadInput
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
    if not 0 < target < 1:
        raise BadInput(f"The target ED recall is {target}; it must lie between 0 and 1.")

    scores = np.asarray(p_ed, dtype=np.float64)
    truth = label_codes(labels)
    if scores.shape != truth.shape or not np.isfinite(scores).all():
        raise BadInput(
            "Calibration needs one finite p(ED) for each labelled case: "
            "score the calibration set again."
        )

    ed_scores = np.sort(scores[truth == 0])
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
    separable cases have no finite optimum. Raises BadInput unless each label occurs.
    """
    x = np.asarray(log_p, dtype=np.float64)
    truth = label_codes(labels)
    if x.shape != (len(truth), 3) or not np.isfinite(x).all():
        raise BadInput(
            "Calibration needs three finite log-probabilities for each labelled case: "
            "score the set again."
        )
    if len(set(truth.tolist())) < 3:
        raise BadInput(
            "Vector scaling needs calibration cases of each label; "
            f"there are only {sorted(set(labels))}."
        )

    return _fitted(x, np.eye(3)[truth])


def _fitted(x: Floats, onehot: Floats) -> VectorScaling:
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
