"""How a sweep ends: what did not land, an error, an interruption; what Prefect hears of it; what --failed runs."""

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from deployments.notify import check_address, notices
from flows import outcomes
from flows.cli.sweep import sweep
from flows.outcomes import Part, SubmittedSweep, finish_all
from flows.selection import Narrowing, failed_cells, select
from tasks.grids.grid import load_grid
from tasks.landing import SweepRecord, land_rows
from tasks.progress import listeners, publish
from tasks.runtime import children
from tasks.runtime.errors import BadInput, Stopped
from tasks.runtime.events import ExperimentFailed, ExperimentLanded
from tasks.runtime.home import home
from tests.warehouse.rows import evaluation, land_trainings, training
from warehouse.connect import warehouse_path
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query


def future(result: Any) -> SimpleNamespace:
    """A finished step, as a flow sees it."""
    no, yes = (lambda: False), (lambda: True)
    state = SimpleNamespace(is_failed=no, is_crashed=no, is_cancelled=no, is_completed=yes, name="Completed")
    calls: list[Any] = []

    def wait() -> None:
        for call in calls:
            call(None)

    return SimpleNamespace(state=state, result=lambda: result, wait=wait, add_done_callback=calls.append)


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
    shares: list[float] = []
    assert finish_all(sweep, shares.append) == []
    assert shares == [0, 20, 40, 60, 80, 100], "five steps, of which an experiment's folder is one"
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
    waits = SimpleNamespace(wait=stop, add_done_callback=lambda call: None)
    chain = Part("cell", [waits] * 3, [future("folder")] * 4, SimpleNamespace(cell_id="cell"))
    sweep = SubmittedSweep(unfinished(), record, [Part("baselines", [future(["e1"])]), chain])
    land_rows("t1", "training", training("t1"))
    land_rows("e1", "evaluation", evaluation("e1", "t1"))

    with pytest.raises(KeyboardInterrupt):
        finish_all(sweep)

    load_all(home() / "landing")
    assert query("SELECT study, id FROM study_member ORDER BY id").values.tolist() == [["smoke", "e1"], ["smoke", "t1"]]


@pytest.fixture
def feed(monkeypatch):
    """What is emitted: pairs of the event's name and its payload."""
    emitted = []
    monkeypatch.setattr(
        outcomes, "emit_event", lambda name, resource, payload: emitted.append((name, resource, payload))
    )
    return emitted


def test_an_experiment_that_lands_unsafe_and_one_that_fails_are_told(feed, tmp_path):
    write_landing(tmp_path, "t4", "training", training("t4"))
    write_landing(tmp_path, "e4", "evaluation", evaluation("e4", "t4", verdict="unsafe"))
    load_all(tmp_path)

    first, second, *_ = select("smoke").cells
    with outcomes.tell_of([first, second]):
        publish(f"land {first.cell_id}", ExperimentLanded(("e4",)))
        publish(f"land {second.cell_id}", ExperimentFailed("NaN.", ValueError()))

    assert [name for name, _, _ in feed] == [outcomes.LANDED, outcomes.GATE_FAILED, outcomes.FAILED]
    resources = [resource["prefect.resource.id"] for _, resource, _ in feed]
    assert resources == [f"triage.experiment.{spec.cell_id}" for spec in (first, first, second)]
    assert feed[1][2]["ed_recall"] == 1.0 and feed[2][2] == {"reason": "NaN."}
    assert not listeners


@pytest.mark.parametrize("has_warehouse", [True, False])
def test_a_set_without_emergencies_judges_nothing_and_is_no_failed_gate(has_warehouse, feed, tmp_path):
    write_landing(tmp_path, "t4", "training", training("t4"))
    cases = [("GP", "GP", "GP"), ("HOME", "HOME", "HOME")]
    write_landing(tmp_path, "e4", "evaluation", evaluation("e4", "t4", cases, verdict="unsafe"))
    if has_warehouse:
        load_all(tmp_path)

    spec = select("smoke").cells[0]
    with outcomes.tell_of([spec]):
        publish(f"land {spec.cell_id}", ExperimentLanded(("e4",)))
    assert [name for name, _, _ in feed] == [outcomes.LANDED]


def test_every_automation_has_a_trigger_that_prefect_accepts():
    assert [notice.trigger.threshold for notice in notices(uuid4())] == [1, 1, 1]


@pytest.mark.parametrize("address", ["", "nonsense", "no-such-service://x"])
def test_an_address_that_apprise_cannot_read_is_a_sentence_without_the_address(address):
    with pytest.raises(BadInput, match="--notify is not an address that Apprise reads") as caught:
        check_address(address)
    assert not address or f"{address!r}" not in str(caught.value)
    check_address("json://127.0.0.1:8000")


def test_a_cell_whose_last_run_failed_runs_again_and_one_that_succeeded_since_does_not(tmp_path, monkeypatch):
    selection = select("smoke")
    first, second, third, *_ = (spec.cell_id for spec in selection.cells)
    with pytest.raises(BadInput, match="No experiment of smoke failed when it last ran; leave out --failed"):
        failed_cells(selection)

    failed = {"status": "failed", "error": "NaN."}
    land_trainings(
        tmp_path,
        ("a", 1, {"cell_id": first} | failed),
        ("b", 1, {"cell_id": second, "status": "diverged", "error": "NaN."}),
        ("c", 2, {"cell_id": second}),
        ("d", 1, {"cell_id": third}),
        ("e", 2, {"cell_id": third} | failed),
        ("f", 2, {"cell_id": "of-another-grid"} | failed),
    )
    assert failed_cells(selection) == [first, third]

    narrowed = select("smoke", None, Narrowing(cells=failed_cells(selection)))
    assert [spec.cell_id for spec in narrowed.cells] == [first, third]
    with pytest.raises(BadInput, match="No experiment"):
        failed_cells(select("smoke", None, Narrowing(recipes=["balanced_safe"], models=["tiny-gemma3"])))
    with pytest.raises(BadInput, match="no experiment of-another-grid; `triage sweep smoke --plan`"):
        select("smoke", None, Narrowing(cells=[first, "of-another-grid"]))

    land_trainings(tmp_path, ("g", 3, {"cell_id": first}))
    planned = []
    monkeypatch.setattr("flows.cli.plan.print_plan", lambda _, selection: planned.extend(selection.cells))
    sweep("smoke", failed=True, limit=1, plan=True)
    assert [spec.cell_id for spec in planned] == [third], "the first of those that failed"
