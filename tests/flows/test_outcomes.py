"""How a sweep ends: what landed and is not in the warehouse, an error of its own, and an interruption."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows.outcomes import Part, SubmittedSweep, finish_all
from tasks.grids.grid import load_grid
from tasks.landing import SweepRecord, land_rows
from tasks.runtime import children
from tasks.runtime.errors import Stopped
from tasks.runtime.home import home
from tests.warehouse.rows import evaluation, training
from warehouse.connect import warehouse_path
from warehouse.load import load_all
from warehouse.query import query


def future(result: Any) -> SimpleNamespace:
    """A finished step, as a flow sees it."""
    no, yes = (lambda: False), (lambda: True)
    state = SimpleNamespace(is_failed=no, is_crashed=no, is_cancelled=no, is_completed=yes, name="Completed")
    return SimpleNamespace(state=state, result=lambda: result, wait=lambda: None)


def unfinished() -> SimpleNamespace:
    """A step that has not ended."""
    return SimpleNamespace(state=SimpleNamespace(is_completed=lambda: False))


def test_what_landed_and_is_not_in_the_warehouse_is_a_failure():
    steps = [future("t1"), future("e1"), future("e1")]
    chain = Part("cell", steps, [future("folder")] * 4, SimpleNamespace(cell_id="cell"))
    record = SweepRecord(load_grid("smoke"), experiments=1)
    sweep = SubmittedSweep(unfinished(), record, [Part("baselines", [future(["b1"])]), chain])
    land_rows("t1", "training", training("t1"))
    land_rows("e1", "evaluation", evaluation("e1", "t1"))
    land_rows("b1", "training", training("b1"))
    assert finish_all(sweep) == []
    warehouse_path().unlink()
    failures = finish_all(sweep)
    assert [failure.partition(":")[0] for failure in failures] == ["baselines", "cell"]
    assert all(f"are not in {warehouse_path()}" in failure for failure in failures)


@pytest.mark.parametrize(("error", "interrupts"), [(OSError(28, "No space left"), False), (KeyboardInterrupt(), True)])
def test_an_error_of_the_sweep_stops_the_children_and_does_not_pass_for_an_interruption(error, interrupts, monkeypatch):
    """Whoever sees an interruption leaves within seconds, and says that instead of the error's sentence."""
    record = SweepRecord(load_grid("smoke"), experiments=1)
    monkeypatch.setattr(record, "add", lambda ids: (_ for _ in ()).throw(error))

    with pytest.raises(type(error)):
        finish_all(SubmittedSweep(unfinished(), record, [Part("baselines", [future(["b1"])])]))

    assert children.is_interrupted() == interrupts
    with pytest.raises(Stopped):
        children.refuse_if_stopping()


def test_what_an_interrupted_sweep_has_landed_belongs_to_its_study_and_not_only_its_experiments():

    def stop() -> None:
        raise KeyboardInterrupt

    record = SweepRecord(load_grid("smoke"), experiments=1)
    waits = SimpleNamespace(wait=stop)
    chain = Part("cell", [waits] * 3, [future("folder")] * 4, SimpleNamespace(cell_id="cell"))
    sweep = SubmittedSweep(unfinished(), record, [Part("baselines", [future(["e1"])]), chain])
    land_rows("t1", "training", training("t1"))
    land_rows("e1", "evaluation", evaluation("e1", "t1"))

    with pytest.raises(KeyboardInterrupt):
        finish_all(sweep)

    load_all(home() / "landing")
    assert query("SELECT study, id FROM study_member ORDER BY id").values.tolist() == [["smoke", "e1"], ["smoke", "t1"]]
