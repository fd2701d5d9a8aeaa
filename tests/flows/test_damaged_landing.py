"""Landing files that lost a bit, and a warehouse that is gone: a sweep makes the figures again, or says that it did not."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from flows.outcomes import finish_all
from flows.steps import Chain, Extra, Shared, SubmittedSweep
from tasks.grids.grid import load_grid
from tasks.landing import land_rows
from tasks.runtime import children
from tasks.runtime.errors import Stopped
from tasks.runtime.home import home
from tasks.studies import SweepRecord
from tests.stopping import stop_for_this_test_only
from tests.test_land import flip
from tests.warehouse.rows import evaluation, training
from warehouse.connect import warehouse_path
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

WHAT = {"training": "experiment", "evaluation": "prediction", "fidelity": "fidelity", "variant": "variant"}


def landed_of(place, kind: str, word: str):
    """The landing folder of a kind whose id contains a word."""
    folders = sorted((place.home / "landing").glob(f"*{word}*/manifest.json"))
    return next(path.parent for path in folders if json.loads(path.read_text())["kind"] == kind)


@pytest.fixture(scope="module")
def damaged(smoke, tmp_path_factory):
    """A finished sweep of which one landing folder of each kind lost a bit, and one that no sweep here makes; without
    its warehouse, it runs once more."""
    place = smoke[0].copy(tmp_path_factory.mktemp("damaged") / "place")
    folders = [
        landed_of(place, "training", "tiny-llama-4bit-baseline"),
        landed_of(place, "evaluation", "tiny-llama-4bit-baseline"),
        landed_of(place, "evaluation", "tiny-llama-8bit-balanced_safe"),
        landed_of(place, "evaluation", "always_ed"),
        landed_of(place, "training", "always_gp"),
        landed_of(place, "training", "tiny-llama-4bit-zero_shot"),
        landed_of(place, "evaluation", "tiny-llama-8bit-zero_shot"),
        landed_of(place, "fidelity", "tiny-llama"),
        landed_of(place, "variant", "tiny-llama-8bit"),
    ]
    stranger = write_landing(place.home / "landing", "stranger", "training", training("stranger"))
    for folder in [*folders, stranger]:
        kind = json.loads((folder / "manifest.json").read_text())["kind"]
        flip(folder / f"{WHAT[kind]}.parquet")

    adapters = {path: path.stat().st_mtime_ns for path in place.home.rglob("adapters.safetensors")}
    place.warehouse.unlink()
    result = place.run("sweep", "smoke", "--model", "tiny-llama")
    return place, smoke[0], result, adapters


@pytest.mark.nightly  # damaged files are tested in ../test_land.py, a lost warehouse in test_sweep.py
def test_what_was_damaged_is_in_the_warehouse_again_and_nothing_is_trained(damaged):
    place, original, result, adapters = damaged
    assert result.returncode == 0, result.stdout + result.stderr
    ids = "SELECT id, kind FROM landed WHERE kind <> 'sweep' ORDER BY ALL"
    assert place.query(ids).equals(original.query(ids))
    figures = "SELECT evaluation_id, case_id, p_ed, decision FROM prediction ORDER BY ALL"
    assert place.query(figures).equals(original.query(figures))

    for table in (
        "metric",
        "gate",
        "mc_dropout",
        "decision_rule",
        "training_curve",
        "fidelity",
        "variant",
        "pair_metric",
    ):
        count = f"SELECT count(*) AS n FROM {table}"
        assert place.query(count).equals(original.query(count)), table

    assert place.audits() == {}
    assert {path: path.stat().st_mtime_ns for path in place.home.rglob("adapters.safetensors")} == adapters


@pytest.mark.nightly  # damaged files are tested in ../test_land.py, a lost warehouse in test_sweep.py
def test_what_the_sweep_does_not_make_is_named_with_the_remedy(damaged):
    place, _, result, _ = damaged
    (line,) = (line for line in result.stdout.splitlines() if "WARNING" in line)
    assert (
        f"{place.home / 'landing' / 'stranger'}" in line
        and "come back with the sweep or benchmark that made them" in line
    )


def future(result: Any) -> SimpleNamespace:
    """A finished step, as a flow sees it."""
    no, yes = (lambda: False), (lambda: True)
    state = SimpleNamespace(is_failed=no, is_crashed=no, is_cancelled=no, is_completed=yes, name="Completed")
    return SimpleNamespace(state=state, result=lambda: result, wait=lambda: None)


def unfinished() -> SimpleNamespace:
    """A step that has not ended."""
    return SimpleNamespace(state=SimpleNamespace(is_completed=lambda: False))


def test_what_landed_and_is_not_in_the_warehouse_is_a_failure():
    spec = SimpleNamespace(cell_id="cell")
    shared = Shared(*[future("folder")] * 4)
    chain = Chain(spec, shared, future("t1"), future("e1"), future("e1"))  # type: ignore[arg-type]
    record = SweepRecord(load_grid("smoke"), experiments=1)
    sweep = SubmittedSweep(unfinished(), record, [Extra("baselines", future(["b1"])), chain])
    land_rows("t1", "training", training("t1"))
    land_rows("e1", "evaluation", evaluation("e1", "t1"))
    land_rows("b1", "training", training("b1"))
    assert finish_all(sweep) == []
    warehouse_path().unlink()
    failures = finish_all(sweep)
    assert [failure.partition(":")[0] for failure in failures] == ["baselines", "cell"]
    assert all(f"are not in {warehouse_path()}" in failure for failure in failures)


@pytest.mark.parametrize(("error", "interrupts"), [(OSError(28, "No space left"), False), (KeyboardInterrupt(), True)])
def test_an_error_of_the_sweep_stops_the_children_and_does_not_pass_for_an_interruption(error, interrupts, monkeypatch):
    """Whoever sees an interruption leaves within seconds, and says that instead of the error's sentence."""
    stop_for_this_test_only(monkeypatch)
    record = SweepRecord(load_grid("smoke"), experiments=1)
    monkeypatch.setattr(record, "add", lambda ids: (_ for _ in ()).throw(error))

    with pytest.raises(type(error)):
        finish_all(SubmittedSweep(unfinished(), record, [Extra("baselines", future(["b1"]))]))

    assert children.is_interrupted() == interrupts
    with pytest.raises(Stopped):
        children.refuse_if_stopping()


def test_what_an_interrupted_sweep_has_landed_belongs_to_its_study_and_not_only_its_experiments(monkeypatch):
    stop_for_this_test_only(monkeypatch)

    def stop() -> None:
        raise KeyboardInterrupt

    record = SweepRecord(load_grid("smoke"), experiments=1)
    waits = SimpleNamespace(wait=stop)
    shared = Shared(*[future("folder")] * 4)
    chain = Chain(SimpleNamespace(cell_id="cell"), shared, waits, waits, waits)  # type: ignore[arg-type]
    sweep = SubmittedSweep(unfinished(), record, [Extra("baselines", future(["e1"])), chain])
    land_rows("t1", "training", training("t1"))
    land_rows("e1", "evaluation", evaluation("e1", "t1"))

    with pytest.raises(KeyboardInterrupt):
        finish_all(sweep)

    load_all(home() / "landing")
    assert query("SELECT study, id FROM study_member ORDER BY id").values.tolist() == [["smoke", "e1"], ["smoke", "t1"]]
