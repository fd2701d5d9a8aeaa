"""`triage compare`: the answer and two tables by default, parts of the evidence by name, all of it with --all."""

from __future__ import annotations

import pytest

from tests.place import Place
from tests.warehouse.rows import evaluation, land_pair, training
from warehouse.landing import write_landing
from warehouse.load import load_all


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What the command prints by default and with --all, on a pair of experiments and a baseline."""
    folder = tmp_path_factory.mktemp("compare")
    place = Place(folder / "place")
    place.home.mkdir(parents=True)
    land_pair(folder / "landing")
    baseline = training(
        "always_ed-1", bits=None, cell_id="always_ed", base_model="none", recipe="always_ed", recipe_kind="baseline"
    )
    write_landing(folder / "landing", "always_ed-1", "training", baseline)
    cases = [(label, "ED", "ED") for label in ("ED", "ED", "GP", "GP", "HOME")]
    write_landing(folder / "landing", "b", "evaluation", evaluation("b", "always_ed-1", cases))
    load_all(folder / "landing", place.warehouse)

    return {
        args: place.ask("compare", *args) for args in ((), ("--all",), ("--gates", "--flips"), ("--prevalence", "3"))
    }


def test_the_default_is_the_answer_and_two_tables_with_a_line_an_experiment_and_baselines_at_the_foot(outputs):
    text = outputs[()].stdout
    lines = text.splitlines()
    assert lines[0] == "4 bits against 8: stored size x0.50."
    assert lines[1].startswith("Accuracy: cannot conclude; ") and lines[2].startswith("ED recall: ")
    assert text.count("4 bits against 8 bits, 1 pair. Accuracy: ") == 1
    on_top, _, rest = text.partition(
        "2 trained models, best first, then baselines, on 5 test cases, 2 of them emergencies"
    )
    assert "[" not in on_top and "On top" not in text, "intervals are explained where there are some"
    assert "Gates of the primary rule" not in text and "triage compare --all" in lines[-2]
    assert outputs[()].stderr == ""

    assert [line.split()[0] for line in lines if line.startswith("smol-")] == ["smol-4bit-r1-s42", "smol-8bit-r1-s42"]
    assert [line.split()[:3] for line in lines if line.startswith("smol r1")] == [["smol", "r1", "s42"]] * 2
    titles = [line for line in lines if "largest loss at 4 bits first" in line]
    assert [title.partition(",")[0] for title in titles] == ["Accuracy", "ED recall"]
    board = rest.partition("4 bits against 8 bits")[0]
    assert 0 < max(board.index("smol-4bit"), board.index("smol-8bit")) < board.index("always-ED")


def test_every_table_names_experiments_as_other_commands_take_them(outputs):
    for args in ((), ("--gates", "--flips"), ("--all",)):
        assert "smol-4bit-r1-s42" in outputs[args].stdout and "smol 4bit\n" not in outputs[args].stdout, args


def test_tables_are_asked_for_by_name_or_all_with_every_column_that_a_narrow_terminal_leaves_out(outputs):
    text = outputs[("--gates", "--flips")].stdout
    assert "Gates of the primary rule" in text and "for 2 models" in text
    assert "Confusion matrices" not in text and "Decision rules" not in text

    text = outputs[("--all",)].stdout
    assert "Gates of the primary rule" in text and text.count("\n") > 2 * outputs[()].stdout.count("\n")
    assert text.count("Experiments on the test set, best first") == text.count("4 bits (first line)") == 1
    columns = [
        *("accuracy", "ED recall", "over-triage", "gates", "ED F2", "ED precision", "macro-F1", "stored MB"),
        *("test loss", "trained in", "difference", "at 2 points", "ED difference", "ED at 2 points", "memory, time"),
    ]
    assert [name for name in columns if name not in text] == []


def test_a_prevalence_that_is_no_share_is_a_sentence(outputs):
    result = outputs[("--prevalence", "3")]
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == "triage: --prevalence must be between 0 and 1, e.g. 0.1 (got 3).\n"
