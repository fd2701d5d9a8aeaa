"""Metrics as sums of ratios of totals, by which groups can be resampled fast.

The figures equal those of `tasks/judging/point_metrics.py`, and the AUROC that of
`tasks/judging/score_metrics.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.judging.point_metrics import Floats

POOLED = ("accuracy", "ed_recall", "ed_f2", "macro_f1", "over_triage")
OF_EMERGENCIES = ("ed_recall", "ed_f2")  # computed from cases with the label ED


@dataclass(frozen=True)
class Cells:
    """Confusion tables of every unit and model, (units, models, 3, 3):
    row = truth, column = decision.

    `placed`: sums of placements by the probability of ED, (units, models, 2): over emergencies, and
    over the other cases; None where they are not asked for.
    """

    counts: Floats
    placed: Floats | None = None

    def part(self, models: list[int]) -> Cells:
        return Cells(
            self.counts[:, models], None if self.placed is None else self.placed[:, models]
        )

    def ratios(self, metric: str) -> tuple[Floats, Floats]:
        """Numerators and denominators of one of POOLED, or of ED_AUROC, each (units, models, ratios):
        the metric of a model is the sum of its ratios of totals.
        """
        of_metric = getattr(self, f"_{metric}")  # _accuracy, _ed_recall, ...: a method for each
        numerators, denominators = of_metric()
        if numerators.ndim == 3:
            return numerators, denominators

        return numerators[..., None], denominators[..., None]

    @property
    def _actual(self) -> Floats:
        return np.asarray(self.counts.sum(-1))

    @property
    def _decided(self) -> Floats:
        return np.asarray(self.counts.sum(-2))

    @property
    def _hits(self) -> Floats:
        return np.diagonal(self.counts, axis1=-2, axis2=-1)

    def _accuracy(self) -> tuple[Floats, Floats]:
        return self._hits.sum(-1), self._actual.sum(-1)

    def _ed_recall(self) -> tuple[Floats, Floats]:
        return self._hits[..., 0], self._actual[..., 0]

    def _ed_f2(self) -> tuple[Floats, Floats]:
        # (1 + b^2) hits / (b^2 actual + decided) with b = 2.
        return 5 * self._hits[..., 0], 4 * self._actual[..., 0] + self._decided[..., 0]

    def _over_triage(self) -> tuple[Floats, Floats]:
        return np.asarray(np.tril(self.counts, -1).sum((-2, -1))), self._actual.sum(-1)

    def _macro_f1(self) -> tuple[Floats, Floats]:
        """Over the classes that the set has cases of."""
        has_cases = self._actual.sum(axis=(0, 1)) > 0
        numerators = 2 * self._hits[..., has_cases] / max(int(has_cases.sum()), 1)
        return numerators, (self._actual + self._decided)[..., has_cases]

    def _ed_auroc(self) -> tuple[Floats, Floats]:
        """The mean placement of emergencies, plus that of the others, minus the AUROC.

        Either mean alone is the AUROC. Only both together vary between resamples as the AUROC does
        (in first order, as DeLong's variance and, by group, Obuchowski's, Biometrics 53 (1997)
        567-578); the third ratio is constant.
        """
        assert self.placed is not None
        emergencies = self._actual[..., 0]
        cases = self._actual.sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = self.placed[..., 0].sum(0) / emergencies.sum(0)

        return (
            np.concatenate([self.placed, -(auroc * cases)[..., None]], axis=-1),
            np.stack([emergencies, cases - emergencies, cases], axis=-1),
        )
