"""The data card: what a data set is, how large, from where, and what it cannot show. Markdown, generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tasks.corpus.vignettes.generator import GENERATOR_VERSION, embedded_records
from tasks.corpus.vignettes.knowledge_base import general, knowledge_digest, problems
from tasks.corpus.vignettes.label_rules import (
    CHILD_VITALS,
    IMMUNE_FEVER,
    NEWS2,
    WORSE_LATER,
    YOUNG_FEVER,
)
from tasks.corpus.vignettes.reader_check import all_told
from tasks.spec import LABELS

NOTICE = "synthetic: for building and comparing, not evidence about patients"
EMBEDDED = """\
## What it is

Vignettes written by a generator from a knowledge base in plain data files ({problems} presenting problems in {systems}
fields, generator {generator}, knowledge {knowledge}). {notice}.

A case is drawn as facts: age, sex, flags that are present or said to be absent, illnesses and medicines, duration,
trend, severity, vital signs. Rules turn the facts into the label, never the problem's name: each problem has cases of
every label. The text is written from the facts in several voices; label, rule, problem and subgroup are never shown.

## Rules

The first that fires decides: a red flag (ED); a vital sign in the emergency range, NEWS2 or children's limits (ED); a
fever under three months, or with an immune system that medicine holds down (ED); an age or illness that makes the
problem an emergency (ED); an amber flag (GP); an age or illness that needs a doctor (GP); longer than the natural
course without getting better (GP; in {lasting} problems, the others may last); severe in spite of self-care (GP);
getting worse at 65 or older, or at any age in the {worsening} problems that are not expected to get worse before they
get better (GP); else HOME. Red and amber flags follow public guidance, named for each problem: {sources} distinct
references, most often NICE guidelines and CKS, NHS pages, SIGN, RCOG and Resuscitation Council UK; they are listed
below. Facts only, in the project's own words.

## How far the labels can be trusted

Deriving the label again from the stored facts (`facts.jsonl` beside the sets) gives the stored label for every case: a
check by `triage data check embedded`, and a test. {reader}

## Limits

- The wording is a generator's: short clauses in random order, some stilted. Real messages ramble, omit and mislead.
- {wordings}
- A case has one complaint; severity, duration and trend are drawn with little regard to each other.
- The rules are those of British primary care guidance, simplified; other systems triage otherwise.
- Problems of one set are absent from the others, so results are about new problems, not about rephrased known ones. But
  some flags (collapse, weight loss) can join any problem in the same words: {shared}.
- `test_adversarial` uses the test set's problems: it is a second look at them, not an independent sample.

## Sources

{references}.
"""
OWN = """\
## What it is

Cases read from `{source}`{origin}. What they are, who labelled them and how well is known to their owner alone; this
project checked their form, not their truth.

## How it was read

{mapping}

{split}

## Limits

