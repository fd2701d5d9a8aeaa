"""Pairs of two models that the plan's own generator did not draw, and their rows in a warehouse."""

from pathlib import Path
from typing import Any

import numpy as np

from tasks.judging.study_draws import PairedCounts
from tasks.spec import LABELS
from tests.warehouse.rows import evaluation, training
from warehouse.landing import write_landing
from warehouse.load import load_all

Decisions = tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]  # truth, at 4 bits, at 8 bits, group


def decisions(loss: float, seed: int, groups: int = 63, size: int = 24) -> Decisions:
    """Two models of a latent ability: a case is as hard for both, a group suits one of them better.

    `loss`: how much less able the 4-bit model is, in logits of one spread.
    """
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), rng.poisson(size, groups) + 3)
    count = len(group)
    truth = rng.choice(3, count, p=[0.27, 0.38, 0.35])
    ability = rng.normal(1.3, 0.8, groups)[group] + rng.normal(0, 1.5, count)

    suits_4bit = rng.normal(0, 0.45, groups)[group]
    sides = []
    for side in (suits_4bit / 2 - loss, -suits_4bit / 2):
        right = ability + side + rng.normal(0, 0.55, count) > 0
        sides.append(np.where(right, truth, (truth + rng.integers(1, 3, count)) % 3))

    return truth, *sides, [f"problem {number}" for number in group]


def counted(pair: Decisions) -> PairedCounts:
    return PairedCounts.of(*pair, grouped=True)


def store(root: Path, pair: Decisions, by_argmax: Decisions | None = None, **values: Any) -> None:
    """Land a pair as Parquet files and load them into the warehouse that the environment names.

    Pairs of several seeds are kept beside each other. `by_argmax`: most probable labels that differ from the decisions.
    """
    truth, *decided, groups = pair
    probable = (by_argmax or pair)[1:3]
    for bits, sides in ((4, (probable[0], decided[0])), (8, (probable[1], decided[1]))):
        name = f"{bits}-s{values['seed']}" if "seed" in values else str(bits)
        cases = [(LABELS[a], LABELS[b], LABELS[c]) for a, b, c in zip(truth, *sides, strict=True)]
        rows = evaluation(f"e{name}", f"t{name}", cases, has_groups=True)
        for row, group in zip(rows["prediction"], groups, strict=True):
            row["case_group"] = group
        write_landing(root, f"t{name}", "training", training(f"t{name}", bits, **values))
        write_landing(root, f"e{name}", "evaluation", rows)

    load_all(root)
