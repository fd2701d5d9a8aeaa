"""`triage up` over its life: the messages of `--notify`, and being stopped, killed and started again in mid sweep."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from deployments.notify import notices
from tests.browser.study import Study, until
from tests.http_server import QuietHandler, http_server

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def messages():
    """What arrives at a listener on this machine, and its Apprise address."""
    received = []

    class Listener(QuietHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

    with http_server(Listener) as address:
        yield received, address.replace("http", "json")


@pytest.fixture(scope="module")
def study(tmp_path_factory, messages):
    new = Study(tmp_path_factory.mktemp("home"))
    new.up("--notify", messages[1])
    yield new
    new.end(signal.SIGHUP)


def test_a_sweep_started_by_hand_and_one_started_by_its_schedule_complete(study):
    command = ["prefect", "deployment", "run", "sweep/sweep", "-p", "grid=smoke", "-p", 'only={"limit": 1}', "--watch"]
    by_hand = subprocess.Popen([sys.executable, "-m", *command], env=study.environment, stdout=subprocess.DEVNULL)
    soon = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()
    schedule = {"schedule": {"interval": 86400, "anchor_date": soon}, "active": True}
    parameters = {"parameters": {"grid": "smoke", "only": {"limit": 2}}}
    deployment = study.deployment("sweep/sweep")["id"]
    study.post(f"/deployments/{deployment}/schedules", [schedule | parameters])
    assert by_hand.wait(timeout=240) == 0, study.log()
    filters = {"flow_runs": {"tags": {"all_": ["auto-scheduled"]}, "state": {"type": {"any_": ["COMPLETED"]}}}}
    (run, *_) = until(lambda: study.post("/flow_runs/filter", filters), 240, study.log)
    assert run["parameters"]["only"]["limit"] == 2


def test_a_gate_that_fails_and_a_sweep_that_fails_are_told_and_are_in_the_feed(study, messages):
    def arrived(part):
        """The first message whose title holds `part`."""
        return until(lambda: [one for one in messages[0] if part in one["title"]], 120, lambda: messages[0])[0]

    study.wait(study.run("experiment/experiment", {"grid": "smoke", "model": "tiny-llama", "recipe": "baseline"}))
    unsafe = arrived("unsafe by its gates")
    assert "tiny-llama 4bit baseline s42" in unsafe["title"] and "ED recall" in unsafe["message"]
    study.wait(study.run("sweep/sweep", {"grid": "no-such-grid"}), until=("FAILED",))
    assert "no grid 'no-such-grid'" in arrived("failed")["message"]

    body = {"filter": {"event": {"prefix": ["triage."]}, "order": "DESC"}, "limit": 50}
    names = {event["event"] for event in study.post("/events/filter", body)["events"]}
    assert {"triage.experiment.landed", "triage.experiment.gate_failed"} <= names
    names = {one["name"] for one in study.post("/automations/filter", {})}
    expected = {notice.name for notice in notices(uuid4())} | {"triage: a lost run runs again"}
    assert {name for name in names if name.startswith("triage: ")} == expected


def test_one_experiment_and_the_comparison_run_as_deployments_under_readable_names(study):
    cell = {"grid": "smoke", "model": "tiny-llama", "bits": 4, "recipe": "balanced_safe", "seed": 42}
    experiment = study.run("experiment/experiment", cell)
    study.wait(experiment)
    assert experiment in {run["id"] for run in study.runs("tiny-llama 4bit balanced_safe s42")}
    study.wait(study.run("compare/compare", {}))
    keys = {
        one["key"] for one in study.post("/artifacts/filter", {}) if one["key"]
    }  # Prefect keeps an error under none
    assert keys == {"comparison", "sweep-smoke"}, "no progress bar of a finished step"


def test_during_a_sweep_a_comparison_answers_within_seconds_and_a_night_is_cancelled(study):
    sweep = study.sweep_in_the_middle(402)
    comparison = study.run("compare/compare", {})
    night = study.run("nightly/nightly", {"grid": "smoke"})
    study.wait(comparison, seconds=60)  # 15 on a quiet machine
    study.wait(night, seconds=60, until=("CANCELLED",))
    assert study.state(sweep) == "RUNNING"
    study.wait(sweep, seconds=400)


def schedules(study):
    entries = study.deployment("nightly/nightly")["schedules"]
    return sorted((s["slug"] or "", s["active"], str(s["schedule"]), str(s["parameters"])) for s in entries)


def test_a_sweep_goes_on_when_triage_up_is_stopped_and_started_again_and_schedules_stay_as_they_were_left(study):
    """As a person leaves them in the UI, who switches one on and adds another."""
    deployment = study.deployment("nightly/nightly")
    (nightly,) = (s for s in deployment["schedules"] if s["slug"] == "nightly")
    url = f"{study.api}/deployments/{deployment['id']}/schedules/{nightly['id']}"
    request = urllib.request.Request(url, b'{"active": true}', {"Content-Type": "application/json"}, method="PATCH")
    urllib.request.urlopen(request, timeout=30).close()
    own_schedule = {"schedule": {"cron": "0 4 1 1 *"}, "active": True, "parameters": {"grid": "smoke"}}
    study.post(f"/deployments/{deployment['id']}/schedules", [own_schedule])
    schedules_before = schedules(study)
    assert len(schedules_before) == 2
    run = study.sweep_in_the_middle(400)
    study.end()
    study.up()
    assert schedules(study) == schedules_before
    study.wait(run, seconds=400)


def test_server_and_workers_end_with_a_killed_triage_up_and_the_next_one_goes_on_with_its_run(study):
    run = study.sweep_in_the_middle(401)
    study.process.kill()
    study.process.wait()
    until(lambda: not study.workers() and not study.processes("prefect.server.api.server:create_app"), 30, study.log)
    study.up()
    study.wait(run, seconds=400)


def test_a_server_that_is_killed_is_started_again_and_the_sweep_goes_on(study):
    run = study.sweep_in_the_middle(403)
    worker = study.worker
    (server,) = study.processes("prefect.server.api.server:create_app")
    os.kill(server, signal.SIGKILL)
    sentence = iter(study.process.stdout.readline, "")  # after what it printed at its start
    assert any("starting another" in line for line in sentence)
    assert any("runs again" in line for line in sentence)
    assert study.processes("prefect.server.api.server:create_app") != [server] and study.workers() == [worker]
    study.wait(run, seconds=400)


def test_a_sweep_lost_with_its_worker_goes_on_with_the_next(study):
    run = study.sweep_in_the_middle(600, limit=1)
    own_processes = study.processes(f"PREFECT__FLOW_RUN_ID={run}")
    workers = study.processes("worker start --pool triage")
    assert own_processes and workers
    for process in workers + own_processes:
        os.kill(process, signal.SIGKILL)

    study.wait(run, seconds=600)  # 100 of them until its heartbeats are missed
