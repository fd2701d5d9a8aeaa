"""Whether an error says that a disk is full, whatever caused it and however it was raised again."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tasks.runtime.errors import disk_error, is_disk_full
from tasks.runtime.store import build_folder


def test_an_error_that_was_caused_by_a_full_disk_says_so():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("wrapped") from error
    except ValueError as error:
        assert is_disk_full(error)
        assert not is_disk_full(ValueError("wrapped"))


def test_an_error_that_is_its_own_cause_is_looked_at_once(tmp_path: Path):
    """As a read error of the disk in a build is, for which there is no other sentence."""

    def build(folder: Path) -> dict[str, object]:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output") as raised:
        build_folder(tmp_path / "final", build)

    assert raised.value.__cause__ is raised.value, "else this shows nothing"
    assert not is_disk_full(raised.value) and disk_error(raised.value, tmp_path) is raised.value
