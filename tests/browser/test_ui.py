"""What a person finds in the Prefect UI after `triage up`, read in a headless Chromium; and a worker that is killed.

uv run pytest -m nightly tests/browser        (needs Debian's chromium, or `chromium` on the PATH)
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.browser.study import new_study

pytestmark = pytest.mark.nightly
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    new = new_study(tmp_path_factory.mktemp("home"))
    process = new.up()
    yield new
    new.end(process)


def test_a_second_up_says_that_it_runs_already(study):
    again = subprocess.run(
        study.triage("up", "--port", str(study.port)), env=study.environment, capture_output=True, text=True
    )
    assert again.returncode == 0 and "Already running" in again.stdout


def test_a_sweep_started_by_hand_and_one_started_by_its_schedule_complete(study):
    command = ["prefect", "deployment", "run", "sweep/local", "-p", "grid=smoke", "-p", "limit=1", "--watch"]
    by_hand = subprocess.Popen([sys.executable, "-m", *command], env=study.environment, stdout=subprocess.DEVNULL)
    soon = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()
    study.post(
        f"/deployments/{study.deployment('sweep/local')['id']}/schedules",
        [
            {
                "schedule": {"interval": 86400, "anchor_date": soon},
                "active": True,
                "parameters": {"grid": "smoke", "limit": 2},
            }
        ],
    )
    assert by_hand.wait(timeout=240) == 0, study.log()
    filters = {"flow_runs": {"tags": {"all_": ["auto-scheduled"]}, "state": {"type": {"any_": ["COMPLETED"]}}}}
    deadline = time.monotonic() + 240

    while not (answer := study.post("/flow_runs/filter", filters)):
        assert time.monotonic() < deadline, study.log()
        time.sleep(2)

    assert answer[0]["parameters"]["limit"] == 2


def artifact(study, key):
    """Address of the newest artifact of a key."""
    rows = study.post("/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1})
    return f"/artifacts/artifact/{rows[0]['id']}"


def latest(study, name):
    """Address of the newest flow run of a name."""
    rows = study.post("/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC"})
    return f"/runs/flow-run/{rows[0]['id']}"


PAGES = {
    "runs": (lambda study: "/runs", ["sweep smoke", "tiny-llama", "4bit", "standard"]),
    "run": (lambda study: latest(study, "sweep smoke"), ["sweep smoke", "balanced_safe", "safety"]),
    "deployments": (lambda study: "/deployments", ["local", "sweep", "experiment", "compare", "nightly", "02:00 AM"]),
    "schedules": (
        lambda study: f"/deployments/deployment/{study.deployment('sweep/local')['id']}",
        ["weekly-paper"],
    ),
    "form": (
        lambda study: f"/deployments/deployment/{study.deployment('experiment/local')['id']}/run",
        ["base model, e.g. smollm2-135m", "a recipe of the grid"],
    ),
    "artifacts": (lambda study: "/artifacts", ["leaderboard", "comparison"]),
    "leaderboard": (lambda study: artifact(study, "leaderboard"), ["tiny-llama-4bit", "random weights", "ED recall"]),
    "comparison": (lambda study: artifact(study, "comparison"), ["4 bits against 8 bits", "not a medical device"]),
}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("page", PAGES)
def test_the_ui_shows_what_ran_what_will_run_and_what_came_of_it(study, page, tmp_path):
    address, texts = PAGES[page]
    url = f"http://127.0.0.1:{study.port}{address(study)}"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    common = [CHROMIUM, *FLAGS, profile, "--virtual-time-budget=30000", "--window-size=1400,1400"]
    shot = tmp_path / "page.png"

    for _ in range(4):  # a page is read when its time is up, whether its requests were answered by then or not
        dom = subprocess.run([*common, "--dump-dom", url], capture_output=True, text=True, timeout=120).stdout
        if all(text in dom for text in texts):
            break

    subprocess.run([*common, f"--screenshot={shot}", url], capture_output=True, timeout=120, check=True)
    if keep := os.environ.get("TRIAGE_SCREENSHOTS"):
        shutil.copy(shot, Path(keep) / f"{page}.png")

    assert shot.stat().st_size > 10_000
    assert [text for text in texts if text not in dom] == []


def test_a_sweep_survives_its_worker_being_killed(study):
    run = study.sweep_in_the_middle(overrides=["recipe.iterations=400"], limit=1)
    os.kill(study.worker, signal.SIGKILL)
    study.wait(run)


def test_a_sweep_lost_with_its_worker_goes_on_with_the_next(study):
    run = study.sweep_in_the_middle(overrides=["recipe.iterations=600"], limit=1)
    processes = subprocess.run(["ps", "axeww"], capture_output=True, text=True).stdout.splitlines()
    own_processes = [int(p.split()[0]) for p in processes if f"PREFECT__FLOW_RUN_ID={run}" in p]
    workers = [int(p.split()[0]) for p in processes if "worker start --pool triage" in p and study.api in p]
    assert own_processes and workers

    for process in workers + own_processes:
        os.kill(process, signal.SIGKILL)

    study.wait(run, seconds=600)  # 100 of them until its heartbeats are missed
