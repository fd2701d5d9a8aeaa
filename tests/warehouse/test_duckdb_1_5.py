"""The warehouse under DuckDB 1.5, the oldest version that the project allows; every other test runs under the pinned one.

uv run pytest -n 0 -m nightly tests/warehouse/test_duckdb_1_5.py        (needs the package index)
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import duckdb
import pytest

from tests.place import ROOT
from tests.warehouse.rows import assert_sound, land_pair
from warehouse.load import load_all

STATISTICS = {"test_crossed.py", "test_crossed_simulation.py", "test_differences.py"}  # which open no file
READ = """
import duckdb, sys
con = duckdb.connect(sys.argv[1], read_only=True)
print(duckdb.__version__)
macros = con.sql("SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'table_macro' AND NOT internal")
views = con.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
for name in [name for (name,) in views] + [f"{name}(NULL)" for (name,) in macros.fetchall() if name.endswith("_of")]:
    print(name, len(con.sql(f"FROM {name}").fetchall()))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A Python that has DuckDB 1.5, and everything else from this environment."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on PATH")

    folder = tmp_path_factory.mktemp("duckdb") / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    command = [uv, "pip", "install", "--python", python, "--only-binary", ":all:", "duckdb==1.5.*"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if "error sending request" in installed.stderr or "Failed to fetch" in installed.stderr:
        pytest.skip("the package index cannot be reached")

    assert installed.returncode == 0, installed.stderr
    (own_values,) = folder.glob("lib/python*/site-packages")
    (own_values / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return python


def run(*command: str | Path) -> str:
    command = [str(part) for part in command]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.nightly
def test_a_warehouse_of_the_pinned_version_is_read_by_1_5(python, tmp_path):
    land_pair(tmp_path)
    load_all(tmp_path, tmp_path / "w.duckdb")
    assert_sound(tmp_path / "w.duckdb")

    version, *lines = run(python, "-c", READ, tmp_path / "w.duckdb").splitlines()
    rows = dict(line.split() for line in lines)
    assert version.startswith("1.5.") and not duckdb.__version__.startswith("1.5.")
    assert rows["quantization_comparison"] == rows["quantization_comparison_of(NULL)"] == "1"
    assert rows["leaderboard"] == rows["leaderboard_of(NULL)"] == "2"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_tests_of_the_warehouse_pass_under_1_5(python):
    files = sorted(path for path in Path(__file__).parent.glob("test_*.py") if path.name not in STATISTICS)
    run(python, "-m", "pytest", "-p", "no:xdist", "-o", "addopts=", "-q", "-m", "not nightly", *files)
