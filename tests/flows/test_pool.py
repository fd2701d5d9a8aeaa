"""A sweep in a work pool: which runs it submits, finds, repeats and gives up, told by a server in memory."""

import os
import re
import shutil
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException
from prefect.states import AwaitingRetry, Completed, Crashed, Failed, Pending, Running, Scheduled

import flows.experiment
from deployments import lost_runs
from deployments.fleet import api_of, enter
from deployments.pool_versions import code_digest, differences, versions_here
from deployments.prefect_api import NoAnswer
from flows.cli.sweeps.live_table import ExperimentRow, State
from flows.cli.sweeps.run import refuse_pool
from flows.experiment import experiment
from flows.pool import follow
from flows.pool.cell import ERROR, LANDED, RUN_SECONDS, STEP_SECONDS, PooledCell
from flows.pool.runs import PooledSweep, queue_of, usable_versions
from flows.selection import Narrowing, select
from tasks.grids.grid import load_grid
from tasks.progress import listening
from tasks.runtime import locks
from tasks.runtime.errors import BadInput, BrokenFolder, SourceUnavailable, Stopped
from tasks.runtime.events import Event, ExperimentFailed, ExperimentLanded, RemoteReport, StepWarning
from tasks.runtime.locks import accelerator_reserved as reserved
from tasks.studies import RunTime, SweepRecord, grid_digest

MINE = "triage-here-0123456789ab"


@dataclass
class Run:
    name: str
    parameters: dict
    work_queue_name: str
    state: object = field(default_factory=Scheduled)
    labels: dict = field(default_factory=dict)
    id: UUID = field(default_factory=uuid4)


class Server:
    """A Prefect server with one pool, as far as a sweep sees it: its runs by key, and its workers."""

    api_url = "http://server/api/"

    def __init__(self):
        self.runs = {}
        self.queues = {}
        self.workers = {MINE: "ONLINE"}
        self.limits = []
        self.versions = versions_here()
        self.pools = {"fleet"}
        self.artifacts = []

    def read_work_pool(self, name):
        if name not in self.pools:
            raise ObjectNotFound(None)

    def read_variable_by_name(self, name):
        return self.versions and SimpleNamespace(value=self.versions)

    def create_flow_from_name(self, name):
        return uuid4()

    def create_deployment(self, **options):
        assert options["entrypoint"] == "flows.experiment.experiment"
        return uuid4()

    def create_work_queue(self, name, concurrency_limit, work_pool_name):
        if name in self.queues:
            raise ObjectAlreadyExists(None)
        self.queues[name] = SimpleNamespace(id=name, limit=concurrency_limit)

    def read_work_queue_by_name(self, name, work_pool_name):
        return self.queues[name]

    def update_work_queue(self, id, concurrency_limit):
        self.queues[id].limit = concurrency_limit

    def create_flow_run_from_deployment(
        self, deployment, *, parameters, name, state, idempotency_key, work_queue_name, tags
    ):
        return self.runs.setdefault(idempotency_key, Run(name, parameters, work_queue_name, state))

    def read_flow_run(self, id):
        return next(run for run in self.runs.values() if run.id == id)

    def read_flow_runs(self, flow_run_filter):
        return [run for run in self.runs.values() if run.id in flow_run_filter.id.any_]

    def read_workers_for_work_pool(self, pool):
        return [SimpleNamespace(name=n, status=SimpleNamespace(value=value)) for n, value in self.workers.items()]

    def read_artifacts(self, artifact_filter, flow_run_filter):
        return self.artifacts

    def set_flow_run_state(self, id, state, force):
        self.read_flow_run(id).state = state

    def update_flow_run_labels(self, id, labels):
        self.read_flow_run(id).labels |= labels

    def delete_global_concurrency_limit_by_name(self, name):
        self.limits.append(name)


