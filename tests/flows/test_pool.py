"""A sweep in a work pool: which runs it submits, finds, repeats and gives up, told by a server in memory."""

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from prefect.exceptions import Abort, ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import AwaitingRetry, Completed, Crashed, Failed, Running, Scheduled

import flows.experiment
from deployments.notify import LOST
from deployments.server import NoAnswer
from flows import pool
from flows.experiment import experiment
from flows.pool import RESULT, PooledCell, PooledResult, PooledSweep, refuse_pool, sweep_in_pool, versions_here
from flows.selection import Narrowing, select
from tasks.grids.grid import load_grid
from tasks.landing import SweepRecord, grid_digest
from tasks.progress import listening
from tasks.runtime import device, locks
from tasks.runtime.backend import METAL
from tasks.runtime.errors import BadInput, BrokenFolder, SourceUnavailable, Stopped
from tasks.runtime.events import Event, ExperimentFailed, ExperimentLanded, RemoteReport, StepWarning
from tasks.runtime.home import home
from tasks.runtime.locks import accelerator_reserved as reserved
from tests.http_server import http_server, replying

GIVEN_BACK = "The machine mac2 gives its run back."


@dataclass
class Run:
    name: str
    parameters: dict
    state: object = field(default_factory=Scheduled)
    labels: dict = field(default_factory=dict)
    id: UUID = field(default_factory=uuid4)


class Server:
    """A Prefect server with one pool, as far as a sweep sees it: its runs by key."""

    def __init__(self):
        self.runs = {}
        self.automations = []
        self.times = []

    def read_work_pool(self, name):
        if name != "fleet":
            raise ObjectNotFound(None)

    def read_automations_by_name(self, name):
        return self.automations

    def create_automation(self, automation):
        self.automations.append(automation)

    def create_flow_from_name(self, name):
        return uuid4()

    def read_deployment_by_name(self, name):
        raise ObjectNotFound(None)

    def create_deployment(self, flow_id, name, **options):
        assert (name, options["work_pool_name"]) == ("fleet", "fleet") and options["tags"] == ["triage"]
        assert options["entrypoint"] == "flows.experiment.experiment" and options["job_variables"]["working_dir"] == "."

    def read_workers_for_work_pool(self, name):
        return []

    def run_deployment(self, name, *, parameters, flow_run_name, timeout, as_subflow, idempotency_key, tags):
        assert (name, timeout, as_subflow) == ("experiment/fleet", 0, False)
        assert list((home() / "landing").glob("sweep-smoke-*")), "the sweep, with what it claims, lands before its runs"
        return self.runs.setdefault(idempotency_key, Run(flow_run_name, parameters))

    def read_flow_runs(self, flow_run_filter):
        return [run for run in self.runs.values() if run.id in flow_run_filter.id.any_]

    def read_artifacts(self, artifact_filter, flow_run_filter):
        ids = flow_run_filter.id.any_
        return [SimpleNamespace(flow_run_id=ids[0], description="train a", data=25.0)]

    def set_flow_run_state(self, id, state, force):
        next(run for run in self.runs.values() if run.id == id).state = state


@pytest.fixture
def server(monkeypatch):
    fake_server = Server()
    monkeypatch.setattr(pool, "publisher", lambda title, stays: lambda event: None)  # which asks a real server
    monkeypatch.setattr(pool, "configured_api", lambda: "http://server/api")
    monkeypatch.setattr(pool, "refuse_unusable_server", lambda api: None)
    monkeypatch.setattr(pool, "prefect_client", lambda api, **options: within(fake_server))
    monkeypatch.setattr(pool, "run_deployment", fake_server.run_deployment)
    monkeypatch.setattr(pool, "POLL_SECONDS", 0)
    monkeypatch.setattr(pool, "absent_from_warehouse", lambda ids: [id for id in ids if id == "absent"])
    monkeypatch.setattr(pool, "take_over", lambda ids, data: None)
    monkeypatch.setattr(pool, "prepare_dataset", lambda *args: Path("cases-1"))
    monkeypatch.setattr(pool, "land_dataset", lambda data: None)
    monkeypatch.setattr(SweepRecord, "use", lambda record, data: None)
    monkeypatch.setattr(SweepRecord, "finish", lambda record, failures, elsewhere: fake_server.times.extend(elsewhere))

    return fake_server


@contextmanager
def within(value):
    yield value


