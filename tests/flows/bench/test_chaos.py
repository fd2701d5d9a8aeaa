"""`triage bench chaos`: which faults come in which order, what they strike, and what its checks see afterwards."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.bench.chaos import strikes
from flows.bench.chaos.checks import checks, differences
from flows.bench.chaos.faults import draw_faults, known_faults
from flows.bench.chaos.fleet import FleetPlace
from flows.bench.chaos.place import ChaosPlace, Study
from flows.bench.chaos.postgres import new_postgres
from flows.bench.chaos.processes import processes_of
from flows.bench.chaos.services import Service
from flows.bench.chaos.strikes import NO_TARGET, target_process
from tasks.runtime.store import intact_manifest
from tests.place import Place

STUDY = Study(experiments=8, iterations=8)
KINDS = {fault.name: fault for fault in known_faults(ChaosPlace(Path("nowhere"), STUDY))}


@pytest.fixture
def swept(smoke, tmp_path) -> ChaosPlace:
    """The finished smoke sweep as a run of this benchmark left it."""
    copy = smoke[0].copy(tmp_path / "faults")
    return ChaosPlace(copy.folder, STUDY)


@pytest.fixture
def undisturbed(swept, tmp_path) -> ChaosPlace:
    place = ChaosPlace(tmp_path / "undisturbed", STUDY)
    place.home.mkdir(parents=True)
    shutil.copy(swept.warehouse, place.warehouse)
    return place


def test_every_kind_comes_once_before_any_comes_again_in_an_order_that_a_seed_decides():
    kinds = list(KINDS.values())
    order = draw_faults(kinds, 2 * len(kinds) + 3, random.Random(1))
    assert Counter(order[: len(kinds)]) == Counter(kinds) and len(order) == 2 * len(kinds) + 3
    assert order == draw_faults(kinds, len(order), random.Random(1)) != draw_faults(kinds, len(order), random.Random(2))


def test_kinds_that_cannot_be_done_say_why_and_a_sweep_without_pool_has_no_worker():
    assert len(KINDS) >= 10
    reasons = {name: fault.not_here for name, fault in KINDS.items() if fault.not_here}
    assert {"worker killed", "PostgreSQL killed", "disk full", "network to the server cut"} <= set(reasons)
    assert reasons["worker killed"] == reasons["PostgreSQL killed"] == "needs --pool"


def test_a_fleet_has_workers_and_without_postgresql_says_so(tmp_path):
    kinds = {fault.name: fault.not_here for fault in known_faults(FleetPlace(tmp_path, STUDY))}
    assert kinds["worker killed"] is kinds["machine killed"] is None
    assert "not installed" in kinds["PostgreSQL killed"] and set(kinds) == set(KINDS)


def test_a_finished_sweep_that_nothing_happened_to_passes_every_check(swept, undisturbed):
    target_process = list(checks(swept, undisturbed))
    assert [check.name for check in target_process if not check.holds] == [] and len(target_process) == 7


def test_times_and_speeds_may_differ_and_results_may_not(swept, undisturbed):
    def change(sql: str) -> list[str]:
        with duckdb.connect(str(swept.warehouse)) as con:
            con.execute(sql)
        return differences(swept.warehouse, undisturbed.warehouse)

    assert change("UPDATE experiment SET train_seconds = 9e9, finished_at = now(), peak_memory_bytes = 1") == []
    (line,) = change("UPDATE metric SET value = value + 1e-9 WHERE metric = 'accuracy' AND rule = 'argmax'")
    assert line.startswith("metric: ")


def test_what_landed_twice_or_stayed_behind_is_seen(swept, undisturbed):
    with duckdb.connect(str(swept.warehouse)) as con:
        con.execute("CREATE TEMP TABLE one AS SELECT * FROM experiment WHERE recipe_kind = 'safety' LIMIT 1")
        con.execute("UPDATE one SET training_id = 'again'")
        con.execute("INSERT INTO experiment SELECT * FROM one")

    stays = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], env=swept.environment, stdin=subprocess.PIPE
    )
    with stays:
        target_process = {check.name: check for check in checks(swept, undisturbed)}
        stays.communicate()

    assert target_process["no process stayed"].detail == str(stays.pid)
    for name in ("all experiments landed", "none landed twice", "warehouse as without faults", "no process stayed"):
        assert not target_process[name].holds, name

    assert target_process["lost children used up no retries"].holds


def test_an_experiment_that_failed_has_not_landed(swept):
    assert swept.landed() == STUDY.experiments
    file = next(swept.home.glob("landing/tiny-llama-4bit-baseline-s42-[0-9a-f]*/experiment.parquet"))
    pq.write_table(pa.Table.from_pylist([{"status": "failed"}]), file)
    assert swept.landed() == STUDY.experiments - 1


def test_what_the_machines_of_a_fleet_share_is_counted_and_can_be_damaged(tmp_path):
    place = FleetPlace(tmp_path, STUDY)
    training = place.shared / "landing" / "tiny-llama-4bit-baseline-s1-0123456789ab"
    for version in ("first", "second"):
        (training / version).mkdir(parents=True)
        (training / version / "experiment.parquet").write_bytes(b"abc")

    assert place.landed() == 0, "without a manifest none counts"
    (training / "manifest.json").write_text("{}")
    assert (place.landed(), place.gave_way()) == (1, 1)
    assert place.arguments[-2:] == ["--pool", "fleet"] and place.home not in (place.disk, place.shared)

    struck = {fault.name: fault for fault in known_faults(place)}["byte flipped in the shared folder"]
    damaged = place.disk / struck.strike(place, random.Random(1))
    assert damaged.is_relative_to(training) and damaged.read_bytes() != b"abc"


@pytest.mark.parametrize("kind", ["byte flipped in a cached file", "byte flipped in a landing file"])
def test_a_flipped_byte_breaks_one_complete_folder(kind, swept):
    def broken() -> set[str]:
        manifests = [path for path in swept.home.rglob("manifest.json") if ".tmp" not in str(path)]
        return {str(path.parent) for path in manifests if intact_manifest(path.parent, deep=True) is None}

    before = broken()
    struck = KINDS[kind].strike(swept, random.Random(3))
    (damaged,) = broken() - before
    assert (swept.home / struck).is_relative_to(damaged)


@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="a Mac does not say what is mapped")
def test_a_file_that_a_step_has_mapped_is_spared(swept):
    folders = [path.parent for path in swept.home.glob("prefixes/[!.]*/own.npy")]
    for folder in folders[1:]:
        shutil.rmtree(folder)
    for name in ("models", "experiments", "baselines", "sources"):
        shutil.rmtree(swept.home / name, ignore_errors=True)

    reads = "import sys, numpy; a = numpy.load(sys.argv[1], mmap_mode='r'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", reads, str(folders[0] / "own.npy")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=swept.environment, stdin=pipe, stdout=pipe) as step:
        step.stdout.readline()
        struck = {KINDS["byte flipped in a cached file"].strike(swept, random.Random(seed)) for seed in range(20)}
        step.communicate()

    assert struck and not any(name.endswith("own.npy") for name in struck)


def test_where_the_system_does_not_say_what_is_mapped_models_are_spared(tmp_path, monkeypatch):
    """Also below a folder that is itself called `models`."""
    place = ChaosPlace(tmp_path / "models", STUDY)
    for kind in ("models", "experiments"):
        folder = place.home / kind / "one"
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"bytes")
        (folder / "manifest.json").write_text('{"files": ["file"]}')
    monkeypatch.setattr(strikes, "mapped_files", lambda processes: None)

    struck = {KINDS["byte flipped in a cached file"].strike(place, random.Random(seed)) for seed in range(9)}

    assert struck == {"experiments/one/file"}


def test_a_kind_whose_process_is_not_there_says_so(swept):
    assert KINDS["child killed"].strike(swept, random.Random(1)) == NO_TARGET


def test_a_server_is_struck_also_while_no_sweep_runs(tmp_path):
    place = ChaosPlace(tmp_path, STUDY)
    (place.home / "servers").mkdir(parents=True)

    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as server:
        (place.home / "servers" / "host-1").write_text(str(server.pid))
        assert (
            place.ended() and KINDS["Prefect server killed"].strike(place, random.Random(1)) == f"process {server.pid}"
        )
        assert server.wait(30) < 0


def test_while_a_fault_waits_for_its_process_what_has_ended_is_started_again(tmp_path):
    class Waiting(ChaosPlace):
        def keep(self):
            self.exit_codes.append(0)

        def step(self):
            return psutil.Process() if self.exit_codes else None

        def ended(self):
            return False

    assert target_process(Waiting(tmp_path, STUDY), "step") == psutil.Process()


def test_of_a_fleet_the_server_that_its_machines_use_is_struck(tmp_path):
    sleeps = Service([sys.executable, "-c", "import time; time.sleep(300)"], dict(os.environ), tmp_path / "log")
    sleeps.keep()
    place = FleetPlace(tmp_path, STUDY, server=sleeps)
    kinds = {fault.name: fault for fault in known_faults(place)}
    started = f"process {sleeps.process.pid}"
    assert kinds["Prefect server killed"].strike(place, random.Random(1)) == started
    sleeps.kill()
    assert sleeps.process is None


def test_the_processes_of_a_place_are_those_with_its_home(swept):
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], env=swept.environment, stdin=subprocess.PIPE
    ) as one:
        assert [process.pid for process in swept.processes()] == [one.pid]
        assert psutil.Process(os.getpid()) not in swept.processes()
        swept.stop()
        assert one.wait(30) < 0


def home_of(command: subprocess.Popen, folder: Path) -> Path:
    """The home of the first sweep of a benchmark, once Prefect's server runs for it."""
    deadline = time.monotonic() + 300
    while not (target_process := list(folder.glob("triage-chaos-*/undisturbed/home/servers/*"))):
        assert command.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return target_process[0].parents[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)])
