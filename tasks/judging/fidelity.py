"""How far a quantised model's predictions are from those of the weights that it was quantised from.

KL(reference || variant) per case, at the position where the label is predicted: over the whole
vocabulary, and over the three labels alone, the only distribution that decisions depend on. The
tail says more about a safety label than the mean. Perplexity of the messages' own tokens stands
beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from tasks.judging.intervals import joined_notes
from tasks.judging.point_metrics import Floats, Row

PERCENTILES = {"kl_median": 50.0, "kl_p95": 95.0, "kl_p99": 99.0, "kl_p999": 99.9, "kl_max": 100.0}
NO_TEXT = "no perplexity: a single case has no token of its own before the label"


@dataclass(frozen=True)
class Predicted:
    """One model's predictions on N cases.

    logits: float32 (N, V), at the label's position; label_logp: (N, 3), log P(label) up to a
    constant; text_nll: sum of the negative log-likelihoods of the `text_tokens` tokens of the
    messages; of_cases: both by case, (N, 2), where they are known. A single case has no tokens of
    its own: all but the last count as instruction.
    """

    logits: NDArray[np.float32]
    label_logp: NDArray[np.float32]
    text_nll: float
    text_tokens: int
    of_cases: Floats | None = None

    @property
    def perplexity(self) -> float | None:
        """Of the messages' own tokens; None without any."""
        return float(np.exp(self.text_nll / self.text_tokens)) if self.text_tokens else None


def divergences(reference_logits: ArrayLike, logits: ArrayLike) -> Floats:
    """KL(reference || other) in nats of each row, logits (N, K) -> (N,); sums are float64."""
    values = []
    # Row by row: thousands of float64 rows over a vocabulary are gigabytes.
    for reference, other in zip(np.asarray(reference_logits), np.asarray(logits), strict=True):
        log_p = np.asarray(log_softmax(reference.astype(np.float64)))
        log_q = np.asarray(log_softmax(other.astype(np.float64)))
        values.append(float((np.exp(log_p) * (log_p - log_q)).sum()))
    return np.maximum(values, 0.0)  # rounding can make it -1e-17


def fidelity_figures(reference: Predicted, variant: Predicted) -> dict[str, Row]:
    """Columns of the table `fidelity` for the distributions `vocabulary` and `labels`."""
    cases = len(reference.logits)
    perplexity, reference_perplexity = variant.perplexity, reference.perplexity
    ratio = perplexity / reference_perplexity if perplexity and reference_perplexity else None

    # Where less than one case lies beyond a percentile, it says nothing. 100 - 99.9 is not exact.
    shown = {name: q == 100 or cases >= round(100 / (100 - q)) for name, q in PERCENTILES.items()}
    too_few = [f"{PERCENTILES[name]:g} %" for name, is_shown in shown.items() if not is_shown]

    figures = {}
    for name, logits, other in (
        ("vocabulary", reference.logits, variant.logits),
        ("labels", reference.label_logp, variant.label_logp),
    ):
        kl = divergences(logits, other)
        same_top1 = (np.argmax(logits, axis=1) == np.argmax(other, axis=1)).astype(np.float64)
        figures[name] = {
            "kl_mean": float(kl.mean()),
            "kl_mean_se": _standard_error(kl),
            "same_top1": float(same_top1.mean()),
            "same_top1_se": _standard_error(same_top1),
            **{
                column: float(np.percentile(kl, q)) if shown[column] else None
                for column, q in PERCENTILES.items()
            },
            "cases": cases,
            "text_tokens": reference.text_tokens,
            "perplexity": perplexity,
            "reference_perplexity": reference_perplexity,
            "perplexity_ratio": ratio,
            "perplexity_ratio_se": ratio and _ratio_error(reference, variant, ratio),
            "note": joined_notes(
                None if ratio else NO_TEXT,
                f"no percentile {' and '.join(too_few)} of {cases} cases" if too_few else None,
            ),
        }

    return figures


def _ratio_error(reference: Predicted, variant: Predicted, ratio: float) -> float | None:
    """Standard error of the ratio of perplexities over cases, by linearisation: its logarithm is a
    ratio of sums, of differences of log-likelihood and of tokens.
    """
    if reference.of_cases is None or variant.of_cases is None or len(variant.of_cases) < 2:
        return None
    tokens = reference.of_cases[:, 1]
    differences = variant.of_cases[:, 0] - reference.of_cases[:, 0]
    residuals = differences - differences.sum() / tokens.sum() * tokens
    error_of_sum = math.sqrt(len(tokens)) * float(residuals.std(ddof=1))
    return ratio * error_of_sum / float(tokens.sum())


def _standard_error(values: Floats) -> float | None:
    """Of the mean over cases; None for a single case."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
