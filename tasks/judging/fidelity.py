"""How far a quantised model's predictions are from those of the weights it was made from, in KL divergence and perplexity.

KL(reference || variant) per case, at the position where the label is predicted: over the whole vocabulary, and over the
three labels alone, which is the only one tied to a decision. The tail tells more about a safety label than the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax

from tasks.judging.point_metrics import Floats

PERCENTILES = {"kl_median": 50.0, "kl_p95": 95.0, "kl_p99": 99.0, "kl_p999": 99.9, "kl_max": 100.0}


NO_TEXT = "no perplexity: a single case has no token of its own before the label"


@dataclass(frozen=True)
class Predicted:
    """One model on N cases: float32 logits (N, V) at the label's position, log P(label) (N, 3), and the sum of negative
    log-likelihoods of `text_tokens` tokens of the messages."""

    logits: Any
    label_logp: Any
    text_nll: float
    text_tokens: int

    @property
    def perplexity(self) -> float | None:
        """Of the messages' own tokens; None without any: of a single case, all but the last count as instruction."""
        return float(np.exp(self.text_nll / self.text_tokens)) if self.text_tokens else None


def divergences(reference_logits: Any, logits: Any) -> Floats:
    """KL(reference || other) in nats of each row, logits (N, K) -> (N,); sums are float64."""
    pairs = zip(np.asarray(reference_logits), np.asarray(logits), strict=True)
    return np.array(
        [_divergence(*pair) for pair in pairs]
    )  # row by row: thousands over a vocabulary are gigabytes


def _divergence(reference: Floats, other: Floats) -> float:
    ours, theirs = (np.asarray(log_softmax(row.astype(np.float64))) for row in (reference, other))
    return max(float((np.exp(ours) * (ours - theirs)).sum()), 0.0)  # rounding can make it -1e-17


def fidelity_figures(reference: Predicted, variant: Predicted) -> dict[str, dict[str, Any]]:
    """Columns of the table `fidelity` for the distributions `vocabulary` and `labels`."""
    theirs, own, cases = reference.perplexity, variant.perplexity, len(reference.logits)
    notes = [] if own and theirs else [NO_TEXT]
    if few := [f"{q:g} %" for q in PERCENTILES.values() if _too_few(cases, q)]:
        notes.append(f"no percentile {' and '.join(few)} of {cases} cases")
    shared = {
        "cases": cases, "text_tokens": reference.text_tokens, "perplexity": own,
        "reference_perplexity": theirs, "perplexity_ratio": own / theirs if own and theirs else None,
        "note": "; ".join(notes) or None,
    }  # fmt: skip
    pairs = {
        "vocabulary": (reference.logits, variant.logits),
        "labels": (reference.label_logp, variant.label_logp),
    }
    return {name: _figures(*pair) | shared for name, pair in pairs.items()}


def _too_few(cases: int, q: float) -> bool:
    """Whether less than one case lies beyond the percentile: it would be read off between the two largest values."""
    return q < 100 and cases < round(100 / (100 - q))


def _figures(reference: Any, variant: Any) -> dict[str, float | None]:
    kl = divergences(reference, variant)
    same = np.argmax(reference, axis=1) == np.argmax(variant, axis=1)
    figures = {
        name: None if _too_few(len(kl), q) else float(np.percentile(kl, q))
        for name, q in PERCENTILES.items()
    }
    return {"kl_mean": float(kl.mean()), "same_top1": float(same.mean()), **figures}
