"""Machines of a work pool: real workers with homes of their own and a shared folder, of which one is killed.

The server keeps its data in SQLite, or where POOL_DATABASE says (a URL of SQLAlchemy, e.g. of PostgreSQL).
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tasks.runtime.store import intact_manifest
from tests.place import Place, prefect_database

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3000)]
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
MACHINES = ("one", "two")
WAIT_SECONDS = 900.0


@dataclass
class Fleet:
    """A Prefect server with a work pool, and machines; the paths have spaces and an umlaut."""

    folder: Path
    port: int

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def shared(self) -> Path:
        return self.folder / "shared"

    def start(self, name: str, *args: str, program: str = "flows.cli", **environment: str) -> subprocess.Popen[str]:
        own = {"PREFECT_API_URL": self.api, "TRIAGE_ACCELERATOR": f"{self.folder.name}{name}"}
        return self.machine(name, program).start(*args, **own | {"TRIAGE_SHARED": str(self.shared)} | environment)

    def machine(self, name: str, program: str = "flows.cli") -> Place:
        return Place(self.folder / name, ("-m", program))

    def work(self, name: str, **environment: str) -> subprocess.Popen[str]:
        """A worker, as a user starts it."""
        command = ("worker", "start", "--pool", "fleet", "--limit", "1")
        return self.start(name, *command, program="prefect", PREFECT_WORKER_QUERY_SECONDS="2", **environment)

    def trained(self, name: str) -> set[str]:
        """Ids of the trainings that ended on a machine; one that was brought has no log."""
        logs = (self.machine(name).home / "experiments").glob("*/child.log")
        return {log.parent.name for log in logs if intact_manifest(log.parent)}

    def training(self, name: str) -> str | None:
        """The id of the training that a machine is in the middle of."""
        for checkpoint in (self.machine(name).home / "experiments").glob("*/checkpoint"):
            if not intact_manifest(checkpoint.parent):
                return checkpoint.parent.name
        return None

    def kill(self, name: str) -> None:
        """Kill every process of a machine, as a power cut does."""
        for process in psutil.process_iter():
            try:
                if process.environ().get("TRIAGE_HOME") == str(self.machine(name).home):
                    process.kill()
            except psutil.Error:
                continue


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        new_fleet = Fleet(tmp_path / "ein Büro mit drei", free.getsockname()[1])

    place = new_fleet.machine("server", "prefect")
    place.prefect_home.mkdir(parents=True)
    shutil.copy(prefect_database(), place.prefect_home)
    database = {DATABASE: os.environ["POOL_DATABASE"]} if "POOL_DATABASE" in os.environ else {}
    server = place.start("server", "start", "--host", "127.0.0.1", "--port", str(new_fleet.port), **database)
    try:
        wait_until(lambda: answers(new_fleet.api), server)
        create = [sys.executable, "-m", "prefect", "work-pool", "create", "fleet", "--type", "process", "--overwrite"]
        environment = place.environment | {"PREFECT_API_URL": new_fleet.api}
        subprocess.run(create, env=environment, check=True, capture_output=True)
        yield new_fleet
    finally:
        for name in ("asks", *MACHINES, "server"):
            new_fleet.kill(name)
        server.wait()


def answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health").is_success
    except httpx.HTTPError:
        return False


def wait_until(reached: Callable[[], object], *running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert [process.args for process in running if process.poll() is not None] == [], "it ended"
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_every_experiment_lands_once_although_a_machine_dies_in_a_training(fleet):
    """24 experiments; the sweep is killed, too, and typed again."""
    command = ["sweep", "smoke", "--pool", "fleet", "--set", "seeds=[1,2,3]", "--set", "recipe.iterations=200"]
    workers = {name: fleet.work(name) for name in MACHINES}
    sweep = fleet.start("asks", *command)
    wait_until(lambda: fleet.trained("one") and fleet.training("one"), sweep, *workers.values())
    lost = fleet.training("one")
    fleet.kill("one")
    sweep.kill()
    sweep.wait()
    assert intact_manifest(fleet.machine("one").home / "experiments" / lost) is None, "it was in mid training"

    began = time.monotonic()
    fleet.work("one")
    again = fleet.start("asks", *command)
    again.wait(2400)
    result = fleet.machine("asks").finish(again)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert f"{lost.rpartition('-')[0]}: No heartbeat for 100 s" in " ".join(result.stdout.split())
    print("seconds after the kill:", time.monotonic() - began)

    asks = fleet.machine("asks")
    landed = asks.query("""SELECT training_id, status FROM experiment JOIN landed ON id = training_id
        WHERE recipe IN ('baseline', 'balanced_safe')""")
    assert len(landed) == landed.training_id.nunique() == 24 and set(landed.status) == {"completed"}
    one, two = (fleet.trained(name) for name in MACHINES)
    assert len(one) + len(two) == 24 and not one & two and lost in one | two, "none is trained twice"
    for folder in (fleet.shared / "landing").iterdir():
        assert len([path for path in folder.iterdir() if path.is_dir()]) == 1, "one version of each"

    adapters = [folder for folder in (asks.home / "experiments").iterdir() if intact_manifest(folder, deep=True)]
    assert len(adapters) == 24, "adapters come to where the sweep was asked"


def test_a_machine_of_another_backend_gives_its_run_back_and_is_named_once(fleet):
    fleet.work("one")
    sweep = fleet.start("asks", "sweep", "smoke", "--pool", "fleet", "--limit", "2", TRIAGE_POOL_BACKEND="metal")
    output = fleet.machine("asks").folder / "out"
    wait_until(lambda: "gives its run back" in output.read_text(), sweep)
    time.sleep(30)
    text = " ".join(output.read_text().split())
    assert text.count("gives its run back, since it has backend cpu instead of metal; bring it to") == 1
    assert sweep.poll() is None


def test_results_that_stay_on_their_machine_are_asked_for_three_times(fleet):
    fleet.work("one", TRIAGE_SHARED="")
    sweep = fleet.start("asks", "sweep", "smoke", "--pool", "fleet", "--limit", "1", TRIAGE_SHARED="")
    result = fleet.machine("asks").finish(sweep)
    assert result.returncode == 1 and "are missing; it runs again" in result.stdout, result.stdout
    assert "name the folder that all machines share in TRIAGE_SHARED" in " ".join(result.stdout.split())
    runs = httpx.post(f"{fleet.api}/flow_runs/filter", json={}).json()
    assert [run["run_count"] for run in runs if run["deployment_id"]] == [4]
