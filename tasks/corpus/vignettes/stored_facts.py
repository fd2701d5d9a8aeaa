"""The facts of each embedded case on disk: a JSON line with the rule that fired and its guidance.

The file lies beside the sets, so that anybody can derive every label from it. It holds no label,
and nothing that trains or scores reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from tasks.corpus.case import from_json
from tasks.corpus.vignettes.generator import Record
from tasks.corpus.vignettes.knowledge_base import problem_named
from tasks.corpus.vignettes.label_rules import Facts, decide

FACTS = "facts.jsonl"
EMPTY = (None, ())  # facts that a case does not have
READ_FACTS = TypeAdapter(Facts)


@dataclass(frozen=True)
class Derivation:
    """How many cases there are, and how many `agree`: stored facts give label, rule and guidance.

    `first` names the first case that they do not; it is empty if there is none.
    """

    cases: int
    agree: int
    first: str = ""


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


def derive_again(folder: Path) -> Derivation:
    """Read the facts and the sets of a data folder, and derive every label from its facts alone."""
    # By the set and the id of a case: ids are unique within a set.
    stored: dict[tuple[str, str], list[str]] = {}
    derived: dict[tuple[str, str], list[str]] = {}
    for entry in map(json.loads, _lines(folder / FACTS)):
        facts = READ_FACTS.validate_python(entry["facts"])
        verdict = decide(facts, problem_named(facts.problem))
        key = (entry["set"], entry["case_id"])
        derived[key] = [verdict.label, verdict.rule, verdict.source]
        stored[key] = [entry["rule"], entry["source"]]

    labels: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys(name for name, _ in stored):
        for case in map(from_json, _lines(folder / f"{name}.jsonl")):
            labels[name, case.case_id] = case.label

    keys = dict.fromkeys((*labels, *stored))
    wrong = [key for key in keys if derived.get(key) != [labels.get(key), *stored.get(key, ())]]
    first = "{}, case {}".format(*wrong[0]) if wrong else ""
    return Derivation(len(keys), len(keys) - len(wrong), first)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
