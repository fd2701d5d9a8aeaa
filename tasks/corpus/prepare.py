"""Makes the folder of a data set: JSONL files, a data card and a manifest, named by a digest of all that went into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.corpus.card import data_card
from tasks.corpus.case import SETS, Case, text_digest, to_json
from tasks.corpus.readers import read_set
from tasks.corpus.sources import Located, locate
from tasks.corpus.splits import SHARES, check_copies, check_sets, limited, split_cases
from tasks.corpus.tables import check_readable
from tasks.corpus.vignettes.adversarial import adversarial_cases, adversarial_records
from tasks.corpus.vignettes.generator import (
    GENERATOR_VERSION,
    Record,
    embedded_records,
    embedded_sets,
    share_key,
)
from tasks.corpus.vignettes.knowledge_base import knowledge_digest
from tasks.corpus.vignettes.reader_check import FILE as READER_CHECK
from tasks.corpus.vignettes.stored_facts import FACTS, write_facts
from tasks.runtime.errors import BadInput
from tasks.runtime.store import build_folder, file_digest
from tasks.spec import LABELS, Data, EvaluationSet, short_digest

PREPARE_VERSION = 4
CARD = "card.md"
Sets = dict[str, list[Case]]


@dataclass(frozen=True)
class Source:
    """What a set of columns is read from: files, or the generator; and the digests that stand for it."""

    columns: Data | EvaluationSet
    located: Located
    digests: dict[str, Any]


def prepare_dataset(data: Data, root: Path, evaluation_sets: Sequence[EvaluationSet] = ()) -> Path:
    """The folder `root`/data/<name>-<digest>, made if it is not there yet.

    It holds train, valid, calibration, test and each evaluation set as JSONL, a data card, and for embedded cases the
    facts behind each (`derived`); its manifest gives,
    under `sets`, the cases, labels, groups and file digest of each. Changed files, settings or generator give another
    folder. Raises BadInput, also where an evaluation set shares texts with what a model learns from.
    """
    wanted: list[Data | EvaluationSet] = [data, *evaluation_sets]
    sources = [_source(columns) for columns in wanted]
    what = [
        {"columns": s.columns.model_dump(mode="json", exclude_defaults=True), "inputs": s.digests}
        for s in sources
    ]
    digest = short_digest({"sources": what, "version": PREPARE_VERSION})
    folder = root / "data" / f"{sources[0].located.name}-{digest}"
    build_folder(folder, lambda temporary: _build(data, sources, temporary))
    return folder


def _source(columns: Data | EvaluationSet) -> Source:
    if columns.source == "embedded":
        return Source(
            columns,
            Located("embedded", {}),
            {
                "knowledge": knowledge_digest(),
                "generator": GENERATOR_VERSION,
                "reader_check": file_digest(READER_CHECK),
            },
        )
    located = locate(columns.source, columns)
    if isinstance(columns, EvaluationSet) and "test" in located.files:
        located = Located(located.name, {"test": located.files["test"]}, located.origin)
    for paths in located.files.values():
        for path in paths:
            check_readable(path)
    return Source(
        columns,
        located,
        {key: [file_digest(p) for p in paths] for key, paths in located.files.items()},
    )


def _sets(data: Data, located: Located) -> Sets:
    """The four sets before any limit: embedded, given ones, or one table split by us."""
    if data.source == "embedded":
        return embedded_sets(data.seed, data.shares, data.train_cases)
    given = {name: read_set(paths, data) for name, paths in located.files.items()}
    if "all" in given:
        return split_cases(given["all"], data.seed)
    given.update(split_off(given["train"], data.seed, given))
    return {name: given[name] for name in SETS}


def split_off(train: Sequence[Case], seed: int, given: Collection[str]) -> Sets:
    """The cases given as train without those that become valid and calibration, where these are not given; and these."""
    shares = {
        name: SHARES[name]
        for name in ("train", "valid", "calibration")
        if name == "train" or name not in given
    }
    whole = sum(shares.values())
    return split_cases(train, seed, {name: share / whole for name, share in shares.items()})


def _evaluation_cases(source: Source, seed: int) -> list[Case]:
    if source.columns.source == "embedded":
        return adversarial_cases(seed)
    return read_set(
        [path for paths in source.located.files.values() for path in paths], source.columns
    )


def _build(data: Data, sources: Sequence[Source], folder: Path) -> dict[str, Any]:
    sets = _sets(data, sources[0].located)
    check_sets(sets)
    limits: Mapping[str, int] = {str(name): limit for name, limit in data.limits.items()}
    learned = _learned(sets, sources[0].located)
    sets = {
        name: limited(cases, limits.get(name, len(cases)), data.seed)
        for name, cases in sets.items()
    }
    check_labels(sets, data.source)
    described: dict[str, Any] = {}
    written: Sets = {}
    for source in sources:
        columns, own = source.columns, sets
        if isinstance(columns, EvaluationSet):
            own = {columns.name: _evaluation_cases(source, data.seed)}
            _check_apart(columns, own[columns.name], learned)
        for name, cases in own.items():
            path = folder / f"{name}.jsonl"
            path.write_text("".join(to_json(case) + "\n" for case in cases), encoding="utf-8")
            described[name] = _describe(cases, path, source)
            written[name] = list(cases)
    _write_facts(data, sources, written, folder)
    manifest = {
        "source": data.source, "origin": sources[0].located.origin, "seed": data.seed, "sets": described,
        "columns": _columns(data), "split": _split_rule(data, sources[0].located),
        "has_groups": any(described[name]["has_groups"] for name in SETS),
    }  # fmt: skip
    (folder / CARD).write_text(data_card(manifest), encoding="utf-8")
    return manifest


def _columns(data: Data) -> dict[str, Any]:
    """Which column is taken for what, and the user's own label words."""
    wanted = (
        "text_column",
        "label_column",
        "group_column",
        "rationale_column",
        "subgroup_columns",
        "labels",
    )
    return {key: value for key, value in data.model_dump(mode="json").items() if key in wanted}


