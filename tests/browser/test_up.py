"""`triage up` over its life: its deployments, and being stopped, killed and started again in mid sweep.

uv run pytest -m nightly tests/browser/test_up.py
"""

import os
import signal
import time
import urllib.request

import pytest

from tests.browser.study import new_study

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]
LONG = {"overrides": ["recipe.iterations=400"], "limit": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    new = new_study(tmp_path_factory.mktemp("home"))
    new.process = new.up()
    yield new
    new.end(new.process, signal.SIGHUP)


def schedules(study):
    entries = study.deployment("nightly/local")["schedules"]
    return sorted((s["slug"] or "", s["active"], str(s["schedule"]), str(s["parameters"])) for s in entries)


def change_schedules(study):
    """What a person does in the UI: pause one schedule, add an own one."""
    deployment = study.deployment("nightly/local")
    (nightly,) = (s for s in deployment["schedules"] if s["slug"] == "nightly")
    url = f"{study.api}/deployments/{deployment['id']}/schedules/{nightly['id']}"
    request = urllib.request.Request(url, b'{"active": false}', {"Content-Type": "application/json"}, method="PATCH")
    urllib.request.urlopen(request, timeout=30).close()
    own_schedule = {"schedule": {"cron": "0 4 1 1 *"}, "active": True, "parameters": {"grid": "smoke"}}
    study.post(f"/deployments/{deployment['id']}/schedules", [own_schedule])


def name_of(study, run):
    return study.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})[0]["name"]


def test_one_experiment_and_the_comparison_run_as_deployments_under_readable_names(study):
    cell = {"grid": "smoke", "model": "tiny-llama", "bits": 4, "recipe": "balanced_safe", "seed": 42}
    experiment = study.run("experiment/local", cell)
    study.wait(experiment)
    assert name_of(study, experiment) == "tiny-llama 4bit balanced_safe s42"
    comparison = study.run("compare/local", {})
    study.wait(comparison)
    keys = {a["key"] for a in study.post("/artifacts/filter", {})}
    assert keys == {"leaderboard", "comparison"}, "no progress bar of a finished step"


def test_during_a_sweep_a_comparison_answers_within_seconds_and_a_night_is_cancelled(study):
    sweep = study.sweep_in_the_middle(**LONG | {"overrides": ["recipe.iterations=402"]})
    comparison = study.run("compare/local", {})
    night = study.run("nightly/local", {"grid": "smoke"})
    study.wait(comparison, seconds=60)  # 15 on a quiet machine
    study.wait(night, seconds=60, until=("CANCELLED",))
    assert study.state(sweep) == "RUNNING"
    study.wait(sweep, seconds=400)


def test_a_night_without_a_sweep_starts_one(study):
    before = len(study.post("/flow_runs/filter", {"flow_runs": {"name": {"any_": ["sweep smoke"]}}}))
    study.wait(study.run("nightly/local", {"grid": "smoke"}))
    deadline = time.monotonic() + 120

    while len(runs := study.post("/flow_runs/filter", {"flow_runs": {"name": {"any_": ["sweep smoke"]}}})) == before:
        assert time.monotonic() < deadline
        time.sleep(1)

    newest = max(runs, key=lambda run: run["created"])
    study.wait(newest["id"], seconds=400)


def test_a_sweep_goes_on_when_triage_up_is_stopped_and_started_again_and_schedules_stay_as_they_were_left(study):
    change_schedules(study)
    schedules_before = schedules(study)
    assert len(schedules_before) == 2
    run = study.sweep_in_the_middle(**LONG)
    study.end(study.process)
    study.process = study.up()
    assert schedules(study) == schedules_before
    study.wait(run, seconds=400)


def test_server_and_workers_end_with_a_killed_triage_up_and_the_next_one_goes_on_with_its_run(study):
    run = study.sweep_in_the_middle(**LONG | {"overrides": ["recipe.iterations=401"]})
    study.process.kill()
    study.process.wait()
    deadline = time.monotonic() + 30
    while study.workers() or study.processes("server start --host"):
        assert time.monotonic() < deadline
        time.sleep(0.2)

    study.process = study.up()
    study.wait(run, seconds=400)


def test_a_server_that_is_killed_is_started_again_and_the_sweep_goes_on(study):
    run = study.sweep_in_the_middle(**LONG | {"overrides": ["recipe.iterations=403"]})
    worker = study.worker
    (server,) = study.processes("server start --host")
    os.kill(server, signal.SIGKILL)
    sentence = iter(study.process.stdout.readline, "")  # after what it printed at its start
    assert any("has ended; starting another" in line for line in sentence)
    assert any("runs again" in line for line in sentence)
    assert study.processes("server start --host") != [server] and study.workers() == [worker]
    study.wait(run, seconds=400)
