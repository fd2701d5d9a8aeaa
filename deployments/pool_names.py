"""Names of work pools, which stand in commands, unit files and variables of Prefect."""

from __future__ import annotations

import re

from tasks.runtime.errors import BadInput

_NAME = re.compile(r"(?!prefect)[a-z0-9][a-z0-9_.-]*", re.IGNORECASE)


def check_pool_name(pool: str) -> None:
    """Raise BadInput for a name that Prefect refuses or keeps for itself, or a shell would split."""
    if not _NAME.fullmatch(pool):
        raise BadInput(
            f"{pool!r} is no name for a work pool; give one of letters, digits and - _ . that does "
            "not begin with prefect, e.g. fleet."
        )