@pytest.fixture
def server(monkeypatch):
    fake_server = Server()
    monkeypatch.setattr(follow, "publisher", lambda title: lambda event: None)  # which asks a real server
    monkeypatch.setattr(follow, "configured_api", lambda: fake_server.api_url)
    monkeypatch.setattr(follow, "prefect_client", lambda api, **options: within(fake_server))
    monkeypatch.setattr(follow, "POLL_SECONDS", 0)
    monkeypatch.setattr(follow, "absent_from_warehouse", lambda ids: [id for id in ids if id == "absent"])
    monkeypatch.setattr(follow, "prepare_dataset", lambda *args: Path("cases-1"))
    monkeypatch.setattr(follow, "land_dataset", lambda data: None)
    monkeypatch.setattr(SweepRecord, "use", lambda record, data: None)
    monkeypatch.setattr(SweepRecord, "finish", lambda record, failures, elsewhere: None)

    return fake_server


@contextmanager
def within(value):
    yield value


def run_sweep(server, step, bits=(4,)):
    """The failures of a pool sweep of the smoke grid and its events; `step(runs by cell)` acts between two looks."""
    selection = select("smoke", None, Narrowing(bits=bits))
    record = SweepRecord(selection.grid, 1)
    events = []
    looks = follow._look

    def look(client, followed):
        step({spec.cell_id: client.runs[followed.sweep.key(spec)] for spec in selection.cells})
        looks(client, followed)

    with pytest.MonkeyPatch.context() as patch, listening(lambda title, event: events.append((title, event))):
        patch.setattr(follow, "_look", look)
        failures = follow.sweep_in_pool("fleet", "smoke", [], selection, record)

    return failures, events, record


def complete(runs):
    for cell, run in runs.items():
        run.state = Completed()
        run.labels = {LANDED: f"{cell}-1 {cell}-1-e1 tfidf"}


def test_every_cell_is_one_run_in_the_queue_of_its_variant_and_what_landed_belongs_to_the_sweep(server):
    failures, events, record = run_sweep(server, complete)
    assert failures == [] and len(server.runs) == 4 and set(server.queues) == {"tiny-llama-4bit", "tiny-gemma3-4bit"}
    for run in server.runs.values():
        assert run.work_queue_name == queue_of(run.parameters["model"], run.parameters["precision"])
        assert run.parameters["pooled"]["cell"] in run.parameters["pooled"]["key"]

    landed = dict(e for e in events if isinstance(e[1], ExperimentLanded))
    assert landed["land tiny-llama-4bit-baseline-s42"].ids == (
        "tiny-llama-4bit-baseline-s42-1", "tiny-llama-4bit-baseline-s42-1-e1",
    )  # fmt: skip
    assert len(record.ids) == 9 and "tfidf" in record.ids
    assert sorted(server.limits) == sorted(server.runs), "the leases of a finished sweep are removed"


def test_the_time_of_a_run_is_that_of_its_labels_and_a_lost_run_has_none():
    ended = Run("one", {}, "queue", labels={RUN_SECONDS: 12.5, STEP_SECONDS: 10.0})
    assert follow.time_of(ended) == RunTime(12.5, 10.0)
    assert follow.time_of(Run("lost", {}, "queue")) == RunTime(0.0, 0.0)


def test_the_same_sweep_typed_again_makes_no_twin_and_repeats_what_failed_or_is_gone_alone(server):
    run_sweep(server, complete)
    first, second, *_ = server.runs.values()
    first.state = Failed(message="no")
    second.labels = {LANDED: "absent"}
    again = []

    def step(runs):
        again.extend(run for run in runs.values() if run.state.type.value == "SCHEDULED")
        complete(runs)

    failures, _, _ = run_sweep(server, step)
    assert failures == [] and len(server.runs) == 4 and again == [first, second]
    run_sweep(server, complete, bits=(4, 8))
    assert len(server.runs) == 8, "a wider sweep of the same grid finds the runs of the narrow one"


def test_a_run_is_due_at_once_on_a_machine_whose_clock_is_ten_minutes_behind_that_of_whoever_asks(server, monkeypatch):
    on_the_machine = datetime.now(UTC)
    due_at = []
    monkeypatch.setattr(lost_runs, "datetime", SimpleNamespace(now=lambda zone: on_the_machine + timedelta(minutes=10)))

    def step(runs):
        due_at.extend(run.state.state_details.scheduled_time for run in runs.values())
        if len(due_at) > len(runs):
            complete(runs)
        for run in runs.values() if len(due_at) == len(runs) else ():
            run.state = Crashed()

    failures, _, _ = run_sweep(server, step)
    assert failures == [] and len(due_at) == 8 and max(due_at) < on_the_machine, "those that were lost, too"


