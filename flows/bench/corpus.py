"""`triage bench corpus`: does a language model earn its place over a bag of words, on the test set
and on harder cases?
"""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from flows.bench.decided import (
    CaseRow,
    Decided,
    ModelDifference,
    best_constant,
    decided_of,
    difference,
)
from flows.report.disclaimer import disclaimer
from flows.report.figures import figure
from flows.report.names import experiment_name
from flows.report.table import ReportTable, print_table
from flows.report.typed_rows import EvaluationRow, typed_rows
from tasks.corpus.case import Case
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.vignettes.adversarial import BANKS
from tasks.corpus.vignettes.adversarial import NAME as ADVERSARIAL
from tasks.grids.grid import load_grid
from tasks.runtime.files import read_lines
from tasks.runtime.home import home
from tasks.scoring.baselines import Classifier, bag_of_words, scored_cases
from tasks.spec import EvaluationSet
from tasks.tuning.training_rows import sets_digest
from warehouse.connect import listed, warehouse_path

BASELINE = "TF-IDF (words, pairs) + logistic regression"
TITLE = (
    "Most probable label; differences are model minus baseline, paired by case, "
    "resampled by condition, 95 %"
)
LEARNED = ("train", "valid")  # the sets that decide what a model, or the bag of words, has learned
METRICS = {"macro_f1": "macro F1", "ed_f2": "ED F2"}
# By how much a model must beat the baseline to earn its place.
HARDER = (ADVERSARIAL, *BANKS)
MARGINS = {"test": 0.05, **dict.fromkeys(HARDER, 0.0)}


@dataclass(frozen=True)
class JudgedModel:
    """A landed model and its decisions on a set.

    `variant`: base model and precision; `is_trained`: whether a recipe trained it.
    """

    name: str
    variant: tuple[str, str | None]
    is_trained: bool
    decided: Decided


def bench_corpus(console: Console, grid: str, overrides: list[str] | None = None) -> ReportTable:
    """Print and return, per set, the baseline and every landed model trained on the same cases,
    with paired differences.

    `overrides`: as `triage sweep --set` takes them, e.g. `data.train_cases=12000`.
    """
    harder = tuple(EvaluationSet(name=name, source="embedded") for name in HARDER)
    folder = prepare_dataset(load_grid(grid, overrides).data, home(), harder)
    dataset = DatasetManifest.read(folder)
    digests = {name: dataset.digest_of(name) for name in MARGINS}
    datasets = _learned_alike(dataset)

    bag = bag_of_words(*(_cases(folder, name) for name in LEARNED))
    records = []
    answer: list[str] = []
    for name, digest in digests.items():
        baseline = _decided_by(bag, _cases(folder, name))
        models = _models(digest, digests["test"], datasets)
        records.append(_row(name, BASELINE, baseline, None))
        records += [_row(name, model.name, model.decided, baseline) for model in models]
        answer += _answer(name, models, baseline)

    for sentence in answer:
        console.print(sentence, soft_wrap=True, markup=False)

    table = ReportTable.of(TITLE, records)
    print_table(console, table)
    if len(table) == len(digests):
        console.print(_next_command(grid, overrides or []), soft_wrap=True)

    console.print(disclaimer(digests.values()))
    return table


def _next_command(grid: str, overrides: list[str]) -> str:
    options = "".join(f" --set {shlex.quote(item)}" for item in overrides)
    return (
        "The warehouse has no model trained on these cases and scored on these sets yet. "
        f"Next: triage sweep {shlex.quote(grid)} --model smollm2-135m --bits 4{options}"
    )


def _cases(folder: Path, name: str) -> list[Case]:
    return [Case(**line) for line in read_lines(folder / f"{name}.jsonl")]


def _decided_by(classifier: Classifier, cases: list[Case]) -> Decided:
    scored = scored_cases(cases, classifier.predict(cases))
    return Decided(
        labels={case.case_id: case.label for case in scored},
        groups={case.case_id: case.group for case in scored},
        decisions={case.case_id: max(case.p, key=lambda label: case.p[label]) for case in scored},
    )


def _learned_alike(dataset: DatasetManifest) -> set[str]:
    """Digests of the datasets in this home with the train and valid of `dataset`; its own is among
    them.

    A training is made of these two sets alone, and its row names the dataset with which it landed
    last: there the test set may have had other limits.
    """
    other_datasets = map(DatasetManifest.read_if_complete, (home() / "data").iterdir())
    return {
        digest
        for other in (dataset, *other_datasets)
        if other is not None and _learned(other) == _learned(dataset)
        for digest in (other.dataset_digest, sets_digest(other))  # and as earlier rows name it
    }


