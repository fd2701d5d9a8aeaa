"""The sentences on top of a comparison: the claim alone, or each recipe that learned something; never more than follows."""

from __future__ import annotations

from datetime import datetime

import pytest

from flows.report import answer as sentences
from flows.report.answer import NO_MODELS, answer
from flows.report.evidence import as_markdown
from flows.report.leaderboard import ALL_RANDOM, evaluation_ids
from flows.report.pairs import pair_rows, summary_rows
from flows.report.typed_rows import Row, leaderboard_rows
from tests.place import changed
from tests.warehouse.rows import land_arm, land_pair
from tests.warehouse.test_precisions import land as land_precision
from tests.warehouse.test_precisions import noisy
from warehouse.load import load_all

CLAIM = Row(
    study="study", base_model="smollm2-135m", recipe="tuned", side="4bit", reference="8bit",
    figures=["accuracy", "ed_recall"], margin=0.02, seeds=[42, 43, 44], registered_at=datetime(2026, 11, 20),
    changed_after_results=False,
)  # fmt: skip
FIXED = "This is the study's primary claim, fixed on 2026-11-20 before its first result."


def lines(study: str | None = None, claim: Row | None = None) -> list[str]:
    ids = evaluation_ids(study) if study else None
    return answer(leaderboard_rows(ids), pair_rows(ids), summary_rows(ids), claim)


# --- The published studies --------------------------------------------------------------------------


def test_without_a_claim_each_recipe_that_learned_something_has_its_verdict(published):
    tuned, recall, against, safe, *_, others, intervals, rest = found = lines("study")
    assert tuned.startswith("smollm2-135m tuned, 3 seeds: whether 4 bits are as good as 8 bits in accuracy ")
    assert "cannot be concluded: -0.5 points [-3.5, +2.5]; it would take " in tuned
    assert recall.startswith("ED recall by each model's threshold +0.1 [-4.0, +4.2]: cannot conclude: ")
    assert against.startswith(
        "4 and 8 bits minus linear model (words, characters): macro-F1 -0.2 [-2.0, +1.6] and +0.4 [-1.5, +2.4] (no "
        "difference shown), over-triage by each model's threshold +3.6 [+0.3, +6.9] and +2.9 [+0.6, +5.2] (worse). "
    )
    assert against.endswith("The margin, 2 points, is 494% of what 8 bits gain over the baseline in accuracy.")
    assert safe.startswith("smollm2-135m tuned_safe, 3 seeds: ") and len(found) == 9
    assert others.startswith("Without a verdict, since a model gains less than half of what the linear baseline gains")
    assert "smollm2-135m baseline, 1 seed +2.2 [+0.8, +3.6] and +1.1 [-0.2, +2.3]" in others
    assert not any(word in others for word in ("conclude", "worse", "within"))
    assert "over trainings and 63 groups of cases; left out: chance in calibration" in intervals
    assert rest.startswith("4 bits take x0.53 of the bytes of 8. Gates: 0 of 18 trained models pass. Memory and time")


def test_with_one_training_a_side_chance_in_training_is_said_to_be_left_out(published):
    found = lines("study_gemma")
    assert "it would take a second seed." in found[0] and "minus linear model" in found[2], "of another study"
    assert found[-2].startswith(
        "Points of a hundred, with 95 % intervals over 63 groups of cases; left out: chance in "
    )
    assert found[-2].endswith("and with one training a side chance in training.")


def test_with_a_claim_the_answer_speaks_of_it_alone(published):
    accuracy, recall, fixed, *_ = found = lines("study", CLAIM)
    assert accuracy.startswith(
        "smollm2-135m tuned, 3 trainings a side, 63 groups: whether 4 bits are as good as 8 bits in"
    )
    assert "accuracy cannot be concluded: -0.5 points [-3.5, +2.5]; it would take " in accuracy
    assert accuracy.endswith("The margin, 2 points, is 494% of what 8 bits gain over the baseline in accuracy.")
    assert "in ED recall by each model's threshold cannot be concluded: +0.1 points [-4.0, +4.2]" in recall
    assert recall.endswith("In ED recall by each model's threshold 8 bits gain nothing over the baseline.")
    assert fixed == FIXED and "tuned_safe" not in " ".join(found)


