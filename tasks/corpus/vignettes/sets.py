"""The embedded cases that the settings of `[data]` ask for, the embedded evaluation sets, and the facts of
each case on disk: a JSON line with the rule that fired and its guidance.

The file of facts lies beside the sets, so that anybody can derive every label from it. It holds no
label, and nothing that trains or scores reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter

from tasks.corpus.case import Case, from_json, normal_text
from tasks.corpus.vignettes.adversarial import SIZES as ADVERSARIAL_SIZES
from tasks.corpus.vignettes.adversarial import adversarial_records
from tasks.corpus.vignettes.contrast.cases import contrast_records
from tasks.corpus.vignettes.generator import (
    SIZES,
    Record,
    embedded_records,
    further_records,
    records_about,
    share_key,
)
from tasks.corpus.vignettes.knowledge_base import problem_named, registered_problems
from tasks.corpus.vignettes.label_rules import Facts, decide
from tasks.spec import FAMILIAR, REGISTERED, Data, EvaluationSet

FAMILIAR_VERSION = 1  # of how the cases of test_familiar are drawn
REGISTERED_VERSION = 1  # the same, of test_registered
EVALUATION_SIZES = ADVERSARIAL_SIZES | {FAMILIAR: 1200, REGISTERED: 4000}
FACTS = "facts.jsonl"
EMPTY = (None, ())  # facts that a case does not have
READ_FACTS = TypeAdapter(Facts)


def records_of(data: Data) -> tuple[Record, ...]:
    """Every case of the four sets with the facts behind it, train first.

    A share of train is made of contrast cases, and a share of its other cases is about the further
    problems. Valid keeps its cases and gains contrast cases in other words, up to the same share,
    so that it shows whether their point was learned. Calibration stays as it is, and so does test,
    unless `data.test_problems` gives it those of another set: thresholds are chosen on cases of the
    kind that they will meet.
    """
    shares = share_key(data.shares)
    size = data.train_cases or SIZES["train"]
    contrasts = round(size * data.contrast_share)
    further = round((size - contrasts) * data.further_share)
    if not data.contrast_share and not further and data.test_problems is None:
        return embedded_records(data.seed, shares, data.sizes)

    sizes = data.sizes | {"train": size - contrasts - further}
    usual = embedded_records(data.seed, shares, sizes)
    test = [record for record in usual if record.set == "test"]
    if data.test_problems is not None:
        columns = EvaluationSet(name=data.test_problems, source="embedded", cases=len(test))
        test = [replace(record, set="test") for record in evaluation_records(columns, data, [])]
    in_valid = added_to_valid(data.contrast_share)
    return (
        *(record for record in usual if record.set == "train"),
        *further_records(further, shares, data.seed),
        *contrast_records("train", contrasts, shares, data.seed),
        *(record for record in usual if record.set == "valid"),
        *contrast_records("valid", in_valid, shares, data.seed),
        *(record for record in usual if record.set == "calibration"),
        *test,
    )


def added_to_valid(contrast_share: float) -> int:
    """How many contrast cases valid has beside its own."""
    return round(SIZES["valid"] * contrast_share / (1 - contrast_share))


def sets_of(data: Data) -> dict[str, list[Case]]:
    """The cases by set name."""
    sets: dict[str, list[Case]] = {name: [] for name in SIZES}
    for record in records_of(data):
        sets[record.set].append(record.case)
    return sets


def evaluation_records(
    columns: EvaluationSet, data: Data, train: Sequence[Case]
) -> tuple[Record, ...]:
    """The cases of an embedded evaluation set beside the data set of `data`.

    `train`: what is learned from. The familiar set is about its problems, and repeats no text of
    the four sets; the registered one is about problems of its own.
    """
    if columns.name in ADVERSARIAL_SIZES:
        return adversarial_records(data.seed, columns.name)

    problem_ids = set(registered_problems())
    texts: set[str] = set()
    if columns.is_familiar:
        problem_ids = {case.group for case in train if case.group is not None}
        texts = {normal_text(record.case.text) for record in records_of(data)}
    count = columns.cases or EVALUATION_SIZES[columns.name]
    shares = share_key(data.shares)
    return records_about(problem_ids, columns.name, count, shares, data.seed, texts)


def write_facts(path: Path, records: Iterable[Record]) -> None:
    """Write one line per case, in the order of the sets; empty and unknown facts are left out."""
    with path.open("w", encoding="utf-8") as handle:
        for record in records:
            facts = {
                key: value for key, value in asdict(record.facts).items() if value not in EMPTY
            }
            facts["vitals"] = {k: v for k, v in facts["vitals"].items() if v is not None}
            entry = {
                "case_id": record.case.case_id,
                "set": record.set,
                "facts": facts,
                "rule": record.verdict.rule,
                "source": record.verdict.source,
            }
            handle.write(json.dumps(entry, ensure_ascii=False) + "\n")


def derive_again(folder: Path) -> tuple[int, list[str]]:
    """Derive every label of a data folder from its facts alone: the number of cases, and the places
    of those of which the stored facts do not give label, rule and guidance.
    """

    def lines_of(name: str) -> list[str]:
        return (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()

    # By the set and the id of a case: ids are unique within a set.
    stored: dict[tuple[str, str], list[str]] = {}
    derived: dict[tuple[str, str], list[str]] = {}
    for entry in map(json.loads, lines_of("facts")):
        facts = READ_FACTS.validate_python(entry["facts"])
        verdict = decide(facts, problem_named(facts.problem))
        key = (entry["set"], entry["case_id"])
        derived[key] = [verdict.label, verdict.rule, verdict.source]
        stored[key] = [entry["rule"], entry["source"]]

    labels = {
        (name, case.case_id): case.label
        for name in dict.fromkeys(name for name, _ in stored)
        for case in map(from_json, lines_of(name))
    }

    keys = dict.fromkeys((*labels, *stored))
    wrong = [key for key in keys if derived.get(key) != [labels.get(key), *stored.get(key, ())]]
    return len(keys), [f"{name}, case {case_id}" for name, case_id in wrong]
