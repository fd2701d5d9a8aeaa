"""What stands below every comparison: what the figures are not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flows.report.typed_rows import typed_rows
from tasks.bundle.bundle import NOT_A_DEVICE, SYNTHETIC
from tasks.corpus.manifest import embedded_digests
from tasks.runtime.home import home
from tasks.spec import EMBEDDED_EVALUATION_SETS
from warehouse.connect import listed, warehouse_path


@dataclass(frozen=True)
class _StoredSet:
    """A row of `dataset_set`."""

    set_digest: str


def disclaimer(set_digests: Collection[str]) -> str:
    """One sentence about evaluations on these sets; it speaks of synthetic cases only where some
    are embedded ones, by the data of this home or by the warehouse.
    """
    judged = set(set_digests)
    if judged & embedded_digests(home()) or judged & _landed_digests():
        return f"{NOT_A_DEVICE}; {SYNTHETIC}."
    return f"{NOT_A_DEVICE}."


def _landed_digests() -> set[str]:
    """Digests of the embedded sets in the warehouse: results may come from another home, and a
    home's data may be removed.

    A further set is known by its name alone, since what a row says is about the four own sets.
    """
    if not warehouse_path().exists():
        return set()
    rows = typed_rows(
        _StoredSet,
        "dataset_set JOIN dataset USING (dataset_id) "
        f"WHERE if(is_further, name IN {listed(EMBEDDED_EVALUATION_SETS)}, is_embedded)",
    )
    return {row.set_digest for row in rows}
