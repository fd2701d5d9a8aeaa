"""What a home records about its adapters and scores: the `spec.json` of the child processes that
made them, and the ingredients of each training.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.identity import INGREDIENTS

MADE_IN = ("experiments", "moved", "baselines", "valid")  # where jobs put adapters and scores
Learned = tuple[str, str]  # digests of the `train` and the `valid` that an adapter learned from


@dataclass(frozen=True)
class Job:
    """What a child process was told: the data set it read, the adapter, the folders it made."""

    data: str | None
    adapter: Path | None
    folders: tuple[Path, ...]


def jobs(root: Path) -> Iterator[Job]:
    """The jobs of a home whose specs can be read."""
    for pattern in ("experiments/*/spec.json", "logs/*/spec.json"):
        for path in sorted(root.glob(pattern)):
            with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
                yield _job(root, json.loads(path.read_text(encoding="utf-8"))["args"])


def _job(root: Path, args: dict[str, Any]) -> Job:
    """A job's arguments, with its folders as they are called in this home, which may have moved."""

    def existing_path(path_text: str) -> Path | None:
        path = Path(path_text)
        if not path.is_relative_to(args["home"]):
            return None
        parts = path.relative_to(args["home"]).parts
        is_a_folder_there = len(parts) > 1 and parts[0] in MADE_IN and ".." not in parts
        return root.joinpath(*parts) if is_a_folder_there else None

    names = [args.get("folder"), args.get("scores"), *(args.get("sets") or {}).values()]
    adapter = args.get("adapter")
    return Job(
        data=Path(args["data"]).name if "data" in args else None,
        adapter=existing_path(adapter) if adapter else None,
        folders=tuple(
            path for path in (existing_path(name) for name in names if name) if path is not None
        ),
    )


def learned_by(experiment: Path) -> Learned | None:
    """What the adapter of an experiment learned from; None where its folder does not say so."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        ingredients = json.loads((experiment / INGREDIENTS).read_text(encoding="utf-8"))
        return ingredients["train"], ingredients["valid"]
    return None
