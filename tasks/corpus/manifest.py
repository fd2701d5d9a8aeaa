"""The manifest of a dataset folder, parsed: its sets, their sizes, labels and digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from tasks.corpus.case import SETS
from tasks.runtime.store import Manifest
from tasks.spec import Columns, Label


class SetEntry(BaseModel):
    """One set of a data set. `external`: an evaluation set of the grid, which nothing is learned from.

    `digest` is the SHA-256 of the set's JSONL file. A case without a group is a group of its own
    where `has_groups`, and `groups` does not count it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    cases: int
    digest: str
    labels: dict[Label, int]
    groups: int = 0
    has_groups: bool = False
    external: bool = False
    source: str = "embedded"
    origin: dict[str, str] = Field(default_factory=dict)


class DatasetManifest(Manifest):
    """The manifest of a data set's folder. `origin` says what was read, e.g. the commit on the Hub;
    `name` and `dataset_digest` are those of the folder, name-digest; `digest` is that of the files.
    """

    sets: dict[str, SetEntry]
    source: str = "embedded"
    origin: dict[str, str] = Field(default_factory=dict)
    seed: int = 42
    columns: Columns = Columns()
    split: str = ""
    has_groups: bool = False
    created: str = ""
    name: str = ""
    dataset_digest: str = ""

    @classmethod
    def parse(cls, values: dict[str, Any], folder: Path) -> Self:
        name, _, digest = folder.name.rpartition("-")
        return super().parse({"name": name, "dataset_digest": digest, **values}, folder)

    @property
    def is_embedded(self) -> bool:
        """Whether the cases are the project's own synthetic ones."""
        return self.source == "embedded"

    @property
    def evaluation_sets(self) -> list[str]:
        """Names of the sets that results are reported on: test, then the grid's own, by name."""
        return ["test", *sorted(set(self.sets) - set(SETS))]

    def digest_of(self, name: str) -> str:
        """SHA-256 of the JSONL file of the set `name`."""
        return self.sets[name].digest


def embedded_digests(home: Path) -> set[str]:
    """Digests of the sets in a home that hold the project's own synthetic cases."""
    manifests = map(DatasetManifest.read_if_complete, (home / "data").glob("*"))
    return {
        entry.digest
        for manifest in manifests
        if manifest is not None
        for entry in manifest.sets.values()
        if entry.source == "embedded"
    }
