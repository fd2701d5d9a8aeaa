"""The numbers of a Mac's path, packed bfloat16, on a CPU: all of engine and scoring, every night."""

import os
import subprocess
import sys

import pytest

from tests.place import ROOT


@pytest.mark.nightly  # minutes on a quiet machine: MLX's quantised kernels are slow on a CPU
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("folder", ["tests/tuning", "tests/scoring"])
def test_all_tests_of_engine_and_scoring_pass_on_packed_bfloat16_weights(folder):
    # pytest-xdist's variables would make the tests there believe that they are in one of its processes.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["TRIAGE_BACKEND"] = "cpu-packed"
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", folder]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-6000:]
