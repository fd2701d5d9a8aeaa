"""The manifest of a dataset folder as a class: of today's folders, and of older ones with fewer keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.corpus.case import SETS
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.runtime.errors import BrokenFolder
from tasks.runtime.store import read_manifest, seal
from tasks.spec import Data, EvaluationSet


def test_a_prepared_folder_reads_as_its_json_says(tmp_path: Path) -> None:
    adversarial = EvaluationSet(name="test_adversarial", source="embedded")
    folder = prepare_dataset(Data(limits={"train": 30}), tmp_path, (adversarial,))
    manifest = DatasetManifest.read(folder)
    raw = read_manifest(folder)
    assert raw is not None
    assert {name: entry.model_dump() for name, entry in manifest.sets.items()} == raw["sets"]
    assert manifest.columns.model_dump(mode="json", include=set(raw["columns"])) == raw["columns"]
    assert [manifest.source, manifest.seed, manifest.origin, manifest.split] == [
        raw[key] for key in ("source", "seed", "origin", "split")
    ]
    assert manifest.digest == raw["digest"] and manifest.created == raw["created"] and manifest.is_embedded
    assert manifest.evaluation_sets == ["test", "test_adversarial"]
    assert manifest.digest_of("train") == raw["sets"]["train"]["digest"]


def test_keys_that_older_folders_lack_have_defaults_but_for_the_sets(tmp_path: Path) -> None:
    entry = {"cases": 3, "digest": "d", "labels": {"ED": 1, "GP": 1, "HOME": 1}}
    seal(tmp_path, {"sets": dict.fromkeys(SETS, entry)})
    manifest = DatasetManifest.read(tmp_path)
    assert not manifest.has_groups and not any(of.has_groups or of.external for of in manifest.sets.values())
    assert manifest.columns.text_column == "text" and manifest.evaluation_sets == ["test"]
    seal(tmp_path, {"source": "embedded"})
    with pytest.raises(BrokenFolder, match=f"{tmp_path}.*sets.*rebuil"):
        DatasetManifest.read(tmp_path)
