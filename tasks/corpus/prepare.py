"""Prepares a dataset folder: JSONL files, a data card and a manifest, named by a digest of everything
that went into it: files or the generator, and settings.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.corpus.card import adversarial_card, contrast_card, data_card, further_card
from tasks.corpus.case import SETS, Case, to_json
from tasks.corpus.manifest import Dataset, SetEntry
from tasks.corpus.reading.set_files import Files
from tasks.corpus.reading.sources import Located, check_settings, locate
from tasks.corpus.reading.tables import check_readable, read_set
from tasks.corpus.splits import (
    COPIES_VERSION,
    SHARES,
    Sets,
    check_apart,
    limited_sets,
    split_shares,
)
from tasks.corpus.vignettes.adversarial import (
    ADVERSARIAL_VERSION,
    BANKS,
    adversarial_cases,
    adversarial_records,
)
from tasks.corpus.vignettes.contrast.bank import bank_digest
from tasks.corpus.vignettes.contrast.cases import CONTRAST_VERSION
from tasks.corpus.vignettes.generator import GENERATOR_VERSION, Record
from tasks.corpus.vignettes.knowledge_base import further_digest, knowledge_digest
from tasks.corpus.vignettes.reader_check import FILE as READER_CHECK
from tasks.corpus.vignettes.sets import records_of
from tasks.corpus.vignettes.stored_facts import FACTS, write_facts
from tasks.runtime.errors import BadInput
from tasks.runtime.files import file_digest
from tasks.runtime.store import build_folder, intact_manifest
from tasks.spec import LABELS, Columns, Data, EvaluationSet, short_digest

Digest = str | int | list[str]
"""Of a file or a knowledge base, a version, or of the files of a set."""


@dataclass(frozen=True)
class Source:
    """What a dataset or an evaluation set is read from: files, or the generator.

    `digests` stand for the content, by the name of a set or of an ingredient.
    """

    columns: Data | EvaluationSet
    located: Located
    digests: Mapping[str, Digest]

    @classmethod
    def of(cls, columns: Data | EvaluationSet) -> Source:
        """Locate the source and digest it. Raises BadInput, or SourceUnavailable for the Hub."""
        check_settings(columns)
        if columns.source == "embedded":
            return cls(columns, Located("embedded", {}), _generator_digests(columns))

        located = locate(columns.source, columns)
        files = located.files
        if isinstance(columns, EvaluationSet) and "test" in files:
            files = {"test": files["test"]}

        return cls(columns, Located(located.name, files, located.origin), _file_digests(files))

    def refuse_changed(self) -> None:
        """Raise BadInput where a file is not what it was when it was digested: what was read from it
        would be found under the digest of the earlier content.
        """
        files = self.located.files
        if files and _file_digests(files) != self.digests:
            raise BadInput(
                f"{self.columns.source} changed while it was read; run the same command again."
            )

    @property
    def ingredients(self) -> dict[str, Any]:
        """What the digest of a dataset is computed from."""
        columns = self.columns.model_dump(mode="json", exclude_defaults=True)
        if self.columns.source == "embedded":
            columns.pop("set_shares", None)  # these cases are dealt by problem
            return {"columns": columns, "inputs": self.digests}

        ingredients = {"columns": columns, "inputs": self.digests, "copies": COPIES_VERSION}
        is_split_by_us = isinstance(self.columns, Data) and not set(SETS) <= {*self.located.files}
        if is_split_by_us and "set_shares" not in columns:
            ingredients["shares"] = SHARES  # which have changed once
        return ingredients


def _generator_digests(columns: Data | EvaluationSet) -> dict[str, Digest]:
    digests: dict[str, Digest] = {
        "knowledge": knowledge_digest(),
        "generator": GENERATOR_VERSION,
        "reader_check": file_digest(READER_CHECK),
    }
    if isinstance(columns, Data) and columns.contrast_share:
        digests |= {"contrast": CONTRAST_VERSION, "contrast_words": bank_digest("teaching")}
    if isinstance(columns, Data) and columns.further_share:
        digests["further_problems"] = further_digest()

    if isinstance(columns, EvaluationSet) and columns.name in BANKS:
        words = bank_digest(BANKS[columns.name])
        digests |= {"adversarial": ADVERSARIAL_VERSION, "adversarial_words": words}

    return digests


def _file_digests(files: Files) -> dict[str, Digest]:
    for paths in files.values():
        for path in paths:
            check_readable(path)
    return {name: [file_digest(path) for path in paths] for name, paths in files.items()}


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
        of_source = sets
        if isinstance(source.columns, EvaluationSet):
            cases = _evaluation_cases(source.columns, source.located, data.seed)
            check_apart(source.columns, cases, learned)
            of_source = {source.columns.name: cases}
        for name, cases in of_source.items():
            entries[name] = _write_set(folder / f"{name}.jsonl", cases, source)
            written_sets[name] = cases

    _write_facts(data, sources, written_sets, folder)
    dataset = Dataset(
        source=data.source,
        origin=located.origin,
        seed=data.seed,
        sets=entries,
        # Without its other settings.
        columns=Columns.model_validate(data.model_dump(include=set(Columns.model_fields))),
        split=_split_rule(data, located),
        has_groups=any(entries[name].has_groups for name in SETS),
    )
    # Sections on what not every dataset holds.
    sections = [further_card(sets["train"])] if data.further_share else []
    sections += [contrast_card(written_sets)] if data.contrast_share else []
    sections += [adversarial_card(name, data.seed) for name in written_sets if name in BANKS]
    (folder / CARD).write_text(data_card(dataset, sections), encoding="utf-8")

    # The revision stands under `origin`, with the commit that it means.
    return dataset.model_dump(mode="json", exclude={"columns": {"revision"}})


def _evaluation_cases(columns: EvaluationSet, located: Located, seed: int) -> list[Case]:
    if columns.source == "embedded":
        return adversarial_cases(seed, columns.name)
    return read_set([path for paths in located.files.values() for path in paths], columns)


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

    if records:
        written = {(name, case.case_id) for name, cases in sets.items() for case in cases}
        of_cases = (record for record in records if (record.set, record.case.case_id) in written)
        write_facts(folder / FACTS, of_cases)


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
