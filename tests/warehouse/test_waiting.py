"""Another program holds the warehouse: what has landed waits, nothing is lost, and the next chance loads it."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks import landing
from tasks.landing import (
    absent_from_warehouse,
    is_landed,
    land_rows,
    load_the_rest,
    refill_warehouse,
    some_results_wait,
)
from tasks.progress import listeners
from tasks.runtime.home import home
from tests.warehouse.rows import evaluation, training
from warehouse import fill, load, rebuild
from warehouse.connect import warehouse_path
from warehouse.landing import write_landing
from warehouse.query import query_rows

HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reading")
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_warehouse(how: str = "reading", path: Path | None = None):
    """The warehouse, open in another process as in a notebook: a plain connection and nothing running."""
    command = [sys.executable, "-c", HOLD, str(path or warehouse_path()), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdin and holder.stdout.readline() == "open\n"
        yield holder
        holder.stdin.close()


@pytest.fixture
def warnings(monkeypatch):
    """What a user is told while results land; the waits are short."""
    for name in ("FIRST_SECONDS", "LATER_SECONDS", "LAST_SECONDS"):
        monkeypatch.setattr(load, name, 0.2)
        monkeypatch.setattr(landing, name, 0.2, raising=False)
    landing._said.clear()
    messages: list[str] = []
    monkeypatch.setattr("tasks.progress.listeners", [*listeners, lambda title, event: messages.append(event.message)])
    return messages


def trainings() -> list[str]:
    return [str(id) for (id,) in query_rows("SELECT training_id FROM experiment ORDER BY ALL").rows]


@pytest.mark.parametrize("how", ["reading", "writing"])
def test_what_lands_while_the_file_is_held_waits_and_is_loaded_later(how, warnings):
    land_rows("t0", "training", training("t0"))
    with held_warehouse(how) as holder:
        assert is_landed("t0") and not some_results_wait() and warnings == [], "what is loaded does not wait"
        land_rows("t1", "training", training("t1"))
        land_rows("e1", "evaluation", evaluation("e1", "t1"))
        assert len(warnings) == 1 and f"process {holder.pid}). Loading waits: what has landed is kept" in warnings[0]
        assert is_landed("t1") and is_landed("e1") and not is_landed("t9"), "nothing is computed again"
        assert absent_from_warehouse(["t0", "t1", "e1", "t9"]) == ["t9"] and some_results_wait()
        assert load_the_rest() == warnings[0] and refill_warehouse() == {}
        assert len(warnings) == 1, "once"
        if how == "reading":
            assert trainings() == ["t0"], "a reader beside a reader reads"

        land_rows("t2", "training", training("t2"))
        path = home() / "landing" / "t2" / "experiment.parquet"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"?")
        assert not is_landed("t2"), "a damaged folder is damaged whoever holds the file"
        path.write_bytes(content)

    assert trainings() == ["t0"]
    assert load_the_rest() is None and not some_results_wait()
    assert trainings() == ["t0", "t1", "t2"] and query_rows("SELECT evaluation_id FROM evaluation").rows == [("e1",)]


def test_the_next_landing_loads_what_waits_and_a_new_holder_is_said_again(warnings):
    land_rows("t0", "training", training("t0"))
    for held, free in (("t1", "t2"), ("t3", "t4")):
        with held_warehouse():
            land_rows(held, "training", training(held))
        land_rows(free, "training", training(free))
    assert (trainings(), some_results_wait()) == (["t0", "t1", "t2", "t3", "t4"], False)
    assert len(warnings) == 2


def test_what_comes_to_wait_during_a_load_is_loaded_too(warnings, monkeypatch):
    land_rows("t0", "training", training("t0"))
    (home() / "landing" / load.WAITING).touch()
    real = load.load_all
    rounds = []

    def load_while_another_lands(*args, **options):
        report = real(*args, **options)
        if not rounds:
            write_landing(home() / "landing", "t1", "training", training("t1"))
            (home() / "landing" / load.WAITING).touch()
        rounds.append(report.loaded)
        return report

    monkeypatch.setattr(load, "load_all", load_while_another_lands)
    assert load_the_rest() is None and not some_results_wait()
    assert rounds == [[], ["t1"]] and trainings() == ["t0", "t1"]


def test_a_long_load_lets_others_at_the_file_between_its_parts(monkeypatch):
    monkeypatch.setattr(fill, "PART_SECONDS", 0.0001)
    opened = []
    real = rebuild.writing
    monkeypatch.setattr(rebuild, "writing", lambda *args: (opened.append(args), real(*args))[1])
    for name in ("t1", "t2", "t3"):
        write_landing(home() / "landing", name, "training", training(name))
    assert load.load_all(home() / "landing").loaded == ["t1", "t2", "t3"] and len(opened) == 3
    assert load.load_all(home() / "landing").unchanged == ["t1", "t2", "t3"]
