"""What models of one study decide together: the mean of their probabilities over seeds, and the product of a model's with
those of `linear` (a sum of scores). Each pool is judged as a model is: by the most probable label, and by a threshold on
p(ED) that is chosen on its own probabilities on `calibration`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np

from tasks.judging.decision_rules import target_recall_threshold, threshold_rule
from tasks.judging.point_metrics import Floats, Ints, label_codes
from tasks.scoring.baselines import LINEAR, TARGET
from tasks.spec import ED_AUROC
from warehouse.comparison.cells import JudgedCases, judged_cases
from warehouse.comparison.differences import METRICS, differences

_MODELS = """
SELECT recipe, precision, seed, evaluation_id
FROM leaderboard_of(evaluations_of($study))
WHERE evaluation_set = 'test' AND recipe IN ($recipe, $linear)
"""
_PROBABILITIES = """
SELECT p_ed, p_gp, p_home
FROM {table}
WHERE evaluation_id IN (SELECT unnest($ids))
ORDER BY list_position($ids, evaluation_id), case_id
"""
_LABELS = "SELECT label FROM calibration_prediction WHERE evaluation_id = $linear ORDER BY case_id"
Pool = tuple[Floats, Floats]  # label probabilities (models, cases, 3) on calibration, and on the judged set


def rows_together(con: duckdb.DuckDBPyConnection, study: str, recipe: str) -> list[dict[str, Any]]:
    """The pools of a recipe against `linear`, against its models alone, and at 4 against 8 bits, of the seeds that were
    trained at every precision: the columns of `differences` for `pool` minus `other`, at `precision`.
    """
    of_precision: dict[str, dict[int, str]] = {}
    linear = ""
    for name, precision, seed, id in con.execute(
        _MODELS, {"study": study, "recipe": recipe, "linear": LINEAR}
    ).fetchall():
        if name == LINEAR:
            linear = id
        else:
            of_precision.setdefault(precision, {})[seed] = id
    seeds = sorted(set.intersection(*map(set, of_precision.values())))

    of_linear = _probabilities(con, [linear])
    pools: dict[str, dict[str, Pool]] = {}
    for precision, ids in of_precision.items():
        alone = _probabilities(con, [ids[seed] for seed in seeds])
        pools[precision] = {
            "mean over seeds": _each(alone, lambda p, _: p.mean(axis=0, keepdims=True), of_linear),
            "with linear": _each(alone, _product, of_linear),
            "alone": alone,
            "linear": _each(alone, lambda p, q: np.broadcast_to(q, p.shape), of_linear),
        }

    sides: list[tuple[dict[str, str], Pool, Pool]] = []
    for precision, of_models in pools.items():
        name = {"precision": precision}
        for other in ("linear", "alone"):
            sides.append((name | {"pool": "with linear", "other": other}, of_models["with linear"], of_models[other]))
        sides.append((name | {"pool": "mean over seeds", "other": "linear"}, of_models["mean over seeds"], of_linear))
    if {"4bit", "8bit"} <= pools.keys():
        for pool in ("with linear", "mean over seeds"):
            name = {"pool": pool, "other": f"{pool}, 8 bits", "precision": "4bit"}
            sides.append((name, pools["4bit"][pool], pools["8bit"][pool]))

    cases = judged_cases(con, [linear])
    labels = [label for (label,) in con.execute(_LABELS, {"linear": linear}).fetchall()]
    return _rows(cases, labels, sides)


def _probabilities(con: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> Pool:
    """Of these evaluations, in the order of `ids` and of the names of the cases."""
    tables = []
    for table in ("calibration_prediction", "prediction"):
        columns = con.execute(_PROBABILITIES.format(table=table), {"ids": list(ids)}).fetchnumpy()
        tables.append(np.stack(list(columns.values()), axis=-1).reshape(len(ids), -1, 3))
    return tables[0], tables[1]


def _each(models: Pool, pooled: Callable[[Floats, Floats], Floats], of_linear: Pool) -> Pool:
    calibration, judged = (pooled(p, q) for p, q in zip(models, of_linear, strict=True))
    return calibration, judged


def _product(p: Floats, q: Floats) -> Floats:
    product = p * q
    return np.asarray(product / product.sum(axis=-1, keepdims=True))


def _rows(
    cases: JudgedCases, labels: Sequence[str], sides: Sequence[tuple[Mapping[str, str], Pool, Pool]]
) -> list[dict[str, Any]]:
    """Rows of the pairs of each comparison: the models of two pools, one by one."""
    argmax: list[Ints] = []
    by_threshold: list[Ints] = []
    p_ed: list[Floats] = []
    comparisons = []
    for name, *pair in sides:
        first = len(p_ed) // 2
        for of_models in zip(*pair[0], *pair[1], strict=True):
            for calibration, judged in (of_models[:2], of_models[2:]):
                threshold = target_recall_threshold(calibration[:, 0], labels, TARGET)
                assert threshold is not None, "calibration has emergencies"
                argmax.append(judged.argmax(axis=1))
                by_threshold.append(label_codes(threshold_rule(judged, threshold.value)))
                p_ed.append(judged[:, 0])
        comparisons.append((name, range(first, len(p_ed) // 2)))

    decided = {"argmax": np.stack(argmax), "target_recall": np.stack(by_threshold)}
    losses = np.full((len(p_ed), len(cases.truth)), np.nan)
    pooled = JudgedCases(cases.unit, cases.truth, decided, np.stack(p_ed), losses, cases.grouped)
    return list(differences(pooled, comparisons, tuple(decided), (*METRICS, ED_AUROC)))
