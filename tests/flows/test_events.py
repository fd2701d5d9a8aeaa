"""What Prefect's event feed hears of a sweep, and addresses that no message can reach."""

from uuid import uuid4

import pytest

from deployments.notify import check_address, notices
from flows import outcomes
from flows.selection import select
from tasks.progress import listeners, publish
from tasks.runtime.errors import BadInput
from tasks.runtime.events import ExperimentFailed, ExperimentLanded
from tests.warehouse.rows import evaluation, training
from warehouse.landing import write_landing
from warehouse.load import load_all


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
