"""What downloads share: how far one is, for whoever shows it, and whether there is room for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.runtime.errors import BadInput, TriageError

Progress = Callable[
    [str, int, int], None
]  # given what it is, and bytes done and in all; may end it by a TriageError


def quiet(what: str, done: int, total: int) -> None:
    """Show nothing."""


def check_room(what: str, need: int, folder: Path, setting: str) -> None:
    """Raise BadInput if the disk of `folder`, which `setting` chooses, has less than `need` bytes free."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise BadInput(
            f"{what} needs {need / 1e9:.1f} GB in {folder}, whose disk has {free / 1e9:.1f} GB free; free some space, "
            f"or set {setting} to a folder on another disk."
        )


def hub_bar(what: str, progress: Progress) -> type[Any]:
    """A class for huggingface_hub's `tqdm_class` that reports bytes to `progress` and prints nothing itself."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):
        """tqdm calls `display` at most ten times a second, and when it ends; what `progress` raises, `update` raises."""

        _refused: TriageError | None = None

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": False, "gui": False})

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            if self.unit == "B" and self.total and self.n:
                try:
                    progress(what, min(int(self.n), int(self.total)), int(self.total))
                except TriageError as error:
                    self._refused = error  # raised here, it would leave tqdm's lock held for good
            return True

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self._refused is not None:
                raise self._refused
            return shown

    return Bar
