"""Standard output that refuses what is printed: a full disk, a lost terminal, an encoding without a
character.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tasks.runtime.errors import BadInput, disk_full, is_disk_full

STANDARD_OUTPUT = Path("standard output")  # as errors name it


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
        if _can_be_printed(error.object):
            raise
        raise _unknown_character(error.object[error.start]) from None
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


def _can_be_printed(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding, sys.stdout.errors or "strict")
    except UnicodeEncodeError:
        return False
    return True


def _unknown_character(character: str) -> BadInput:
    return BadInput(
        f"Standard output is in {sys.stdout.encoding}, which has no {character!a}; set "
        "PYTHONIOENCODING=utf-8:backslashreplace, which has every character, and run the command "
        "again."
    )