@pytest.mark.parametrize(
    ("claimed", "place", "words"),
    [
        ({"margin": 0.05}, 0, "4 bits are within 5 points of 8 bits in accuracy: -0.5 points [-3.5, +2.5]."),
        ({"margin": 0.03, "seeds": [42, 43], "figures": ["over_triage"]}, 0, "2 trainings a side"),
        ({"figures": ["ed_auroc"]}, 0, "in ED AUROC"),
        ({"changed_after_results": True}, 2, "changed on 2026-11-20, after results existed: not beforehand."),
        ({"seeds": [42, 43, 44, 45, 46]}, 2, f"{FIXED} Seeds 45, 46 are missing: it is not complete yet."),
        ({"recipe": "other"}, 0, "smollm2-135m other, 4 bits against 8 bits: the study's primary claim has no result"),
        ({"recipe": "other"}, 1, FIXED),
    ],
)
def test_a_claim_has_its_own_margin_seeds_and_figures_and_says_what_it_lacks(published, claimed, place, words):
    assert words in lines("study", changed(CLAIM, **claimed))[place]


# --- Made-up studies --------------------------------------------------------------------------------


def land_seeds(root, right=(0.8, 0.8), recipe="r1", **values):
    """Three seeds of a recipe at 4 and 8 bits, which decide so many cases rightly."""
    for seed in (1, 2, 3):
        cases = [noisy(10 * seed + side, share) for side, share in enumerate(right)]
        cells = {"seed": seed, "recipe": recipe, **values}
        land_pair(root, *cases, groups=True, name=f"{recipe}-{seed}", **cells)


def land_baseline(root, right, recipe="linear"):
    values = {"recipe": recipe, "recipe_kind": "baseline", "base_model": "none", "cell_id": recipe, "precision": None}
    land_arm(root, recipe, None, noisy(99, right), groups=True, **values)


def test_where_no_recipe_learned_something_the_first_sentence_says_so_and_names_the_largest_difference(tmp_path):
    land_seeds(tmp_path, (0.1, 0.0))
    land_seeds(tmp_path, (0.0, 0.3), recipe="r2")
    land_baseline(tmp_path, 0.9)
    load_all(tmp_path)
    first, others, *_ = lines()
    assert first.startswith("4 bits against 8 bits: nothing can be said, since a model gains less than half of what")
    largest = min(summary_rows(), key=lambda row: row.difference if (row.metric, row.rule) in RULED else 0)
    assert largest.recipe == "r2" and f"is {100 * largest.difference:+.1f} points [" in first
    assert first.endswith("(smol r2).")
    assert "smol r1, 3 seeds" in others and others.startswith("Without a verdict (accuracy and ED recall): ")


RULED = {("accuracy", "argmax"), ("ed_recall", "target_recall")}


def test_without_a_baseline_nothing_says_what_there_was_to_learn(tmp_path):
    land_seeds(tmp_path)
    load_all(tmp_path)
    assert "nothing can be said, since no linear baseline says how much there is to learn" in lines()[0]


def test_a_weaker_model_is_said_to_be_worse_than_the_baseline_and_a_stronger_one_better(tmp_path):
    land_seeds(tmp_path, (0.75, 0.95))
    land_baseline(tmp_path, 0.8)
    load_all(tmp_path)
    _, _, against, *_ = lines()
    assert "minus linear model (words, characters): macro-F1 -" in against
    assert "(no difference shown and better)" in against or "(worse and better)" in against


