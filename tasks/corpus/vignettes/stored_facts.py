"""What each embedded case was made of, on disk: one JSON line with its facts, the rule that fired and its guidance.

It stands beside the sets so that anybody can derive every label again from what is stored. No label is in it, and
nothing that trains or scores ever reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tasks.corpus.case import from_json
from tasks.corpus.vignettes.generator import Record
from tasks.corpus.vignettes.knowledge_base import problems
from tasks.corpus.vignettes.label_rules import Facts, Vitals, decide

FACTS = "facts.jsonl"


@dataclass(frozen=True)
class Derivation:
    """How many cases there are, for how many the stored facts give the stored label, rule and guidance, and the first else."""

    cases: int
    agree: int
    first: str = ""


def write_facts(path: Path, records: Iterable[Record]) -> None:
    """One line per case, in the order of the sets; what is not known or empty is left out of the facts."""
    with path.open("w", encoding="utf-8") as handle:
        for record in records:
            facts = {
                key: value for key, value in asdict(record.facts).items() if value not in (None, ())
            }
            facts["vitals"] = {
                key: value for key, value in facts["vitals"].items() if value is not None
            }
            entry = {
                "case_id": record.case.case_id, "set": record.set, "facts": facts,
                "rule": record.verdict.rule, "source": record.verdict.source,
            }  # fmt: skip
            handle.write(json.dumps(entry, ensure_ascii=False) + "\n")


def derive_again(folder: Path) -> Derivation:
    """Read the facts and the sets of a data folder, and decide every case anew from its facts alone."""
    labels: dict[tuple[str, str], str] = {}
    entries = [
        json.loads(line) for line in (folder / FACTS).read_text(encoding="utf-8").splitlines()
    ]
    for name in dict.fromkeys(entry["set"] for entry in entries):
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        labels.update({(name, case.case_id): case.label for case in map(from_json, lines)})
    stored = {(entry["set"], entry["case_id"]): entry for entry in entries}
    wrong = [
        f"{name}, case {case_id}" for (name, case_id), label in labels.items()
        if not _agrees(stored.get((name, case_id)), label)
    ]  # fmt: skip
    wrong += [
        f"{name}, case {case_id}" for name, case_id in stored if (name, case_id) not in labels
    ]
    cases = len({*labels, *stored})
    return Derivation(cases, cases - len(wrong), wrong[0] if wrong else "")


def _agrees(entry: dict[str, Any] | None, label: str) -> bool:
    if entry is None:
        return False
    facts = _facts(entry["facts"])
    verdict = decide(facts, problems()[facts.problem])
    return (verdict.label, verdict.rule, verdict.source) == (label, entry["rule"], entry["source"])


def _facts(entry: dict[str, Any]) -> Facts:
    lists = {f.name for f in fields(Facts) if str(f.type).startswith("tuple")}
    given: dict[str, Any] = {
        key: tuple(value) if key in lists else value for key, value in entry.items()
    }
    return Facts(**{**given, "vitals": Vitals(**entry["vitals"])})
