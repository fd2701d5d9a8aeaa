"""The data card in Markdown: what a dataset is, how large, from where, and what it cannot show.

Its text is part of the digest of every dataset, and so stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.corpus.embedded_card import embedded_card
from tasks.corpus.manifest import Dataset, SetEntry
from tasks.spec import LABELS, Columns

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


def data_card(dataset: Dataset, sections: Sequence[str] = ()) -> str:
    """The data card of a dataset, as Markdown.

    `sections`: on what only some datasets hold.
    """
    lines = [
        f"# Data card: {dataset.source}",
        "",
        *_table(dataset.sets),
        "",
        _certifiable(dataset.sets["test"]),
        "",
        embedded_card() if dataset.is_embedded else _own_card(dataset),
        *(f"{section}\n" for section in sections),
        *_evaluation_sets(dataset.sets),
        "",
        f"Split and draws: seed {dataset.seed}. Research software, not a medical device.",
    ]
    return "\n".join(lines) + "\n"


def _own_card(dataset: Dataset) -> str:
    return OWN.format(
        source=dataset.source,
        origin=_origin(dataset.origin),
        mapping=_mapping(dataset.columns),
        split=dataset.split,
    )


def _evaluation_sets(sets: Mapping[str, SetEntry]) -> list[str]:
    entries = [
        f"- `{name}`: `{entry.source}`{_origin(entry.origin)}"
        for name, entry in sets.items()
        if entry.external
    ]
    if not entries:
        return []

    purpose = "Scored after training; never used for training, thresholds or choosing."
    return ["## Evaluation sets", "", purpose, "", *entries]


def _mapping(columns: Columns) -> str:
    """Which columns give what, and which words mean which label."""
    group = columns.group_column or "group"
    parts = [
        f"text from `{columns.text_column}`",
        f"label from `{columns.label_column}`",
        f"group from `{group}`{'' if columns.group_column else ', where there is one'}",
    ]
    if columns.id_column:
        parts.append(f"id from `{columns.id_column}`")
    if columns.rationale_column:
        parts.append(f"rationale from `{columns.rationale_column}`")

    parts += [f"subgroup from `{column}`" for column in columns.subgroup_columns]

    words = [f"`{word}` for {label}" for word, label in columns.labels.items()]
    more = f", and {', '.join(words)}" if words else ""
    return f"Columns: {', '.join(parts)}. Labels are ED, GP and HOME, in any case{more}."


def _table(sets: Mapping[str, SetEntry]) -> list[str]:
    header = f"| set | cases | {' | '.join(LABELS)} | groups | SHA-256 |"
    return [header, "|" + "---|" * 7, *(_row(name, entry) for name, entry in sets.items())]


def _row(name: str, entry: SetEntry) -> str:
    counts = [entry.labels[label] for label in LABELS]
    labels = " | ".join(f"{count} ({count / entry.cases:.0%})" for count in counts)
    groups = entry.groups or "none"
    return f"| {name} | {entry.cases} | {labels} | {groups} | {entry.digest[:12]} |"


def _certifiable(test: SetEntry) -> str:
    cases = test.labels["ED"]
    if not cases:
        return "The test set has no ED case: it can certify no ED recall."

    return (
        f"The test set has {cases} ED cases: without a single miss, the exact 95 % interval of ED "
        f"recall begins at {best_bound(cases):.3f}, which is the most that it can certify."
    )


def best_bound(cases: int) -> float:
    """Lower end of the exact 95 % interval of a recall with no miss in `cases` >= 1 cases.

    Formula: Clopper and Pearson (1934).
    """
    return float(0.025 ** (1 / cases))


def _origin(origin: Mapping[str, str]) -> str:
    return f", on the Hub at commit `{origin['commit']}`" if origin else ""
