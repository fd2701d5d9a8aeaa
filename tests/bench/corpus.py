"""Does a language model earn its place over a bag of words, on the test set and on harder cases?
`uv run python -m tests.bench.corpus tuned`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from flows.cli.terminal import console
from tasks.corpus.case import Case
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.vignettes.adversarial import BANKS
from tasks.corpus.vignettes.adversarial import NAME as ADVERSARIAL
from tasks.grids.grid import load_grid
from tasks.judging.inputs import label_codes
from tasks.judging.intervals import clustered_bootstrap
from tasks.judging.point_metrics import Floats, confusion_cells, metric_values
from tasks.runtime.files import read_lines
from tasks.runtime.home import home
from tasks.scoring.baselines import bag_of_words, scored_cases
from tasks.spec import EvaluationSet
from tasks.tuning.rows import sets_digest
from tests.bench.common import print_rows, run
from warehouse.connect import listed, warehouse_path
from warehouse.query import query

BASELINE = "TF-IDF (words, pairs) + logistic regression"
LEARNED = ("train", "valid")  # the sets that decide what a model, or the bag of words, has learned
METRICS = ("macro_f1", "ed_f2")
HARDER = (ADVERSARIAL, *BANKS)
# By how much a model must beat the baseline, in both metrics, to earn its place.
MARGINS = {"test": 0.05, **dict.fromkeys(HARDER, 0.0)}
# The latest evaluation of each training on exactly these cases; an untuned model has learned from
# no dataset.
MODELS = """
    SELECT evaluation_id, training_id || if(random_weights, ' (random weights)', '') AS model
    FROM evaluation_summary
    WHERE set_digest = $cases AND precision IS NOT NULL
        AND (recipe_kind = 'baseline' OR dataset_digest IN {datasets})
    QUALIFY row_number() OVER (PARTITION BY training_id ORDER BY created_at DESC) = 1
    ORDER BY cell_id, random_weights, finished_at, training_id
"""
DECISIONS = """
    SELECT case_id, case_group, label, argmax AS decision
    FROM prediction WHERE evaluation_id = $evaluation
"""
Difference = tuple[float, float | None, float | None]  # with its 95 % interval, where there is one


def corpus(
    grid: Annotated[str, typer.Argument(help="grid with the dataset")] = "paper",
    set_: Annotated[list[str] | None, typer.Option("--set", help="change a setting")] = None,
) -> None:
    """Compare a bag of words with each landed model that learned from the same cases."""
    harder = tuple(EvaluationSet(name=name, source="embedded") for name in HARDER)
    folder = prepare_dataset(load_grid(grid, set_).data, home(), harder)
    dataset = DatasetManifest.read(folder)
    bag = bag_of_words(*(_cases(folder, name) for name in LEARNED))

    rows = []
    for name in MARGINS:
        cases = _cases(folder, name)
        scored = scored_cases(cases, bag.predict(cases))
        baseline = pd.DataFrame(
            {
                "case_id": [case.case_id for case in scored],
                "case_group": [case.group for case in scored],
                "label": [case.label for case in scored],
                "decision": [max(case.p, key=case.p.__getitem__) for case in scored],
            }
        ).set_index("case_id")
        rows.append(_row(name, BASELINE, baseline, None))
        for model, decisions in models(dataset.digest_of(name), learned_alike(dataset)).items():
            rows.append(_row(name, model, decisions, baseline))

    title = "Most probable label; model minus bag of words by case, 95 % over conditions"
    print_rows(title, rows)
    if len(rows) == len(MARGINS):
        console.print("No model of these cases is in the warehouse; sweep this grid first.")


def _cases(folder: Path, name: str) -> list[Case]:
    return [Case(**line) for line in read_lines(folder / f"{name}.jsonl")]


def learned_alike(dataset: DatasetManifest) -> set[str]:
    """Digests of the datasets in this home with the train and valid of `dataset`.

    A training is made of these two sets alone, and its row names the dataset with which it landed
    last: there the test set may have had other limits.
    """
    learned = [dataset.digest_of(name) for name in LEARNED]
    digests = set()
    for other in map(DatasetManifest.read_if_complete, (home() / "data").iterdir()):
        if other is not None and [other.digest_of(name) for name in LEARNED] == learned:
            digests |= {other.dataset_digest, sets_digest(other)}
    return digests


def models(set_digest: str, datasets: set[str]) -> dict[str, pd.DataFrame]:
    """The decisions of each model on the cases of a set, by the name of the model."""
    if not warehouse_path().exists():
        return {}

    found = query(MODELS.format(datasets=listed(datasets)), {"cases": set_digest})
    decisions = {}
    for row in found.itertuples():
        rows = query(DECISIONS, {"evaluation": row.evaluation_id})
        decisions[row.model] = rows.set_index("case_id")
    return decisions


def _row(
    name: str, model: str, decisions: pd.DataFrame, baseline: pd.DataFrame | None
) -> dict[str, str]:
    figures = metric_values(_tables(decisions).sum(0).reshape(3, 3))
    row = {"set": f"{name}, {len(decisions)} cases", "model": model}
    differences = []
    for metric in METRICS:
        row[metric] = f"{figures[metric]:.3f}"
        row[f"{metric}, difference"] = ""
        if baseline is not None:
            differences.append(difference(metric, decisions, baseline.loc[decisions.index]))
            point, low, high = differences[-1]
            interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
            row[f"{metric}, difference"] = f"{point:+.3f}{interval}"

    row["earns its place?"] = verdict(differences, MARGINS[name]) if differences else ""
    return row


def difference(metric: str, model: pd.DataFrame, baseline: pd.DataFrame) -> Difference:
    """Model minus baseline on the same cases, with a bootstrap over whole conditions."""
    of_model, of_baseline = _tables(model), _tables(baseline)

    def statistic(totals: Floats) -> Floats:
        first, second = (
            metric_values(part.reshape(-1, 3, 3))[metric] for part in (totals[:, :9], totals[:, 9:])
        )
        return first - second

    point = float(statistic(np.hstack([of_model, of_baseline]).sum(0, keepdims=True))[0])
    groups = [group if isinstance(group, str) else None for group in model.case_group]
    bounds = clustered_bootstrap(statistic, of_model, of_baseline, groups=groups, seed=0)
    return (point, *(bounds or (None, None)))


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