def _split_rule(data: Data, located: Located) -> str:
    """How the sets came about, as a sentence for the card."""
    if data.source == "embedded":
        return "The generator deals whole presenting problems into the sets."
    how = f"seed {data.seed}; groups and near copies stay together, label shares are kept"
    if "all" in located.files:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in SHARES.items())
        count = len(located.files["all"])
        table = "One table," if count == 1 else f"{count} files, read as one table,"
        return f"{table} split by us into {parts} ({how})."
    made = [name for name in SETS if name not in located.files]
    taken = f"; {' and '.join(made)} split off train by us ({how})" if made else ""
    return f"Given: {', '.join(name for name in SETS if name in located.files)}{taken}."


def _write_facts(data: Data, sources: Sequence[Source], sets: Sets, folder: Path) -> None:
    """The facts of every embedded case that was written."""
    records: list[Record] = []
    if data.source == "embedded":
        records += embedded_records(data.seed, share_key(data.shares), data.train_cases)
    if any(s.columns.source == "embedded" for s in sources[1:]):
        records += adversarial_records(data.seed)
    kept = {(name, case.case_id) for name, cases in sets.items() for case in cases}
    if records:
        write_facts(folder / FACTS, (r for r in records if (r.set, r.case.case_id) in kept))


def _learned(sets: Sets, located: Located) -> Sets:
    """What an evaluation set must be apart from, by the name to tell it by.

    Of a table that we split that is all of it: which of its cases go to test is the seed's doing.
    """
    if "all" in located.files:
        return {"the table that is split": [case for cases in sets.values() for case in cases]}
    return {name: sets[name] for name in SETS if name != "test"}


def _check_apart(columns: EvaluationSet, cases: Sequence[Case], learned: Sets) -> None:
    """An evaluation set must hold no text, near copy or group of what models learn or choose thresholds from."""
    texts = {
        text_digest(case.text): (name, case.case_id)
        for name, members in learned.items()
        for case in members
    }
    groups = {
        case.group: (name, case.case_id)
        for name, members in learned.items()
        for case in members
        if case.group
    }
    where = f"The evaluation set {columns.name} ({columns.source})"
    for case in cases:
        if found := texts.get(text_digest(case.text)):
            raise BadInput(
                f"{where} has case {case.case_id} with the text of case {found[1]} in {found[0]}; leave one out."
            )
        if case.group and (found := groups.get(case.group)):
            raise BadInput(
                f"{where} shares the group {case.group!r} with {found[0]} (its case {case.case_id}, case {found[1]} there); "
                "leave the group out of one of the two, or rename the group in one if they have only the name in common."
            )
    for name, members in learned.items():
        try:
            check_copies({name: members, columns.name: cases})
        except BadInput as error:
            raise BadInput(f"{where} is not apart from {name}: {error}") from error


def check_filled(sets: Mapping[str, Sequence[Case]], source: str) -> None:
    """Refuse a set without a case. Raises BadInput."""
    for name, cases in sets.items():
        if not cases:
            raise BadInput(
                f"{source}: no cases are left for {name}; give more cases, more groups, or fewer copies of one text."
            )


def check_labels(sets: Mapping[str, Sequence[Case]], source: str) -> None:
    """Refuse an empty set, and a train set that lacks a label. Raises BadInput."""
    check_filled(sets, source)
    missing = sorted(set(LABELS) - {case.label for case in sets["train"]})
    if missing:
        raise BadInput(
            f"{source}: train has no case labelled {missing[0]}; add some, or give more groups so that each set gets all labels."
        )


def _describe(cases: Sequence[Case], path: Path, source: Source) -> dict[str, Any]:
    """A set's entry in the manifest. With one group it has groups: a case without one is a group of its own."""
    counts = Counter(case.label for case in cases)
    groups = [case.group for case in cases if case.group is not None]
    return {
        "cases": len(cases), "digest": file_digest(path), "labels": {label: counts[label] for label in LABELS},
        "groups": len(set(groups)), "has_groups": bool(groups), "source": source.columns.source,
        "origin": source.located.origin, "external": isinstance(source.columns, EvaluationSet),
    }  # fmt: skip


def judged_sets(dataset: dict[str, Any]) -> list[str]:
    """Names of the sets on which a dataset's baselines are judged: test, then the grid's further evaluation sets."""
    return ["test", *sorted(set(dataset["sets"]) - {"train", "valid", "calibration", "test"})]
