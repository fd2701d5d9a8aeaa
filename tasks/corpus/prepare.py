"""Prepares a dataset folder: JSONL files, a data card and a manifest, named by a digest of everything
that went into it: files or the generator, and settings.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.corpus.card import (
    adversarial_card,
    contrast_card,
    copies_card,
    data_card,
    familiar_card,
    further_card,
    registered_card,
)
from tasks.corpus.case import SETS, Case, to_json
from tasks.corpus.manifest import DatasetManifest, SetEntry
from tasks.corpus.reading.sources import Located, locate
from tasks.corpus.reading.tables import check_readable, read_set
from tasks.corpus.splits import COPIES_VERSION, SHARES, check_apart, limited_sets, split_shares
from tasks.corpus.vignettes.adversarial import ADVERSARIAL_VERSION, BANKS
from tasks.corpus.vignettes.contrast.cases import CONTRAST_VERSION
from tasks.corpus.vignettes.generator import GENERATOR_VERSION
from tasks.corpus.vignettes.knowledge_base import (
    FURTHER,
    REGISTERED_FOLDER,
    bank_digest,
    knowledge_digest,
)
from tasks.corpus.vignettes.reader_check import FILE as READER_CHECK
from tasks.corpus.vignettes.sets import (
    FACTS,
    FAMILIAR_VERSION,
    REGISTERED_VERSION,
    evaluation_records,
    records_of,
    write_facts,
)
from tasks.runtime.errors import BadInput
from tasks.runtime.files import file_digest
from tasks.runtime.store import build_folder, intact_manifest
from tasks.spec import FAMILIAR, LABELS, REGISTERED, Columns, Data, EvaluationSet, short_digest

PREPARE_VERSION = 4
CARD = "card.md"


def ingredients_of(source: Located) -> dict[str, Any]:
    """What the digest of a dataset is computed from: settings, and digests of files by their set, or
    of what the generator is made of.
    """
    settings = source.columns
    columns = settings.model_dump(mode="json", exclude_defaults=True)
    if settings.source == "embedded":
        columns.pop("set_shares", None)  # these cases are dealt by problem
        return {"columns": columns, "inputs": _generator_digests(settings)}

    for path in itertools.chain.from_iterable(source.files.values()):
        check_readable(path)
    digests = {name: list(map(file_digest, paths)) for name, paths in source.files.items()}
    ingredients = {"columns": columns, "inputs": digests, "copies": COPIES_VERSION}
    is_split_by_us = isinstance(settings, Data) and not set(SETS) <= {*source.files}
    if is_split_by_us and "set_shares" not in columns:
        ingredients["shares"] = SHARES  # which have changed once
    return ingredients


def _generator_digests(columns: Data | EvaluationSet) -> dict[str, str | int]:
    digests: dict[str, str | int] = {
        "knowledge": knowledge_digest(),
        "generator": GENERATOR_VERSION,
        "reader_check": file_digest(READER_CHECK),
    }
    if isinstance(columns, EvaluationSet):
        if columns.name in BANKS:
            words = bank_digest(BANKS[columns.name])
            digests |= {"adversarial": ADVERSARIAL_VERSION, "adversarial_words": words}
        if columns.is_familiar:
            digests["familiar"] = FAMILIAR_VERSION
        return digests | (_registered_digests() if columns.name == REGISTERED else {})

    if columns.test_problems == REGISTERED:
        digests |= _registered_digests()
    if columns.contrast_share:
        digests |= {"contrast": CONTRAST_VERSION, "contrast_words": bank_digest("teaching")}
    if columns.further_share:
        digests["further_problems"] = knowledge_digest(FURTHER)
    return digests


def _registered_digests() -> dict[str, str | int]:
    return {
        "registered": REGISTERED_VERSION,
        "registered_problems": knowledge_digest(REGISTERED_FOLDER),
    }


def prepare_dataset(data: Data, root: Path, evaluation_sets: Sequence[EvaluationSet] = ()) -> Path:
    """The folder `root`/data/<name>-<digest>, which is built unless it is complete.

    It holds train, valid, calibration, test and each evaluation set as JSONL, a data card, and for
    embedded cases the facts behind each; `DatasetManifest` describes its manifest.
    Changed files, settings or generator give another folder. Raises BadInput, also where an
    evaluation set shares texts with what a model learns from.
    """
    sources = [locate(data), *map(locate, evaluation_sets)]
    ingredients = list(map(ingredients_of, sources))
    folder = _folder(root, sources[0].name, ingredients)
    name, _, digest = folder.name.rpartition("-")

    def build(temporary: Path) -> dict[str, Any]:
        entries = _build(data, sources, temporary)
        # What was read from a changed file would be found under the digest of its earlier content.
        for source, earlier in zip(sources, ingredients, strict=True):
            if ingredients_of(source) != earlier:
                raise BadInput(
                    f"{source.columns.source} changed while it was read; run the same command "
                    "again."
                )
        return {**entries, "name": name, "dataset_digest": digest}

    # The texts may be those of patients: only the owner may read them.
    build_folder(folder, build, private=True)
    return folder


def dataset_folder(data: Data, root: Path, evaluation_sets: Sequence[EvaluationSet] = ()) -> Path:
    """The folder of `prepare_dataset`, whether it exists yet or not."""
    sources = [locate(data), *map(locate, evaluation_sets)]
    return _folder(root, sources[0].name, list(map(ingredients_of, sources)))


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


def _folder(root: Path, name: str, ingredients: list[dict[str, Any]]) -> Path:
    # Defaults are left out of the ingredients, so that a new setting changes no digest.
    digest = short_digest({"sources": ingredients, "version": PREPARE_VERSION})
    return root / "data" / f"{name}-{digest}"


def _build(data: Data, sources: Sequence[Located], folder: Path) -> dict[str, Any]:
    """Fill `folder` and return what its manifest says about it."""
    located, *evaluation_sources = sources
    sets, learned, left_out = limited_sets(data, sources)
    source_of = dict.fromkeys(sets, located)
    records = list(records_of(data)) if data.source == "embedded" else []
    evaluation_sets = []

    for source in evaluation_sources:
        columns = source.columns
        assert isinstance(columns, EvaluationSet)
        if columns.source == "embedded":
            of_set = evaluation_records(columns, data, sets["train"])
            records += of_set
            cases = [record.case for record in of_set]
        else:
            paths = itertools.chain.from_iterable(source.files.values())
            cases = read_set(list(paths), columns)
        evaluation_sets.append((columns, cases))
        sets[columns.name] = cases
        source_of[columns.name] = source

    check_apart(evaluation_sets, learned, sources)
    entries = {
        name: _write_set(folder / f"{name}.jsonl", cases, source_of[name])
        for name, cases in sets.items()
    }
    written = {(name, case.case_id) for name, cases in sets.items() for case in cases}
    records = [record for record in records if (record.set, record.case.case_id) in written]
    if records:
        write_facts(folder / FACTS, records)

    dataset = DatasetManifest(
        digest="",  # of the files, which `seal` computes
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
    sections += [contrast_card(sets)] if data.contrast_share else []
    sections += [adversarial_card(name, data.seed) for name in sets if name in BANKS]
    for name, card in ((FAMILIAR, familiar_card), (REGISTERED, registered_card)):
        if name in sets and entries[name].source == "embedded":
            sections.append(card(sets[name]))
    sections += [registered_card(sets["test"])] if data.test_problems == REGISTERED else []
    sections += [copies_card(left_out)] if data.near_copies == "drop" else []
    test = [record for record in records if record.set == "test"]
    (folder / CARD).write_text(data_card(dataset, test, sections), encoding="utf-8")

    # The revision is part of `origin`, with the commit that it means.
    of_the_folder = dict.fromkeys(("digest", "created", "name", "dataset_digest"), True)
    return dataset.model_dump(mode="json", exclude={"columns": {"revision"}, **of_the_folder})


def _write_set(path: Path, cases: Sequence[Case], source: Located) -> SetEntry:
    """Write the cases of a set as JSONL and return its entry in the manifest."""
    path.write_text("".join(to_json(case) + "\n" for case in cases), encoding="utf-8")
    labels = Counter(case.label for case in cases)
    groups = {case.group for case in cases} - {None}

    return SetEntry(
        cases=len(cases),
        digest=file_digest(path),
        labels={label: labels[label] for label in LABELS},
        groups=len(groups),
        has_groups=bool(groups),
        source=source.columns.source,
        origin=source.origin,
        external=isinstance(source.columns, EvaluationSet),
    )


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
