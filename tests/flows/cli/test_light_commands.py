"""Commands that answer at once: which libraries each of them imports, on a warehouse with results in it."""

from __future__ import annotations

import json

import pytest

from tests.place import Place
from tests.warehouse.rows import evaluation, training
from warehouse.landing import write_landing
from warehouse.load import load_all

HEAVY = {"prefect", "scipy", "pandas", "mlx", "mlx_lm", "transformers", "duckdb", "pydantic", "numpy", "pyarrow"}
NEVER = {"prefect", "scipy", "pandas", "mlx", "mlx_lm", "transformers"}
LOADED = """
import json, pathlib, sys
from flows.cli.main import main
try:
    main()
finally:
    tops = sorted({name.partition(".")[0] for name in sys.modules})
    pathlib.Path("modules.json").write_text(json.dumps(tops))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("light")
    place = Place(folder / "place", ("-c", LOADED), is_new=True)
    write_landing(folder / "landing", "t4", "training", training("t4"))
    write_landing(folder / "landing", "e4", "evaluation", evaluation("e4", "t4"))
    place.home.mkdir(parents=True)
    load_all(folder / "landing", place.warehouse)
    return place


def loaded(place: Place, *args: str) -> set[str]:
    """Top-level modules that the command has imported when it ends; it must succeed and print nothing else."""
    result = place.run(*args, DO_NOT_TRACK="0", PREFECT_SERVER_ANALYTICS_ENABLED="true")
    assert (result.returncode, result.stderr) == (0, "") and result.stdout
    assert not (place.folder / "prefect").exists(), "Prefect was not started, so it wrote no telemetry notice"
    return set(json.loads((place.folder / "modules.json").read_text()))


@pytest.mark.parametrize("args", [("--help",), ("-h",), ("--version",)])
def test_help_and_version_load_no_library_but_that_of_the_command_line(args, place):
    assert loaded(place, *args) & HEAVY == set()


@pytest.mark.parametrize("args", [("sweep", "-h"), ("data", "check", "-h"), ("doctor", "-h")])
def test_the_help_of_a_command_does_not_load_what_the_command_needs(args, place):
    assert loaded(place, *args) & NEVER == set()


@pytest.mark.parametrize(
    "args", [("sql", "SELECT 1"), ("status",), ("gates", "t4"), ("compare",), ("compare", "--all")]
)
def test_what_reads_the_warehouse_loads_neither_prefect_nor_scipy_nor_pandas_nor_mlx(args, place):
    assert loaded(place, *args) & NEVER == set()


def test_the_version_is_printed_and_every_command_takes_h(place):
    assert place.run("--version").stdout.startswith("triage ")
    for command in (("sweep",), ("sql",), ("doctor",), ("data", "card")):
        assert "Usage" in place.run(*command, "-h").stdout


def test_a_shell_can_complete_the_commands(place):
    place = Place(place.folder, ("-c", "import sys; sys.argv[0] = 'triage'; from flows.cli.main import main; main()"))
    result = place.run(_TRIAGE_COMPLETE="complete_bash", COMP_WORDS="triage s", COMP_CWORD="1")
    assert result.stdout.split() == ["sweep", "search", "status", "serve", "sql"] and result.stderr == ""
