"""`triage compare`: the answer and two tables by default, parts of the evidence by name, all of it with --all; on a
terminal a line an experiment, the columns and rows that it has room for, and what it leaves out."""

import io

import pytest
from rich.console import Console

from flows.cli.compare import print_study
from flows.report.answer import answer
from flows.report.leaderboard import overview
from flows.report.pairs import pair_lines, pair_rows
from flows.report.typed_rows import leaderboard_rows
from tests.place import Place, changed
from tests.warehouse.rows import FIVE, land_arm, land_pair
from warehouse.load import load_all

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What the command prints by default and with options, on a pair of experiments and a baseline."""
    folder = tmp_path_factory.mktemp("compare")
    place = Place(folder / "place")
    place.home.mkdir(parents=True)
    land_pair(folder / "landing")
    values = {"cell_id": "always_ed", "base_model": "none", "recipe": "always_ed", "recipe_kind": "baseline"}
    land_arm(folder / "landing", "b", None, [(case[0], "ED", "ED") for case in FIVE], **values)
    load_all(folder / "landing", place.warehouse)
    return {line: place.ask("compare", *line.split()) for line in ("", "--all", "--gates --flips", "--prevalence 3")}


def test_the_default_is_the_answer_and_two_tables_with_a_line_an_experiment_and_baselines_at_the_foot(outputs):
    text = outputs[""].stdout
    lines = text.splitlines()
    assert lines[0].startswith("4 bits against 8 bits: nothing can be said, since no linear baseline says ")
    assert lines[1].startswith("Without a verdict (accuracy and ED recall): smol r1, 1 seed ")
    assert lines[3].startswith("4 bits take x0.50 of the bytes of 8. Gates: ")
    assert text.count("4 bits against 8 bits, 1 pair.") == 1
    title = "by their own rule first, then baselines, on 5 test cases, 2 of them emergencies"
    rest = text.partition(title)[2]
    assert text.count("2 trained models, those that pass the gates ") == 1
    assert "Gates of the primary rule" not in text and "triage compare --all" in lines[-2]
    assert outputs[""].stderr == ""

    assert [line.split()[0] for line in lines if line.startswith("smol-")] == ["smol-4bit-r1-s42", "smol-8bit-r1-s42"]
    assert [line.split()[2] for line in lines if line.startswith("smol r1 ")] == ["1", "s42"]
    assert sum("largest loss of accuracy at 4 bits first" in line for line in lines) == 1
    board = rest.partition("4 bits against 8 bits")[0]
    assert 0 < max(board.index("smol-4bit"), board.index("smol-8bit")) < board.index("always-ED")


def test_tables_are_asked_for_by_name_or_all_with_every_column_that_a_narrow_terminal_leaves_out(outputs):
    for args in ("", "--gates --flips", "--all"):
        text = outputs[args].stdout
        assert "smol-4bit-r1-s42" in text and "smol 4bit\n" not in text, "a name as other commands take it"

    text = outputs["--gates --flips"].stdout
    assert "Gates of the primary rule" in text and "for 2 models" in text
    assert "Confusion matrices" not in text and "Decision rules" not in text

    text = outputs["--all"].stdout
    assert "Gates of the primary rule" in text and text.count("\n") > 2 * outputs[""].stdout.count("\n")
    assert text.count("Experiments on the test set, those first") == text.count("4 bits (first line)") == 1
    columns = [
        *("accuracy", "ED recall", "over-triage", "gates", "ED F2", "ED precision", "macro-F1", "stored MB"),
        *("test loss", "trained in", "difference", "ED difference", "memory, time", "seeds"),
    ]
    assert [name for name in columns if name not in text] == []


def test_a_prevalence_that_is_no_share_is_a_sentence(outputs):
    result = outputs["--prevalence 3"]
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "triage: --prevalence must be between 0 and 1, e.g. 0.1 (got 3).\n"


# --- Widths --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Three pairs, of which the second loses an emergency at 4 bits."""
    folder = tmp_path_factory.mktemp("width")
    for seed, bits in ((seed, bits) for seed in SEEDS for bits in (4, 8)):
        cell = f"smollm2-135m-{bits}bit-balanced_safe-s{seed}"
        values = {"cell_id": cell, "seed": seed, "recipe": "balanced_safe", "base_model": "smollm2-135m"}
        cases = [("ED", "GP", "GP"), *FIVE[1:]] if (bits, seed) == (4, 2) else FIVE
        land_arm(folder / "landing", cell, bits, cases, **values)

    load_all(folder / "landing", folder / "triage.duckdb")
    return folder / "triage.duckdb"


