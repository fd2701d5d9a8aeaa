"""What a plan counts as stored: frozen prefixes of its own variants, boundaries and cases."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from flows.plan import PlannedCell
from flows.plan_prefixes import planned_prefixes
from flows.selection import select
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.runtime.home import home
from tasks.runtime.store import build_folder

DATA = ("data.limits.train=8", "data.limits.valid=8", "data.limits.calibration=8", "data.limits.test=8")
BOUNDARY = 2  # of the four blocks of the grid's models


@pytest.fixture
def needed(monkeypatch):
    """Bytes that the plan of a grid's first experiment lacks, whose weights are there."""
    monkeypatch.setattr("flows.plan_prefixes.variant_here", lambda *_: SimpleNamespace(digest="weights"))

    def count(*overrides: str) -> int:
        selection = select("smoke", [*DATA, *overrides])
        cell = PlannedCell(next(iter(selection.cells)), False, False, 0.0)
        return planned_prefixes(selection.grid, [cell]).needed

    return count


def store(name: str, **about: object) -> int:
    """Store a prefix; returns its bytes."""

    def build(folder):
        np.save(folder / "own.npy", np.zeros(100, np.float32))
        return {"variant": "weights", "boundary": BOUNDARY} | about

    build_folder(home() / "prefixes" / name, build)
    return (home() / "prefixes" / name / "own.npy").stat().st_size


def test_prefixes_of_other_cases_are_not_those_of_the_plan(needed):
    grid = select("smoke", DATA).grid
    dataset = DatasetManifest.read(prepare_dataset(grid.data, home(), grid.evaluation_sets))
    before = needed()
    store("other-cases", set_digest="other")
    store("other-boundary", set_digest=dataset.digest_of("train"), boundary=1)
    store("other-weights", set_digest=dataset.digest_of("train"), variant="other")
    assert needed() == before > 0

    size = store("train", set_digest=dataset.digest_of("train"))
    assert needed() == before - size
    size += store("earlier-version")
    assert needed() == before - size, "which does not say of which cases it is"


def test_a_damaged_prefix_is_made_anew(needed):
    before = needed()
    store("damaged")
    (home() / "prefixes" / "damaged" / "manifest.json").write_text('{"variant":')
    assert needed() == before


def test_where_cases_are_not_prepared_prefixes_of_any_count(needed):
    before = needed()
    size = store("other-cases", set_digest="other")
    assert needed() == before - size
