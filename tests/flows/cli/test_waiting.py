"""`load_what_waits`: a command that loads again and again says once that results still wait."""

from __future__ import annotations

from flows.cli.terminal import load_what_waits
from tasks.runtime.home import home
from tests.warehouse.rows import land_pair
from tests.warehouse.test_waiting import held_warehouse
from warehouse.connect import warehouse_path
from warehouse.load import load_all
from warehouse.place import WAITING


def test_that_results_wait_is_said_once(capsys):
    landing = home() / "landing"
    land_pair(landing)
    load_all(landing)
    (landing / WAITING).touch()
    with held_warehouse("reading", warehouse_path()):
        load_what_waits()
        load_what_waits()

    assert capsys.readouterr().err.count("Loading waits") == 1