- Cases without groups are taken for independent; intervals are then too narrow if several describe one patient or topic.
- Rationales, where there are any, are kept in this folder and are never part of a prompt.
"""


def data_card(manifest: Mapping[str, Any]) -> str:
    """Markdown from the manifest of a data folder (`sets` with cases, labels and groups; `source`; `seed`)."""
    lines = [f"# Data card: {manifest['source']}", "", *_table(manifest["sets"]), ""]
    lines += [_certifiable(manifest["sets"]["test"]), ""]
    if manifest["source"] == "embedded":
        known, references = problems().values(), _references()
        lines.append(
            EMBEDDED.format(
                problems=len(known), systems=len({p.system for p in known}), sources=len(references),
                generator=GENERATOR_VERSION, knowledge=knowledge_digest()[:12], notice=NOTICE.capitalize(),
                reader=all_told(), wordings=_wordings(), shared=_shared(),
                lasting=sum(problem.lasting_decides for problem in known),
                worsening=sum(problem.worse_decides for problem in known), references="; ".join(references),
            )
        )  # fmt: skip
    else:
        lines.append(
            OWN.format(
                source=manifest["source"], origin=_origin(manifest["origin"]), mapping=_mapping(manifest["columns"]),
                split=manifest["split"],
            )
        )  # fmt: skip
    external = {name: entry for name, entry in manifest["sets"].items() if entry["external"]}
    if external:
        lines += [
            "## Evaluation sets",
            "",
            "Scored after training; never used for training, thresholds or choosing.",
            "",
        ]
        lines += [
            f"- `{name}`: `{entry['source']}`{_origin(entry['origin'])}"
            for name, entry in external.items()
        ]
    lines += [
        "",
        f"Split and draws: seed {manifest['seed']}. Research software, not a medical device.",
    ]
    return "\n".join(lines) + "\n"


def _wordings() -> str:
    """In how many wordings the facts of the knowledge base are said and denied."""
    everything = general()
    kinds = [everything.red, everything.amber, everything.mild]
    kinds += [
        own for problem in problems().values() for own in (problem.red, problem.amber, problem.mild)
    ]
    facts = [fact for own in kinds for fact in own.values()]
    said, denials = (
        [len(words) for words in of if words]
        for of in ([f.say for f in facts], [f.deny for f in facts])
    )
    return (
        f"Each of {len(facts)} facts is said in {min(said)} to {max(said)} wordings ({sum(said)} in all; a nurse's note is one "
        f"more), and each of the {len(denials)} that can be denied in {min(denials)} to {max(denials)} ({sum(denials)} in "
        "all). Cases of a set repeat clauses: their number overstates their variety."
    )


def _shared() -> str:
    """How many ED and GP cases of the embedded test set are decided by a fact that train has in the same words."""
    decided: Counter[tuple[str, bool]] = Counter()
    for record in embedded_records():
        if record.set == "test" and record.case.label != "HOME":
            kind, _, name = record.verdict.rule.partition(":")
            decided[
                record.case.label,
                name in {"red": general().red, "amber": general().amber}.get(kind, {}),
            ] += 1
    parts = [
        f"{decided[label, True]} of {decided[label, True] + decided[label, False]} {label} cases"
        for label in LABELS[:2]
    ]
    return f"they decide {' and '.join(parts)} of the standard test set"


def _references() -> list[str]:
    """Every public reference behind a rule, once, in order of its name; 'NG109 and NG111' count as one."""
    flags = [*general().red.values(), *general().amber.values()]
    named = [NEWS2, CHILD_VITALS, YOUNG_FEVER, IMMUNE_FEVER, WORSE_LATER]
    for problem in problems().values():
        named.append(problem.source)
        flags += [*problem.red.values(), *problem.amber.values()]
    named += [flag.source for flag in flags if flag.source]
    return sorted(
        {part.strip() for source in named for part in source.split(";")}, key=str.casefold
    )


def _mapping(columns: Mapping[str, Any]) -> str:
    """Which columns were taken for what, and which words for which label."""
    parts = [f"text from `{columns['text_column']}`", f"label from `{columns['label_column']}`"]
    parts.append(
        f"group from `{columns['group_column'] or 'group'}`{'' if columns['group_column'] else ', where there is one'}"
    )
    if columns["rationale_column"]:
        parts.append(f"rationale from `{columns['rationale_column']}`")
    parts += [f"subgroup from `{column}`" for column in columns["subgroup_columns"]]
    words = [f"`{word}` for {label}" for word, label in columns["labels"].items()]
    known = "Labels are ED, GP and HOME, in any case" + (
        f", and {', '.join(words)}." if words else "."
    )
    return f"Columns: {', '.join(parts)}. {known}"


def _table(sets: Mapping[str, Any]) -> list[str]:
    rows = [f"| set | cases | {' | '.join(LABELS)} | groups | SHA-256 |", "|" + "---|" * 7]
    for name, entry in sets.items():
        labels = [
            f"{entry['labels'][label]} ({entry['labels'][label] / entry['cases']:.0%})"
            for label in LABELS
        ]
        digest = entry["digest"][:12]
        rows.append(
            f"| {name} | {entry['cases']} | {' | '.join(labels)} | {entry['groups'] or 'none'} | {digest} |"
        )
    return rows


def _certifiable(test: Mapping[str, Any]) -> str:
    cases = test["labels"]["ED"]
    if not cases:
        return "The test set has no ED case: it can certify no ED recall."
    low = best_bound(cases)
    return (
        f"The test set has {cases} ED cases: without a single miss, the exact 95 % interval of ED recall begins at "
        f"{low:.3f}, which is the most that it can certify."
    )


def best_bound(cases: int) -> float:
    """Lower end of the exact 95 % interval (Clopper and Pearson, 1934) of a recall with no miss in `cases` >= 1 cases."""
    return float(0.025 ** (1 / cases))


def _origin(origin: Mapping[str, str]) -> str:
    return f", on the Hub at commit `{origin['commit']}`" if origin else ""
