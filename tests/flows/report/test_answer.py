"""The sentences on top of a comparison: a line a figure, made from the rows, and never more than follows."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from scipy import stats
from warehouse.comparison.pooled import BETWEEN_SEEDS, Pooled
from warehouse.comparison.summary import PooledSet, pooled_sets

from flows.report.answer import NO_PAIR, answer
from flows.report.evidence import as_markdown
from flows.report.pairs import pair_rows
from flows.report.typed_rows import leaderboard_rows
from tests.place import changed
from tests.warehouse.rows import land_pair
from warehouse.comparison.resampling import SeedSpread
from warehouse.load import load_all

ROW = Pooled("all", "argmax", "accuracy", 20, 10, 10, 2, 1500, 245, 0.8, 0.804, -0.004, 0.004, -0.016, 0.008, 0.012,
             0.011, -0.010, 0.002, verdict="not inferior")  # fmt: skip
RECALL = replace(ROW, rule="primary", metric="ed_recall", cases=412, difference=-0.012, low=-0.043, high=0.019,
                 could_show=0.031, seed_sd=None, seed_low=None, seed_high=None, verdict="cannot conclude")  # fmt: skip


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answer")
    land_pair(folder / "landing")
    load_all(folder / "landing", folder / "triage.duckdb")
    return folder / "triage.duckdb"


@pytest.fixture
def rows(warehouse, own_home, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(warehouse))
    return leaderboard_rows(), pair_rows()


def pool(*figures: Pooled) -> PooledSet:
    return PooledSet("test", "set", False, {(row.base_model, row.rule, row.metric): row for row in figures})


def test_the_answer_is_made_of_the_pooled_rows(rows):
    assert answer(*rows, [pool(ROW, RECALL)]) == [
        "4 bits against 8: stored size x0.50.",
        "Accuracy -0.4 points, over cases [-1.6, +0.8], over trainings [-1.0, +0.2], 20 pairs: not inferior at 2 points.",
        "ED recall -1.2 points, over cases [-4.3, +1.9], 20 pairs: cannot conclude; 412 emergencies could show 3.1 points.",
        "10 pairs are left out: neither model beats the best constant answer in accuracy.",
        "Gates: 0 of 2 trained models pass, 2 provisionally.",
        "Peak memory of a training x0.50 on average.",
    ]


AUROC = replace(RECALL, rule="argmax", metric="ed_auroc", difference=0.001, low=-0.004, high=0.006,
                verdict="not inferior")  # fmt: skip
NEAR_ZERO = replace(ROW, metric="ed_auroc", seed_low=-0.014, seed_high=-0.0001)
NO_BAND = replace(ROW, low=None, high=None, could_show=None, verdict="cannot conclude", note="no band: 9 groups")


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        (
            (ROW, RECALL, AUROC),
            "ED AUROC (independent of the threshold) +0.1 points, over cases [-0.4, +0.6], 20 pairs: "
            "not inferior at 2 points.",
        ),
        (
            (replace(NO_BAND, seed_sd=None, seed_low=None, seed_high=None),),
            "Accuracy -0.4 points, 20 pairs: cannot conclude; no band: 9 groups.",
        ),
        (
            (NO_BAND,),
            "Accuracy -0.4 points, over trainings [-1.0, +0.2], 20 pairs: cannot conclude; no band: 9 groups.",
        ),
        ((ROW, NEAR_ZERO), ", over trainings [-1.4, -0.01], "),
        ((ROW, replace(NEAR_ZERO, seed_high=0.0)), ", over trainings [-1.4, +0.0], "),
    ],
)
def test_a_figure_has_the_intervals_that_there_are_and_a_bound_next_to_zero_a_digit_more(figures, line, rows):
    assert line in answer(*rows, [pool(*figures)])[len(figures)]


def test_decisions_by_threshold_stand_behind_those_of_other_rules(rows):
    """Not where they are the same decisions."""
    recall = replace(RECALL, rule="target_recall", difference=0.004, low=-0.008, high=0.016, verdict="not inferior")
    over = replace(recall, metric="over_triage", difference=0.009, low=-0.003, high=0.021, verdict="cannot conclude")
    assert answer(*rows, [pool(ROW, RECALL, recall, over)])[3:5] == [
        "ED recall by each model's threshold +0.4 points, over cases [-0.8, +1.6], 20 pairs: not inferior at 2 points.",
        "Over-triage by each model's threshold +0.9 points, over cases [-0.3, +2.1], 20 pairs: cannot conclude; "
        "412 cases could show 3.1 points.",
    ]
    same = [replace(row, rule="primary") for row in (recall, over)]
    one_differs = " ".join(answer(*rows, [pool(ROW, same[0], recall, over)]))
    assert "ED recall by each model's threshold" in one_differs and "Over-triage by each" in one_differs
    assert "threshold" not in " ".join(answer(*rows, [pool(ROW, *same, recall, over)]))


def test_without_a_pair_that_knows_something_it_says_so_instead_of_a_figure(rows):
    reason = "no pair has a model that beats the best constant answer in accuracy"
    empty = replace(ROW, pairs=0, difference=None, low=None, high=None, verdict=f"cannot conclude: {reason}")
    sentences = answer(*rows, [pool(empty)])
    assert sentences[1] == f"Accuracy: cannot conclude; {reason}." and len(sentences) == 4
    assert not any("left out" in sentence for sentence in sentences)


def test_a_difference_that_varies_between_seeds_says_how_many_pairs_it_takes(rows):
    """The half width of Student's interval over n trainings is t(n - 1) sd / sqrt(n)."""
    row = replace(ROW, pairs=2, seed_sd=0.018, verdict=f"cannot conclude: {BETWEEN_SEEDS}")
    sentence = answer(*rows, [pool(row)])[1]
    needed = int(re.search(r"about (\d+) pairs could show 2 points", sentence)[1])
    assert "cannot conclude; it varies too much between seeds" in sentence
    half = {n: stats.t.ppf(0.975, n - 1) * 0.018 / math.sqrt(n) for n in (needed - 1, needed)}
    assert half[needed] <= 0.02 < half[needed - 1]

    enough = replace(row, pairs=20, seed_sd=0.03, difference=-0.018)  # if the difference were smaller
    assert answer(*rows, [pool(enough)])[1].endswith(f"cannot conclude; {BETWEEN_SEEDS}.")


