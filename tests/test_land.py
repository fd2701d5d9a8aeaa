"""Two sweeps that land the same experiment at once: one waits its turn, and both end with what landed last."""

from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from tasks.landing import absent_from_warehouse, is_landed, land_rows, landed_status, refill_warehouse
from tasks.runtime.errors import Locked
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.runtime.store import verify
from tests.warehouse.rows import training
from warehouse.connect import warehouse_path
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
    (row,) = pq.ParquetFile(folder / "experiment.parquet").read().to_pylist()
    assert query("SELECT train_loss FROM experiment").train_loss.tolist() == [row["train_loss"]]


def flip(path) -> None:
    """One bit, as a disk or a copy may lose it: the size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_folder_with_a_flipped_bit_has_not_landed_and_is_written_again():
    land_rows("t1", "training", training("t1"))
    flip(home() / "landing" / "t1" / "experiment.parquet")
    assert not is_landed("t1") and landed_status("t1") is None
    warehouse_path().unlink()
    assert list(refill_warehouse()) == ["t1"] and absent_from_warehouse(["t1"]) == ["t1"]

    land_rows("t1", "training", training("t1"))

    verify(home() / "landing" / "t1")
    assert is_landed("t1") and landed_status("t1") == "completed"
    assert refill_warehouse() == {} and absent_from_warehouse(["t1"]) == []


def test_a_folder_that_the_warehouse_lacks_is_loaded_when_it_is_asked_for():
    land_rows("t1", "training", training("t1"))
    warehouse_path().unlink()
    assert absent_from_warehouse(["t1", "t2"]) == ["t1", "t2"]
    assert is_landed("t1") and not is_landed("t2")
    assert absent_from_warehouse(["t1", "t2"]) == ["t2"]
    assert query("SELECT training_id FROM experiment").training_id.tolist() == ["t1"]
