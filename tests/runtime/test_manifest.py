"""A manifest is verified and parsed once; one that does not fit its class names folder, key and remedy."""

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from tasks.runtime.errors import BrokenFolder
from tasks.runtime.manifest import Manifest
from tasks.runtime.store import seal, verify


class Sized(Manifest):
    size: int
    parts: dict[str, int] = Field(default_factory=dict)


def sealed(folder: Path, **extra) -> Path:
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"alpha")
    seal(folder, extra)
    return folder


def test_a_manifest_is_read_into_its_class_and_other_keys_are_ignored(tmp_path):
    folder = sealed(tmp_path / "made", size=3, other="kept on disk only")
    manifest = Sized.read(folder, deep=True)
    assert manifest == Sized.read_if_complete(folder) == Sized(digest=verify(folder)["digest"], size=3)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.size = 4


@pytest.mark.parametrize(
    ("extra", "key"),
    [({}, "size: Field required"), ({"size": 1, "parts": {"a": "many"}}, r"parts\.a: Input should be")],
)
def test_a_manifest_without_what_its_class_needs_is_broken_in_a_sentence(extra, key, tmp_path):
    folder = sealed(tmp_path / "made", **extra)
    for read in (Sized.read, Sized.read_if_complete):
        with pytest.raises(BrokenFolder, match=rf"made.manifest\.json: {key}.*; delete the folder to rebuild it\.$"):
            read(folder)


def test_a_folder_that_is_damaged_or_missing_is_broken_or_none(tmp_path):
    with pytest.raises(BrokenFolder, match="never completed"):
        Sized.read(tmp_path / "missing")

    assert Sized.read_if_complete(tmp_path / "missing") is None
    folder = sealed(tmp_path / "made", size=3)
    (folder / "a.bin").write_bytes(b"ALPHA")
    assert Sized.read_if_complete(folder) and Sized.read_if_complete(folder, deep=True) is None

    with pytest.raises(BrokenFolder, match=r"a\.bin does not have the digest"):
        Sized.read(folder, deep=True)