def test_a_failure_has_the_sentence_and_the_class_of_its_machine(server):
    def step(runs):
        complete(runs)
        cell, run = next(iter(runs.items()))
        run.state = Failed(message=f"{cell}: no weights.")
        run.labels = {ERROR: "SourceUnavailable"}

    failures, events, _ = run_sweep(server, step)
    assert failures == ["tiny-llama-4bit-baseline-s42: no weights."]
    (failed,) = [event for _, event in events if isinstance(event, ExperimentFailed)]
    assert isinstance(failed.error, SourceUnavailable) and failed.message == "no weights."


def test_a_run_that_another_machine_has_just_taken_is_not_lost(server):
    looks = []

    def step(runs):
        first, *other_runs = runs.values()
        for run in other_runs:
            complete({"x": run})

        looks.append(first.state.name)
        if len(looks) == 1:
            first.state = Running()
            first.labels = {"prefect.worker.name": "triage-gone-1"}
        elif len(looks) == 2:  # before that machine has named itself
            first.state = Pending()
        else:
            complete({"x": first})

    server.workers["triage-gone-1"] = "OFFLINE"
    failures, events, _ = run_sweep(server, step)
    warnings = [event.message for _, event in events if isinstance(event, StepWarning)]
    assert failures == [] and len(warnings) == 1 and looks == ["Scheduled", "AwaitingRetry", "Pending"]


def test_a_lost_run_runs_again_and_after_too_many_losses_it_is_a_failure(server):
    losses = []

    def step(runs):
        first, *other_runs = runs.values()
        for run in other_runs:
            complete({"x": run})

        if isinstance(losses, list) and len(losses) < 2:  # its machine is gone, then its process
            first.state = [Running(), Crashed()][len(losses)]
            first.labels = {"prefect.worker.name": "triage-gone-1"}
            losses.append(first)
        else:
            assert first.state.name == AwaitingRetry().name
            first.state = Completed()
            first.labels = {}

    server.workers["triage-gone-1"] = "OFFLINE"
    failures, events, _ = run_sweep(server, step)
    warnings = [event.message for _, event in events if isinstance(event, StepWarning)]
    assert failures == [] and len(warnings) == 2 and "was lost with triage-gone-1 and runs again." in warnings[0]

    server.runs.clear()

    def always(runs):
        for run in runs.values():
            run.state = Crashed(message="status code -9")

    failures, _, _ = run_sweep(server, always)
    assert len(failures) == 4 and all(re.search("It was lost 4 times; last: status code -9", f) for f in failures)


def test_a_run_that_is_gone_from_the_server_is_a_failure_that_the_same_command_runs_again(server):
    def step(runs):
        complete(dict(list(runs.items())[1:]))
        server.runs.pop(next(iter(server.runs)), None)

    failures, _, _ = run_sweep(server, lambda runs: step(runs) if len(server.runs) == 4 else None)
    assert len(failures) == 1 and "gone from the Prefect server; type the same command again" in failures[0]
    assert run_sweep(server, complete)[0] == [] and len(server.runs) == 4


def test_a_result_that_is_damaged_in_the_shared_folder_is_asked_for_again(server, monkeypatch):
    damaged = ["tfidf"]

    def take_over(ids):
        if damaged and damaged[0] in ids:
            damaged.clear()
            raise BrokenFolder("tfidf is not what its manifest says.")

    monkeypatch.setattr(follow, "take_over", take_over)
    failures, events, record = run_sweep(server, complete)
    (warning,) = [event.message for _, event in events if isinstance(event, StepWarning)]
    assert "was damaged in the shared folder; it runs again. tfidf is not what" in warning
    assert failures == [] and len(record.ids) == 9