def test_a_benchmark_that_is_interrupted_ends_what_it_started_and_leaves_nothing(number, tmp_path):
    place = Place(tmp_path / "place")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = place.start("bench", "chaos", "--faults", "1", "--experiments", "1", TMPDIR=str(temporary))
    home = home_of(command, temporary)
    started = processes_of([home])
    command.send_signal(number)
    result = place.finish(command)
    assert (result.returncode, result.stderr) == (130, "triage: Interrupted.\n"), result.stdout
    assert len(started) >= 2 and processes_of([home]) == [] == list(temporary.iterdir())


def test_a_service_that_ends_is_started_again_after_a_while_until_it_is_asked_to_leave(tmp_path, monkeypatch):
    sleeps = [sys.executable, "-c", "import time; time.sleep(300)"]
    service = Service(sleeps, dict(os.environ), tmp_path / "log")
    service.keep()
    first = service.process
    service.keep()
    assert service.process == first
    first.kill()
    first.wait(30)
    assert service.process is None and not service.is_due()
    monkeypatch.setattr("flows.bench.chaos.services.RESTART_SECONDS", 0.0)
    service.keep()
    assert service.process not in (None, first)
    service.leave()
    assert service.process is None


def test_without_its_programs_there_is_no_postgresql(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("flows.bench.chaos.postgres.DEBIAN", str(tmp_path))
    assert new_postgres(tmp_path / "data") is None


def test_a_postgresql_that_is_killed_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.bench.chaos.services.RESTART_SECONDS", 0.0)
    postgres = new_postgres(tmp_path / "data")
    if postgres is None:
        pytest.skip("no PostgreSQL here")

    def answer(sql: str) -> int:
        deadline = time.monotonic() + 120
        while True:
            service.keep()
            try:
                return postgres.number(sql)
            except subprocess.CalledProcessError:
                assert time.monotonic() < deadline, service.log.read_text()
                time.sleep(0.2)

    service = postgres.service(dict(os.environ))
    try:
        assert answer("SELECT 7") == 7
        service.process.kill()
        assert answer("SELECT 8") == 8
    finally:
        service.leave()


def test_the_study_has_as_many_experiments_as_are_asked_for():
    from flows.selection import Narrowing, select

    _, grid, *rest = Study(experiments=20, iterations=16).arguments
    overrides = [value for name, value in itertools.pairwise(rest) if name == "--set"]
    cells = select(grid, overrides, Narrowing(limit=20)).cells
    assert len({spec.cell_id for spec in cells}) == 20 and {spec.recipe.iterations for spec in cells} == {16}


@pytest.mark.nightly
def test_a_fleet_under_faults_lands_what_an_undisturbed_sweep_does(tmp_path):
    place = Place(tmp_path)
    folder = tmp_path / "chaos"
    options = ["--pool", "--faults", "8", "--experiments", "6", "--iterations", "32", "--folder", str(folder)]
    result = place.run("bench", "chaos", *options)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert "faults of" in result.stdout and "needs --pool" not in result.stdout


@pytest.mark.nightly
def test_a_sweep_under_faults_lands_what_an_undisturbed_one_does(tmp_path):
    place = Place(tmp_path)
    folder = tmp_path / "chaos"
    options = ["--faults", "60", "--minutes", "45", "--experiments", "24", "--folder", str(folder)]
    result = subprocess.run(
        [sys.executable, "-m", "flows.cli", "bench", "chaos", *options],
        cwd=tmp_path, env=place.environment, capture_output=True, text=True, timeout=3 * 3600,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert "faults of" in result.stdout and "Skipped: worker killed" in result.stdout
