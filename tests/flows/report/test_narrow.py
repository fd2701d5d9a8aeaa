"""Tables on a narrow terminal: what all rows share is said once, rows without a figure are a sentence, none is lost."""

from __future__ import annotations

import io

from rich.console import Console

from flows.report.table import ReportTable, condensed, print_narrow

NOTE = "n/a: 24 cases, an ECE needs 300"


def printed(table: ReportTable, width: int = 80, most: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_narrow(console, table, most)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_what_every_row_says_is_one_sentence():
    records = [{"experiment": f"e{i}\n24 cases", "Brier": f"0.{i}", "ECE": NOTE, "verdict": ""} for i in range(3)]
    short = condensed(ReportTable.of("", records))
    assert short.table.columns == ("experiment", "Brier") and short.table["experiment"] == ["e0", "e1", "e2"]
    assert short.sentences == ("In every row: 24 cases; ECE n/a: 24 cases, an ECE needs 300.",)


def test_one_row_is_left_as_it_is():
    table = ReportTable.of("", [{"experiment": "e\n24 cases", "Brier": "0.1", "ECE": NOTE}])
    assert condensed(table).table == table and condensed(table).sentences == ()


def test_rows_without_a_figure_are_named_in_a_sentence_with_their_reason():
    without = {"experiment": "none\n5 cases", "load": "not available: dropout 0", "AURC": "n/a"}
    records = [without | {"experiment": f"none{i}"} for i in range(6)]
    records += [{"experiment": "one", "load": "0.1", "AURC": "n/a"}, {"experiment": "two", "load": "0.2", "AURC": "0"}]
    short = condensed(ReportTable.of("", records))
    assert short.table["experiment"] == ["one", "two"]
    assert short.sentences == ("Not available: none0, none1, none2, none3 and 2 more (dropout 0).",)


def test_a_line_without_a_figure_goes_and_the_others_of_its_row_stay_level():
    rules = "argmax *\ntarget recall\nmin cost"
    recall = "0.5\nn/a: no scores\n0.7"
    records = [{"experiment": name, "rule": rules, "recall": recall, "F2": "0.6\nn/a\n0.8"} for name in ("a", "b")]
    short = condensed(ReportTable.of("", [*records, {"experiment": "c", "rule": "argmax", "recall": "1\n2", "F2": ""}]))
    assert short.table.rows[0] == ("a", "argmax *\nmin cost", "0.5\n0.7", "0.6\n0.8")
    assert short.table.rows[2][2] == "1\n2"
    assert short.sentences == ("Not available, target recall: a, b (no scores).",)


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
    assert (
        lines[-1] == "and 5 more rows: triage sql confusion" and sum(line.startswith("e") for line in lines) == 1 + 20
    )
    assert printed(table, most=24)[-1] == "and 1 more row: triage sql confusion"
    assert not printed(table)[-1].startswith("and ")