def test_a_server_that_does_not_answer_is_waited_for(server, monkeypatch):
    opened = []

    @contextmanager
    def client(api, **options):
        opened.append(api)
        if len(opened) == 2:
            raise NoAnswer("refused")
        yield server

    monkeypatch.setattr(follow, "prefect_client", client)
    failures, events, _ = run_sweep(server, complete)
    assert failures == [] and "does not answer (refused); waiting" in events[0][1].message


def test_what_landed_elsewhere_and_is_not_here_is_said(server):
    def step(runs):
        complete(runs)
        next(iter(runs.values())).labels = {LANDED: "absent", "prefect.worker.name": "triage-mac2-1"}

    failures, _, _ = run_sweep(server, step)
    assert len(failures) == 1 and "It has landed, but its results are on triage-mac2-1 and not in" in failures[0]


def test_queues_share_the_machines_and_the_last_variants_get_more(server):
    server.workers = {f"triage-mac{n}-1": "ONLINE" for n in range(3)}
    limits = []

    def step(runs):
        limits.append({name: queue.limit for name, queue in server.queues.items()})
        complete({k: run for k, run in runs.items() if len(limits) > 2 or "llama" in k})

    run_sweep(server, step)
    assert limits[1] == {"tiny-llama-4bit": 1, "tiny-gemma3-4bit": 3}


@pytest.mark.parametrize(
    ("pool", "change", "sentence"),
    [
        ("triage", {}, "is that of `triage up`"),
        ("other", {}, "There is no work pool other at http://server/api; type `triage join URL --pool other`"),
        ("fleet", {"versions": None}, "No machine has joined the work pool fleet"),
        ("fleet", {"versions": {**versions_here(), "mlx": "0.1"}}, r"other versions .*: mlx .* here and 0.1 there"),
    ],
)
def test_a_pool_that_cannot_take_the_sweep_is_named(server, pool, change, sentence):
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(BadInput, match=sentence):
        usable_versions(server, pool)


def test_the_machine_that_asks_may_have_another_backend(server):
    server.versions["backend"] = "metal"
    assert usable_versions(server, "fleet")["backend"] == "metal"
    assert differences({"backend": "cpu"}, {"backend": "metal"}) == "backend cpu here and metal there"


def test_another_grid_version_or_pool_is_another_sweep(server):
    selection = select("smoke")
    keys = {
        PooledSweep.of(server, "fleet", "smoke", overrides, selection, "cases-1").key(selection.cells[0])
        for overrides in ([], ["recipe.iterations=9"])
    }
    server.versions["mlx-lm"] = "0"
    of_pool = {**server.versions}
    keys.add(PooledSweep("fleet", "smoke", [], selection, "0", of_pool, "cases-1").key(selection.cells[0]))
    assert len(keys) == 3


def test_changed_cases_and_another_choice_of_precisions_are_other_runs(server):
    def key(moves, bits, data):
        overrides = [f"scoring.move_adapters={moves}"]
        selection = select("smoke", overrides, Narrowing(bits=bits))
        return PooledSweep.of(server, "fleet", "smoke", overrides, selection, data).key(selection.cells[0])

    assert key("false", [4], "cases-1") == key("false", [4, 8], "cases-1")
    keys = {key("true", [4], "cases-1"), key("true", [4, 8], "cases-1"), key("true", [4, 8], "cases-2")}
    assert len(keys) == 3, "the adapters of a narrow sweep were not moved"


def test_a_machine_refuses_a_cell_of_other_code_or_of_an_edited_grid():
    digest = grid_digest(select("smoke").grid)
    pooled = PooledCell(cell="c", key="k", grid_digest=digest, triage=code_digest(), precisions=[])
    pooled.refuse_other(digest)
    with pytest.raises(BadInput, match="The grid on this machine is not the one .* edited meanwhile"):
        pooled.refuse_other("0")
    with pytest.raises(BadInput, match="This machine's triage is .* and the sweep's is 0; bring"):
        pooled.model_copy(update={"triage": "0"}).refuse_other(digest)


def test_the_table_shows_what_a_machine_of_the_pool_does():
    row = ExperimentRow("a", 60, 200)
    assert row.after("experiment", RemoteReport("mac1")).state is State.PREPARING
    trained = row.after("experiment", RemoteReport("mac1", "train", 25.0))
    assert (trained.state, trained.iteration) == (State.TRAINING, 50)
    assert trained.after("experiment", RemoteReport("mac1", "evaluate", 1.0)).state is State.SCORING
    assert trained.after("experiment", RemoteReport("mac1")) == trained


