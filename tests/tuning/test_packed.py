"""The numbers of a Mac's path, packed bfloat16, on a CPU: all of engine and scoring, every night."""

import os
import subprocess
import sys

import pytest

from tests.place import ROOT


def on_packed_weights(*arguments, **environment):
    """A command of Python whose backend is `cpu-packed`."""
    # pytest-xdist's variables would make the tests there believe that they are in one of its processes.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", *arguments]
    environment = inherited | {"TRIAGE_BACKEND": "cpu-packed"} | environment
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-6000:]

    return result.stdout


@pytest.mark.nightly  # minutes on a quiet machine: MLX's quantised kernels are slow on a CPU
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("folder", ["tests/tuning", "tests/scoring"])
def test_all_tests_of_engine_and_scoring_pass_on_packed_bfloat16_weights(folder):
    assert " passed" in on_packed_weights("pytest", "-n", "0", "-p", "no:cacheprovider", folder)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_smoke_sweep_ends_well_on_packed_bfloat16_weights(tmp_path):
    place = {"TRIAGE_HOME": str(tmp_path), "TRIAGE_WAREHOUSE": str(tmp_path / "triage.duckdb")}
    out = on_packed_weights("flows.cli", "sweep", "smoke", **place)
    assert "8 experiments are in the warehouse" in out
