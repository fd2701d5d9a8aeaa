"""The three primary figures, computed again from published Parquet files by code that shares none with the project:

    uv run python tests/published/independent.py warehouse/published/study/landing --recipe tuned

and with `--sides 8bit linear` macro-F1 and over-triage beside the linear model, which every seed is compared with.

Thresholds come from calibration cases where they are published, decisions from probabilities, and the interval from the
mean squares of a table of trainings x groups: the two-way random model without replication (Searle, Casella and
McCulloch, Variance Components (1992), chapter 4) with Satterthwaite's degrees of freedom (Biometrics Bulletin 2 (1946)).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy import stats

URGENCY = {"ED": 0, "GP": 1, "HOME": 2}
FIGURES = ("ed_recall", "over_triage", "accuracy")
BESIDE_LINEAR = ("macro_f1", "over_triage")
BETTER = {"ed_recall": 1, "over_triage": -1, "accuracy": 1, "macro_f1": 1}  # the sign of a gain


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table in a folder, and in those below it: the registered study has one for each seed."""
    return [row for path in sorted(folder.rglob(f"{table}.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]


def refuse_sealed(folder: Path) -> None:
    """Raise ValueError where the claim of a study, that of its last sweep with one, is sealed and no look has opened it."""
    opened = {(row["study"], row["objective"]) for row in rows_of(folder, "look")}
    sweeps = sorted(rows_of(folder, "sweep"), key=lambda row: (row["started_at"], row["sweep_id"]))
    for row in {row["study"]: row for row in sweeps if row.get("primary_claim")}.values():
        is_opened = (row["study"], f"primary claim {row['primary_digest']}") in opened
        if json.loads(row["primary_claim"]).get("sealed") and not is_opened:
            raise ValueError(
                f"the study {row['study']} is sealed, and no figure of it is computed before it is published with the look "
                "that opened it"
            )


def models_of(folder: Path, base_model: str, recipe: str, evaluation_set: str) -> dict[tuple[int, str], str]:
    """evaluation_id by seed and precision of the trained models of a recipe.

    Raises ValueError where a seed was judged twice at a precision: the folder then holds two studies.
    """
    named = {
        row["training_id"]: (row["seed"], row["precision"])
        for row in rows_of(folder, "experiment")
        if (row["base_model"], row["recipe"]) == (base_model, recipe) and row["recipe_kind"] != "moved_adapter"
    }
    judged: dict[tuple[int, str], str] = {}
    for row in rows_of(folder, "evaluation"):
        key = named.get(row["training_id"])
        if key is None or row["evaluation_set"] != evaluation_set:
            continue
        if key in judged:
            raise ValueError(f"seed {key[0]} at {key[1]} has two evaluations on {evaluation_set}")
        judged[key] = row["evaluation_id"]
    return judged


def thresholds_of(folder: Path, evaluations: Sequence[str]) -> dict[str, float]:
    """The threshold of each model on p(ED): of the n calibration emergencies floor((1 - target)(n + 1)) lie below it.

    Raises ValueError where the published threshold is another one.
    """
    emergencies: dict[str, list[float]] = {evaluation: [] for evaluation in evaluations}
    for row in rows_of(folder, "calibration_prediction"):
        if row["evaluation_id"] in emergencies and row["label"] == "ED":
            emergencies[row["evaluation_id"]].append(row["p_ed"])

    thresholds = {}
    for row in rows_of(folder, "decision_rule"):
        evaluation = row["evaluation_id"]
        if row["rule"] != "target_recall" or evaluation not in emergencies:
            continue
        thresholds[evaluation] = row["threshold"]
        if scores := sorted(emergencies[evaluation]):
            below = math.floor(round((1 - row["target"]) * (len(scores) + 1), 9))
            if scores[below] != row["threshold"]:
                raise ValueError(
                    f"{evaluation}: its threshold is {row['threshold']}, and calibration gives {scores[below]}"
                )
    return thresholds


def sums_of(folder: Path, models: Mapping[str, float]) -> dict[str, np.ndarray]:
    """By figure, numerators and denominators of each model in each group of cases, (2, models, groups, ratios): macro-F1 is
    the mean of the three ratios 2 TP / (2 TP + FP + FN).

    `models`: the threshold of each evaluation. Raises ValueError where a published decision is another one, or where
    models were judged on different cases.
    """
    cases: dict[str, dict[str, dict[str, Any]]] = {evaluation: {} for evaluation in models}
    for row in rows_of(folder, "prediction"):
        if row["evaluation_id"] in cases:
            cases[row["evaluation_id"]][row["case_id"]] = row

    ids = sorted(next(iter(cases.values())))
    groups = sorted({row["case_group"] for row in next(iter(cases.values())).values()})
    column = {group: place for place, group in enumerate(groups)}
    shape = (2, len(models), len(groups))
    sums = {figure: np.zeros((*shape, 3 if figure == "macro_f1" else 1)) for figure in BETTER}
    for place, (evaluation, threshold) in enumerate(models.items()):
        if sorted(cases[evaluation]) != ids:
            raise ValueError(f"{evaluation} was judged on other cases")
        for row in cases[evaluation].values():
            p = (row["p_ed"], row["p_gp"], row["p_home"])
            probable = p.index(max(p))
            by_threshold = 0 if p[0] >= threshold else (1 if p[1] >= p[2] else 2)
            if (URGENCY[row["argmax"]], URGENCY[row["target_recall"]]) != (probable, by_threshold):
                raise ValueError(f"{evaluation}, {row['case_id']}: its decisions do not follow from its probabilities")

            truth, group = URGENCY[row["label"]], column[row["case_group"]]
            for figure, ratio, hit, counts in (
                ("accuracy", 0, probable == truth, True),
                ("over_triage", 0, by_threshold < truth, True),
                ("ed_recall", 0, by_threshold == 0, truth == 0),
                *(("macro_f1", i, probable == truth, (truth == i) + (probable == i)) for i in range(3)),
            ):
                sums[figure][:, place, group, ratio] += (hit * counts, counts)
    return sums


def interval(table: np.ndarray) -> dict[str, float]:
    """Mean of a table of trainings x groups, its 95 % interval, standard error and degrees of freedom."""
    trainings, groups = table.shape
    mean = table.mean()
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    freedom_t, freedom_g = trainings - 1, groups - 1
    square_t = groups * np.sum((rows - mean) ** 2) / freedom_t
    square_g = trainings * np.sum((columns - mean) ** 2) / freedom_g
    residual = table - rows[:, None] - columns[None, :] + mean
    square_e = np.sum(residual**2) / (freedom_t * freedom_g)

    # No less than the variance of trainings alone, or of groups alone.
    square = max(square_t + square_g - square_e, square_t, square_g)
    error = math.sqrt(square / table.size)
    shares = square_t**2 / freedom_t + square_g**2 / freedom_g + square_e**2 / (freedom_t * freedom_g)
    freedom = max(square**2 / shares, freedom_t)
    half = stats.t.ppf(0.975, freedom) * error
    return {"difference": mean, "low": mean - half, "high": mean + half, "standard_error": error, "freedom": freedom}


def primary_figures(
    folder: Path, base_model: str, recipe: str, sides: Sequence[str], evaluation_set: str, margin: float
) -> dict[str, dict[str, float]]:
    """By figure, the first side minus the second, which may be `linear`, over the seeds that have both, with its one-sided p
    against a loss of `margin`, also adjusted by Holm (Scandinavian Journal of Statistics 6 (1979)) for all figures. Raises
    ValueError where the folder holds a sealed study."""
    refuse_sealed(folder)
    judged = models_of(folder, base_model, recipe, evaluation_set)
    if sides[1] == "linear":
        (linear,) = models_of(folder, "none", "linear", evaluation_set).values()
        judged |= {(seed, "linear"): linear for seed, _ in judged}
    seeds = sorted({seed for seed, _ in judged if all((seed, side) in judged for side in sides)})
    # Those that the claim was opened for; one that was trained later is published beside them.
    if looks := [row for row in rows_of(folder, "look") if row.get("seeds")]:
        opened = min(looks, key=lambda row: row["looked_at"])["seeds"]
        seeds = [seed for seed in seeds if seed in opened]
    if len(seeds) < 2:
        raise ValueError(f"{recipe} has {len(seeds)} seed at both of {' and '.join(sides)}, and an interval needs two")

    order = [judged[seed, side] for side in sides for seed in seeds]
    thresholds = thresholds_of(folder, order)
    sums = sums_of(folder, thresholds)
    places = [list(thresholds).index(evaluation) for evaluation in order]
    figures: dict[str, dict[str, float]] = {}
    for figure in BESIDE_LINEAR if sides[1] == "linear" else FIGURES:
        parts = sums[figure][:, places]
        hits, of = parts.reshape(2, 2, len(seeds), *parts.shape[2:])
        counted = of.any(axis=(0, 1, 3))
        hits, of = hits[:, :, counted], of[:, :, counted]
        total = of.sum(axis=2, keepdims=True)
        share = hits.sum(axis=2, keepdims=True) / total
        # A group stands for the share as it would be if all groups were like it, in first order.
        linearised = (share + of.shape[2] * (hits - share * of) / total).mean(axis=-1)
        difference = interval(linearised[0] - linearised[1])
        distance = (BETTER[figure] * difference["difference"] + margin) / difference["standard_error"]
        figures[figure] = difference | {
            **dict(zip(sides, share.mean(axis=(1, 2, 3)).tolist(), strict=True)),
            "seeds": len(seeds),
            "groups": int(counted.sum()),
            "p": float(stats.t.sf(distance, difference["freedom"])),
        }

    adjusted = 0.0
    for place, figure in enumerate(sorted(figures, key=lambda name: figures[name]["p"])):
        adjusted = max(adjusted, min(1.0, (len(figures) - place) * figures[figure]["p"]))
        figures[figure]["holm_p"] = adjusted
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="The primary figures of a published study, computed again.")
    parser.add_argument("folder", type=Path, help="a published folder `landing`")
    parser.add_argument("--base-model", default="smollm2-135m")
    parser.add_argument("--recipe", default="tuned")
    parser.add_argument("--sides", nargs=2, default=("4bit", "8bit"))
    parser.add_argument("--evaluation-set", default="test")
    parser.add_argument("--margin", type=float, default=0.02)
    values = parser.parse_args()
    try:
        figures = primary_figures(
            values.folder, values.base_model, values.recipe, values.sides, values.evaluation_set, values.margin
        )
    except ValueError as error:
        raise SystemExit(f"{values.folder}: {error}.") from error
    for name, figure in figures.items():
        tested = f"p {figure['p']:.7f}, of {len(figures)} by Holm {figure['holm_p']:.7f}  "
        print(
            f"{name:12s} {figure['difference']:+.7f} [{figure['low']:+.7f}, {figure['high']:+.7f}]  "
            f"{'' if values.sides[1] == 'linear' else tested}({figure['seeds']} seeds, {figure['groups']} groups)"
        )


if __name__ == "__main__":
    main()
