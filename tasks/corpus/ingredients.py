"""What a dataset is made from, files or the generator, and the digests that stand for its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.corpus.case import SETS
from tasks.corpus.reading.set_files import Files
from tasks.corpus.reading.sources import Located, check_settings, locate
from tasks.corpus.reading.tables import check_readable
from tasks.corpus.splits import COPIES_VERSION, SHARES
from tasks.corpus.vignettes.adversarial import ADVERSARIAL_VERSION, BANKS
from tasks.corpus.vignettes.contrast.bank import bank_digest
from tasks.corpus.vignettes.contrast.cases import CONTRAST_VERSION
from tasks.corpus.vignettes.generator import GENERATOR_VERSION
from tasks.corpus.vignettes.knowledge_base import further_digest, knowledge_digest
from tasks.corpus.vignettes.reader_check import FILE as READER_CHECK
from tasks.runtime.errors import BadInput
from tasks.runtime.files import file_digest
from tasks.spec import Data, EvaluationSet

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

        split = {"shares": SHARES} if self._is_split_by_default else {}
        return {"columns": columns, "inputs": self.digests, "copies": COPIES_VERSION} | split

    @property
    def _is_split_by_default(self) -> bool:
        """Whether the sets depend on SHARES, which have changed once."""
        if not isinstance(self.columns, Data):
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
