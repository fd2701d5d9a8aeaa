"""Prepares a dataset folder: JSONL files, a data card and a manifest, named by a digest of
everything that went into it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.corpus.apart import check_apart
from tasks.corpus.card import data_card
from tasks.corpus.case import SETS, Case, to_json
from tasks.corpus.contrast_card import adversarial_card, contrast_card
from tasks.corpus.four_sets import Sets, limited_sets, split_shares
from tasks.corpus.further_card import further_card
from tasks.corpus.ingredients import Source
from tasks.corpus.manifest import Dataset, SetEntry
from tasks.corpus.reading.readers import read_set
from tasks.corpus.reading.sources import Located
from tasks.corpus.vignettes.adversarial import (
    BANKS,
    adversarial_cases,
    adversarial_records,
)
from tasks.corpus.vignettes.generator import Record
from tasks.corpus.vignettes.sets import records_of
from tasks.corpus.vignettes.stored_facts import FACTS, write_facts
from tasks.runtime.files import file_digest
from tasks.runtime.store import build_folder, intact_manifest
from tasks.spec import LABELS, Columns, Data, EvaluationSet, short_digest

PREPARE_VERSION = 4
CARD = "card.md"


def prepare_dataset(data: Data, root: Path, evaluation_sets: Sequence[EvaluationSet] = ()) -> Path:
    """The folder `root`/data/<name>-<digest>, which is built unless it is complete.

    It holds train, valid, calibration, test and each evaluation set as JSONL, a data card, and for
    embedded cases the facts behind each (`stored_facts`); `DatasetManifest` describes its manifest.
    Changed files, settings or generator give another folder. Raises BadInput, also where an
    evaluation set shares texts with what a model learns from.
    """
    sources = [Source.of(data), *map(Source.of, evaluation_sets)]
    folder = _folder(root, sources)
    name, _, digest = folder.name.rpartition("-")

    def build(temporary: Path) -> dict[str, Any]:
        entries = _build(data, sources, temporary)
        for source in sources:
            source.refuse_changed()
        return {**entries, "name": name, "dataset_digest": digest}

    # The texts may be those of patients: only the owner may read them.
    build_folder(folder, build, private=True)
    return folder


def dataset_folder(data: Data, root: Path, evaluation_sets: Sequence[EvaluationSet] = ()) -> Path:
    """The folder of `prepare_dataset`, whether it exists yet or not."""
    return _folder(root, [Source.of(data), *map(Source.of, evaluation_sets)])


@contextlib.contextmanager
def stored_or_temporary(
    data: Data, root: Path, evaluation_sets: Sequence[EvaluationSet] = ()
) -> Iterator[Path]:
    """The folder of `prepare_dataset` if it is complete, else one that is removed at the end: who
    only looks at a dataset stores no texts.
    """
    folder = dataset_folder(data, root, evaluation_sets)
    if intact_manifest(folder):
        yield folder
        return

    with TemporaryDirectory() as temporary:
        yield prepare_dataset(data, Path(temporary), evaluation_sets)


def _folder(root: Path, sources: Sequence[Source]) -> Path:
    ingredients = [source.ingredients for source in sources]
    # Defaults are left out of the ingredients, so that a new setting changes no digest.
    digest = short_digest({"sources": ingredients, "version": PREPARE_VERSION})
    return root / "data" / f"{sources[0].located.name}-{digest}"


def _build(data: Data, sources: Sequence[Source], folder: Path) -> dict[str, Any]:
    """Fill `folder` and return what its manifest says about it."""
    located = sources[0].located
    sets, learned = limited_sets(data, located)

    entries: dict[str, SetEntry] = {}
    written_sets: Sets = {}
    for source in sources:
        for name, cases in _source_sets(source, sets, learned, data.seed).items():
            entries[name] = _write_set(folder / f"{name}.jsonl", cases, source)
            written_sets[name] = cases

    _write_facts(data, sources, written_sets, folder)
    dataset = Dataset(
        source=data.source,
        origin=located.origin,
        seed=data.seed,
        sets=entries,
        columns=_plain_columns(data),
        split=_split_rule(data, located),
        has_groups=any(entries[name].has_groups for name in SETS),
    )
    card = data_card(dataset, _further_sections(data, written_sets))
    (folder / CARD).write_text(card, encoding="utf-8")

    # The revision stands under `origin`, with the commit that it means.
    return dataset.model_dump(mode="json", exclude={"columns": {"revision"}})


def _further_sections(data: Data, sets: Sets) -> list[str]:
    """The sections of the card on what not every dataset holds."""
    sections = [further_card(sets["train"])] if data.further_share else []
    sections += [contrast_card(sets)] if data.contrast_share else []
    return sections + [adversarial_card(name, data.seed) for name in sets if name in BANKS]


def _source_sets(source: Source, sets: Sets, learned: Sets, seed: int) -> Sets:
    """The sets that a source gives: the four of the dataset, or one evaluation set."""
    columns = source.columns
    if not isinstance(columns, EvaluationSet):
        return sets

    cases = _evaluation_cases(source, seed)
    check_apart(columns, cases, learned)
    return {columns.name: cases}


def _evaluation_cases(source: Source, seed: int) -> list[Case]:
    assert isinstance(source.columns, EvaluationSet)
    if source.columns.source == "embedded":
        return adversarial_cases(seed, source.columns.name)
    paths = [path for paths in source.located.files.values() for path in paths]
    return read_set(paths, source.columns)


def _write_set(path: Path, cases: Sequence[Case], source: Source) -> SetEntry:
    """Write the cases of a set as JSONL and return its entry in the manifest."""
    path.write_text("".join(to_json(case) + "\n" for case in cases), encoding="utf-8")
    labels = Counter(case.label for case in cases)
    groups = [case.group for case in cases if case.group is not None]

    return SetEntry(
        cases=len(cases),
        digest=file_digest(path),
        labels={label: labels[label] for label in LABELS},
        groups=len(set(groups)),
        has_groups=bool(groups),
        source=source.columns.source,
        origin=source.located.origin,
        external=isinstance(source.columns, EvaluationSet),
    )


def _write_facts(data: Data, sources: Sequence[Source], sets: Sets, folder: Path) -> None:
    """Write the facts behind every embedded case that was written."""
    records: list[Record] = []
    if data.source == "embedded":
        records += records_of(data)

    for columns in (source.columns for source in sources):
        if isinstance(columns, EvaluationSet) and columns.source == "embedded":
            records += adversarial_records(data.seed, columns.name)

    if not records:
        return

    written_cases = {(name, case.case_id) for name, cases in sets.items() for case in cases}
    write_facts(
        folder / FACTS,
        (record for record in records if (record.set, record.case.case_id) in written_cases),
    )


def _plain_columns(data: Data) -> Columns:
    """The columns and label words of a dataset without its other settings."""
    return Columns.model_validate(data.model_dump(include=set(Columns.model_fields)))


def _split_rule(data: Data, located: Located) -> str:
    """How the sets came about, as a sentence for the card."""
    if data.source == "embedded":
        return "The generator deals whole presenting problems into the sets."

    rule = f"seed {data.seed}; groups and near copies stay together, label shares are kept"
    if "all" in located.files:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in split_shares(data).items())
        count = len(located.files["all"])
        table = "One table," if count == 1 else f"{count} files, read as one table,"
        return f"{table} split by us into {parts} ({rule})."

    given_sets = ", ".join(name for name in SETS if name in located.files)
    missing = [name for name in SETS if name not in located.files]
    split = f"; {' and '.join(missing)} split off train by us ({rule})" if missing else ""
    return f"Given: {given_sets}{split}."