@pytest.mark.parametrize(
    ("sd", "pairs", "could_show", "reason"),
    [
        (0.06, 3, 0.012, BETWEEN_SEEDS),
        (0.001, 3, 0.012, "1500 cases could show 1.2 points"),
        (0.03, 10, 0.06, "1500 cases could show 6.0 points"),
    ],
)
def test_where_the_band_is_too_wide_it_names_what_limits_more(sd, pairs, could_show, reason, rows):
    """More cases do not help where the interval over trainings is the wider one, nor more trainings where the band is."""
    half = SeedSpread(sd, pairs - 2).half_width(pairs)
    row = replace(ROW, pairs=pairs, seed_sd=sd, difference=0.0, low=-could_show, high=could_show, could_show=could_show,
                  seed_low=-half, seed_high=half, verdict="cannot conclude")  # fmt: skip
    assert f"cannot conclude; {reason}" in answer(*rows, [pool(row)])[1]


def test_one_seed_is_said_to_show_nothing_of_chance(rows):
    sentence = "No recipe has two seeds under one setting: these intervals leave out chance in training."
    assert sentence in answer(*rows, [pool(RECALL)])
    assert sentence not in answer(*rows, [pool(ROW)])


def test_other_sets_do_not_answer_and_without_pairs_there_is_no_answer(rows):
    board, pairs = rows
    other = replace(pool(ROW), set_digest="another")
    assert answer(board, pairs, [other, replace(other, evaluation_set="clinic")])[1].startswith("No pair of trained")
    gates = "Gates: 0 of 2 trained models pass, 2 provisionally."
    assert answer(board, [], []) == [NO_PAIR, gates]
    both = [*board, *(changed(row, set_digest="earlier", verdict="passes_gates") for row in board)]
    assert gates in answer(both, pairs, [pool(ROW)])
    assert answer(both, [], []) == [NO_PAIR, gates]


def test_random_weights_answer_only_where_there_are_no_others(rows):
    random = replace(pool(replace(ROW, difference=0.5)), random_weights=True)
    assert answer(*rows, [random, pool(ROW)])[1].startswith("Accuracy -0.4 points")
    assert answer(*rows, [random])[1].startswith("Accuracy +50.0 points")


def test_the_artifact_opens_with_the_same_sentences_and_holds_the_long_form_in_whole_rows(rows):
    sets = pooled_sets()
    page = as_markdown(*rows, sets)
    assert page.startswith("".join(f"- {line}\n" for line in answer(*rows, sets)))
    assert "# Gates of the primary rule" in page and "# Confusion matrices" in page
    assert all(line.endswith("|") for line in page.splitlines() if line.startswith("|"))


def test_only_pairs_without_accuracy_are_said_to_be_left_out(rows):
    """Pairs without a threshold, or whose primary rule decides nothing, may know something."""
    knowing, two = (replace(ROW, pairs_left_out=count) for count in (0, 2))
    undecided = replace(RECALL, pairs_left_out=5)
    by_threshold = replace(undecided, rule="target_recall", difference=0.0)
    pools = [knowing, undecided, by_threshold, replace(by_threshold, metric="over_triage")]
    assert not any("left out" in line for line in answer(*rows, [pool(*pools)]))
    assert any(line.startswith("2 pairs are left out") for line in answer(*rows, [pool(two, undecided)]))
