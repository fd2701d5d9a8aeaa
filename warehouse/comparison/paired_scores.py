"""Figures of a matched pair that no decision rule changes: the loss, and the AUROC of emergencies."""

from __future__ import annotations

import numpy as np

from tasks.judging.point_metrics import ED_AUROC, Floats, UnitCounts, placements, ratio
from warehouse.comparison.paired import (
    LOSS,
    BothSides,
    MetricComparison,
    PairedDecisions,
    comparison_of,
    resampled,
    sums_by_unit,
)


def compare_losses(pair: PairedDecisions, losses: Floats) -> MetricComparison:
    """The mean loss of a pair with its 95 % interval; `losses` (cases, 2), in nats."""
    sums = sums_by_unit(pair, np.concatenate([losses, np.ones((len(losses), 1))], axis=1))

    def means(totals: Floats) -> BothSides:
        return BothSides(totals[:, 0] / totals[:, 2], totals[:, 1] / totals[:, 2])

    observed = means(sums.sum(axis=0, keepdims=True))
    units = UnitCounts.of(pair.truth, pair.unit)
    return comparison_of(LOSS, pair, units, observed, means(resampled(sums)).difference)


def compare_auroc(pair: PairedDecisions, p_ed: Floats) -> MetricComparison:
    """The AUROC of emergencies of a pair with its 95 % interval; `p_ed` (cases, 2), the probability
    of ED.

    It is linearised: a resample moves the mean placement of emergencies and that of the other
    cases, and both moves add up.
    """
    emergency = pair.truth == 0
    placed = np.stack([placements(p_ed[:, side], emergency) for side in (0, 1)], axis=1)
    kinds = np.stack([emergency, ~emergency], axis=1)
    parts = [placed * kind[:, None] for kind in kinds.T]
    sums = sums_by_unit(pair, np.concatenate([*parts, kinds], axis=1))

    def means(totals: Floats) -> Floats:
        """Mean placements (tables, kinds, sides); either kind's is the AUROC."""
        by_kind = totals[:, :4].reshape(-1, 2, 2)
        return ratio(by_kind, np.broadcast_to(totals[:, 4:, None], by_kind.shape))

    (of_emergencies, of_others) = means(sums.sum(axis=0, keepdims=True))[0]
    moved = (means(resampled(sums)) - [of_emergencies, of_others]).sum(axis=1)
    differences = of_emergencies[0] - of_emergencies[1] + moved[:, 0] - moved[:, 1]
    observed = BothSides(of_emergencies[:1], of_emergencies[1:])
    units = UnitCounts.of(pair.truth, pair.unit)
    return comparison_of(ED_AUROC, pair, units, observed, differences)
