"""Shared set-up: a fast BLAS before MLX is first imported, a home of its own for every test, and who runs which file."""

import atexit
import compileall
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from threading import Event

import duckdb
import pytest
from hypothesis import settings

from tasks.runtime import children
from tasks.runtime.backend import VARIABLE, is_mac
from tasks.runtime.device import blas_paths, load_blas, total_memory, use_device


def compile_once() -> None:
    """Where Python may not store what it compiles, each of the many processes here would compile it again."""
    if not sys.dont_write_bytecode:
        return
    library = importlib.util.find_spec("prefect")
    if library is not None and not Path(str(library.cached)).is_file():
        unused = re.compile(r"/tests/|/transformers/models/(?!auto/|encoder_decoder/|gemma/|llama/)")
        compileall.compile_dir(Path(str(library.origin)).parents[1], quiet=2, workers=0, rx=unused)
    for package in ("flows", "tasks", "warehouse", "deployments"):
        compileall.compile_dir(Path(__file__).parents[1] / package, quiet=2, workers=0)


def share_cores(threads: int) -> None:
    """Of this process: its libraries' threads. DuckDB has no variable for them, and looks for work all the time."""
    os.environ.setdefault("MKL_NUM_THREADS", str(threads))
    connect = duckdb.connect

    def connect_with_few(database=":memory:", read_only=False, config=None):
        return connect(database, read_only=read_only, config={"threads": threads, **(config or {})})

    duckdb.connect = connect_with_few


def prepare_for_a_mac() -> None:
    """The bounds of the tests are those of float32 on a CPU; the self-test has those of Metal. A forked process may not
    ask macOS for proxies, which is not asked where a variable names them."""
    os.environ.setdefault(VARIABLE, "cpu")
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        os.environ["no_proxy"] = "*"


if is_mac():
    prepare_for_a_mac()
if "PYTEST_XDIST_WORKER" not in os.environ:  # before the workers of pytest-xdist start
    compile_once()
    os.environ["TESTS_MADE_ONCE"] = tempfile.mkdtemp(prefix="triage-tests-")
    atexit.register(shutil.rmtree, os.environ["TESTS_MADE_ONCE"], ignore_errors=True)
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # side by side: each its share of the cores
    share_cores(max(1, (os.cpu_count() or 1) // int(workers)))
sys.dont_write_bytecode = False  # of the tests, which pytest rewrites before it compiles them
os.environ["MLX_ENABLE_TF32"] = "0"  # as in the child processes; read when MLX is imported
if len(libraries := blas_paths()) > 1:  # else each test's home would measure them
    os.environ["TRIAGE_BLAS"] = str(libraries[0])
load_blas()
use_device()
settings.register_profile("gate", derandomize=True)  # whether a change lands is not left to chance
settings.load_profile("gate")
import_module("flows.cli.terminal")  # its console keeps the COLUMNS that it is imported under, which a test may set
import_module("warehouse.fill").PART_SECONDS = 60.0  # else a load on a busy machine lets others at the file in between
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@pytest.fixture(autouse=True, scope="session")
def warehouses_start_as_copies():
    """In this process; what commands of their own make is new."""
    from tests.migrated import copied_warehouses

    with copied_warehouses():
        yield


@pytest.fixture(scope="session")
def published_file(tmp_path_factory):
    """The warehouse of both published studies, which tests only read."""
    from tests.place import ROOT
    from warehouse.landing import merge
    from warehouse.load import load_all

    home = tmp_path_factory.mktemp("published")
    for study in ("study", "study_gemma"):
        report = merge(ROOT / "warehouse" / "published" / study, home / "landing")
        assert report.additions and not report.refused
    load_all(home / "landing", home / "triage.duckdb")
    return home / "triage.duckdb"


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Nothing a test makes lands in the checkout. A run of a work pool names an accelerator in its process, which is here
    that of the next tests: their steps would wait for each other. What a test stops starts again for the next one."""
    monkeypatch.setenv("TRIAGE_ACCELERATOR", "")
    for name in ("_stopping", "_interrupted"):
        monkeypatch.setattr(children, name, Event())
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "home" / "triage.duckdb"))


@pytest.fixture(autouse=True)
def mlx_limits_put_back():
    """A training sets MLX's limits for the rest of its process, which is here that of the next tests."""
    yield
    if mx := sys.modules.get("mlx.core"):
        mx.set_cache_limit(total_memory())
        mx.set_memory_limit(total_memory())


# One process for all files that share what takes long to make, by its fixture (a search has the server of the sweeps); and
# for those that draw the embedded cases.
SHARED = {"published_file": "published_file", "smoke": "smoke", "searched": "smoke"}
EMBEDDED = (
    "tests/corpus/test_check.py", "tests/corpus/test_examples.py", "tests/corpus/test_sources.py",
    "tests/corpus/vignettes/test_generator.py", "tests/scoring/test_linear.py",
)  # fmt: skip
LONGEST = ("smoke", "tests/flows/test_kill.py", "tests/models/test_real_weights.py")  # first, so that none ends alone


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items):
    """One process per file, for what its tests share, or for several files."""
    groups = {item: item.nodeid.partition("::")[0] for item in items}
    for fixture, group in SHARED.items():
        sharing = {item.path for item in items if fixture in getattr(item, "fixturenames", ())}
        groups |= {item: group for item in items if item.path in sharing}
    groups |= {item: "embedded" for item, group in groups.items() if group in EMBEDDED}

    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: LONGEST.index(groups[item]) if groups[item] in LONGEST else len(LONGEST))
