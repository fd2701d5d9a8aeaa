import errno
import random
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tasks.runtime.errors import BadInput
from warehouse.connect import unused, warehouse_path, writing
from warehouse.health import refuse_unusable
from warehouse.load import load_all
from warehouse.query import query_rows

DAMAGED = "is damaged.*; it can be rebuilt from the landing files: triage warehouse rebuild.$"
EVERYTHING = "SELECT table_name FROM duckdb_tables() ORDER BY ALL"


def read_everything() -> None:
    for (name,) in query_rows(EVERYTHING).rows:
        query_rows(f"FROM {name}")


@pytest.mark.parametrize(
    "place",
    [
        "{}/folder", "{}/cases.csv", "/dev/null", "{}/" + "x" * 300 + ".duckdb",
        *(["/proc/none/triage.duckdb", "/proc/version"] if sys.platform == "linux" else []),
    ],
)  # fmt: skip
def test_a_place_where_no_warehouse_can_be_is_refused_before_anything_is_written(place, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "cases.csv").write_text("text,label\nmy chest hurts,ED\n")
    monkeypatch.setenv("TRIAGE_WAREHOUSE", place.format(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for use in (refuse_unusable, read_everything, lambda: writing().__enter__()):
        with pytest.raises(BadInput, match=r"set TRIAGE_WAREHOUSE to a file.*\.$|is no path") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_tilde_is_the_users_folder_and_a_place_without_a_file_is_fine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRIAGE_WAREHOUSE", "~/new/triage.duckdb")
    assert warehouse_path() == tmp_path / "new" / "triage.duckdb"
    refuse_unusable()
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


# Its headers, and what is in its blocks, of which some hold nothing.
@pytest.mark.parametrize("place", [0, 4096, 12400, random.Random(1).randrange(13000, 60000)])
def test_one_flipped_bit_of_the_file_is_told_with_the_remedy_by_queries_and_loads(place, landing):
    path = warehouse_path()
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    for use in (read_everything, lambda: load_all(landing)) if place == 12400 else (read_everything,):
        try:
            use()
        except BadInput as error:
            assert str(error).startswith(str(path)) and str(error).endswith("triage warehouse rebuild.")
        else:
            assert place > 12400


def test_an_empty_or_a_foreign_file_is_told_with_the_remedy_and_words_of_damage_are_no_damage(pair_home):
    warehouse_path().parent.mkdir(parents=True, exist_ok=True)
    for content in (b"", b"DUCK", b"x" * 100_000):
        warehouse_path().write_bytes(content)
        with pytest.raises(BadInput, match=DAMAGED):
            refuse_unusable()
        with pytest.raises(BadInput, match=DAMAGED), writing():
            pass
    with pytest.raises(BadInput, match="The query failed: Corrupt database file"):
        query_rows("SELECT error('Corrupt database file')", database=pair_home / "triage.duckdb")


def test_no_other_process_opens_a_file_while_it_is_replaced(landing):
    code = "import duckdb, sys; duckdb.connect(sys.argv[1], read_only=True)"
    with unused(warehouse_path()):
        result = subprocess.run([sys.executable, "-c", code, str(warehouse_path())], capture_output=True, text=True)
    assert result.returncode and "lock on file" in result.stderr
    assert duckdb.connect(str(warehouse_path()), read_only=True).execute("SELECT 1").fetchall() == [(1,)]


def test_a_file_that_may_not_be_written_is_refused_and_none_needs_no_lock(tmp_path, monkeypatch):
    file = tmp_path / "w.duckdb"
    with unused(file):
        file.write_bytes(b"damaged")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BadInput, match=r"cannot be opened as a warehouse \(Permission denied\)"), unused(file):
        pass
