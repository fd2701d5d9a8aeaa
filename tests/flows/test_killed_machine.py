"""A machine of a fleet that dies in mid training: its experiment goes on elsewhere from the shared checkpoint, and lands once."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deployments.lost_runs import process_environments
from tasks.runtime.store import intact_manifest
from tests.place import Place, prefect_database

SWEEP = [
    "sweep", "smoke", "--pool", "fleet", "--model", "tiny-llama", "--bits", "4", "--recipe", "balanced_safe",
    "--set", "recipe.iterations=1200", "--set", "training.evaluate_every=8",
]  # fmt: skip
TRAINING = "tiny-llama-4bit-balanced_safe-s42-*"
WAIT_SECONDS = 900.0


@dataclass
class Fleet:
    """A Prefect server, and machines with homes of their own and a shared folder; the paths have spaces and an umlaut."""

    folder: Path
    port: int

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def shared(self) -> Path:
        return self.folder / "shared"

    def machine(self, name: str) -> Place:
        return Place(self.folder / name)

    def start(self, name: str, *args: str) -> subprocess.Popen[str]:
        own_environment = {
            "PREFECT_API_URL": self.api,
            "TRIAGE_SHARED": str(self.shared),
            "TRIAGE_ACCELERATOR": f"{self.folder.name}{name}",
        }
        return self.machine(name).start(*args, **own_environment)

    def kill(self, name: str) -> None:
        """Kill every process of a machine, as a power cut does."""
        for process, environment in process_environments():
            if environment.get("TRIAGE_HOME") == str(self.machine(name).home):
                process.kill()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        new_fleet = Fleet(tmp_path / "ein Büro mit drei", free.getsockname()[1])

    place = new_fleet.machine("server")
    place.prefect_home.mkdir(parents=True)
    shutil.copy(prefect_database(), place.prefect_home)

    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(new_fleet.port)]
    with (place.folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=place.environment, stdout=log, stderr=log, start_new_session=True)

    try:
        wait_until(lambda: answers(new_fleet.api), server)
        yield new_fleet
    finally:
        for name in ("asks", "one", "two", "server"):
            new_fleet.kill(name)
        server.wait()


def answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health").is_success
    except httpx.HTTPError:
        return False


def wait_until(reached: Callable[[], bool], *running: subprocess.Popen) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert [process.args for process in running if process.poll() is not None] == [], "it ended"
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.nightly
def test_an_experiment_goes_on_from_the_checkpoint_that_a_killed_machine_had_shared_and_lands_once(fleet):
    joined = [fleet.start(name, "join", fleet.api) for name in ("one", "two")]
    outputs = [fleet.machine(name).folder / "out" for name in ("one", "two")]
    wait_until(lambda: all("Worker started" in path.read_text() for path in outputs), *joined)
    sweep = fleet.start("asks", *SWEEP)
    wait_until(lambda: any(fleet.shared.glob(f"checkpoints/{TRAINING}/manifest.json")), sweep, *joined)

    (manifest,) = fleet.shared.glob(f"checkpoints/{TRAINING}/manifest.json")
    reached = json.loads(manifest.read_text())["update"]
    id = manifest.parent.name
    dead, other = sorted(("one", "two"), key=lambda name: not training(fleet, name, id).exists())
    fleet.kill(dead)
    assert intact_manifest(training(fleet, dead, id)) is None, "it was in mid training"

    result = fleet.machine("asks").finish(sweep)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert re.search("was lost with triage-.* and runs again", result.stdout)
    assert intact_manifest(training(fleet, other, id), deep=True) and intact_manifest(training(fleet, dead, id)) is None
    logs = httpx.post(f"{fleet.api}/logs/filter", json={"logs": {"text": {"query": '"Training goes on"'}}}).json()
    (went_on,) = [int(re.search(r"from update (\d+), which another machine", log["message"])[1]) for log in logs]
    assert reached <= went_on < 1200
    landed = fleet.machine("asks").query("SELECT training_id FROM experiment WHERE recipe = 'balanced_safe'")
    assert landed.training_id.tolist() == [id]
    assert len([path for path in (fleet.shared / "landing" / id).iterdir() if path.is_dir()]) == 1
    assert not (fleet.shared / "checkpoints" / id).exists()


def training(fleet: Fleet, machine: str, id: str) -> Path:
    return fleet.machine(machine).home / "experiments" / id
