"""`triage sql`: what a table, a record, CSV and JSON make of the same rows; named questions, parameters and files; what is
refused."""

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from decimal import Decimal

import psutil
import pyarrow.parquet as pq
import pytest

from flows.cli.sql import _new_file
from tasks.runtime.errors import BadInput
from tests.place import Place, refusal, wait_until
from tests.warehouse.rows import land_arm, land_pair
from tests.warehouse.test_waiting import held_warehouse
from warehouse.connect import WAITING
from warehouse.cookbook import cookbook
from warehouse.load import load_all

THIRD = "SELECT training_id, 1.0::DOUBLE / 3 AS third, 1234567.8::DOUBLE AS large, NULL AS nothing FROM experiment"
ESCAPES = "SELECT 'a' || chr(27) || '[31mred' || chr(155) || chr(7) || chr(127) || chr(8238) AS \"x\x1b[1m\""
ESCAPED = r"a\x1b[31mred\x9b\x07\x7f\u202e"
# One call, which DuckDB does not interrupt.
SLOW = "SELECT list_sum(list_transform(range(1000000000), lambda x: x + 1))"


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """A warehouse of six experiments."""
    place = Place(tmp_path_factory.mktemp("six") / "place")
    for i in range(6):
        land_arm(place.home / "landing", str(i), cell_id=f"cell{i}")
    load_all(place.home / "landing", place.warehouse)
    return place


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("named") / "place")
    land_pair(place.home / "landing")
    load_all(place.home / "landing", place.warehouse)
    return place


def out(place: Place, *args: str, **environment: str) -> str:
    result = place.ask("sql", *args, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def as_json(place: Place, query: str, *args: str) -> list[dict[str, object]]:
    return json.loads(out(place, query, "--format", "json", *args))


def test_a_table_too_wide_becomes_records_and_one_that_fits_stays_and_rounds_floats_to_four_digits(six):
    text = out(six, "FROM leaderboard", COLUMNS="100")
    assert [f"-- row {i} of 6 --" in text for i in range(1, 7)] == [True] * 6 and "│" not in text
    record = dict(line.split(":", 1) for line in text.split("-- row 1 of 6 --")[1].split("--")[0].strip().splitlines())
    assert record["base_model"].strip() == "smol" and record["verdict"].strip() and len(record) > 40

    lines = [line for line in out(six, THIRD).splitlines() if line.startswith("│")]
    assert len(lines) == 6
    assert [cell.strip() for cell in lines[0].split("│")[2:-1]] == ["0.3333", "1234568", "NULL"]
    assert out(six, "FROM leaderboard WHERE false") == "0 rows\n" and as_json(six, "FROM leaderboard WHERE false") == []
    assert out(six, "SELECT 1 AS one WHERE false", "--format", "csv") == "one\n"


def test_csv_and_json_give_all_digits_and_null_for_what_json_has_no_word_for(six):
    rows = list(csv.DictReader(io.StringIO(out(six, THIRD, "--format", "csv"))))
    assert len(rows) == 6 and float(rows[0]["third"]) == 1 / 3
    assert rows[0]["large"] == "1234567.8" and rows[0]["nothing"] == ""

    query = "SELECT 1.0::DOUBLE / 3 AS third, 'nan'::DOUBLE AS nan, [1, 2] AS list, finished_at, 0.5 AS exact FROM experiment"
    first = as_json(six, query)[0]
    assert first == {"third": 1 / 3, "nan": None, "list": [1, 2], "finished_at": "2026-01-01T00:00:00", "exact": 0.5}

    long = "12345678901234567890.123456789"
    query = f"SELECT 0.1 AS short, 1.50 AS zero, {long} AS long, [{long}] AS list, 2::DECIMAL(38, 0) AS whole"
    assert as_json(six, query) == [{"short": 0.1, "zero": 1.5, "long": long, "list": [long], "whole": 2}]


def test_json_refuses_columns_of_one_name_of_which_it_would_keep_the_last(six, tmp_path):
    query = "SELECT 1 AS a, 2 AS b, 3 AS a, 4 AS b"
    for options in (("--format", "json"), ("--json",), ("--output", str(tmp_path / "rows.json"))):
        assert "several columns are named a, b; name them with AS" in refusal(six.ask("sql", query, *options))
    assert list(tmp_path.iterdir()) == []
    assert out(six, query, "--format", "csv") == "a,b,a,b\n1,2,3,4\n"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        # The memory runs out first, however slow the machine is.
        (("FROM range(100000000)", "--format", "csv", "--memory", "100MB", "--seconds", "600"), "allow more with --memory"),
        # Long enough for DuckDB to draw a progress bar, which nobody wants among rows.
        ((SLOW, "--memory", "100GB", "--seconds", "3"), "stopped after 3 seconds; allow more with --seconds"),
        (("SELECT 1", "--memory", "1MB"), "at least 50 MB of memory.*--memory"),
        (("SELECT error(chr(27) || '[31m')",), "failed: .x1b.31m"),
        ((), "triage sql --list has them"),
        (("learning_curve",), "did you mean learning_curves"),
        (("hardest_cases", "--param", "top"), "give a name and a value, e.g. --param bits=4"),
        (("hardest_cases", "--format", "parquet"), "name a file, e.g. --output rows.parquet"),
        (("FROM leaderboard", "--output", "absent/rows.csv"), "There is no folder absent"),
        (("DROP TABLE prediction",), "Queries only read: this DROP statement"),
    ],
)  # fmt: skip
def test_a_mistake_and_a_query_past_its_bounds_are_a_sentence_that_names_the_option(args, sentence, pair):
    before = pair.warehouse.read_bytes()
    printed = refusal(pair.ask("sql", *args))
    assert re.search(sentence, printed) and "\x1b" not in printed
    assert pair.warehouse.read_bytes() == before


