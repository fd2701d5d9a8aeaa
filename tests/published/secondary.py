"""Secondary figures of a study, about the recipe of its claim and the seeds that it was opened for; without a claim, about
the recipe `tuned`.

`by_seed`: 4 minus 8 bits, of each seed and over all. `together`: what models decide together, by the mean of their
probabilities over seeds, and by the product of a model's with those of `linear` (a sum of scores). Each pool is judged as
a model is: by the most probable label, and by a threshold on p(ED) that is chosen on its own probabilities on
`calibration`. `familiar`: cases of problems that `train` has, minus those of new problems. `adversarial`: how many cases
are decided as labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import duckdb
import numpy as np

from tasks.corpus.vignettes.adversarial import NAME as ADVERSARIAL
from tasks.judging.decision_rules import target_recall_threshold, threshold_rule
from tasks.judging.point_metrics import Floats, Ints, label_codes
from tasks.scoring.baselines import LINEAR, TARGET, joint
from tasks.spec import ED_AUROC, FAMILIAR
from tests.published.figures import FIRST
from warehouse.comparison.cells import JudgedCases, judged_cases
from warehouse.comparison.crossed import crossed
from warehouse.comparison.differences import METRICS, differences
from warehouse.comparison.pools import as_dicts

_MODELS = """
WITH judged AS (
    SELECT evaluation_set, IF(model.recipe = $linear, $linear, precision) AS model, seed, evaluation_id
    FROM evaluation_summary_of(evaluations_of($study)) AS model
    LEFT JOIN primary_claim AS claim ON claim.study = $study
    WHERE model.recipe = $linear
        OR model.base_model = coalesce(claim.base_model, $base_model) AND model.recipe = coalesce(claim.recipe, $recipe)
            AND coalesce(list_contains(claim.seeds, seed), true)
    -- A cell that another machine judged again counts once, as on a leaderboard.
    QUALIFY row_number() OVER (PARTITION BY evaluation_set, cell_id ORDER BY finished_at DESC, evaluation_id DESC) = 1
)
SELECT evaluation_set, model, list(evaluation_id ORDER BY seed) FROM judged GROUP BY ALL ORDER BY ALL
"""
_PROBABILITIES = """
SELECT p_ed, p_gp, p_home
FROM {table}
WHERE evaluation_id IN (SELECT unnest($ids))
ORDER BY list_position($ids, evaluation_id), case_id
"""
_ADVERSARIAL = """
SELECT
    evaluation_set, recipe, precision, seed, label, count(*) AS cases,
    count_if(argmax = label) AS as_labelled, count_if(target_recall = label) AS as_labelled_by_threshold
