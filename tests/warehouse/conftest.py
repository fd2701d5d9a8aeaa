"""A pair of experiments in a warehouse: made once, and copied for each test that changes it."""

import shutil
from pathlib import Path

import pytest

from tests.warehouse.rows import land_pair
from warehouse.connect import warehouse_path
from warehouse.load import load_all


@pytest.fixture(scope="session")
def pair_home(tmp_path_factory) -> Path:
    """A home with the landing folders of a pair, and its warehouse; no test changes it."""
    folder = tmp_path_factory.mktemp("pair")
    land_pair(folder / "landing")
    load_all(folder / "landing", folder / "triage.duckdb")
    return folder


@pytest.fixture
def landing(pair_home) -> Path:
    """The landing folders of a pair in the home of this test, beside its warehouse."""
    home = warehouse_path().parent
    shutil.copytree(pair_home, home)
    return home / "landing"
