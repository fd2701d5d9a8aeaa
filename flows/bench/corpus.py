"""`triage bench corpus`: does a language model earn its place over a bag of words, on the test set and on harder cases?"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from flows.report.figures import figure, rows_of
from flows.report.frames import print_frame
from flows.report.names import NOT_A_DEVICE, experiment_name
from tasks.corpus.case import Case
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.vignettes.adversarial import NAME as ADVERSARIAL
from tasks.grid import load_grid
from tasks.judging.intervals import clustered_bootstrap
from tasks.judging.metrics import confusion
from tasks.judging.point_metrics import Floats, metric_values
from tasks.runtime.store import complete, home, read_lines, read_manifest
from tasks.scoring.baselines import Classifier, bag_of_words, scored_cases
from tasks.spec import EvaluationSet
from tasks.tuning.training_rows import dataset_digest
from warehouse.connect import warehouse_path
from warehouse.query import query

BASELINE = "TF-IDF (words, pairs) + logistic regression"
LEARNED = ("train", "valid")  # the sets that decide what a model, or the bag of words, has learned
METRICS = {"macro_f1": "macro F1", "ed_f2": "ED F2"}
MARGINS = {
    "test": 0.05,
    ADVERSARIAL: 0.0,
}  # by how much a model must beat the baseline to earn its place
Difference = tuple[
    float, float | None, float | None
]  # model minus baseline, with the bounds of its interval


@dataclass(frozen=True)
class Decided:
    """The most probable label of each case of a set, by case id; all with the same labels and groups."""

    labels: dict[str, str]
    groups: dict[str, str | None]
    decisions: dict[str, str]


def bench_corpus(console: Console, grid: str, overrides: list[str] | None = None) -> pd.DataFrame:
    """Print and return, per set, the baseline and every landed model trained on the same cases, with paired differences.

    `overrides`: as `triage sweep --set` takes them, e.g. `data.train_cases=12000`.
    """
    wanted = load_grid(grid, overrides)
    adversarial = EvaluationSet(name=ADVERSARIAL, source="embedded")
    folder = prepare_dataset(wanted.data, home(), (adversarial,))
    manifest = read_manifest(folder) or {}
    digests, datasets = (
        {name: manifest["sets"][name]["digest"] for name in MARGINS},
        _learned_alike(manifest),
    )
    fitted, rows = (
        bag_of_words(*(_cases(folder, name) for name in LEARNED)),
        [],
    )
    for name, digest in digests.items():
        baseline = _decided_by(fitted, _cases(folder, name))
        rows.append(_row(name, BASELINE, baseline, None))
        rows += [
            _row(name, model, found, baseline)
            for model, found in _models(digest, digests["test"], datasets)
        ]
    frame = pd.DataFrame(rows)
    title = "Most probable label; differences are model minus baseline, paired by case, resampled by condition, 95 %"
    print_frame(console, frame, title)
    if len(frame) == len(digests):
        given = "".join(f" --set {shlex.quote(item)}" for item in overrides or [])
        console.print(
            "The warehouse has no model trained on these cases and scored on these sets yet. "
            f"Next: triage sweep {shlex.quote(grid)} --model smollm2-135m --bits 4{given}",
            soft_wrap=True,
        )
    console.print(NOT_A_DEVICE)
    return frame


def _cases(folder: Path, name: str) -> list[Case]:
    return [Case(**line) for line in read_lines(folder / f"{name}.jsonl")]


def _decided_by(classifier: Classifier, cases: list[Case]) -> Decided:
    scored = scored_cases(cases, classifier.predict(cases))
    return Decided(
        {case.case_id: case.label for case in scored},
        {case.case_id: case.group for case in scored},
        {case.case_id: max(case.p, key=lambda label: case.p[label]) for case in scored},
    )


def _learned_alike(own: dict[str, Any]) -> set[str]:
    """Digests of the datasets in this home with the train and valid of `own`, a manifest; its own is among them.

    A training is made of these two sets alone, and its row names the dataset with which it landed last: there the test
    set may have had other limits.
    """
    here = [own, *filter(None, map(complete, (home() / "data").iterdir()))]
    learned = [[manifest["sets"][name]["digest"] for name in LEARNED] for manifest in here]
    return {
        dataset_digest(manifest)
        for manifest, sets in zip(here, learned, strict=True)
        if sets == learned[0]
    }


def _models(
    set_digest: str, test_digest: str, datasets: Collection[str]
) -> list[tuple[str, Decided]]:
    """The latest evaluation of each landed training on exactly these cases, if it was judged on the test set meant.

    `datasets`: digests of those that a training may have learned from; an untuned model has learned from none.
    """
    if not warehouse_path().exists():
        return []
    frame = query("SELECT * FROM evaluation_summary ORDER BY created_at")
    frame = frame[
        frame.training_id.isin(frame[frame.set_digest == test_digest].training_id)
        & frame.bits.notna()
    ]
    frame = frame[frame.dataset_digest.isin(datasets) | (frame.recipe_kind == "baseline")]
    names = _names(frame)
    frame = frame[frame.set_digest == set_digest].drop_duplicates("training_id", keep="last")
    if frame.empty:
        return []
    cases = query("SELECT evaluation_id, case_id, case_group, label, argmax FROM prediction")
    order = ["cell_id", "random_weights", "finished_at", "training_id"]
    return [
        (names[r.training_id], decided_of(cases[cases.evaluation_id == r.evaluation_id]))
        for r in rows_of(frame.sort_values(order))
    ]


def _names(frame: pd.DataFrame) -> dict[str, str]:
    """The shown name of each training; trainings of one name differ in settings or weights, and get their ids."""
    names = {r.training_id: experiment_name(r) for r in rows_of(frame)}
    shown = Counter(names.values())
    return {id: f"{name}\n{id}" if shown[name] > 1 else name for id, name in names.items()}


def decided_of(cases: pd.DataFrame) -> Decided:
    """The prediction rows of one evaluation by case; pandas' mark for no group becomes None, which is a group of its own."""
    groups = [group if isinstance(group, str) else None for group in cases.case_group]
    columns = (
        dict(zip(cases.case_id, values, strict=True))
        for values in (cases.label, groups, cases.argmax)
    )
    return Decided(*columns)


