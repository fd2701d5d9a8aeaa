"""`triage sql`: what a table, a record, CSV and JSON make of the same rows."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.place import Place, one_sentence, with_empty_warehouse
from tests.warehouse.rows import evaluation, training
from warehouse.landing import write_landing
from warehouse.load import load_all

WIDE = "FROM leaderboard"
THIRD = "SELECT training_id, 1.0::DOUBLE / 3 AS third, 1234567.8::DOUBLE AS large, NULL AS nothing FROM experiment"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A warehouse of six experiments."""
    folder = tmp_path_factory.mktemp("six")
    place = Place(folder / "place")
    for i in range(6):
        write_landing(folder / "landing", f"t{i}", "training", training(f"t{i}", cell_id=f"cell{i}"))
        write_landing(folder / "landing", f"e{i}", "evaluation", evaluation(f"e{i}", f"t{i}"))

    place.home.mkdir(parents=True)
    load_all(folder / "landing", place.warehouse)
    return place


def out(place: Place, *args: str, **environment: str) -> str:
    result = place.ask("sql", *args, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


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


@pytest.mark.parametrize("form", ["json", "file"])
def test_json_refuses_columns_of_one_name_of_which_it_would_keep_the_last(form, place, tmp_path):
    query = "SELECT 1 AS a, 2 AS b, 3 AS a, 4 AS b"
    output = tmp_path / "rows.json"
    result = place.ask("sql", query, *(("--format", "json") if form == "json" else ("--output", str(output))))
    assert (result.returncode, result.stdout) == (2, "") and one_sentence(result.stderr)
    assert "several columns are named a, b; name them with AS" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert out(place, query, "--format", "csv") == "a,b,a,b\n1,2,3,4\n"


def test_json_has_all_digits_of_a_decimal(place):
    long = "12345678901234567890.123456789"
    query = f"SELECT 0.1 AS short, 1.50 AS zero, {long} AS long, [{long}] AS list, 2::DECIMAL(38, 0) AS whole"
    (row,) = json.loads(out(place, query, "--format", "json"))
    assert row == {"short": 0.1, "zero": 1.5, "long": long, "list": [long], "whole": 2}


ESCAPES = "SELECT 'a' || chr(27) || '[31mred' || chr(155) || chr(7) || chr(127) || chr(8238) AS \"x\x1b[1m\""
ESCAPED = r"a\x1b[31mred\x9b\x07\x7f\u202e"
SLOW = (
    "SELECT list_sum(list_transform(range(1000000000), lambda x: x + 1))"  # one call, which DuckDB does not interrupt
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return with_empty_warehouse(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize(
    ("query", "options", "sentence"),
    [
        ("FROM range(100000000)", ("--csv", "--memory", "100MB"), "allow more with --memory"),
        ("FROM range(100000000) ORDER BY hash(range)", ("--memory", "100MB"), "allow more with --memory"),
        ("SELECT repeat('x', 4000000000)", ("--memory", "100MB"), "allow more with --memory"),
        ("FROM range(100000000000)", ("--csv", "--seconds", "0.5"), "stopped after 0.5 seconds; allow more with --seconds"),
        (SLOW, ("--memory", "100GB", "--seconds", "0.5"), "stopped after 0.5 seconds; allow more with --seconds"),
        ("SELECT 1", ("--memory", "1MB"), "at least 50 MB of memory.*--memory"),
        ("SELECT 1", ("--memory", "much"), "--memory: 'much' is not a number of bytes such as 4GB"),
        ("SELECT error(chr(27) || '[31m')", (), "failed: .x1b.31m"),
    ],
)  # fmt: skip
def test_a_query_past_its_bounds_ends_with_a_sentence_that_names_the_option(query, options, sentence, small):
    result = small.ask("sql", query, *options)
    assert (result.returncode, result.stdout) == (2, "") and one_sentence(result.stderr), result.stderr
    assert re.search(sentence, result.stderr) and "\x1b" not in result.stderr


def test_a_table_shows_the_first_thousand_rows_and_says_how_to_see_more(small):
    text = out(small, "FROM range(300000)")
    assert text.count("│") == 2 * 1000 and " 999 " in text and " 1000 " not in text
    end = "There are more rows than these 1,000; to see more: --rows 10000, or all of them: --format csv"
    assert text.splitlines()[-1] == end
    assert out(small, "FROM range(1000)").count("│") == 2 * 1000 and "more rows" not in out(small, "FROM range(1000)")
    assert out(small, "FROM range(1500)", "--rows", "1500").count("│") == 2 * 1500


def test_csv_and_json_give_all_rows_unless_fewer_are_asked_for(small):
    assert len(out(small, "FROM range(30000)", "--format", "csv").splitlines()) == 30001
    assert len(json.loads(out(small, "FROM range(3000)", "--format", "json"))) == 3000
    result = small.ask("sql", "FROM range(30000)", "--format", "json", "--rows", "2")
    assert json.loads(result.stdout) == [{"range": 0}, {"range": 1}]
    assert result.stderr == "There are more rows than these 2; to see more: --rows 20\n"


@pytest.mark.parametrize("query", ["FROM range(100000000000)", SLOW])
def test_ctrl_c_ends_a_query_with_a_sentence(query, small):
    process = small.start("sql", query, "--csv", "--memory", "100GB", "--seconds", "300")
    deadline = time.monotonic() + 60
    while not is_open(small.warehouse, process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)

    process.send_signal(signal.SIGINT)
    result = small.finish(process)
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == "triage: Interrupted. The query was stopped.\n"


def is_open(path, pid: int) -> bool:
    """Whether a process has a file open."""
    return str(path) in [file.path for file in psutil.Process(pid).open_files()]


def test_a_terminal_never_gets_what_it_would_obey(small):
    assert ESCAPED in out(small, ESCAPES) and "\x1b" not in out(small, ESCAPES)
    assert ESCAPED in out(small, ESCAPES, COLUMNS="10"), "records, too"
    output = out(small, ESCAPES, "--format", "json")
    assert set(output) & {"\x1b", "\x9b", "\x07", "\x7f", "\u202e"} == set()
    assert list(json.loads(output)[0].values()) == ["a\x1b[31mred\x9b\x07\x7f\u202e"], "JSON escapes and loses nothing"


def test_csv_holds_the_values_as_they_are_in_a_file_and_escaped_on_a_terminal(small):
    assert "a\x1b[31mred\x9b" in out(small, ESCAPES, "--format", "csv")
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "flows.cli", "sql", ESCAPES, "--format", "csv"]
    subprocess.run(command, stdout=terminal, stderr=terminal, env=small.environment, cwd=small.folder, check=True)
    output = os.read(controller, 10_000).decode()  # before the terminal is closed: a Mac drops what nobody has read
    os.close(terminal)
    os.close(controller)
    assert ESCAPED in output and "\x1b" not in output
