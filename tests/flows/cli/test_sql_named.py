"""`triage sql` with named questions, parameters and files: what is printed, what is written, what is refused."""

from __future__ import annotations

import csv
import json
import re
from decimal import Decimal

import pyarrow.parquet as pq
import pytest

from tests.place import Place, one_sentence
from tests.warehouse.rows import land_pair
from tests.warehouse.test_waiting import held_warehouse
from warehouse.cookbook import cookbook
from warehouse.load import load_all
from warehouse.place import WAITING


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A warehouse of one pair."""
    folder = tmp_path_factory.mktemp("named")
    place = Place(folder / "place")
    land_pair(place.home / "landing")
    load_all(place.home / "landing", place.warehouse)
    return place


def test_the_list_has_every_question_with_its_parameters(place):
    result = place.ask("sql", "--list")
    assert (result.returncode, result.stderr) == (0, "")
    for named in cookbook():
        assert f"\n{named.name}\n  {named.explanation}\n" in f"\n{result.stdout}"
    assert "--param precision=4bit  precision of the models" in result.stdout and result.stdout.endswith(
        "--param key=value\n"
    )


def test_every_question_runs_on_a_real_sweep(smoke):
    from warehouse.query import query_rows

    results = {
        named.name: query_rows(named.sql, named.values({}), database=smoke[0].warehouse).rows for named in cookbook()
    }
    empty = {name for name, rows in results.items() if not rows}
    assert empty <= {
        "passes_at_8_not_at_4", "unfinished_trainings", "missed_by_every_model", "emergencies_sent_home", "flipped_cases",
        "subgroup_gaps", "calibration_near_zero",
    }  # fmt: skip


def test_a_named_question_and_a_typed_one_take_parameters(place):
    result = place.ask("sql", "missed-by-every-model", "--param", "precision=8bit", "--format", "json")
    assert [row["case_id"] for row in json.loads(result.stdout)] == [] and result.returncode == 0
    assert (
        result.stderr == "0 rows: each emergency is sent to ED by some model of this precision, be it an untuned one.\n"
    )
    typed = place.ask("sql", "SELECT evaluation_id FROM leaderboard WHERE bits = $bits", "--param", "bits=8", "--csv")
    assert typed.stdout == "evaluation_id\ne8\n"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((), "triage sql --list has them"),
        (("leaderbord",), 'triage sql "FROM leaderbord" shows a table or view'),
        (("learning_curve",), "did you mean learning_curves"),
        (("SELECT $a",), r"needs a value for its parameter \$a\."),
        (("SELECT 1", "--param", "a=1"), r"has no parameter \$a; it has none"),
        (("SELECT $a::INTEGER", "--param", "a=four"), "Could not convert string 'four'"),
        (("missed_by_every_model", "--param", "precision=5bit"), "no precision '5bit'; it has 4bit, 8bit"),
        (("hardest_cases", "--param", "top=many"), "top is a whole number"),
        (("hardest_cases", "--param", "top"), "give a name and a value, e.g. --param bits=4"),
        (("hardest_cases", "--format", "parquet"), "name a file, e.g. --output rows.parquet"),
        (("FROM leaderboard", "--output", "absent/rows.csv"), "There is no folder absent"),
        (("WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT count(*) FROM r", "--seconds", "1"),
         "stopped after 1 seconds; allow more with --seconds"),
        (("SELECT count(DISTINCT (a.range, b.range)) FROM range(100000) a, range(100000) b", "--memory", "200MB",
          "--seconds", "30"), "allow more with --(memory|seconds)"),
        (("DROP TABLE prediction",), "Queries only read: this DROP statement"),
        (("FROM read_csv('/etc/passwd')",), "The query failed: "),
        (("SELECT 1; SELECT 2",), "Queries only read: 2 statements"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(args, sentence, place):
    before = place.warehouse.read_bytes()
    result = place.ask("sql", *args)
    assert (result.returncode, result.stdout) == (2, "") and one_sentence(result.stderr), result.stderr
    assert re.search(sentence, result.stderr) and place.warehouse.read_bytes() == before


def test_a_file_has_the_format_of_its_name(place):
    sql = "SELECT evaluation_id, cases, NULL::INTEGER AS nothing FROM evaluation ORDER BY 1"
    for name in ("rows.csv", "rows.json", "rows.parquet", "rows.txt"):
        result = place.ask("sql", sql, "--output", name)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", f"2 rows in {name}\n")

    with (place.folder / "rows.csv").open(newline="") as file:
        assert [row["cases"] for row in csv.DictReader(file)] == ["5", "5"]

    assert json.loads((place.folder / "rows.json").read_text())[1] == {
        "evaluation_id": "e8",
        "cases": 5,
        "nothing": None,
    }
    table = pq.read_table(place.folder / "rows.parquet")
    assert table.to_pylist()[0] == {"evaluation_id": "e4", "cases": 5, "nothing": None}
    assert "│ e4" in (place.folder / "rows.txt").read_text()
    assert [path.name for path in place.folder.iterdir() if path.name.startswith(".rows")] == []


def test_a_parquet_file_has_all_digits_of_a_decimal(place):
    sql = "SELECT 12345678901234567.89 AS amount, sum(range) AS total FROM range(4)"
    assert place.ask("sql", sql, "--output", "digits.parquet").returncode == 0
    table = pq.read_table(place.folder / "digits.parquet")
    assert table.to_pylist() == [{"amount": Decimal("12345678901234567.89"), "total": 6}]


def test_a_file_that_is_there_stays_and_a_query_that_fails_leaves_none(place):
    (place.folder / "mine.csv").write_text("mine")
    (place.folder / "dangling.csv").symlink_to("nowhere.csv")
    for name in ("mine.csv", "dangling.csv"):
        result = place.ask("sql", "FROM evaluation", "--output", name)
        assert (
            result.returncode == 2
            and one_sentence(result.stderr)
            and "is there already and stays as it is" in result.stderr
        )

    assert (place.folder / "mine.csv").read_text() == "mine" and not (place.folder / "nowhere.csv").exists()
    (place.folder / "dangling.csv").unlink()

    before = sorted(place.folder.iterdir())
    failed = place.ask("sql", "SELECT error('no') FROM range(3)", "--output", "failed.parquet")
    assert failed.returncode == 2 and sorted(place.folder.iterdir()) == before


def test_the_first_rows_alone_go_into_a_file_where_fewer_are_asked_for(place):
    for name in ("few.parquet", "few.csv"):
        result = place.ask("sql", "FROM range(50000)", "--output", name, "--rows", "3")
        assert result.stderr == f"3 rows in {name}; there are more, to write them: --rows 30\n"
    assert pq.read_table(place.folder / "few.parquet").column("range").to_pylist() == [0, 1, 2]


def test_a_query_loads_what_waits_and_answers_beside_a_notebook(place, tmp_path):
    waiting = place.copy(tmp_path / "place")
    waiting.warehouse.unlink()
    (waiting.home / "landing" / "e8").rename(waiting.folder / "e8")
    load_all(waiting.home / "landing", waiting.warehouse)
    (waiting.folder / "e8").rename(waiting.home / "landing" / "e8")
    (waiting.home / "landing" / WAITING).touch()
    sql = ("sql", "SELECT evaluation_id FROM evaluation ORDER BY 1", "--csv")

    with held_warehouse("reading", waiting.warehouse):
        result = waiting.ask(*sql)

    assert (result.returncode, result.stdout) == (0, "evaluation_id\ne4\n") and "Loading waits" in result.stderr
    result = waiting.ask(*sql)
    assert (result.stdout, result.stderr) == ("evaluation_id\ne4\ne8\n", "")
