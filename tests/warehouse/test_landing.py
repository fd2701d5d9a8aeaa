from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.runtime.errors import BadInput
from tasks.runtime.store import MANIFEST, verify
from tests.warehouse.rows import evaluation, training
from warehouse.landing import write_landing
from warehouse.schema import FACTS, tables


def read(folder, table):
    return pq.ParquetFile(folder / f"{table}.parquet").read().to_pylist()


def test_rows_come_back_as_they_were_with_the_types_of_the_schema(tmp_path):
    rows = evaluation("e1", "t1")
    folder = write_landing(tmp_path, "e1", "evaluation", rows)
    assert {k: verify(folder)[k] for k in ("id", "kind")} == {"id": "e1", "kind": "evaluation"}
    for name in FACTS["evaluation"].tables:
        assert read(folder, name) == rows.get(name, [])
        assert pq.ParquetFile(folder / f"{name}.parquet").schema_arrow.equals(tables()[name])


def test_numpy_values_times_with_a_zone_and_numbers_that_are_not_finite_land_cleanly(tmp_path):
    rows = training(
        "t1", bits=np.int64(4), train_seconds=np.float32(1.5), train_loss=float("nan"), valid_loss=np.float64("inf"),
        started_at="2026-01-01T12:00:00+02:00",
        finished_at=datetime(2026, 1, 1, 13, tzinfo=timezone(timedelta(hours=2))),
    )  # fmt: skip
    (row,) = read(write_landing(tmp_path, "t1", "training", rows), "experiment")
    assert (row["bits"], row["train_seconds"], row["train_loss"], row["valid_loss"]) == (4, 1.5, None, None)
    assert (row["started_at"], row["finished_at"]) == (datetime(2026, 1, 1, 10), datetime(2026, 1, 1, 11))


def test_the_same_rows_leave_a_whole_folder_alone_and_others_or_a_damage_replace_it(tmp_path, monkeypatch):
    folder = write_landing(tmp_path, "t1", "training", training("t1"))
    before = (folder / MANIFEST).stat()
    assert write_landing(tmp_path, "t1", "training", training("t1")) == folder
    after = (folder / MANIFEST).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    (folder / "experiment.parquet").write_bytes(b"")
    verify(write_landing(tmp_path, "t1", "training", training("t1")))

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(Path, "rename", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        write_landing(tmp_path, "t1", "training", training("t1", train_loss=0.25))
    write_landing(tmp_path, "t1", "training", training("t1", train_loss=0.25))
    assert read(folder, "experiment")[0]["train_loss"] == 0.25
    assert [path.name for path in tmp_path.iterdir()] == ["t1"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r["prediction"][2].update(p_ed=float("nan")), r"Table prediction refuses a row: .*p_ed"),
        (lambda r: r["prediction"].append(r["prediction"][0]), r"Table prediction refuses a row: .* is there twice"),
        (lambda r: r["prediction"][0].update(label="MAYBE"), r"Table prediction refuses a row: .*label"),
        (lambda r: r["prediction"][0].update(p_ed=1.2), r"Table prediction refuses a row: .*p_ed"),
        (lambda r: r["metric"][0].update(value=None, note=None), r"Table metric refuses a row: .*note"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_is_written(change, sentence, tmp_path):
    rows = evaluation("e1", "t1")
    change(rows)
    with pytest.raises(BadInput, match=sentence):
        write_landing(tmp_path / "landing", "e1", "evaluation", rows)
    assert not (tmp_path / "landing").exists()


def test_an_id_that_is_no_plain_name_is_refused(tmp_path):
    for id in ("", "../up", "a/b", ".hidden", "a b"):
        with pytest.raises(BadInput, match="cannot name a landing folder"):
            write_landing(tmp_path, id, "training", training(id))
