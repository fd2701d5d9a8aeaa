"""Scores drawn at random with a fixed seed, as a model would give them to cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from tasks.judging.point_metrics import Floats, Ints
from tasks.judging.scores_folder import DropoutPasses, ScoredCase
from tasks.spec import LABELS, short_digest

SHARES = (0.2, 0.45, 0.35)  # of the labels
CASES_IN_GROUP = 15
PASSES = 10
# in logits
SIGNAL = 3.0
CASE_NOISE = 1.0
MODEL_NOISE = 0.5
PASS_NOISE = 0.7


@dataclass(frozen=True)
class SyntheticCases:
    """A set of cases: labels (cases,) as positions in LABELS, logits (cases, 3) that all models
    share.
    """

    name: str
    labels: Ints
    logits: Floats

    @classmethod
    def drawn(cls, name: str, count: int, seed: int) -> SyntheticCases:
        random = np.random.default_rng(seed)
        labels = random.choice(len(LABELS), size=count, p=SHARES)
        logits = SIGNAL * np.eye(len(LABELS))[labels]
        return cls(name, labels, logits + random.normal(0, CASE_NOISE, logits.shape))

    def scored(self, random: np.random.Generator) -> list[ScoredCase]:
        """The cases as one model scores them."""
        p = softmax(self.logits + random.normal(0, MODEL_NOISE, self.logits.shape), axis=-1)
        return [
            ScoredCase(
                case_id=f"{self.name}-{place:06}",
                label=LABELS[label],
                group=f"condition {place // CASES_IN_GROUP}",
                case_digest=short_digest({"set": self.name, "case": place}),
                p=dict(zip(LABELS, map(float, row), strict=True)),
                label_loss=float(-np.log(row[label])),
                other_loss=0.01,
                tokens=2,
            )
            for place, (label, row) in enumerate(zip(self.labels, p, strict=True))
        ]

    def passes(self, random: np.random.Generator) -> DropoutPasses:
        """Dropout passes over all cases."""
        noise = random.normal(0, PASS_NOISE, (PASSES, *self.logits.shape))
        ids = [f"{self.name}-{place:06}" for place in range(len(self.labels))]
        return DropoutPasses(ids, softmax(self.logits + noise, axis=-1))
