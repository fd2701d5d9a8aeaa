"""Figures in cells, and tables on a terminal and as Markdown: reasons are said once, nothing is lost."""

from __future__ import annotations

import math

import pytest

from flows.report.figures import ED_RECALL, cells, figure, gate_figure, in_percent
from flows.report.rows import Row
from flows.report.table import Table, as_markdown, print_table
from tests.place import shown


def printed(table: Table, width: int = 80, is_terminal: bool = True, **options) -> list[str]:
    return shown(print_table, table, width=width, is_terminal=is_terminal, **options).splitlines()


@pytest.mark.parametrize(
    ("numbers", "options", "text"),
    [
        ((0.9, 0.85, 0.93), {}, "0.900 [0.850, 0.930]"),
        ((0.94974, 0.9, 0.97), {}, "0.9497 [0.900, 0.970]"),
        ((0.97, 0.9503, 0.98), {}, "0.970 [0.9503, 0.980]"),
        ((0.948, 0.91, 0.97), {"digits": 2}, "0.948 [0.91, 0.97]"),
        ((0.95, None, None), {"digits": 2}, "0.95"),
        ((None, None, None), {}, "n/a"),
        ((math.nan, 0.9, 0.97), {}, "n/a"),
    ],
)
def test_ed_recall_stays_on_its_side_of_the_gate_and_a_figure_without_one_is_rounded(numbers, options, text):
    assert figure(0.94974, 0.9, 0.97) == "0.950 [0.900, 0.970]"
    assert figure(-0.5, -1.0, 0.25, digits=2, sign=True) == "-0.50 [-1.00, +0.25]"
    assert figure(*numbers, **options, gate=ED_RECALL) == text
    row = Row(**dict(zip(("ed_recall", "ed_recall_low", "ed_recall_high"), numbers, strict=True)))
    assert cells(row, "ed_recall", **options)["ED recall"] == text


@pytest.mark.parametrize(
    ("value", "threshold", "text"),
    [
        (1077 / 1134, 0.95, "0.9497"),
        (57 / 1134, 0.05, "0.0503"),
        (0.94999996, 0.95, "0.94999996"),
        (0.9496, 0.9497, "0.9496"),  # 0.950 would be beyond the threshold
        (0.9, 0.95, "0.900"),
        (1 - 0.95, 0.05, "0.050"),
        (1.0, 0.95, "1.000"),
        (math.nan, 0.95, "n/a"),
    ],
)
def test_a_figure_has_the_digits_that_tell_it_from_the_threshold(value, threshold, text):
    assert gate_figure(value, threshold) == text


def test_a_row_of_the_first_table_is_short_where_the_terminal_is_narrow():
    row = Row(ed_recall=0.94974, ed_recall_low=0.933, ed_recall_high=0.964)
    assert (in_percent(row, "ed_recall", 0), in_percent(row, "ed_recall", 1)) == ("94.97 [93,96]", "94.97 [93.3, 96.4]")
    difference = Row(accuracy_diff=-0.01, accuracy_low=-0.02, accuracy_high=0.0)
    assert cells(difference, "accuracy_diff") == {"accuracy": "-0.010 [-0.020, +0.000]"}


def test_a_reason_is_a_note_once():
    why = "24 cases, an ECE needs 300"
    records = [{"experiment": f"e{i}", "state": f"NOT AVAILABLE: {why}", "ECE": f"n/a: {why}"} for i in range(3)]
    table = Table("", records).with_reasons_once()
    assert table.notes == (f"n/a (state, ECE): {why}",)
    assert table["state"] == table["ECE"] == ["n/a"] * 3 and table["experiment"] == ["e0", "e1", "e2"]


def test_a_wide_table_goes_on_with_the_first_column_again_and_loses_nothing():
    records = [{f"column {i}": f"{row}{'x' * 18}{i}" for i in range(6)} for row in range(3)]
    table = Table("A title", records)
    lines = printed(table)
    assert max(map(len, lines)) <= 80 and lines.count("A title") == 1
    assert all(sum(text in line for line in lines) >= 1 for record in records for text in record.values())
    assert sum("column 0" in line for line in lines) == 3, "two of five columns beside the first one"
    assert sum("column 0" in line for line in printed(table, whole=True)) <= 1


@pytest.mark.parametrize(
    ("is_terminal", "rows", "last"), [(True, 20, "and 5 more rows: triage sql confusion"), (False, 25, "e24")]
)
def test_a_long_list_is_cut_on_a_terminal_alone_with_the_query_that_has_all_of_it(is_terminal, rows, last):
    table = Table("", [{"experiment": f"e{i}", "figure": str(i)} for i in range(25)], "confusion")
    lines = printed(table, is_terminal=is_terminal, most=20)
    assert lines[-1].startswith(last) and sum(line[:1] == "e" and line[1:2].isdigit() for line in lines) == rows


def test_markdown_has_every_row_on_a_line_and_says_where_there_is_none():
    table = Table("A title", [{"two\nlines": "a\nb", "c": "n/a: no case"}], notes=("one note",))
    assert as_markdown(table).split("\n\n") == [
        "A title; one note; n/a (c): no case.", "| two<br>lines | c |\n|---|---|\n| a<br>b | n/a |",
    ]  # fmt: skip
    assert as_markdown(Table("Nothing", [])) == "Nothing.\n\nNo rows yet."
