"""What stands below every comparison: what the figures are not."""

from __future__ import annotations

from collections.abc import Collection

from tasks.bundle.bundle import NOT_A_DEVICE, SYNTHETIC
from tasks.corpus.manifest import embedded_digests
from tasks.runtime.home import home


def disclaimer(set_digests: Collection[str]) -> str:
    """One sentence about evaluations on these sets; it speaks of synthetic cases only where some
    are embedded ones.
    """
    if embedded_digests(home()) & set(set_digests):
        return f"{NOT_A_DEVICE}; {SYNTHETIC}."
    return f"{NOT_A_DEVICE}."
