"""Two sweeps that land the same experiment at once: one waits its turn, and both end with what landed last."""

from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from tasks.landing import land_rows
from tasks.runtime.errors import Locked
from tasks.runtime.store import home, locked, verify
from tests.warehouse.rows import training
from warehouse.query import query


def test_an_id_that_another_process_is_landing_is_tried_again_later(monkeypatch):
    monkeypatch.setattr("tasks.landing.LANDING_SECONDS", 0.1)
    with locked(home() / "landing" / "t1"), pytest.raises(Locked) as caught:
        land_rows("t1", "training", training("t1"))
    assert caught.value.transient and not (home() / "landing" / "t1").exists()
    land_rows("t1", "training", training("t1"))
    assert query("SELECT training_id FROM experiment").training_id.tolist() == ["t1"]


def test_landings_of_the_same_id_side_by_side_leave_a_whole_folder_and_its_rows_in_the_warehouse():
    def land(loss: float) -> None:
        land_rows("t1", "training", training("t1", train_loss=loss))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(land, [n / 8 for n in range(8)]))
    folder = home() / "landing" / "t1"
    verify(folder)
    (kept,) = pq.ParquetFile(folder / "experiment.parquet").read().to_pylist()
    assert query("SELECT train_loss FROM experiment").train_loss.tolist() == [kept["train_loss"]]
