"""Shared set-up: a fast BLAS before MLX is first imported, a home of its own for every test, and who runs which file."""

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from tasks.runtime.device import load_blas

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # side by side: each its share of the cores
    os.environ.setdefault("MKL_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
load_blas()
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Nothing a test makes lands in the checkout."""
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "home" / "triage.duckdb"))


# Peaks that depend on how far MLX's stream lags behind the thread that allocates: not beside another test's work.
ALONE = ("tests/tuning/test_memory.py", "tests/tuning/test_bench.py")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of the time limit
def pytest_runtest_protocol(item):
    """Side by side, all tests share a room, which a test of ALONE has to itself. Who waits for it holds the door, so that
    nobody enters meanwhile."""
    if not workers:
        return (yield)
    place = Path(tempfile.gettempdir()) / f"triage-tests-{os.environ['PYTEST_XDIST_TESTRUNUID']}"
    with Path(f"{place}.door").open("w") as door, Path(f"{place}.room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if item.nodeid.startswith(ALONE) else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)


LONGEST = ("smoke", "tests/flows/test_kill.py", "tests/models/test_real_weights.py")  # first, so that none ends last


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items):
    """One process per file, for what its tests share, and one for all files that read the shared smoke sweep."""
    sharing = {item.path for item in items if "smoke" in getattr(item, "fixturenames", ())}
    groups = {item: "smoke" if item.path in sharing else item.nodeid.partition("::")[0] for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    first = {group: number for number, group in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(groups[item], len(LONGEST) + (groups[item] in ALONE)))