def test_a_table_shows_the_first_thousand_rows_and_csv_and_json_all_of_them_unless_fewer_are_asked_for(six):
    result = six.ask("sql", "FROM range(300000)")
    text = result.stdout
    assert text.count("│") == 2 * 1000 and " 999 " in text and " 1000 " not in text
    end = "There are more rows than these 1,000; to see more: --rows 10000, or all of them: --format csv"
    assert result.stderr == f"{end}\n"
    assert out(six, "FROM range(1001)", "--rows", "1001").count("│") == 2 * 1001
    assert len(out(six, "FROM range(30000)", "--format", "csv").splitlines()) == 30001
    assert len(as_json(six, "FROM range(3000)")) == 3000
    result = six.ask("sql", "FROM range(30000)", "--format", "json", "--rows", "2")
    assert json.loads(result.stdout) == [{"range": 0}, {"range": 1}] and "--rows 20, or all of" in result.stderr


def test_ctrl_c_ends_a_query_with_a_sentence(six):
    process = six.start("sql", SLOW, "--format", "csv", "--memory", "100GB", "--seconds", "300")
    wait_until(lambda: is_open(six.warehouse, process.pid))
    process.send_signal(signal.SIGINT)
    result = six.finish(process)
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == "triage: Interrupted. The query was stopped.\n"


def is_open(path, pid: int) -> bool:
    """Whether a process has a file open."""
    return str(path) in [file.path for file in psutil.Process(pid).open_files()]


def test_a_terminal_never_gets_what_it_would_obey(six):
    assert ESCAPED in out(six, ESCAPES) and "\x1b" not in out(six, ESCAPES)
    assert ESCAPED in out(six, ESCAPES, COLUMNS="10"), "records, too"
    output = out(six, ESCAPES, "--format", "json")
    assert set(output) & {"\x1b", "\x9b", "\x07", "\x7f", "\u202e"} == set()
    assert list(json.loads(output)[0].values()) == ["a\x1b[31mred\x9b\x07\x7f\u202e"], "JSON escapes and loses nothing"


def test_csv_holds_the_values_as_they_are_in_a_file_and_escaped_on_a_terminal(six):
    assert "a\x1b[31mred\x9b" in out(six, ESCAPES, "--format", "csv")
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "flows.cli", "sql", ESCAPES, "--format", "csv"]
    subprocess.run(command, stdout=terminal, stderr=terminal, env=six.environment, cwd=six.folder, check=True)
    output = os.read(controller, 10_000).decode()  # before the terminal is closed: a Mac drops what nobody has read
    os.close(terminal)
    os.close(controller)
    assert ESCAPED in output and "\x1b" not in output


# --- Named questions, parameters and files --------------------------------------------------------


def test_the_list_has_every_question_with_its_parameters(pair):
    text = out(pair, "--list")
    for named in cookbook():
        assert f"\n{named.name}\n  {named.explanation}\n" in f"\n{text}"
    assert "--param precision=4bit  precision of the models" in text and text.endswith("--param key=value\n")