def _row(name: str, model: str, found: Decided, baseline: Decided | None) -> dict[str, str]:
    row = {"set": f"{name}, {len(found.labels)} cases", "model": model}
    ids = list(found.labels)
    own = _figures(_tables(found, ids))
    differences = (
        {} if baseline is None else {key: _difference(key, found, baseline, ids) for key in METRICS}
    )
    for metric, title in METRICS.items():
        row[title] = figure(own[metric])
        row[f"{title}, difference"] = figure(*differences[metric], sign=True) if differences else ""
    row["earns its place?"] = _verdict(differences.values(), MARGINS[name]) if differences else ""
    return row


def _verdict(differences: Iterable[Difference], margin: float) -> str:
    """Yes: every difference is at least the margin with its interval above 0. No: some interval lies below the margin."""
    known = [
        (point, low, high)
        for point, low, high in differences
        if low is not None and high is not None
    ]
    if any(high <= margin for _, _, high in known):
        return f"no, not by {margin}" if margin else "no"
    if len(known) == len(METRICS) and all(point >= margin and low > 0 for point, low, _ in known):
        return f"yes, by {margin}" if margin else "yes"
    return "cannot conclude"


def _difference(metric: str, model: Decided, baseline: Decided, ids: list[str]) -> Difference:
    """Model minus baseline with a paired bootstrap interval that resamples whole conditions."""
    pair = [_tables(one, ids) for one in (model, baseline)]

    def statistic(totals: Floats) -> Floats:
        one, other = (
            metric_values(part.reshape(-1, 3, 3))[metric] for part in (totals[:, :9], totals[:, 9:])
        )
        return one - other

    point = float(_figures(pair[0])[metric] - _figures(pair[1])[metric])
    bounds = clustered_bootstrap(statistic, *pair, groups=[model.groups[i] for i in ids], seed=0)
    return (point, *(bounds or (None, None)))


def _tables(found: Decided, ids: list[str]) -> Floats:
    """Each case's own confusion table, shape (cases, 9)."""
    return np.stack(
        [confusion([found.labels[i]], [found.decisions[i]]).reshape(9) for i in ids]
    ).astype(np.float64)


def _figures(tables: Floats) -> dict[str, Any]:
    return metric_values(tables.sum(0).reshape(3, 3))
