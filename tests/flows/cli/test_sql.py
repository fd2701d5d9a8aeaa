"""`triage sql`: what a table, a record, CSV and JSON make of the same rows."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.place import Place
from tests.warehouse.rows import evaluation, training
from warehouse.landing import write_landing
from warehouse.load import load_all

WIDE = "FROM leaderboard"
THIRD = "SELECT training_id, 1.0::DOUBLE / 3 AS third, 1234567.8::DOUBLE AS large, NULL AS nothing FROM experiment"


@pytest.fixture
def place(tmp_path):
    """A warehouse of six experiments."""
    place = Place(tmp_path / "place")
    for i in range(6):
        write_landing(tmp_path / "landing", f"t{i}", "training", training(f"t{i}", cell_id=f"cell{i}"))
        write_landing(tmp_path / "landing", f"e{i}", "evaluation", evaluation(f"e{i}", f"t{i}"))
    place.home.mkdir(parents=True)
    load_all(tmp_path / "landing", place.warehouse)
    return place


def out(place: Place, *args: str, **environment: str) -> str:
    done = place.run("sql", *args, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_table_too_wide_becomes_records_at_any_number_of_rows(place):
    text = out(place, WIDE, COLUMNS="100")
    assert [f"-- row {i} of 6 --" in text for i in range(1, 7)] == [True] * 6 and "│" not in text
    record = dict(line.split(":", 1) for line in text.split("-- row 1 of 6 --")[1].split("--")[0].strip().splitlines())
    assert record["base_model"].strip() == "smol" and record["verdict"].strip() and len(record) > 40


def test_a_table_that_fits_stays_one_and_rounds_floats_to_four_digits(place):
    text = out(place, THIRD)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert len(rows) == 6 and rows[0][1:] == ["0.3333", "1234568", "NULL"]


def test_output_into_a_pipe_obeys_columns(place):
    query = "SELECT training_id, cell_id, base_model, recipe FROM experiment"
    assert "│" in out(place, query) and "│" in out(place, query, COLUMNS="60")
    assert "│" not in out(place, query, COLUMNS="30")


def test_an_empty_result_says_so(place):
    assert out(place, "FROM leaderboard WHERE false") == "0 rows\n"
    assert json.loads(out(place, "FROM leaderboard WHERE false", "--format", "json")) == []
    assert out(place, "SELECT 1 AS one WHERE false", "--format", "csv") == "one\n"


@pytest.mark.parametrize("option", [("--format", "csv"), ("--csv",)])
def test_csv_gives_all_digits(place, option):
    rows = list(csv.DictReader(io.StringIO(out(place, THIRD, *option))))
    assert len(rows) == 6 and float(rows[0]["third"]) == 1 / 3
    assert rows[0]["large"] == "1234567.8" and rows[0]["nothing"] == ""


def test_json_gives_all_digits_and_null_for_what_it_has_no_word_for(place):
    query = "SELECT 1.0::DOUBLE / 3 AS third, 'nan'::DOUBLE AS nan, [1, 2] AS list, finished_at, 0.5 AS exact FROM experiment"
    first = json.loads(out(place, query, "--format", "json"))[0]
    assert first == {"third": 1 / 3, "nan": None, "list": [1, 2], "finished_at": "2026-01-01T00:00:00", "exact": 0.5}
