"""`triage sweep --failed`: what failed when it last ran, and nothing else."""

from datetime import datetime

import pytest

from flows.selection import Narrowing, failed_cells, select
from tasks.runtime.errors import BadInput
from tests.warehouse.rows import training
from warehouse.connect import writing
from warehouse.landing import write_landing
from warehouse.load import load_all


def land(folder, id: str, hour: int, **values) -> None:
    write_landing(folder, id, "training", training(id, **values))
    load_all(folder)
    with writing() as con:
        con.execute("UPDATE landed SET loaded_at = ? WHERE id = ?", [datetime(2026, 1, 1, hour), id])


def test_a_cell_whose_last_run_failed_runs_again_and_one_that_succeeded_since_does_not(tmp_path):
    selection = select("smoke")
    first, second, third, *_ = (spec.cell_id for spec in selection.cells)
    with pytest.raises(BadInput, match="No experiment of smoke failed when it last ran; leave out --failed"):
        failed_cells(selection)

    land(tmp_path, "a", 1, cell_id=first, status="failed", error="The disk was full.")
    land(tmp_path, "b", 1, cell_id=second, status="diverged", error="NaN.")
    land(tmp_path, "c", 2, cell_id=second)
    land(tmp_path, "d", 1, cell_id=third)
    land(tmp_path, "e", 2, cell_id=third, status="failed", error="NaN.")
    land(tmp_path, "f", 2, cell_id="of-another-grid", status="failed", error="NaN.")
    assert failed_cells(selection) == [first, third]

    narrowed = select("smoke", None, Narrowing(cells=failed_cells(selection)))
    assert [spec.cell_id for spec in narrowed.cells] == [first, third]
    with pytest.raises(BadInput, match="No experiment"):
        failed_cells(select("smoke", None, Narrowing(recipes=["balanced_safe"], models=["tiny-gemma3"])))
    with pytest.raises(BadInput, match="has no experiment of all of"):
        select("smoke", None, Narrowing(cells=["of-another-grid"]))
