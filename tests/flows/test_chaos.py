"""Chaos: what its checks see in a finished sweep, what its faults strike, and a short run."""

import subprocess
import sys

import duckdb
import pytest

from tests.bench.common import smoke_sweep
from tests.chaos.checks import checks, differences
from tests.chaos.faults import IN_POOL
from tests.chaos.sweeps import Sweep
from tests.place import Place

EXPERIMENTS = 8  # of the smoke sweep that the tests share


@pytest.fixture
def swept(smoke, tmp_path) -> Sweep:
    """The finished smoke sweep, as one under faults."""
    return Sweep(smoke[0].copy(tmp_path / "faults"), EXPERIMENTS, smoke_sweep(EXPERIMENTS, 8))


def test_a_finished_sweep_passes_every_check_and_what_is_wrong_is_seen(smoke, swept):
    undisturbed = Sweep(smoke[0], EXPERIMENTS, [])
    assert swept.landed() == EXPERIMENTS
    assert not any(checks(swept, undisturbed).values())

    with duckdb.connect(str(swept.place.warehouse)) as con:
        con.execute("CREATE TEMP TABLE one AS SELECT * FROM experiment WHERE recipe_kind = 'safety' LIMIT 1")
        con.execute("UPDATE one SET training_id = 'again'")
        con.execute("INSERT INTO experiment SELECT * FROM one")

    waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(waits, env=swept.place.environment, stdin=subprocess.PIPE) as stays:
        found = checks(swept, undisturbed)
        stays.communicate()

    assert found["no process stayed"] == str(stays.pid)
    for name in ("all experiments landed", "none landed twice", "warehouse as without faults"):
        assert found[name], name


def test_times_and_speeds_may_differ_and_results_may_not(smoke, swept):
    def change(sql: str) -> list[str]:
        with duckdb.connect(str(swept.place.warehouse)) as con:
            con.execute(sql)
        return differences(swept.place.warehouse, smoke[0].warehouse)

    assert change("UPDATE experiment SET train_seconds = 9e9, finished_at = now(), peak_memory_bytes = 1") == []
    (line,) = change("UPDATE metric SET value = value + 1e-9 WHERE metric = 'accuracy' AND rule = 'argmax'")
    assert line.startswith("metric: ")


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", [[], ["--pool"]], ids=["here", "in a pool"])
def test_a_sweep_under_every_fault_lands_what_an_undisturbed_one_does(kind, tmp_path):
    place = Place(tmp_path, ("-m", "tests.chaos"), is_new=True)
    result = place.run(*kind, "--faults", str(len(IN_POOL)), "--experiments", "8", "--iterations", "48")
    assert result.returncode == 0, result.stdout + result.stderr
