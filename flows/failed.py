"""The experiments of a grid that failed when they last ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.report.typed_rows import typed_rows
from flows.selection import Selection
from tasks.runtime.errors import BadInput
from warehouse.connect import warehouse_path
from warehouse.health import bring_up_to_date

# The last training of each cell: a later run of a cell, under whatever settings, stands for it.
LAST = """
    SELECT cell_id, status
    FROM experiment JOIN landed ON landed.id = experiment.training_id
    QUALIFY row_number() OVER (PARTITION BY cell_id ORDER BY loaded_at DESC) = 1
"""
COMPLETED = "completed"


@dataclass(frozen=True)
class _LastRun:
    cell_id: str
    status: str


def failed_cells(selection: Selection) -> Sequence[str]:
    """The ids of the selection's cells that failed when they last ran.

    Raises BadInput if there are none.
    """
    runs: list[_LastRun] = []
    if warehouse_path().exists():
        bring_up_to_date()
        runs = typed_rows(_LastRun, f"({LAST})")

    failed_ids = {run.cell_id for run in runs if run.status != COMPLETED}
    cells = [spec.cell_id for spec in selection.cells if spec.cell_id in failed_ids]
    if not cells:
        raise BadInput(
            f"No experiment of {selection.grid.name} failed when it last ran; leave out --failed "
            "to run what is not finished."
        )

    return cells
