"""`triage init DIR`: an own grid and an own-data example, to be changed into a study."""

from __future__ import annotations

import contextlib
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from tasks.runtime.errors import BadInput

FILES = ("my_grid.toml", "my_cases.csv")


def write_examples(folder: Path) -> list[Path]:
    """Copy the example files into `folder`, which is made if need be, and return their paths.

    Raises BadInput, before anything is written, where one of them is there already.
    """
    places = [folder / name for name in FILES]
    if there := [path for path in places if path.exists() or path.is_symlink()]:
        raise BadInput(
            f"{there[0]} is there already and is not overwritten; move it away or choose another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in places:
            path.write_bytes((files("deployments") / "examples" / path.name).read_bytes())
    except OSError as error:
        _remove(places)
        raise BadInput(
            f"{folder} cannot be written ({error.strerror}); choose another folder."
        ) from error
    return places


def _remove(places: list[Path]) -> None:
    for path in places:
        with contextlib.suppress(OSError):
            path.unlink()


def init(console: Console, folder: Path) -> None:
    """Write the examples and say what to type next."""
    grid, cases = write_examples(folder)
    console.print(
        f"{grid}: a grid of four experiments, with a comment on each setting", soft_wrap=True
    )
    console.print(f"{cases}: sixty synthetic cases, as a pattern for your own", soft_wrap=True)
    here = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    console.print(f"Next: {here}triage sweep {grid.name} --plan", soft_wrap=True)
