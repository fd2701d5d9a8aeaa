"""What a sweep prints at its end: the answer first, a line an experiment, and where the rest is, on 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.cli.sweep import MOST_FAILURES, NOTHING, print_failures, print_results
from flows.report.figures import BASELINES
from tests.warehouse.rows import evaluation, training
from warehouse.landing import write_landing
from warehouse.load import load_all

SEEDS = (0, 1, 2)
RANDOM = "-s0"  # the seed whose weights are random


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A warehouse of trained pairs, a pair a seed, and the baselines without a model; the ids of its evaluations."""
    folder = tmp_path_factory.mktemp("end")
    cells = [
        (f"smollm2-135m-{b}bit-balanced_safe-s{s}", b, s, "balanced_safe", "safety") for b in (4, 8) for s in SEEDS
    ]
    cells += [(name, None, 0, name, "baseline") for name in BASELINES]

    for cell, bits, seed, recipe, kind in cells:
        values = {
            "cell_id": cell,
            "seed": seed,
            "recipe": recipe,
            "recipe_kind": kind,
            "random_weights": RANDOM in cell,
        }
        values["base_model"] = "smollm2-135m" if bits else "none"
        write_landing(folder / "landing", f"t-{cell}", "training", training(f"t-{cell}", bits, **values))
        write_landing(folder / "landing", f"e-{cell}", "evaluation", evaluation(f"e-{cell}", f"t-{cell}"))

    load_all(folder / "landing", folder / "triage.duckdb")
    return folder / "triage.duckdb", [f"e-{cell}" for cell, *_ in cells]


@pytest.fixture
def landed(study, own_home, monkeypatch):
    warehouse, ids = study
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(warehouse))
    return ids


@pytest.fixture
def real(landed):
    return [id for id in landed if RANDOM not in id]


def printed(ids: list[str], width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_results(console, "mine", ids)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def first_words(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines]


def test_four_experiments_fill_one_screen_and_the_answer_stands_first(real):
    lines = printed(real)
    assert lines[0].startswith("4 bits against 8: stored size x0.50")
    assert len(lines) <= 40 - 4 and max(map(len, lines)) <= 80
    rows = [line for line in lines if line.endswith(("unsafe", "provisional", "passes_gates"))]
    models = [f"smollm2-135m-{bits}bit-balanced_safe-s{seed}" for bits in (4, 8) for seed in (1, 2)]
    assert first_words(rows) == [*models, "always-ED", "always-GP", "bag"]
    assert "random" not in " ".join(lines) and not [line for line in lines if line.startswith("and ")]


def test_every_command_that_shows_more_stands_whole_on_a_line(real):
    lines = printed(real)
    start = lines.index("For more:") + 1
    assert [line.partition("  # ")[0].strip() for line in lines[start : start + 2]] == [
        "triage compare mine --all",
        "triage gates smollm2-135m-4bit-balanced_safe-s1",
    ]


def test_a_long_sweep_says_how_many_it_leaves_out(real, monkeypatch):
    monkeypatch.setattr("flows.cli.sweep.MOST_LINES", 2)
    lines = printed(real)
    assert [sum(line.startswith(name) for line in lines) for name in ("smollm2-135m-", "always-", "bag")] == [2, 2, 0]
    assert "and 2 more models and 1 more baseline" in lines


def test_random_weights_are_marked_where_they_are_and_said_once_where_all_are(landed):
    only_random = [id for id in landed if RANDOM in id or "bit" not in id]
    for chosen, marks, sentence in ((landed, 2, 0), (only_random, 0, 1)):
        text = " ".join(printed(chosen, width=140))
        assert (text.count("(random weights)"), text.count("All weights are random")) == (marks, sentence)


def test_nothing_finished_is_a_sentence(landed):
    assert printed(["no such evaluation"]) == [NOTHING]


@pytest.mark.parametrize("count", [1, MOST_FAILURES + 2])
def test_failures_have_a_line_each_and_many_are_counted(count):
    console = Console(file=io.StringIO(), width=80)
    failures = [f"cell-{n}: The loss became nan: lower the rate." for n in range(count)]
    print_failures(console, f"{count} failures in a sweep of 60 experiments: {' | '.join(failures)}")
    first, *rest = console.file.getvalue().splitlines()
    assert first == f"Not everything finished. {count} failures in a sweep of 60 experiments:"
    assert rest[:MOST_FAILURES] == failures[:MOST_FAILURES]
    assert rest[MOST_FAILURES:] == (["and 2 more, printed above"] if count > MOST_FAILURES else [])