def run_sweep(server, step, bits=(4,)):
    """The failures of a pool sweep of the smoke grid and its events; `step(runs by cell)` acts between two looks."""
    selection = select("smoke", None, Narrowing(bits=bits))
    record = SweepRecord(selection.grid, 1)
    events = []
    looks = PooledSweep.look

    def look(sweep, client):
        step({spec.cell_id: client.runs[sweep.key(spec)] for spec in selection.cells})
        looks(sweep, client)

    with pytest.MonkeyPatch.context() as patch, listening(lambda title, event: events.append((title, event))):
        patch.setattr(PooledSweep, "look", look)
        failures = sweep_in_pool("fleet", "smoke", [], selection, record)

    return failures, events, record


def told(**fields):
    return {RESULT: PooledResult(**fields).model_dump_json()}


def complete(runs):
    for cell, run in runs.items():
        run.state = Completed()
        run.labels = told(landed=[f"{cell}-1", f"{cell}-1-e1", "tfidf"], seconds=(12.5, 10.0))


def warnings(events):
    return [event.message for _, event in events if isinstance(event, StepWarning)][1:]  # first: nobody works yet


def test_every_cell_is_one_run_and_what_landed_belongs_to_the_sweep(server):
    failures, events, record = run_sweep(server, complete)
    assert failures == [] and len(server.runs) == 4
    assert server.times == [(12.5, 10.0)] * 4
    assert "No machine works for the pool fleet now; type" in events[0][1].message
    assert all(key.endswith(run.parameters["pooled"]["cell"]) for key, run in server.runs.items())

    landed = dict(e for e in events if isinstance(e[1], ExperimentLanded))
    assert landed["land tiny-llama-4bit-baseline-s42"].ids == (
        "tiny-llama-4bit-baseline-s42-1", "tiny-llama-4bit-baseline-s42-1-e1",
    )  # fmt: skip
    assert len(record.ids) == 9 and "tfidf" in record.ids
    run_sweep(server, complete)
    assert len(server.automations) == 1, "the server would forget which runs it waits for"


def test_the_same_sweep_typed_again_makes_no_twin_and_repeats_what_failed_waits_or_is_gone_alone(server):
    run_sweep(server, complete)
    first, second, third, *_ = server.runs.values()
    first.state = Failed(message="no")
    second.labels = told(landed=["absent"])
    third.state = AwaitingRetry(scheduled_time=datetime(2100, 1, 1, tzinfo=UTC), message=GIVEN_BACK)
    again = []

    def step(runs):
        again.extend(run for run in runs.values() if run.state.type.value == "SCHEDULED")
        complete(runs)

    failures, _, _ = run_sweep(server, step)
    assert failures == [] and len(server.runs) == 4 and again == [first, second, third]
    run_sweep(server, complete, bits=(4, 8))
    assert len(server.runs) == 8, "a wider sweep of the same grid finds the runs of the narrow one"


def test_a_failure_has_the_sentence_and_the_class_of_its_machine(server):
    def step(runs):
        complete(runs)
        cell, run = next(iter(runs.items()))
        run.state = Failed(message=f"{cell}: no weights.")
        run.labels = told(error="SourceUnavailable")

    failures, events, _ = run_sweep(server, step)
    assert failures == ["tiny-llama-4bit-baseline-s42: no weights."]
    (failed,) = [event for _, event in events if isinstance(event, ExperimentFailed)]
    assert isinstance(failed.error, SourceUnavailable) and failed.message == "no weights."


@pytest.mark.parametrize(
    ("state", "landed", "warning", "failure"),
    [
        (Crashed(message="code -9"), [], "was lost with mac1 and runs again.", "It was lost 4 times; last: code -9"),
        (Completed(), ["absent"], "are missing; it runs again", "they stay on mac1; name the folder that all machines"),
    ],
)
def test_what_crashes_or_is_missing_runs_again_and_after_three_times_it_is_a_failure(
    state, landed, warning, failure, server, monkeypatch
):
    monkeypatch.setattr(pool, "shared_place", lambda: "/mount")
    monkeypatch.setattr(pool, "LAG_SECONDS", 0.01)

    def step(runs):
        complete(runs)
        run = next(iter(runs.values()))
        run.state = state
        run.labels = told(machine="mac1", landed=landed)

    failures, events, _ = run_sweep(server, step)
    assert len(failures) == 1 and failure in failures[0]
    assert len(warnings(events)) == 3 and warning in warnings(events)[0]


