"""Does a language model earn its place over a linear model, on the test set and on harder cases?
`uv run python -m tests.bench.corpus STUDY`, for a study in the warehouse.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pandas as pd
import typer

from tasks.judging.intervals import percentile_interval, resample_totals, unit_codes
from tasks.judging.point_metrics import MIN_UNITS, Floats, confusion_cells, label_codes, metric_values
from tasks.runtime.errors import BadInput
from tests.bench.common import print_rows, run
from warehouse.query import query

METRICS = ("macro_f1", "ed_f2")
# By how much a model must beat the linear model, in both metrics, to earn its place.
MARGIN = {"test": 0.05}  # elsewhere any difference above 0
# The latest evaluation of each training beside the latest linear model on exactly these cases, learned
# from the same dataset; an untuned model has learned from none.
MODELS = """
WITH judged AS (
    SELECT * FROM evaluation_summary_of(evaluations_of($study))
    QUALIFY row_number() OVER (PARTITION BY training_id, set_digest ORDER BY created_at DESC) = 1
)
SELECT
    judged.evaluation_id, judged.evaluation_set, linear.evaluation_id AS baseline,
    judged.training_id || if(judged.random_weights, ' (random weights)', '') AS model
FROM judged
JOIN judged AS linear ON linear.set_digest = judged.set_digest AND linear.recipe = 'linear'
WHERE judged.precision IS NOT NULL
    AND (judged.recipe_kind = 'baseline' OR judged.dataset_digest = linear.dataset_digest)
ORDER BY judged.evaluation_set != 'test', judged.evaluation_set, model
"""
DECISIONS = """
SELECT case_id, case_group, label, argmax AS decision
FROM prediction WHERE evaluation_id = $evaluation ORDER BY case_id
"""
Difference = tuple[float, float | None, float | None]  # with its 95 % interval, where there is one


def corpus(study: Annotated[str, typer.Argument(help="study in the warehouse")]) -> None:
    """Compare each model of a study with the linear model of the same cases."""
    rows = []
    for pair in query(MODELS, {"study": study}).itertuples():
        model, baseline = (query(DECISIONS, {"evaluation": id}) for id in (pair.evaluation_id, pair.baseline))
        rows.append(figures(pair.evaluation_set, pair.model, model, baseline))

    if not rows:
        raise BadInput(f"The warehouse has no model of {study} beside a linear one; sweep it first.")
    print_rows("Most probable label; model minus linear model by case, 95 % over conditions", rows)


def figures(name: str, model: str, decisions: pd.DataFrame, baseline: pd.DataFrame) -> dict[str, str]:
    """A line of the table: each metric of a model, and its difference to the baseline."""
    values = metric_values(_tables(decisions).sum(0).reshape(3, 3))
    row = {"set": f"{name}, {len(decisions)} cases", "model": model}
    differences = []
    for metric in METRICS:
        point, low, high = difference(metric, decisions, baseline)
        differences.append((point, low, high))
        interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
        row[metric] = f"{values[metric]:.3f}"
        row[f"{metric}, difference"] = f"{point:+.3f}{interval}"

    row["earns its place?"] = verdict(differences, MARGIN.get(name, 0.0))
    return row


def difference(metric: str, model: pd.DataFrame, baseline: pd.DataFrame) -> Difference:
    """Model minus baseline on the same cases, with a bootstrap over whole conditions."""
    of_model, of_baseline = _tables(model), _tables(baseline)

    def statistic(totals: Floats) -> Floats:
        first, second = (metric_values(part.reshape(-1, 3, 3))[metric] for part in (totals[:, :9], totals[:, 9:]))
        return first - second

    point = float(statistic(np.hstack([of_model, of_baseline]).sum(0, keepdims=True))[0])
    groups = [group if isinstance(group, str) else None for group in model.case_group]
    if len(np.unique(unit_codes(groups, len(groups))[0])) < MIN_UNITS:
        return point, None, None
    totals = resample_totals(np.hstack([of_model, of_baseline]), groups=groups, seed=0)
    return (point, *(percentile_interval(statistic(totals)) or (None, None)))


def _tables(decisions: pd.DataFrame) -> Floats:
    """Each case's own confusion table, shape (cases, 9)."""
    truth = label_codes(decisions.label.tolist())
    return confusion_cells(truth, label_codes(decisions.decision.tolist()))


def verdict(differences: list[Difference], margin: float) -> str:
    """Yes: every difference is at least the margin, with its interval above 0. No: some interval
    lies below the margin.
    """
    if any(high is not None and high <= margin for _, _, high in differences):
        return f"no, not by {margin}"
    if all(point >= margin and low is not None and low > 0 for point, low, _ in differences):
        return f"yes, by {margin}"
    return "cannot conclude"


if __name__ == "__main__":
    run(corpus)