FROM prediction JOIN evaluation_summary_of($ids) USING (evaluation_id)
GROUP BY ALL
ORDER BY ALL
"""
_LABELS = "SELECT label FROM calibration_prediction WHERE evaluation_id = $linear ORDER BY case_id"
FIGURES = {"argmax": ("accuracy", "macro_f1"), "target_recall": ("ed_recall", "over_triage")}
_SEEDS = "SELECT recipe, seed FROM evaluation_summary_of($ids) ORDER BY seed"
Pool = tuple[Floats, Floats]  # label probabilities (models, cases, 3) on calibration, and on the judged set


def rows_by_seed(con: duckdb.DuckDBPyConnection, study: str) -> list[dict[str, Any]]:
    """The recipe at 4 minus at 8 bits: a row per figure and seed, with an interval over groups, and per figure a row over
    all seeds, without a `seed`. The columns of `differences`.
    """
    models = _models(con, study)["test"]
    pairs = list(zip(models["4bit"], models["8bit"], strict=True))
    seeds = con.execute(_SEEDS, {"ids": models["8bit"]}).fetchall()
    recipe, _ = seeds[0]

    cases = judged_cases(con, [id for pair in pairs for id in pair])
    lines: list[tuple[dict[str, Any], Sequence[int]]] = [
        ({"recipe": recipe, "seed": seed}, [i]) for i, (_, seed) in enumerate(seeds)
    ]
    lines.append(({"recipe": recipe, "seed": None}, range(len(pairs))))
    return list(differences(cases, lines, tuple(FIGURES), ("accuracy", "ed_recall", "over_triage")))


def rows_together(con: duckdb.DuckDBPyConnection, study: str) -> list[dict[str, Any]]:
    """The pools of the recipe against `linear`, against its models alone, and at 4 against 8 bits: the columns of
    `differences` for `pool` minus `other`, at `precision`.
    """
    of_precision = _models(con, study)["test"]
    (linear,) = of_precision.pop(LINEAR)

    of_linear = _probabilities(con, [linear])
    pools: dict[str, dict[str, Pool]] = {}
    for precision, ids in of_precision.items():
        alone = _probabilities(con, ids)
        pools[precision] = {
            "mean over seeds": _each(alone, lambda p, _: p.mean(axis=0, keepdims=True), of_linear),
            "with linear": _each(alone, joint, of_linear),
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


def rows_familiar(con: duckdb.DuckDBPyConnection, study: str) -> list[dict[str, Any]]:
    """Familiar minus new problems: a row per figure and model, of `linear` and of the recipe at each precision, and per
    figure and precision a row of the recipe minus `linear`.

    Both sets have problems of their own: the groups of both are crossed with the seeds as those of one set would be.
    """
    models = _models(con, study)
    order = list(models["test"])
    ends = np.cumsum([0, *map(len, models["test"].values())])
    places = {model: slice(*pair) for model, pair in zip(order, pairwise(ends), strict=True)}
    sets = [judged_cases(con, [id for model in order for id in models[name][model]]) for name in (FAMILIAR, "test")]

    rows = []
    for rule, metrics in FIGURES.items():
        cells = [cases.cells(rule) for cases in sets]
        for metric in metrics:
            familiar, new = (of_set.measured(metric) for of_set in cells)
            values = np.stack([familiar.values, new.values])
            influences = np.hstack([familiar.influences, -new.influences])
            for (model, place), minus in product(places.items(), (None, LINEAR)):
                if model == minus:
                    continue
                means, added = values[:, place], influences[place]
                if minus:
                    means = means - values[:, places[minus]]
                    added = added - influences[places[minus]]

                interval = crossed(means[0] - means[1], added)
                assert interval is not None, "some group makes a difference"
                low, high = interval.interval()
                rows.append({
                    "model": model, "minus": minus, "rule": rule, "metric": metric, "seeds": interval.trainings,
                    "groups": interval.units, "familiar": float(means[0].mean()), "new": float(means[1].mean()),
                    "difference": interval.difference, "standard_error": interval.error,
                    "freedom": interval.freedom, "low": low, "high": high,
                })  # fmt: skip
    return rows


def rows_adversarial(con: duckdb.DuckDBPyConnection, study: str) -> list[dict[str, Any]]:
    """How many cases of each adversarial set and label every model of the recipe and `linear` decide as labelled, by the
    most probable label and by the model's threshold.
    """
    sets = _models(con, study)
    ids = [id for name, of_set in sets.items() if name.startswith(ADVERSARIAL) for of in of_set.values() for id in of]
    return as_dicts(con.execute(_ADVERSARIAL, {"ids": ids}))


def _models(con: duckdb.DuckDBPyConnection, study: str) -> dict[str, dict[str, list[str]]]:
    """Evaluations by set and by model, which is `linear` or a precision of the recipe, whose seeds stand in one order."""
    models: dict[str, dict[str, list[str]]] = {}
    values = {"study": study, "linear": LINEAR, "base_model": FIRST[0], "recipe": FIRST[1]}
    for name, model, ids in con.execute(_MODELS, values).fetchall():
        models.setdefault(name, {})[model] = ids
    return models


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
