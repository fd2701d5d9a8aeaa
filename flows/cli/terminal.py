"""What the commands share: the consoles, options that several of them have, results that wait to be
loaded, and standard output that refuses what is printed (a full disk, a lost terminal, an encoding
without a character).
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

from deployments.interruptions import INTERRUPTED as INTERRUPTED
from tasks.runtime.errors import BadInput, Finding, disk_full, is_disk_full

WITHOUT_TERMINAL = 140  # columns of output into a file or a pipe, unless COLUMNS says otherwise
STANDARD_OUTPUT = Path("standard output")  # as errors name it
STYLES = {"ok": "green", "warning": "bold yellow", "error": "bold red"}  # of findings


def _width() -> int | None:
    """None leaves the width to rich, which takes COLUMNS, else that of the terminal."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return None
    return WITHOUT_TERMINAL


# Without markup, which rich sees in square brackets: names, paths and texts may hold them.
console = Console(highlight=False, markup=False, width=_width())
errors = Console(stderr=True, highlight=False, markup=False)

Experiment = Annotated[
    str,
    typer.Argument(
        help="name of an experiment, or a training or evaluation id, or the beginning of one"
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="as its adapter was moved to this precision, e.g. mxfp4"),
]
Prevalence = Annotated[
    float | None,
    typer.Option(help="restate precision and F2 at this share of emergencies, e.g. 0.1"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, with all digits")]
Study = Annotated[
    str | None,
    typer.Argument(
        help="name of a study; without it, that of the last sweep, unless its weights are random"
    ),
]


# What a terminal obeys: control characters but tab and line feed, and marks of direction.
_CONTROL = [code for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"]
_DIRECTION = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
ESCAPED_IN_JSON = {code: f"\\u{code:04x}" for code in _CONTROL + _DIRECTION}
_SHOWN = ESCAPED_IN_JSON | {code: f"\\x{code:02x}" for code in _CONTROL}


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: an escape character becomes `\\x1b`."""
    return text.translate(_SHOWN)


def print_error(sentence: str) -> None:
    """The sentence with which a command ends, on standard error."""
    errors.print(f"triage: {printable(sentence)}", style="bold red", soft_wrap=True)


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print prose: wrapped between words on a terminal, one line in a file or a pipe."""
    console.print(text, style=style, soft_wrap=not console.is_terminal)


def print_findings(console: Console, findings: Iterable[Finding]) -> list[Finding]:
    """Print each finding of a check as soon as it is known, with its remedy; returns all of them."""
    printed = []
    for finding in findings:
        printed.append(finding)
        console.print(f"{finding.level:<8} ", style=STYLES[finding.level], end="")
        console.print(f"{finding.name}: {finding.detail}", soft_wrap=True)
        if finding.remedy:
            console.print(f"{'':<8} -> {finding.remedy.rstrip('.')}.", soft_wrap=True)
    return printed


def print_json(value: object) -> None:
    """Print a value of the warehouse as JSON on standard output: a time as text, no figure as null."""
    print(json_text(value))


def json_text(value: object, default: Callable[[Any], object] = str) -> str:
    """A value of the warehouse as JSON; what JSON has no word for (NaN, infinity) is null.

    `default` gives what stands for a value of another type.
    """
    text = json.dumps(_without_nan(value), ensure_ascii=False, indent=1, default=default)
    # Of control characters json escapes those below 32 alone; a terminal obeys others, too.
    return text.translate(ESCAPED_IN_JSON)


def _without_nan(value: object) -> object:
    match value:
        case dict():
            return {str(key): _without_nan(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_without_nan(entry) for entry in value]
        case float():
            return value if math.isfinite(value) else None
    return value


def load_what_waits() -> None:
    """Load what landed while another program held the warehouse; say so where it still has to."""
    from tasks.runtime.home import home
    from warehouse.connect import loading_waits

    if not loading_waits(home() / "landing"):
        return

    from warehouse.load import load_waiting, waiting_sentence  # pyarrow comes with it

    if error := load_waiting(home() / "landing"):
        _say_once(waiting_sentence(error))


def refresh_warehouse() -> None:
    """Load what waits, and bring the tables and views to those of this version."""
    from warehouse.health import bring_up_to_date

    load_what_waits()
    bring_up_to_date()


@cache  # a command that draws its table again and again loads again and again
def _say_once(sentence: str) -> None:
    print_line(errors, sentence)


def refuse_existing(path: Path) -> None:
    """Raise BadInput unless a new file can be made at `path`."""
    if os.path.lexists(path):
        raise BadInput(f"{path} is there already and stays as it is; give --output another name.")
    if not path.parent.is_dir():
        raise BadInput(
            f"There is no folder {path.parent}; create it, or give --output another name."
        )


@contextmanager
def written_by_its_end() -> Iterator[None]:
    """Write what the block prints before it is left, however it ends.

    Raises BadInput where standard output refuses it. Where the reader has gone, as `head` does, the
    command ends without a word.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        discard_the_rest(sys.stdout)
        raise SystemExit(1) from None
    except UnicodeEncodeError as error:
        raise BadInput(
            f"Standard output is in {sys.stdout.encoding}, which has no "
            f"{error.object[error.start]!a}; set PYTHONIOENCODING=utf-8:backslashreplace, which has "
            "every character, and run the command again."
        ) from None
    except OSError as error:
        # What a file refuses when it is opened is named; standard output is open.
        if error.filename is not None or not _refuses_more(sys.stdout):
            raise
        discard_the_rest(sys.stdout)
        raise output_error(error) from None


def output_error(error: OSError) -> Exception:
    """A refusal of standard output as a sentence; the error itself where the reader has gone."""
    if isinstance(error, BrokenPipeError):
        return error
    if is_disk_full(error):
        return disk_full(STANDARD_OUTPUT)
    return BadInput(
        f"Standard output could not be written ({error.strerror}); send it to a file or a terminal "
        "that takes it."
    )


def discard_the_rest(file: TextIO) -> None:
    """Send what could not be written nowhere, else it is tried again when the file is closed, which
    fails beside the sentence.
    """
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), file.fileno())


def _refuses_more(file: TextIO) -> bool:
    """Whether a file takes no further line either, so that it is the one that was refused."""
    try:
        file.write("\n")
        file.flush()
    except OSError:
        return True
    return False
