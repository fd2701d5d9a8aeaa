"""The facts of each embedded case on disk: a JSON line with the rule that fired and its guidance.

The file lies beside the sets, so that anybody can derive every label from it. It holds no label,
and nothing that trains or scores reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tasks.corpus.case import from_json
from tasks.corpus.vignettes.generator import Record
from tasks.corpus.vignettes.knowledge_base import problem_named
from tasks.corpus.vignettes.label_rules import Facts, Vitals, decide

FACTS = "facts.jsonl"


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
            entry = {
                "case_id": record.case.case_id,
                "set": record.set,
                "facts": _facts_entry(record.facts),
                "rule": record.verdict.rule,
                "source": record.verdict.source,
            }
            handle.write(json.dumps(entry, ensure_ascii=False) + "\n")


def derive_again(folder: Path) -> Derivation:
    """Read the facts and the sets of a data folder, and derive every label from its facts alone."""
    lines = (folder / FACTS).read_text(encoding="utf-8").splitlines()
    stored = {_key(entry): entry for entry in map(json.loads, lines)}
    labels = _read_labels(folder, list(dict.fromkeys(name for name, _ in stored)))

    wrong = [key for key, label in labels.items() if not _agrees(stored.get(key), label)]
    wrong += [key for key in stored if key not in labels]
    cases = len({*labels, *stored})
    first = "{}, case {}".format(*wrong[0]) if wrong else ""

    return Derivation(cases, cases - len(wrong), first)


def _facts_entry(facts: Facts) -> dict[str, Any]:
    entry = {key: value for key, value in asdict(facts).items() if value not in (None, ())}
    entry["vitals"] = {key: value for key, value in entry["vitals"].items() if value is not None}
    return entry


def _key(entry: dict[str, Any]) -> tuple[str, str]:
    """Set and id of a case: ids are unique within a set."""
    return entry["set"], entry["case_id"]


def _read_labels(folder: Path, sets: list[str]) -> dict[tuple[str, str], str]:
    """The stored labels by set and case id."""
    labels: dict[tuple[str, str], str] = {}
    for name in sets:
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        labels.update({(name, case.case_id): case.label for case in map(from_json, lines)})
    return labels


def _agrees(entry: dict[str, Any] | None, label: str) -> bool:
    """Whether the stored facts give the stored label, rule and guidance."""
    if entry is None:
        return False
    facts = _read_facts(entry["facts"])
    verdict = decide(facts, problem_named(facts.problem))
    return (verdict.label, verdict.rule, verdict.source) == (label, entry["rule"], entry["source"])


def _read_facts(entry: dict[str, Any]) -> Facts:
    # The types are text here, since label_rules postpones the evaluation of annotations.
    lists = {field.name for field in fields(Facts) if str(field.type).startswith("tuple")}
    values: dict[str, Any] = {
        key: tuple(value) if key in lists else value for key, value in entry.items()
    }
    return Facts(**{**values, "vitals": Vitals(**entry["vitals"])})
