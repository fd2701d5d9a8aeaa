"""Files of this project: written so that a reader sees all or nothing, read by line, digested."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from tasks.runtime.errors import disk_error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that this project wrote, one line of JSON each."""
    with path.open(encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_atomic(path: Path, content: str | bytes, mode: int = 0o666) -> None:
    """Write a file so that a reader sees the old content or the new, never a part of it. The umask
    takes from `mode`.

    Raises BadInput on a full disk and where the file may not be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Set as the file is made, so that nobody else can read it for a moment.
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(number, "wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            handle.flush()
            # The content before the name: else a power failure could leave a name without content.
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise disk_error(error, path) from error
