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
*.tsv
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
    write_examples(directory)
    change_folder = "" if directory.resolve() == Path.cwd() else f"cd {directory} && "
    note = "is kept as it is: name your cases in it" if has_own else "keeps cases out of git"
    for line in (
        f"{directory / FILES[0]}: a grid of four experiments, with a comment on each setting",
        f"{directory / FILES[1]}: sixty synthetic cases, as a pattern for your own",
        f"{directory / '.gitignore'}: {note}",
        f"Next: {change_folder}triage sweep {FILES[0]} --plan",
    ):
        console.print(line, soft_wrap=True)


def write_examples(folder: Path) -> None:
    """Copy the example files into `folder`, which is created if necessary.

    A .gitignore beside them names the cases, unless the folder has one of its own. Raises BadInput,
    before anything is written, if one of the example files already exists.
    """
    texts = {name: (files("deployments") / "examples" / name).read_bytes() for name in FILES}
    # lexists: a link without a target is there, too, and writing would follow it.
    if existing := [name for name in texts if os.path.lexists(folder / name)]:
        raise BadInput(
            f"{folder / existing[0]} already exists and is kept; move it away or choose another "
            "folder."
        )
    if not os.path.lexists(folder / ".gitignore"):
        texts[".gitignore"] = IGNORE.encode()

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_bytes(text)
    except OSError as error:
        for name in texts:
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        raise BadInput(
            f"{folder} cannot be written ({error.strerror}); choose another folder."
        ) from error
