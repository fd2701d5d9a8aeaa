"""`triage bench corpus`: does a language model earn its place over a bag of words, on the test set and on harder cases?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from flows.report import print_frame
from flows.tables import NOT_A_DEVICE, experiment_name, figure
from tasks.corpus.adversarial import NAME as ADVERSARIAL
from tasks.corpus.prepare import prepare_dataset
from tasks.grid import load_grid
from tasks.runtime.store import home, read_lines, read_manifest
from tasks.scoring.baselines import bag_of_words, scored_lines
from tasks.scoring.intervals import Floats, clustered_bootstrap
from tasks.scoring.metrics import confusion, metric_values
from tasks.spec import LABELS, EvaluationSet
from warehouse.connect import warehouse_path
from warehouse.query import query

BASELINE = "TF-IDF (words, pairs) + logistic regression"
METRICS = {"macro_f1": "macro F1", "ed_f2": "ED F2"}
MARGINS = {"test": 0.05, ADVERSARIAL: 0.0}  # by how much a model must beat the baseline to earn its place
Difference = tuple[float, float | None, float | None]  # model minus baseline, with the bounds of its interval


@dataclass(frozen=True)
class Decided:
    """The most probable label of each case of a set, by case id; all with the same labels and groups."""

    labels: dict[str, str]
    groups: dict[str, str | None]
    decisions: dict[str, str]


def bench_corpus(console: Console, grid: str) -> pd.DataFrame:
    """Print and return, per set, the baseline and every landed model of the grid's dataset with paired differences."""
    wanted = load_grid(grid)
    adversarial = EvaluationSet(name=ADVERSARIAL, source="embedded")
    folder = prepare_dataset(wanted.data, home(), (adversarial,))
    digests = {name: (read_manifest(folder) or {})["sets"][name]["digest"] for name in ("test", ADVERSARIAL)}
    rows = []
    for name, digest in digests.items():
        baseline = _baseline(folder, name)
        rows.append(_row(name, BASELINE, baseline, None))
        rows += [_row(name, model, found, baseline) for model, found in _models(digest, digests["test"])]
    frame = pd.DataFrame(rows)
    title = "Most probable label; differences are model minus baseline, paired by case, resampled by condition, 95 %"
    print_frame(console, frame, title)
    if len(frame) == len(digests):
        console.print(
            "The warehouse has no model scored on these sets yet. "
            f"Next: triage sweep {grid} --model smollm2-135m --bits 4",
            soft_wrap=True,
        )
    console.print(NOT_A_DEVICE)
    return frame


def _baseline(folder: Path, name: str) -> Decided:
    sets = {key: read_lines(folder / f"{key}.jsonl") for key in ("train", "valid")}
    cases = read_lines(folder / f"{name}.jsonl")
    scored = scored_lines(cases, bag_of_words(sets).predict(cases))
    return Decided(
        {r["case_id"]: r["label"] for r in scored}, {r["case_id"]: r["group"] for r in scored},
        {r["case_id"]: max(LABELS, key=lambda label: r["p"][label]) for r in scored},
    )  # fmt: skip


def _models(set_digest: str, test_digest: str) -> list[tuple[str, Decided]]:
    """The latest evaluation of each landed model on exactly these cases, if its own test set is the one that is meant."""
    if not warehouse_path().exists():
        return []
    frame = query("SELECT * FROM evaluation_summary ORDER BY created_at")
    frame = frame[frame.training_id.isin(frame[frame.set_digest == test_digest].training_id) & frame.bits.notna()]
    frame = frame[frame.set_digest == set_digest]
    frame = frame.drop_duplicates(["cell_id", "random_weights"], keep="last")  # random weights never hide real ones
    if frame.empty:
        return []
    cases = query("SELECT evaluation_id, case_id, case_group, label, argmax FROM prediction")
    found = []
    for r in frame.sort_values(["cell_id", "random_weights"]).itertuples():
        found.append((experiment_name(r), decided_of(cases[cases.evaluation_id == r.evaluation_id])))
    return found


def decided_of(cases: pd.DataFrame) -> Decided:
    """The prediction rows of one evaluation by case; pandas' mark for no group becomes None, which is a group of its own."""
    groups = [group if isinstance(group, str) else None for group in cases.case_group]
    columns = (dict(zip(cases.case_id, values, strict=True)) for values in (cases.label, groups, cases.argmax))
    return Decided(*columns)


def _row(name: str, model: str, found: Decided, baseline: Decided | None) -> dict[str, str]:
    row = {"set": f"{name}, {len(found.labels)} cases", "model": model}
    ids = list(found.labels)
    own = _figures(_tables(found, ids))
    differences = {} if baseline is None else {key: _difference(key, found, baseline, ids) for key in METRICS}
    for metric, title in METRICS.items():
        row[title] = figure(own[metric])
        row[f"{title}, difference"] = figure(*differences[metric], sign=True) if differences else ""
    row["earns its place?"] = _verdict(differences.values(), MARGINS[name]) if differences else ""
    return row


def _verdict(differences: Iterable[Difference], margin: float) -> str:
    """Yes: every difference is at least the margin with its interval above 0. No: some interval lies below the margin."""
    known = [(point, low, high) for point, low, high in differences if low is not None and high is not None]
    if any(high <= margin for _, _, high in known):
        return f"no, not by {margin}" if margin else "no"
    if len(known) == len(METRICS) and all(point >= margin and low > 0 for point, low, _ in known):
        return f"yes, by {margin}" if margin else "yes"
    return "cannot conclude"


def _difference(metric: str, model: Decided, baseline: Decided, ids: list[str]) -> Difference:
    """Model minus baseline with a paired bootstrap interval that resamples whole conditions."""
    pair = [_tables(one, ids) for one in (model, baseline)]

    def statistic(totals: Floats) -> Floats:
        one, other = (metric_values(part.reshape(-1, 3, 3))[metric] for part in (totals[:, :9], totals[:, 9:]))
        return one - other

    point = float(_figures(pair[0])[metric] - _figures(pair[1])[metric])
    bounds = clustered_bootstrap(statistic, *pair, groups=[model.groups[i] for i in ids], seed=0)
    return (point, *(bounds or (None, None)))


def _tables(found: Decided, ids: list[str]) -> Floats:
    """Each case's own confusion table, shape (cases, 9)."""
    return np.stack([confusion([found.labels[i]], [found.decisions[i]]).reshape(9) for i in ids]).astype(np.float64)


def _figures(tables: Floats) -> dict[str, Any]:
    return metric_values(tables.sum(0).reshape(3, 3))
