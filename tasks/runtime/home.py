"""TRIAGE_HOME, the folder of everything that can be rebuilt.

Imports nothing heavy: every command starts here.
"""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`TRIAGE_HOME`, else `.triage` in the working folder."""
    return Path(os.environ.get("TRIAGE_HOME") or ".triage").resolve()


def existing_home() -> Path:
    """`home()`, or its nearest parent that exists: the disk and the permissions are those of this
    folder.
    """
    return next(path for path in (home(), *home().parents) if path.exists())
