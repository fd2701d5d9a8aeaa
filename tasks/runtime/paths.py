"""Questions about paths that a user names, which may be longer than paths can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def ask(question: Callable[[Path], bool], path: Path) -> bool:
    """Ask about a path; False where it cannot even be looked at, e.g. with too long a name."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def expanded(path: str) -> Path:
    """A path in which `~` is the user's folder; as it is written where nobody has that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
