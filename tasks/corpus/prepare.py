"""Prepares a dataset folder: JSONL files, a data card and a manifest, named by a digest of
everything that went into it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.corpus.apart import check_apart
from tasks.corpus.card import data_card
from tasks.corpus.case import SETS, Case, to_json
from tasks.corpus.contrast_card import adversarial_card, contrast_card
from tasks.corpus.further_card import further_card
from tasks.corpus.manifest import Dataset, SetEntry
from tasks.corpus.reading.readers import read_set
from tasks.corpus.reading.set_files import Files
from tasks.corpus.reading.sources import Located, check_settings, locate
from tasks.corpus.reading.tables import check_readable
from tasks.corpus.splits import SHARES, check_sets, limited, split_cases
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
from tasks.corpus.vignettes.sets import records_of, sets_of
from tasks.corpus.vignettes.stored_facts import FACTS, write_facts
from tasks.runtime.errors import BadInput
from tasks.runtime.files import file_digest
from tasks.runtime.store import build_folder, complete
from tasks.spec import LABELS, Columns, Data, EvaluationSet, Label, short_digest

PREPARE_VERSION = 4
CARD = "card.md"
Sets = dict[str, list[Case]]
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

    @property
    def ingredients(self) -> dict[str, Any]:
        """What the digest of a dataset is computed from."""
        columns = self.columns.model_dump(mode="json", exclude_defaults=True)
        if self.columns.source == "embedded":
            columns.pop("set_shares", None)  # these cases are dealt by problem
        split = {"shares": SHARES} if self._is_split_by_default else {}
        return {"columns": columns, "inputs": self.digests} | split

    @property
    def _is_split_by_default(self) -> bool:
        """Whether the sets depend on SHARES, which have changed once."""
        if not isinstance(self.columns, Data) or self.columns.source == "embedded":
            return False
        return self.columns.set_shares is None and not set(SETS) <= set(self.located.files)


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
        return {**entries, "name": name, "dataset_digest": digest}

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
    if complete(folder):
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
    sets, learned = _limited_sets(data, located)

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


def _limited_sets(data: Data, located: Located) -> tuple[Sets, Sets]:
    """The four sets within their limits, and what an evaluation set must be apart from."""
    sets = _sets(data, located)
    # Before the limits: what one grid leaves out, a grid with other limits may take.
    check_sets(sets)
    learned = _learned(sets, located)
    limits: Mapping[str, int] = {str(name): limit for name, limit in data.limits.items()}
    sets = {
        name: limited(cases, limits.get(name, len(cases)), data.seed)
        for name, cases in sets.items()
    }
    check_labels(sets, data.source)

    return sets, learned


def _sets(data: Data, located: Located) -> Sets:
    """The four sets before any limit: embedded, given, or one table that is split."""
    if data.source == "embedded":
        return sets_of(data)

    sets = {name: read_set(paths, data) for name, paths in located.files.items()}
    if "all" in sets:
        return split_cases(sets["all"], data.seed, split_shares(data))

    # In the order of SETS, not of the files.
    sets.update(split_off(sets["train"], data, sets))
    return {name: sets[name] for name in SETS}


def split_shares(data: Data) -> dict[str, float]:
    """The share of each set in one table that the project splits."""
    if data.set_shares is None:
        return SHARES
    return {str(name): data.set_shares[name] for name in SETS}


def split_off(train: Sequence[Case], data: Data, given_sets: Collection[str]) -> Sets:
    """The sets into which the cases given as train are split: train, and what else is not given.

    `given_sets`: names of the sets that are given.
    """
    of_all = split_shares(data)
    shares = {"train": of_all["train"]}
    shares |= {name: of_all[name] for name in ("valid", "calibration") if name not in given_sets}
    total = sum(shares.values())
    return split_cases(train, data.seed, {name: share / total for name, share in shares.items()})


def _learned(sets: Sets, located: Located) -> Sets:
    """What an evaluation set must be apart from, by the name for the error.

    Of a table that the project splits that is all of it: the seed decides which cases go to test.
    """
    if "all" in located.files:
        return {"the table that is split": [case for cases in sets.values() for case in cases]}
    return {name: sets[name] for name in SETS if name != "test"}


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


def check_filled(sets: Mapping[str, Sequence[Case]], source: str) -> None:
    """Refuse a set without a case. Raises BadInput."""
    has_groups = any(case.group is not None for cases in sets.values() for case in cases)
    more = "more cases, more groups, or" if has_groups else "more cases or"
    for name, cases in sets.items():
        if not cases:
            raise BadInput(
                f"{source}: no cases are left for {name}; give {more} fewer copies of one text."
            )


def check_labels(sets: Mapping[str, Sequence[Case]], source: str) -> None:
    """Refuse an empty set, and a train set that lacks a label. Raises BadInput."""
    check_filled(sets, source)
    missing = sorted(set(LABELS) - {case.label for case in sets["train"]})
    if missing:
        raise BadInput(
            f"{source}: train has no case labelled {missing[0]}; {_remedy(sets, missing[0])}."
        )


def _remedy(sets: Mapping[str, Sequence[Case]], label: Label) -> str:
    """How `train` can get cases of a label that it has none of."""
    of_label = [case for cases in sets.values() for case in cases if case.label == label]
    if any(case.group is not None for case in of_label):
        return "add some, or give more groups so that each set gets all labels"
    if of_label:
        return f"add some: the {len(of_label)} that there are stand in other sets"
    return "add some: the source has none"