def _learned(dataset: DatasetManifest) -> list[str]:
    return [dataset.digest_of(name) for name in LEARNED]


def _models(set_digest: str, test_digest: str, datasets: Collection[str]) -> list[JudgedModel]:
    """The latest evaluation of each landed training on exactly these cases, where it was judged on
    the test set meant.

    `datasets`: digests of those that a training may have learned from; an untuned model has
    learned from none.
    """
    if not warehouse_path().exists():
        return []

    rows = typed_rows(EvaluationRow, "evaluation_summary ORDER BY created_at")
    judged_on_test = {row.training_id for row in rows if row.set_digest == test_digest}
    rows = [
        row
        for row in rows
        if row.training_id in judged_on_test
        and row.precision is not None
        and (row.dataset_digest in datasets or row.recipe_kind == "baseline")
    ]
    names = _names(rows)
    latest = {row.training_id: row for row in rows if row.set_digest == set_digest}
    decided = _decisions_of({row.evaluation_id for row in latest.values()})

    return [
        JudgedModel(
            names[row.training_id],
            (row.base_model, row.precision),
            row.recipe_kind != "baseline",
            decided[row.evaluation_id],
        )
        for row in sorted(latest.values(), key=_place)
    ]


def _answer(name: str, models: Sequence[JudgedModel], bag: Decided) -> Iterator[str]:
    """A sentence for each trained model: by how much it is above what learned nothing, and above
    the bag of words, in macro-F1.
    """
    untuned = {model.variant: model.decided for model in models if not model.is_trained}
    label, constant = best_constant(bag)

    for model in models:
        if not model.is_trained:
            continue

        against = {f"always-{label}": constant, "the bag of words": bag}
        if model.variant in untuned:
            against = {"its untuned model": untuned[model.variant], **against}

        differences = ", ".join(
            f"{figure(*difference('macro_f1', model.decided, other), sign=True)} against {title}"
            for title, other in against.items()
        )
        macro_f1 = figure(model.decided.figures()["macro_f1"])
        title = model.name.replace("\n", " ")
        yield f"{title} on {name}: macro-F1 {macro_f1}; {differences}."


def _place(row: EvaluationRow) -> tuple[str, bool, datetime, str]:
    """Models stand by cell, real weights first, then by time."""
    finished_at = row.finished_at or datetime.max
    return row.cell_id, bool(row.random_weights), finished_at, row.training_id


def _names(rows: list[EvaluationRow]) -> dict[str, str]:
    """The shown name of each training; trainings of one name differ in settings or weights, and get
    their ids.
    """
    names = {row.training_id: experiment_name(row) for row in rows}
    counts = Counter(names.values())
    return {id: f"{name}\n{id}" if counts[name] > 1 else name for id, name in names.items()}


def _decisions_of(evaluations: Collection[str]) -> dict[str, Decided]:
    """The decisions of these evaluations."""
    if not evaluations:
        return {}
    cases: dict[str, list[CaseRow]] = defaultdict(list)
    for case in typed_rows(CaseRow, f"prediction WHERE evaluation_id IN {listed(evaluations)}"):
        cases[case.evaluation_id].append(case)
    return {id: decided_of(rows) for id, rows in cases.items()}


def _row(name: str, model: str, decided: Decided, baseline: Decided | None) -> dict[str, str]:
    figures = decided.figures()
    differences = {}
    if baseline is not None:
        differences = {key: difference(key, decided, baseline) for key in METRICS}

    row = {"set": f"{name}, {len(decided.labels)} cases", "model": model}
    for metric, title in METRICS.items():
        against_baseline = differences.get(metric)
        row[title] = figure(figures[metric])
        row[f"{title}, difference"] = (
            figure(*against_baseline, sign=True, below=True) if against_baseline else ""
        )

    row["earns its place?"] = _verdict(differences.values(), MARGINS[name]) if differences else ""
    return row


def _verdict(differences: Iterable[ModelDifference], margin: float) -> str:
    """Yes: every difference is at least the margin with its interval above 0. No: some interval
    lies below the margin.
    """
    bounded = [
        (point, low, high)
        for point, low, high in differences
        if low is not None and high is not None
    ]
    if any(high <= margin for _, _, high in bounded):
        return f"no, not by {margin}" if margin else "no"

    complete = len(bounded) == len(METRICS)
    if complete and all(point >= margin and low > 0 for point, low, _ in bounded):
        return f"yes, by {margin}" if margin else "yes"

    return "cannot conclude"