def test_steps_on_one_accelerator_take_turns_and_others_do_not(monkeypatch):
    inside = threading.Event()

    def hold():
        with reserved():
            inside.set()
            time.sleep(0.3)

    def is_busy() -> bool:
        thread = threading.Thread(target=hold)
        inside.clear()
        thread.start()
        inside.wait()

        try:
            with reserved(check=lambda: sys.exit("waits")):
                return False
        except SystemExit:
            return True
        finally:
            thread.join()

    monkeypatch.delenv("TRIAGE_ACCELERATOR", raising=False)
    assert not is_busy(), "a sweep that somebody types is not held up"
    monkeypatch.setenv("TRIAGE_ACCELERATOR", f"test-{uuid4().hex}")
    assert is_busy()


def test_a_step_that_waits_for_its_accelerator_says_so_once(monkeypatch):
    monkeypatch.setenv("TRIAGE_ACCELERATOR", f"test-{uuid4().hex}")
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(locks, "ACCELERATOR_POLL_SECONDS", 0.01)
    events: list[Event] = []
    checks = iter(range(5))

    def give_up_at_the_end() -> None:
        if next(checks) == 4:
            raise Stopped("enough")

    with (
        reserved(on_event=events.append),
        pytest.raises(Stopped),
        reserved(give_up_at_the_end, events.append),
    ):
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
    folder.symlink_to(tmp_path)
    with pytest.raises(BadInput, match="belongs to someone else; remove it, or set TMPDIR"), reserved():
        pass


@pytest.mark.parametrize("name", ["lab/gpu", "100%", "my lab", "prefect-lab", ""])
def test_a_name_that_no_pool_can_have_is_a_sentence(name):
    for ask in (lambda: enter("http://127.0.0.1:9/api", name), lambda: usable_versions(None, name)):
        with pytest.raises(BadInput, match="is no name for a work pool; give one of letters, digits and - _ . that"):
            ask()


def test_an_address_without_a_server_is_a_sentence():
    assert api_of("http://mac1:4200/") == api_of("http://mac1:4200/api") == "http://mac1:4200/api"
    with pytest.raises(BadInput, match="'mac1' is no address of a server; give e.g. http"):
        api_of("mac1")
    with pytest.raises(BadInput, match="No Prefect server answers at http://127.0.0.1:9/api"):
        enter("http://127.0.0.1:9/api", "fleet")
    with pytest.raises(BadInput, match="choose another --pool"):
        enter("http://127.0.0.1:9/api", "triage")


def test_a_pool_without_a_server_is_a_sentence():
    with pytest.raises(BadInput, match="A work pool needs a Prefect server, and none is set; set PREFECT_API_URL"):
        refuse_pool("fleet")


def test_what_prefect_could_not_do_between_two_steps_is_a_crash_which_the_sweep_repeats(monkeypatch):
    """As on a machine that is cut off; a step that fails reports that itself, and a mistake is a failure."""
    grid = load_grid("smoke")
    cell = {"model": "tiny-llama", "bits": 4, "recipe": "baseline", "grid": "smoke"}
    cell_fields = {"cell": "tiny-llama-4bit-baseline-s42", "key": "k", "triage": code_digest(), "precisions": []}
    monkeypatch.setattr(flows.experiment, "leased", lambda key: nullcontext())
    monkeypatch.setattr(flows.experiment, "label_results", lambda error: None)

    def ended(error):
        def fail(*args):
            raise error

        monkeypatch.setattr(flows.experiment, "_run", fail)
        return experiment.fn(**cell, pooled=PooledCell(**cell_fields, grid_digest=grid_digest(grid)))

    ending = ended(PrefectException("Failed to resolve inputs in parameter 'scores'."))
    assert ending.is_crashed() and ending.message.startswith("tiny-llama-4bit-baseline-s42: Failed to resolve")
    assert ended(BadInput("No such words.")).is_failed()
