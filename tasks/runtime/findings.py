"""One finding of a check: what was looked at, how it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and where it is not well, what to do."""

    name: str
    level: Level
    detail: str
    remedy: str = ""
