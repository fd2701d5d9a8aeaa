"""`triage compare` on a terminal: a line an experiment, the columns and rows that it has room for, and what it leaves out."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from flows.cli.compare import print_comparison
from flows.report.answer import answer
from flows.report.leaderboard import overview
from flows.report.pairs import pair_lines, pair_rows
from flows.report.table import ReportTable, print_lines
from flows.report.typed_rows import leaderboard_rows
from tests.warehouse.rows import FIVE, evaluation, training
from warehouse.landing import write_landing
from warehouse.load import load_all

SEEDS = (1, 2, 3)
MISSES = [("ED", "GP", "GP"), *FIVE[1:]]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Three pairs, of which the second loses an emergency at 4 bits."""
    folder = tmp_path_factory.mktemp("width")
    for seed in SEEDS:
        for bits in (4, 8):
            cell = f"smollm2-135m-{bits}bit-balanced_safe-s{seed}"
            values = {"cell_id": cell, "seed": seed, "recipe": "balanced_safe", "base_model": "smollm2-135m"}
            cases = MISSES if (bits, seed) == (4, 2) else FIVE
            write_landing(folder / "landing", f"t-{cell}", "training", training(f"t-{cell}", bits, **values))
            write_landing(folder / "landing", f"e-{cell}", "evaluation", evaluation(f"e-{cell}", f"t-{cell}", cases))

    load_all(folder / "landing", folder / "triage.duckdb")
    return folder / "triage.duckdb"


@pytest.fixture(autouse=True)
def warehouse(database, own_home, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(database))


def printed(width: int, is_terminal: bool = True, **options) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=None)
    print_comparison(console, sections=(), **options)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def experiments(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("smollm2-135m-")]


def test_80_columns_hold_a_line_an_experiment_and_a_line_a_pair_and_figure():
    lines = printed(80)
    assert max(map(len, lines)) <= 80 and len(experiments(lines)) == 2 * len(SEEDS)
    assert all(line.split()[-1] in ("unsafe", "provisional") for line in experiments(lines))
    pairs = [line for line in lines if line.startswith("smollm2-135m balanced_safe s")]
    assert len(pairs) == 2 * len(SEEDS) and all(line.endswith("cannot conclude") for line in pairs)


def test_a_wider_terminal_shows_more_and_a_narrow_one_says_what_it_leaves_out():
    narrow, wide = (" ".join(printed(width)) for width in (80, 160))
    assert (
        "A wider terminal, or --all, has room for ED F2, macro-F1, MB, ED precision, test loss, trained in." in narrow
    )
    assert "A wider terminal" not in wide and "macro-F1" in wide and "because" in wide and "because" not in narrow
    assert experiments(printed(160))[0].count("0.") > experiments(printed(80))[0].count("0.")


def test_a_long_study_is_cut_on_a_terminal_alone(monkeypatch):
    monkeypatch.setattr("flows.cli.compare.MOST_MODELS", 2)
    monkeypatch.setattr("flows.cli.compare.MOST_PAIRS", 1)
    lines = printed(80)
    assert len(experiments(lines)) == 2 and "and 4 more models" in lines
    (recall,) = [number for number, line in enumerate(lines) if line.startswith("ED recall, 1 of 3 pairs, ")]
    assert lines[recall + 2].startswith("smollm2-135m balanced_safe s2"), "the one that loses an emergency"

    lines = printed(140, is_terminal=False)
    assert len(experiments(lines)) == 6 and "and 4 more models" not in lines
    assert [line for line in lines if line.startswith("ED recall, all pairs, ")]


def test_a_moved_adapter_is_no_further_trained_model():
    board = leaderboard_rows()
    moved = replace(board[0], recipe_kind="moved_adapter", evaluation_id="moved")
    title = overview([*board, moved], 10).title
    assert "of 6 trained models pass" in " ".join(answer([*board, moved], [], []))
    assert title.startswith("6 trained models and 1 moved adapter, best first"), title


def test_figures_at_another_prevalence_stand_first():
    table = overview(leaderboard_rows(), 10, 0.1)
    assert "ED precision and F2 are restated at 10% ED." in table.title
    assert table.names[:5] == ["experiment", "ED recall", "ED F2", "ED precision", "gates"]
    assert set(table.columns) == set(overview(leaderboard_rows(), 10).columns)
    assert [line for line in printed(80, prevalence=0.1) if line.split()[:2] == ["experiment", "ED"]]


def test_differences_are_points_and_the_largest_loss_stands_first():
    _, recall = pair_lines(pair_rows(), 10)
    points = [float(text.split()[0]) for text in recall["4 minus 8"]]
    assert points == sorted(points) and points[0] < 0 and recall["pair"][0].endswith("s2")
    first = min(pair_rows(), key=lambda pair: pair.ed_recall_diff)
    assert points[0] == round(100 * first.ed_recall_diff, 1)


@pytest.mark.parametrize(("width", "columns"), [(10, 2), (19, 2), (20, 3), (27, 3), (28, 4), (100, 4)])
def test_a_table_has_the_first_columns_that_fit(width, columns):
    table = ReportTable("A title", ("name", "b", "c", "d"), (("x" * 10, "1" * 3, "2" * 5, "3" * 7),))
    fitting = table.fitting(width, 2)
    assert (fitting.title, fitting.columns) == ("A title", table.columns[:columns])
    if width > 14:  # what the two columns need that always stay
        console = Console(file=io.StringIO(), width=width)
        print_lines(console, fitting)
        assert console.file.getvalue().count("\n") == 3, "title, names and one row"