@pytest.fixture
def pairs(database, own_home, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(database))


def printed(width: int, is_terminal: bool = True, **options) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=None)
    print_study(console, sections=(), **options)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def experiments(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("smollm2-135m-")]


def test_80_columns_hold_a_line_an_experiment_and_a_pair_and_say_what_a_wider_terminal_shows(pairs):
    lines = printed(80)
    assert max(map(len, lines)) <= 80 and len(experiments(lines)) == 2 * len(SEEDS)
    assert all(line.split()[-1] in ("unsafe", "provisional") for line in experiments(lines))
    of_pairs = [line for line in lines if line.startswith("smollm2-135m balanced_safe s")]
    assert len(of_pairs) == len(SEEDS) and all(line.count(".") >= 2 for line in of_pairs)

    left_out = "A wider terminal, or --all, has room for ED F2, macro-F1, MB, ED precision, test loss, trained in."
    narrow, wide = (" ".join(printed(width)) for width in (80, 160))
    assert left_out in narrow
    assert "A wider terminal" not in wide and "macro-F1" in wide
    assert experiments(printed(160))[0].count("0.") > experiments(lines)[0].count("0.")


def test_a_long_study_is_cut_on_a_terminal_alone(pairs, monkeypatch):
    monkeypatch.setattr("flows.cli.compare.MOST_MODELS", 2)
    monkeypatch.setattr("flows.cli.compare.MOST_PAIRS", 1)
    lines = printed(80)
    assert len(experiments(lines)) == 2 and "and 4 more models" in lines
    assert any(line.startswith("One training each, 1 of 3 pairs, ") for line in lines)
    (of_pair,) = [line for line in lines if line.startswith("smollm2-135m balanced_safe s")]
    assert "balanced_safe s2 " in of_pair, "the one that loses an emergency"

    lines = printed(140, is_terminal=False)
    assert len(experiments(lines)) == 6 and "and 4 more models" not in lines
    assert [line for line in lines if line.startswith("One training each, all pairs, ")]


def test_a_moved_adapter_is_no_further_trained_model(pairs):
    board = leaderboard_rows()
    moved = changed(board[0], recipe_kind="moved_adapter", evaluation_id="moved")
    assert "of 6 trained models pass" in " ".join(answer([*board, moved], [], []))
    assert overview([*board, moved], 10).title.startswith("6 trained models and 1 moved adapter, those that")


def test_figures_at_another_prevalence_stand_first(pairs):
    table = overview(leaderboard_rows(), 10, 0.1)
    assert "ED precision and F2 are restated at 10% ED." in table.title
    assert table.names[:5] == ["experiment", "ED recall", "ED F2", "ED precision", "gates"]
    assert set(table.columns) == set(overview(leaderboard_rows(), 10).columns)
    assert [line for line in printed(80, prevalence=0.1) if line.split()[:2] == ["experiment", "ED"]]


def test_differences_are_points_and_the_largest_loss_stands_first(pairs):
    table = pair_lines(pair_rows(), 10)
    points = [float(text.split()[0]) for text in table["accuracy"]]
    assert points == sorted(points) and points[0] < 0 and table["pair"][0].endswith("s2")
    assert points[0] == round(100 * min(pair.accuracy_diff for pair in pair_rows()), 1)
    assert float(table["ED recall"][0].split()[0]) == round(100 * min(pair.ed_recall_diff for pair in pair_rows()), 1)