def test_while_runs_go_on_who_gave_one_back_which_was_lost_and_how_far_they_are_is_said_once(server):
    looks = []

    def step(runs):
        looks.append(runs)
        complete(runs)
        if len(looks) < 3:
            lost, back, also_back, running = runs.values()
            for run, sentence in ((lost, LOST), (back, GIVEN_BACK), (also_back, GIVEN_BACK)):
                run.state = AwaitingRetry(scheduled_time=datetime.now(UTC), message=sentence)
            running.state = Running()
            running.labels = told(machine="mac1")

    failures, events, _ = run_sweep(server, step)
    assert failures == [] and warnings(events) == [f"tiny-llama-4bit-baseline-s42: {LOST}", GIVEN_BACK]
    reports = [event for title, event in events if title == "experiment tiny-gemma3-4bit-balanced_safe-s42"]
    assert reports == [RemoteReport("mac1", "train", 25.0)] * 2


def test_what_a_slow_place_shows_late_is_waited_for(server, monkeypatch):
    monkeypatch.setattr(pool, "shared_place", lambda: "/mount")
    asked = []
    monkeypatch.setattr(pool, "absent_from_warehouse", lambda ids: asked.append(ids) or ids[: len(asked) < 20])
    failures, events, _ = run_sweep(server, complete)
    assert failures == warnings(events) == []


def test_a_result_that_is_damaged_in_the_shared_folder_is_asked_for_again(server, monkeypatch):
    damaged = ["tfidf"]

    def take_over(ids, data):
        if damaged and damaged[0] in ids:
            damaged.clear()
            raise BrokenFolder("tfidf is not what its manifest says.")

    monkeypatch.setattr(pool, "take_over", take_over)
    failures, events, record = run_sweep(server, complete)
    (warning,) = warnings(events)
    assert "was damaged in the shared folder; it runs again. tfidf is not what" in warning
    assert failures == [] and len(record.ids) == 9


def test_a_run_that_is_gone_from_the_server_is_a_failure_that_the_same_command_runs_again(server):
    def step(runs):
        complete(dict(list(runs.items())[1:]))
        server.runs.pop(next(iter(server.runs)), None)

    failures, _, _ = run_sweep(server, lambda runs: step(runs) if len(server.runs) == 4 else None)
    assert len(failures) == 1 and "gone from the Prefect server; type the same command again" in failures[0]
    assert run_sweep(server, complete)[0] == [] and len(server.runs) == 4


def test_a_server_that_does_not_answer_is_waited_for(server, monkeypatch):
    opened = []

    @contextmanager
    def client(api, **options):
        opened.append(api)
        if len(opened) == 3:
            raise NoAnswer(api, "refused")
        yield server

    monkeypatch.setattr(pool, "prefect_client", client)
    failures, events, _ = run_sweep(server, complete)
    assert failures == [] and "(refused)" in warnings(events)[0]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("triage", "is that of `triage up`"),
        ("other", "There is no work pool 'other' at http://server/api; make it with .* --pool other --limit 1"),
    ],
)
def test_a_pool_that_cannot_take_the_sweep_is_named(server, name, sentence):
    with pytest.raises(BadInput, match=sentence):
        refuse_pool(name)


def test_a_pool_without_a_server_or_without_its_password_is_a_sentence():
    with pytest.raises(BadInput, match="A work pool needs a Prefect server, and none is set; set PREFECT_API_URL"):
        refuse_pool("fleet")

    sentence = r"refuses the request \(status 401\); set PREFECT_API_AUTH_STRING to the user and password"
    for password in (None, "fleet:WRONG"):
        with (
            http_server(replying("", 401)) as address,
            temporary_settings({PREFECT_API_AUTH_STRING: password, PREFECT_API_URL: f"{address}/api"}),
            pytest.raises(BadInput, match=sentence),
        ):
            refuse_pool("fleet")


def key(overrides=(), bits=(4,), data="cases-1", name="fleet"):
    selection = select("smoke", list(overrides), Narrowing(bits=bits))
    return PooledSweep(name, "smoke", list(overrides), selection, None, Path(data)).key(selection.cells[0])


def test_another_grid_version_pool_data_set_or_choice_of_precisions_is_another_run(monkeypatch):
    moves = ["scoring.move_adapters=true"]
    assert key() == key(bits=(4, 8))
    keys = [key(), key(["recipe.iterations=9"]), key(name="other"), key(data="cases-2"), key(moves)]
    keys.append(key(moves, bits=(4, 8)))  # the adapters of a narrow sweep were not moved
    monkeypatch.setenv("TRIAGE_POOL_BACKEND", "metal")
    keys.append(key())
    assert len(set(keys)) == len(keys)


# --- on a machine ---------------------------------------------------------------------------------

CELL = {"model": "tiny-llama", "bits": 4, "recipe": "baseline", "grid": "smoke"}


