"""Shared by all downloads: progress reports in bytes, and the check for room on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.runtime.errors import BadInput, TriageError

# Called with the name of the download, the bytes done and the bytes in all. It may raise a
# TriageError to end it.
Progress = Callable[[str, int, int], None]


def no_progress(name: str, done: int, total: int) -> None:
    """Report nothing."""


def check_room(name: str, required_bytes: int, folder: Path, setting: str) -> None:
    """Raise BadInput if the disk of `folder` has less than `required_bytes` bytes free.

    `name` is what needs the room, `setting` the environment variable that chooses the folder.
    """
    free = shutil.disk_usage(folder).free
    if required_bytes > free:
        raise BadInput(
            f"{name} needs {required_bytes / 1e9:.1f} GB in {folder}, whose disk has "
            f"{free / 1e9:.1f} GB free; free some space, or set {setting} to a folder on another "
            "disk."
        )


def hub_bar(name: str, progress: Progress) -> type[Any]:
    """A class for huggingface_hub's `tqdm_class`: reports bytes to `progress`, prints nothing."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):
        """tqdm calls `display` at most ten times a second; `update` raises what that could not."""

        _refusal: TriageError | None = None

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # A bar that is switched off counts nothing; `display` below prints nothing anyway.
            super().__init__(*args, **{**kwargs, "disable": False, "gui": False})

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            if self.unit == "B" and self.total and self.n:
                try:
                    progress(name, min(int(self.n), int(self.total)), int(self.total))
                except TriageError as error:
                    self._refusal = error  # raised here, it would leave tqdm's lock held for good
            return True

        def update(self, n: float | None = 1) -> bool | None:
            displayed: bool | None = super().update(n)
            if self._refusal is not None:
                raise self._refusal
            return displayed

    return Bar
