"""`triage init DIR`: a starter grid and sample data, ready to run and edit."""

from __future__ import annotations

import contextlib
import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import console
from tasks.runtime.errors import BadInput

FILES = ("my_grid.toml", "my_cases.csv")
IGNORE = """\
# Written by `triage init`: cases are patients' words, and .triage/ holds copies of them.
.triage/
*.csv
*.jsonl
*.parquet
"""

Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="folder for the files; created if necessary")
]


def init(directory: Directory) -> None:
    """Create a starter grid and sample data in DIR, ready to run and edit.

    A .gitignore keeps cases and what is made of them out of git.
    """
    has_own = os.path.lexists(directory / ".gitignore")
    grid, cases = write_examples(directory)
    change_folder = "" if directory.resolve() == Path.cwd() else f"cd {directory} && "
    note = "is kept as it is: name your cases in it" if has_own else "keeps cases out of git"
    for line in (
        f"{grid}: a grid of four experiments, with a comment on each setting",
        f"{cases}: sixty synthetic cases, as a pattern for your own",
        f"{directory / '.gitignore'}: {note}",
        f"Next: {change_folder}triage sweep {grid.name} --plan",
    ):
        console.print(line, soft_wrap=True)


def write_examples(folder: Path) -> list[Path]:
    """Copy the example files into `folder`, which is created if necessary, and return their paths.

    A .gitignore beside them names the cases, unless the folder has one of its own. Raises BadInput,
    before anything is written, if one of the example files already exists.
    """
    targets = [folder / name for name in FILES]
    # lexists: a link without a target is there, too, and writing would follow it.
    if existing := [path for path in targets if os.path.lexists(path)]:
        raise BadInput(
            f"{existing[0]} already exists and is kept; move it away or choose another folder."
        )

    written = list(targets)
    gitignore = folder / ".gitignore"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in targets:
            path.write_bytes((files("deployments") / "examples" / path.name).read_bytes())
        with contextlib.suppress(FileExistsError), gitignore.open("x") as file:
            written.append(gitignore)
            file.write(IGNORE)
    except OSError as error:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise BadInput(
            f"{folder} cannot be written ({error.strerror}); choose another folder."
        ) from error

    return targets