def test_adapters_that_were_moved_are_compared_with_those_that_they_are(tmp_path):
    accuracies = []
    for seed in (1, 2, 3):
        values = {"seed": seed, "base_model": "smol"}
        own, moved = noisy(seed, 0.8), noisy(50 + seed, 0.5)
        land_precision(tmp_path, "8bit", own, arm=f"s{seed}-", **values)
        land_precision(tmp_path, "mxfp4", moved, moved_from="8bit", arm=f"s{seed}-", **values)
        accuracies.append(sum(a == b for a, b, _ in moved) / 120 - sum(a == b for a, b, _ in own) / 120)
    load_all(tmp_path)
    claim = changed(CLAIM, base_model="smol", recipe="r1", side="mxfp4", seeds=[1, 2, 3])
    accuracy, *_ = lines(claim=claim)
    difference = 100 * sum(accuracies) / 3
    assert f"mxfp4 are worse by more than 2 points than 8 bits in accuracy: {difference:+.1f} points [" in accuracy
    assert accuracy.startswith("smol r1, 3 trainings a side, 60 groups: ")


def test_figures_of_random_weights_say_nothing(tmp_path):
    land_seeds(tmp_path, random_weights=True)
    load_all(tmp_path)
    for claim in (None, changed(CLAIM, base_model="smol", recipe="r1", seeds=[1, 2, 3])):
        first, rest = lines(claim=claim)
        assert first == ALL_RANDOM and rest.startswith("4 bits take x0.50 of the bytes of 8. Gates: ")


def test_untuned_pairs_alone_answer_nothing(tmp_path):
    land_pair(tmp_path, recipe="zero_shot", recipe_kind="baseline")
    load_all(tmp_path)
    assert lines()[0] == NO_MODELS


def test_many_recipes_are_answered_by_those_of_most_seeds_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(sentences, "MOST_RECIPES", 1)
    monkeypatch.setattr(sentences, "MOST_OTHERS", 1)
    land_pair(tmp_path, noisy(1, 0.9), noisy(2, 0.9), groups=True, name="one", recipe="one")
    land_seeds(tmp_path, (0.9, 0.9), recipe="three")
    for recipe in ("poor", "poorer"):
        land_seeds(tmp_path, (0.0, 0.0), recipe=recipe)
    land_baseline(tmp_path, 0.9)
    load_all(tmp_path)
    found = lines()
    assert found[0].startswith("smol three, 3 seeds: ") and "1 more recipe: see the table of recipes." in found
    (others,) = (line for line in found if line.startswith("Without a verdict"))
    assert others.endswith("; and 1 more.") and others.count("smol poor") == 1


ROW = Row(
    metric="accuracy", difference=-0.002, low=-0.009, high=0.005, margin=0.02, verdict="within", seeds=3, groups=63,
    cases=900, more_seeds=None, more_groups=None, note=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "4 bits are within 2 points of 8 bits in accuracy: -0.2 points [-0.9, +0.5]."),
        ({"verdict": "not worse", "high": 0.03}, "4 bits are not worse by 2 points than 8 bits in accuracy: -0.2 "),
        ({"verdict": "worse", "margin": 0.001}, "4 bits are worse by more than 0.1 points than 8 bits in accuracy: "),
        (
            {"verdict": "cannot conclude", "more_seeds": 4, "more_groups": 700},
            "whether 4 bits are as good as 8 bits in accuracy cannot be concluded: -0.2 points [-0.9, +0.5]; it would "
            "take at least 4 more seeds.",
        ),
        (
            {"verdict": "cannot conclude", "low": None, "high": None, "note": "no interval: 9 groups are too few"},
            "cannot be concluded: -0.2 points; no interval: 9 groups are too few.",
        ),
        ({"difference": None, "note": "not available: no ED case in the set"}, "not available: no ED case in the set."),
        ({"high": -0.0001}, "[-0.9, -0.01]."),
    ],
)
def test_a_sentence_has_the_words_of_its_verdict(values, words):
    assert words in sentences._sentence(changed(ROW, **values), "r, 3 seeds")


def test_the_artifact_opens_with_the_same_sentences_and_holds_the_long_form_in_whole_rows(tmp_path):
    land_pair(tmp_path)
    load_all(tmp_path)
    board, pairs, recipes = leaderboard_rows(), pair_rows(), summary_rows()
    page = as_markdown(board, pairs, recipes)
    assert page.startswith("".join(f"- {line}\n" for line in answer(board, pairs, recipes)))
    assert "# Gates of the primary rule" in page and "# Confusion matrices" in page
    assert all(line.endswith("|") for line in page.splitlines() if line.startswith("|"))
