"""How far a download is, for whoever shows it: called with what it is, and bytes done and in all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Progress = Callable[[str, int, int], None]


def quiet(what: str, done: int, total: int) -> None:
    """Show nothing."""


def hub_bar(what: str, progress: Progress) -> type[Any]:
    """A class for huggingface_hub's `tqdm_class` that reports bytes to `progress` and prints nothing itself."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):
        """tqdm calls `display` at most ten times a second, and when it ends."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": False, "gui": False})

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            if self.unit == "B" and self.total and self.n:
                progress(what, min(int(self.n), int(self.total)), int(self.total))
            return True

    return Bar