@pytest.fixture
def machine(monkeypatch):
    """Runs the flow of a cell, whose steps end as `ending` says; and the states and labels that it sets."""
    noted = SimpleNamespace(states=[], labels=[])
    client = SimpleNamespace(
        set_flow_run_state=lambda id, state, force: noted.states.append(state),
        update_flow_run_labels=lambda id, labels: noted.labels.append(labels),
    )
    monkeypatch.setattr(flows.experiment, "get_client", lambda **options: within(client))
    monkeypatch.setattr(flows.experiment, "flow_run", SimpleNamespace(id=uuid4()))

    def run(ending=None, **changes):
        def steps(*args):
            assert os.environ["TRIAGE_ACCELERATOR"], "a pooled run takes turns"
            if ending:
                raise ending
            return Completed()

        monkeypatch.setattr(flows.experiment, "_run", steps)
        fields = {"cell": "tiny-llama-4bit-baseline-s42", "versions": versions_here(), "precisions": []}
        pooled = PooledCell(**fields | {"grid_digest": grid_digest(load_grid("smoke"))} | changes)
        return experiment.fn(**CELL, pooled=pooled)

    run.noted = noted
    return run


def test_a_machine_of_another_version_gives_its_run_back_for_ten_minutes(machine):
    other = {**versions_here(), "backend": "metal", "triage": "0123456789ab"}
    with pytest.raises(Abort):
        machine(versions=other)
    (state,) = machine.noted.states
    assert state.name == "AwaitingRetry"
    assert 590 < (state.state_details.scheduled_time - datetime.now(UTC)).total_seconds() <= 600
    here = versions_here()
    words = f"backend {here['backend']} instead of metal, triage {here['triage']} instead of 0123456789ab;"
    assert words in state.message


def test_an_m5_takes_no_run_of_a_sweep_of_other_macs_once_mlx_uses_its_matrix_units(monkeypatch):
    monkeypatch.setattr(pool, "backend", lambda: METAL)
    for chip, system, name in (
        ("Apple M4", "macOS 26.2", "metal"),
        ("Apple M5", "macOS 26.1", "metal"),
        ("Apple M5", "macOS 26.2.1", "metal-nax"),
    ):
        monkeypatch.setattr(device, "chip", lambda chip=chip: chip)
        monkeypatch.setattr("tasks.runtime.backend.os_version", lambda system=system: system)
        assert versions_here()["backend"] == name


def test_a_grid_that_was_edited_and_a_mistake_are_failures_and_what_prefect_could_not_do_is_a_crash(machine):
    """As on a machine that is cut off between two steps: the sweep repeats it."""
    assert machine().is_completed()
    edited = machine(grid_digest="0")
    assert edited.is_failed() and "The grid on this machine is not the one" in edited.message
    assert machine(BadInput("No such words.")).is_failed()
    assert PooledResult.model_validate_json(machine.noted.labels[-1][RESULT]).error == "BadInput"
    ending = machine(PrefectException("Failed to resolve inputs in parameter 'scores'."))
    assert ending.is_crashed() and ending.message.startswith("tiny-llama-4bit-baseline-s42: Failed to resolve")


def test_steps_on_one_accelerator_take_turns_and_say_once_that_they_wait(monkeypatch):
    checks = []

    def give_up_at_the_end() -> None:
        checks.append(None)
        if len(checks) == 5:
            raise Stopped("enough")

    with reserved(), reserved(give_up_at_the_end):
        assert checks == [], "a sweep that somebody types is not held up"

    monkeypatch.setenv("TRIAGE_ACCELERATOR", f"test-{uuid4().hex}")
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.0)
    events: list[Event] = []
    with reserved(on_event=events.append), pytest.raises(Stopped), reserved(give_up_at_the_end, events.append):
        pass

    (note,) = events
    assert note.message.startswith("Waiting: another step runs on accelerator 'test-")


def test_a_folder_for_locks_that_someone_else_has_made_is_refused(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("TRIAGE_ACCELERATOR", "0")
    folder = tmp_path / f"triage-{os.getuid()}"

    with reserved():
        assert folder.stat().st_mode & 0o777 == 0o700
    (folder / ".0.lock").unlink()
    (folder / ".0.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"), reserved():
        pass

    assert victim.read_text() == "kept"
    shutil.rmtree(folder)
    for place in (tmp_path, tmp_path / "nowhere"):
        folder.symlink_to(place)
        with pytest.raises(BadInput, match="belongs to someone else; remove it, or set TMPDIR"), reserved():
            pass
        folder.unlink()