def test_a_named_question_and_a_typed_one_take_parameters(pair):
    result = pair.ask("sql", "missed-by-every-model", "--param", "precision=8bit", "--format", "json")
    assert (result.returncode, json.loads(result.stdout)) == (0, [])
    sentence = "0 rows: each emergency is sent to ED by some model of this precision, be it an untuned one.\n"
    assert result.stderr == sentence
    typed = out(
        pair, "SELECT evaluation_id FROM leaderboard WHERE bits = $bits", "--param", "bits=8", "--format", "csv"
    )
    assert typed == "evaluation_id\ne8\n"


def test_a_file_has_the_format_of_its_name(pair):
    sql = "SELECT evaluation_id, cases, NULL::INTEGER AS nothing FROM evaluation ORDER BY 1"
    for name in ("rows.csv", "rows.json", "rows.parquet", "rows.txt"):
        result = pair.ask("sql", sql, "--output", name)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", f"2 rows in {name}\n")

    with (pair.folder / "rows.csv").open(newline="") as file:
        assert [row["cases"] for row in csv.DictReader(file)] == ["5", "5"]
    rows = [{"evaluation_id": id, "cases": 5, "nothing": None} for id in ("e4", "e8")]
    assert json.loads((pair.folder / "rows.json").read_text()) == rows
    assert pq.read_table(pair.folder / "rows.parquet").to_pylist() == rows
    assert "│ e4" in (pair.folder / "rows.txt").read_text()
    assert [path.name for path in pair.folder.iterdir() if path.name.startswith(".rows")] == []

    result = pair.ask("sql", "FROM range(50000)", "--output", "few.parquet", "--rows", "3")
    assert re.match("3 rows in few.parquet\nThere are more rows than these 3; to see more: --rows 30,", result.stderr)
    assert pq.read_table(pair.folder / "few.parquet").column("range").to_pylist() == [0, 1, 2]

    sql = "SELECT 12345678901234567.89 AS amount, sum(range) AS total FROM range(4)"
    unbounded = pair.ask("sql", sql, "--output", "digits.parquet", "--seconds", "inf")
    assert (unbounded.returncode, unbounded.stderr) == (0, "1 row in digits.parquet\n")
    table = pq.read_table(pair.folder / "digits.parquet")
    assert table.to_pylist() == [{"amount": Decimal("12345678901234567.89"), "total": 6}]


def test_a_file_that_is_there_stays_and_a_query_that_fails_leaves_none(pair):
    (pair.folder / "mine.csv").write_text("mine")
    (pair.folder / "dangling.csv").symlink_to("nowhere.csv")
    for name in ("mine.csv", "dangling.csv"):
        assert "is there already and stays" in refusal(pair.ask("sql", "FROM evaluation", "--output", name))
    assert (pair.folder / "mine.csv").read_text() == "mine" and not (pair.folder / "nowhere.csv").exists()
    (pair.folder / "dangling.csv").unlink()

    before = sorted(pair.folder.iterdir())
    failed = pair.ask("sql", "SELECT error('no') FROM range(3)", "--output", "failed.parquet")
    assert failed.returncode == 2 and sorted(pair.folder.iterdir()) == before
    took = pair.ask("sql", "SELECT TIMESTAMP '2026-01-02' - TIMESTAMP '2026-01-01' AS took", "--output", "took.parquet")
    assert "cast it, or choose --format csv" in refusal(took) and sorted(pair.folder.iterdir()) == before


def test_a_file_is_whole_from_the_first_moment_and_replaces_none(tmp_path):
    path = tmp_path / "rows.csv"
    with _new_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"

    path.unlink()
    with pytest.raises(BadInput, match="is there already"), _new_file(path):
        path.write_text("theirs")
    assert path.read_text() == "theirs" and list(tmp_path.iterdir()) == [path]


def test_a_query_loads_what_waits_and_answers_beside_a_notebook(pair, tmp_path):
    waiting = pair.copy(tmp_path / "place")
    waiting.warehouse.unlink()
    landing = waiting.home / "landing"
    (landing / "e8").rename(waiting.folder / "e8")
    load_all(landing, waiting.warehouse)
    (waiting.folder / "e8").rename(landing / "e8")
    (landing / WAITING).touch()
    sql = ("sql", "SELECT evaluation_id FROM evaluation ORDER BY 1", "--format", "csv")
    with held_warehouse("reading", waiting.warehouse):
        result = waiting.ask(*sql)
    assert (result.returncode, result.stdout) == (0, "evaluation_id\ne4\n") and "Loading waits" in result.stderr
    result = waiting.ask(*sql)
    assert (result.stdout, result.stderr) == ("evaluation_id\ne4\ne8\n", "")
