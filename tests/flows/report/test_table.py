"""Figures in cells, and tables on a narrow terminal: what all rows share is said once, rows without a figure are a
sentence, none is lost."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from flows.report.figures import ed_recall_figure, figure, percent
from flows.report.table import ReportTable, condensed, print_lines, print_narrow, print_table


def printed(table: ReportTable, width: int = 80, most: int = 100, show=None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    show(console, table) if show else print_narrow(console, table, most)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("numbers", "options", "text"),
    [
        ((0.9, 0.85, 0.93), {}, "0.900 [0.850, 0.930]"),
        ((0.94974, 0.9, 0.97), {}, "0.9497 [0.900, 0.970]"),
        ((0.97, 0.9503, 0.98), {}, "0.970 [0.9503, 0.980]"),
        ((0.948, 0.91, 0.97), {"digits": 2}, "0.948 [0.91, 0.97]"),
        ((0.95, None, None), {"digits": 2}, "0.95"),
        ((0.94974, None, None), {}, "0.9497"),
        ((None, None, None), {}, "n/a"),
        ((math.nan, 0.9, 0.97), {}, "n/a"),
    ],
)
def test_ed_recall_stays_on_its_side_of_the_gate(numbers, options, text):
    assert ed_recall_figure(*numbers, **options) == text


@pytest.mark.parametrize(
    ("numbers", "options", "text"),
    [
        ((0.94974, 0.9, 0.97), {}, "0.950 [0.900, 0.970]"),
        ((0.94974, 0.9, 0.97), {"below": True}, "0.950\n[0.900, 0.970]"),
        ((-0.5, -1.0, 0.25), {"digits": 2, "sign": True, "below": True}, "-0.50\n[-1.00, +0.25]"),
        ((0.5, None, 1.0), {}, "0.500"),
        ((3,), {"digits": 0}, "3"),
        ((math.nan, 0.9, 0.97), {}, "n/a"),
        ((None,), {}, "n/a"),
    ],
)
def test_a_figure_without_a_gate_is_rounded(numbers, options, text):
    assert figure(*numbers, **options) == text


def test_shares_keep_three_digits():
    assert [percent(share) for share in (0.27, 0.125, 0.005, 0.025, 1.0)] == ["27%", "12.5%", "0.5%", "2.5%", "100%"]


def test_a_short_table_that_is_too_wide_is_turned_on_its_side_without_an_empty_header():
    records = [{f"column {i}": "x" * 20 for i in range(6)}] * 2
    table = ReportTable.of("A title that is wider than its table" * 2, records)
    lines = printed(table, 75, show=print_table)
    rows = [line for line in lines if "x" in line or "column" in line]
    assert lines[0] == table.title and "┃" not in "".join(lines)
    assert [line.count("x" * 20) for line in rows] == [2] * 6


@pytest.mark.parametrize(("width", "columns"), [(10, 2), (19, 2), (20, 3), (27, 3), (28, 4), (100, 4)])
def test_a_table_has_the_first_columns_that_fit(width, columns):
    table = ReportTable("A title", ("name", "b", "c", "d"), (("x" * 10, "1" * 3, "2" * 5, "3" * 7),))
    fitting = table.fitting(width, 2)
    assert (fitting.title, fitting.columns) == ("A title", table.columns[:columns])
    if width > 14:  # what the two columns need that always stay
        assert len(printed(fitting, width, show=print_lines)) == 3, "title, names and one row"


def test_what_every_row_says_is_one_sentence():
    ece = "n/a: 24 cases, an ECE needs 300"
    records = [{"experiment": f"e{i}\n24 cases", "Brier": f"0.{i}", "ECE": ece, "verdict": ""} for i in range(3)]
    short, sentences = condensed(ReportTable.of("", records))
    assert short.columns == ("experiment", "Brier") and short["experiment"] == ["e0", "e1", "e2"]
    assert sentences == ["In every row: 24 cases; ECE n/a: 24 cases, an ECE needs 300."]
    one_row = ReportTable.of("", records[:1])
    assert condensed(one_row) == (one_row, [])


def test_rows_without_a_figure_are_named_in_a_sentence_with_their_reason():
    without = {"experiment": "none\n5 cases", "load": "not available: dropout 0", "AURC": "n/a"}
    records = [without | {"experiment": f"none{i}"} for i in range(6)]
    records += [{"experiment": "one", "load": "0.1", "AURC": "n/a"}, {"experiment": "two", "load": "0.2", "AURC": "0"}]
    short, sentences = condensed(ReportTable.of("", records))
    assert short["experiment"] == ["one", "two"]
    assert sentences == ["Not available: none0, none1, none2, none3 and 2 more (dropout 0)."]


def test_a_line_without_a_figure_goes_and_the_others_of_its_row_stay_level():
    rules = "argmax *\ntarget recall\nmin cost"
    recall = "0.5\nn/a: no scores\n0.7"
    records = [{"experiment": name, "rule": rules, "recall": recall, "F2": "0.6\nn/a\n0.8"} for name in ("a", "b")]
    records.append({"experiment": "c", "rule": "argmax", "recall": "1\n2", "F2": ""})
    short, sentences = condensed(ReportTable.of("", records))
    assert short.rows[0] == ("a", "argmax *\nmin cost", "0.5\n0.7", "0.6\n0.8")
    assert short.rows[2][2] == "1\n2"
    assert sentences == ["Not available, target recall: a, b (no scores)."]


def test_a_wide_table_goes_on_with_the_first_column_again_and_loses_nothing():
    records = [{f"column {i}": f"{row}{'x' * 18}{i}" for i in range(6)} for row in range(3)]
    table = ReportTable.of("A title", records)
    lines = printed(table)
    assert max(map(len, lines)) <= 80 and lines.count("A title") == 1
    assert all(sum(text in line for line in lines) >= 1 for row in table.rows for text in row)
    assert sum("column 0" in line for line in lines) == 3, "two of five columns beside the first one"


def test_a_name_stands_above_the_lines_of_its_row_and_labels_are_in_every_part():
    records = [
        {"experiment": name, "rule": "argmax\nmin cost"}
        | {f"figure {i}": f"{i}{'x' * 30}\n{i}{name[0] * 30}" for i in range(3)}
        for name in ("a" * 40, "b")
    ]
    lines = printed(ReportTable.of("", records))
    assert lines.count("b") == 2 and sum(line.startswith("  min cost ") for line in lines) == 4
    assert max(map(len, lines)) <= 80


def test_a_long_list_is_cut_with_the_query_that_has_all_of_it():
    table = ReportTable.of("", [{"experiment": f"e{i}", "figure": str(i)} for i in range(25)], "confusion")
    lines = printed(table, most=20)
    assert lines[-1] == "and 5 more rows: triage sql confusion"
    assert sum(line.startswith("e") for line in lines) == 1 + 20
    assert printed(table, most=24)[-1] == "and 1 more row: triage sql confusion"
    assert not printed(table)[-1].startswith("and ")
