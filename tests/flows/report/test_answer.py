"""The answer on top of a comparison: the claim alone, or the recipe of most seeds that learned something; never more
than follows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import cache

import pytest

from flows.report import answer as sentences
from flows.report.answer import ALL_RANDOM, NO_PAIR, Answer, answer
from flows.report.models import first_table
from flows.report.precisions import flips, primary_chart
from flows.report.rows import Row, Study, studied
from tests.place import changed
from tests.warehouse.rows import land_arm, land_pair
from tests.warehouse.test_precisions import land as land_precision
from tests.warehouse.test_precisions import noisy
from warehouse.connect import snapshot
from warehouse.load import load_all

CLAIM = Row(
    study="study", base_model="smollm2-135m", recipe="tuned", side="4bit", reference="8bit",
    figures=["accuracy", "ed_recall"], margin=0.02, seeds=[42, 43, 44], registered_at=datetime(2026, 11, 20),
    changed_after_results=False, threshold="kept", opened_at=None, adjust="none",
)  # fmt: skip
FIXED = "This is the study's primary claim, fixed on 2026-11-20 before its first result."


@pytest.fixture(scope="module")
def read(published_file) -> Callable[[str], Study]:
    """A published study, which is read once."""

    @cache
    def read_study(name: str) -> Study:
        with snapshot():
            study = studied(name)[0]
            assert study.models and study.baseline
        return study

    return read_study


def answered(study: Study) -> Answer:
    """As commands answer: all is read from one connection."""
    with snapshot():
        return answer(study)


def given(claim: Row | None = None) -> Answer:
    with snapshot():
        return answer(replace(studied()[0], claim=claim))


# --- The published studies --------------------------------------------------------------------------


def test_without_a_claim_the_recipe_of_most_seeds_that_learned_something_answers_and_is_the_picture(read, published):
    found = answered(read("study"))
    assert found.sentence == (
        "Cannot tell whether 4 bits miss more emergencies than 8 bits: ED recall at each model's threshold +0.1 points "
        "[-4.0, +4.2]; it would take at least 3 more seeds; accuracy -0.5 [-3.5, +2.5]: cannot conclude: at least 1 more "
        "seed (smollm2-135m tuned, 3 seeds). Beside the linear model: no difference shown in macro-F1, worse in "
        "over-triage. ED recall of other recipes that learn: smollm2-135m tuned_safe +0.03 [-1.5, +1.6]: within 2 points. "
        "None of 18 trained models passes the safety gates."
    )
    tuned, others, intervals, rest = found.details
    assert tuned.startswith("smollm2-135m tuned at 4 and 8 bits minus linear model (words, characters): macro-F1 -0.2")
    assert "(no difference shown), over-triage by each model's threshold +3.6 [+0.3, +6.9] and +2.9 [" in tuned
    assert tuned.endswith("The margin, 2 points, is 4.9 times what 8 bits gain over the baseline in accuracy.")
    assert others.startswith("3 recipes without a verdict, since ")
    assert "over trainings and 63 groups of cases; left out: chance in calibration" in intervals
    assert rest.startswith("4 bits take x0.53 of the bytes of 8. Memory and speed of 4 against 8 bits cannot be")

    chart = primary_chart(found.primary)
    mean, *trainings, _ = chart.marks
    assert len(trainings) == 3 and mean["x"] == pytest.approx(sum(mark["x"] for mark in trainings) / 3)
    assert (chart.options["margin"], chart.options["lines"]) == (2, [0, -2])


def test_with_one_training_a_side_chance_in_training_is_said_to_be_left_out(read, published):
    found = answered(read("study_gemma"))
    assert "(gemma-3-270m tuned, 1 seed, so that chance in training is left out). Beside the linear" in found.sentence
    assert "accuracy -2.8 [-4.2, -1.4]: cannot conclude: a second seed" in found.sentence
    assert "minus linear model" in found.details[0], "of another study"
    assert found.details[-2].endswith("and with one training a side chance in training.")
    assert len(primary_chart(found.primary).marks) == 2, "no dot of its own for one training"


def test_with_a_claim_the_answer_speaks_of_it_alone(read, published):
    found = answered(replace(read("study"), claim=CLAIM))
    assert found.sentence.startswith(
        "Cannot tell whether 4 bits are as good as 8 bits in accuracy: -0.5 points [-3.5, "
    )
    assert "(smollm2-135m tuned, 3 trainings a side, 63 groups). Cannot tell whether 4 bits miss more" in found.sentence
    accuracy, recall, fixed, *_ = found.details
    assert accuracy == "The margin, 2 points, is 4.9 times what 8 bits gain over the baseline in accuracy."
    assert recall == "In ED recall by each model's threshold 8 bits gain nothing over the baseline."
    assert fixed == FIXED and "tuned_safe" not in str(found.details)
    assert len(primary_chart(found.primary).marks) == 1 + 3


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        ({"margin": 0.05}, "4 bits are within 5 points of 8 bits in accuracy: -0.5 points [-3.5, +2.5] ("),
        ({"margin": 0.03, "seeds": [42, 43], "figures": ["over_triage"]}, "2 trainings a side"),
        (
            {"figures": ["ed_auroc"], "changed_after_results": True},
            "changed on 2026-11-20, after results existed: not beforehand.",
        ),
        ({"seeds": [42, 43, 44, 45, 46]}, f"{FIXED} Missing: seeds 45, 46, so it is not complete yet."),
        (
            {"figures": ["over_triage", "accuracy"], "adjust": "holm"},
            "it would take at least 1 more seed; one-sided p 0.183. None of",
        ),
        ({"opened_at": datetime(2026, 12, 5), "seeds": [42, 43]}, "It was opened on 2026-12-05 for seeds 42, 43."),
        ({"recipe": "other"}, "the study's primary claim, about smollm2-135m other, has no result on these cases."),
    ],
)
def test_a_claim_has_its_own_margin_seeds_and_figures_and_says_what_it_lacks(read, published, claimed, words):
    found = answered(replace(read("study"), claim=changed(CLAIM, **claimed)))
    assert words in " ".join([found.sentence, *found.details])


def test_holms_adjustment_is_named_beside_the_first_p_value_whichever_figure_has_one(read, published, monkeypatch):
    differences_of = sentences.differences_of

    def without_p_of_recall(*args):
        figures = differences_of(*args)
        figures["ed_recall"].p_value = None
        return figures

    monkeypatch.setattr(sentences, "differences_of", without_p_of_recall)
    claim = changed(CLAIM, figures=["ed_recall", "over_triage", "accuracy"], adjust="holm")
    sentence = answered(replace(read("study"), claim=claim)).sentence
    p_values = re.findall(r"one-sided p [\d.]+(?:, by Holm for 3 figures)?", sentence)
    assert ["Holm" in words for words in p_values] == [True, False]


def test_by_holm_a_verdict_is_not_worse_or_nothing_by_the_adjusted_p_and_worse_stays():
    p_values = {"ed_recall": 0.011, "over_triage": 0.02, "accuracy": 0.004, "ed_f2": None}
    rows = {metric: Row(metric=metric, verdict="not worse", p_value=p) for metric, p in p_values.items()}
    rows |= {"macro_f1": Row(verdict="worse", p_value=0.999)}
    rows["ed_f2"].verdict = "cannot conclude"
    rows["accuracy"].verdict = rows["over_triage"].verdict = "within"
    sentences.adjust(list(rows.values()))
    assert {metric: row.p_value for metric, row in rows.items()} == pytest.approx(
        {"accuracy": 0.02, "ed_recall": 0.044, "over_triage": 0.06, "macro_f1": 1, "ed_f2": None}
    )
    verdicts = {"accuracy": "not worse", "macro_f1": "worse"}
    assert {metric: row.verdict for metric, row in rows.items()} == dict.fromkeys(rows, "cannot conclude") | verdicts


# --- Made-up studies --------------------------------------------------------------------------------


def land_recipe(root, right=(0.8, 0.8), recipe="r1", **values):
    """A recipe at 4 and 8 bits, which decide so many cases rightly."""
    cases = [noisy(10 + side, share) for side, share in enumerate(right)]
    land_pair(root, *cases, groups=True, name=recipe, seed=1, recipe=recipe, **values)


def land_baseline(root, right, recipe="linear"):
    values = {"recipe": recipe, "recipe_kind": "baseline", "base_model": "none", "cell_id": recipe, "precision": None}
    land_arm(root, recipe, None, noisy(99, right), groups=True, **values)


def test_where_no_recipe_learned_something_the_sentence_says_so_and_names_the_largest_difference(tmp_path):
    land_recipe(tmp_path, (0.1, 0.0))
    land_recipe(tmp_path, (0.0, 0.3), recipe="r2")
    land_baseline(tmp_path, 0.9)
    load_all(tmp_path)
    (study,) = studied()
    found = answer(study)
    sentence = found.sentence
    assert sentence.startswith("Nothing can be said about 4 bits against 8 bits, since a model gains less than half of")
    ruled = [row for row in study.recipes if (row.metric, row.rule) in RULED]
    largest = min(row.difference for row in ruled)
    assert f"is {100 * largest:+.1f} points [" in found.details[0] and "(smol r2)." in found.details[0]
    assert found.primary.row.difference == largest and found.primary.name == "smol r2", "the picture is of the sentence"


RULED = {("accuracy", "argmax"), ("ed_recall", "target_recall")}


def test_a_weaker_model_is_said_to_be_worse_than_the_baseline_and_a_stronger_one_better_and_none_without_one(tmp_path):
    land_recipe(tmp_path, (0.75, 0.95))
    load_all(tmp_path)
    assert "since no linear baseline says how much there is to learn" in given().sentence
    land_baseline(tmp_path, 0.8)
    load_all(tmp_path)
    against = given().details[0]
    assert "minus linear model (words, characters): macro-F1 -" in against
    assert re.search(r"\(4 bits (no difference shown|worse) and 8 bits better\)", against)


def test_adapters_that_were_moved_are_compared_with_those_that_they_are(tmp_path):
    accuracies = []
    for seed in (1, 2, 3):
        values = {"seed": seed, "base_model": "smol"}
        own, moved = noisy(seed, 0.8), noisy(50 + seed, 0.5)
        land_precision(tmp_path, "8bit", own, arm=f"s{seed}-", **values)
        land_precision(tmp_path, "mxfp4", moved, moved_from="8bit", arm=f"s{seed}-", **values)
        land_precision(tmp_path, "mxfp4", own, moved_from="8bit", arm=f"s{seed}-", again=True, **values)
        accuracies.append(sum(a == b for a, b, _ in moved) / 120 - sum(a == b for a, b, _ in own) / 120)
    load_all(tmp_path)
    claim = changed(CLAIM, base_model="smol", recipe="r1", side="mxfp4", seeds=[1, 2, 3])
    found = given(claim)
    difference = 100 * sum(accuracies) / 3
    assert found.sentence.startswith(
        "8-bit adapters moved to mxfp4, threshold kept, are worse by more than 2 points than unmoved ones in accuracy: "
        f"{difference:+.1f} points ["
    )
    assert "(smol r1, 3 trainings, 60 groups)" in found.sentence
    assert list(found.primary.seeds.values()) == pytest.approx(accuracies)

    again = given(changed(claim, threshold="chosen_again"))
    assert "in accuracy: +0.0 points" in again.sentence and "threshold kept" not in again.sentence
    assert set(again.primary.seeds.values()) == {0}
    both = given(changed(claim, threshold="both"))
    _, *sentences = re.split("(?:8-bit adapters moved to mxfp4|[Tt]hey), threshold ", both.sentence)
    assert [words.partition(",")[0] for words in sentences] == ["kept", "kept", *["chosen again"] * 2]
    assert all(" over-triage " in sentences[number] for number in (1, 3)), "what mending costs"
    assert both.sentence.count("(smol r1, 3 trainings, ") == 2, "once for both arms"
    labels = {mark["label"] for mark in primary_chart(both.primary, *both.others).marks}
    assert labels == {f"smol\nr1, threshold {arm}, 3 seeds" for arm in ("kept", "chosen again")}

    (study,) = studied()
    table = first_table(study)
    assert table.title.startswith("3 models and 3 moved adapters") and "threshold kept" in str(table.notes)
    changes = [name.partition(", ")[2] for name in flips(study).tables[0]["pair"]]
    move = "adapter moved from 8bit to mxfp4"
    assert sorted(changes) == [f"{move}, threshold {arm}" for arm in ("chosen again", "kept") for _ in range(3)]


def test_an_adapter_that_was_moved_takes_no_place_of_a_training_that_is_missing(tmp_path):
    for seed, name, moved_from in ((1, "8bit", None), (1, "4bit", None), (2, "8bit", None), (2, "4bit", "8bit")):
        land_precision(tmp_path, name, noisy(seed, 0.8), moved_from=moved_from, arm=f"s{seed}-", seed=seed)
    load_all(tmp_path)
    found = given(changed(CLAIM, base_model="smol", recipe="r1", seeds=[1, 2]))
    assert "(smol r1, 1 training a side, " in found.sentence and "Missing: seed 2" in str(found.details)


def test_a_claim_of_one_moved_adapter_follows_4_against_8_bits_and_says_nothing_of_other_trainings(tmp_path):
    own = noisy(1, 0.8)
    unlike = [(truth, right, "GP" if i % 2 else decision) for i, (truth, right, decision) in enumerate(own)]
    land_precision(tmp_path, "8bit", own)
    land_precision(tmp_path, "4bit", noisy(2, 0.8))
    land_precision(tmp_path, "mxfp4", unlike, moved_from="8bit")
    land_precision(tmp_path, "mxfp4", unlike, moved_from="4bit")
    land_baseline(tmp_path, 0.8)
    load_all(tmp_path)
    claim = changed(CLAIM, base_model="smol", recipe="r1", side="mxfp4", seeds=[42], figures=["ed_recall"])
    found = given(claim)
    of_bits, of_claim = found.sentence.split(" 8-bit adapters moved to mxfp4, threshold kept, ")
    assert of_bits.startswith("Cannot tell whether 4 bits miss more emergencies than 8 bits: ED recall at each")
    assert re.fullmatch(
        r"miss more emergencies than unmoved ones, by more than 2 points: ED recall -\d+\.\d points \[-\d+\.\d, "
        r"-\d+\.\d\]; over-triage .+ \(smol r1, 1 training, \d+ groups; nothing follows about others\)\. "
        r"None of 2 trained models passes the safety gates\.",
        of_claim,
    )
    alike = given(changed(claim, margin=0.2, figures=["accuracy", "over_triage"])).sentence
    assert "unmoved ones in over-triage: " in alike
    names = first_table(replace(studied()[0], claim=claim), brief=True)["model"]
    assert sorted(names) == ["4bit", "8bit", "linear model (words, characters)", "mxfp4-from-8bit"]


def test_figures_of_random_weights_say_nothing(tmp_path):
    land_recipe(tmp_path, random_weights=True)
    load_all(tmp_path)
    for claim in (None, changed(CLAIM, base_model="smol", recipe="r1", seeds=[1])):
        found = given(claim)
        assert found.sentence.startswith(ALL_RANDOM) and found.primary is None
        assert len(found.details) == 1 and found.details[0].startswith("4 bits take x0.50 of the bytes of 8.")


def test_untuned_pairs_answer_nothing(tmp_path):
    for width in (4, 8):
        land_arm(tmp_path, str(width), width, recipe="zero_shot", recipe_kind="baseline", cell_id=f"zero-{width}")
    load_all(tmp_path)
    found = given()
    assert found.primary is None and found.sentence.startswith(NO_PAIR)


ROW = Row(
    metric="accuracy", difference=-0.002, low=-0.009, high=0.005, margin=0.02, verdict="within", seeds=3, groups=63,
    cases=900, more_seeds=None, more_groups=None, note=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "4 bits are within 2 points of 8 bits in accuracy: -0.2 points [-0.9, +0.5] (r, 3 seeds)."),
        ({"verdict": "not worse", "high": -0.0001}, "4 bits are not worse by 2 points than 8 bits in accuracy: -0.2 "),
        ({"verdict": "worse", "margin": 0.001}, "4 bits are worse by more than 0.1 points than 8 bits in accuracy: "),
        ({"verdict": "cannot conclude", "more_seeds": 4, "more_groups": 700}, "; it would take at least 4 more seeds"),
        ({"low": None, "high": None, "note": "no interval: few groups"}, "-0.2 points; no interval: few groups (r"),
        ({"difference": None, "note": "not available: no ED case"}, "Nothing can be said about 4 bits against 8 "),
        ({"metric": "ed_recall"}, "4 bits miss as many emergencies as 8 bits, within 2 points: ED recall at each"),
        ({"metric": "ed_recall", "verdict": "not worse"}, "4 bits do not miss 2 points more emergencies than 8 bits"),
        ({"metric": "ed_recall", "verdict": "worse"}, "4 bits miss more emergencies than 8 bits, by more than 2 "),
    ],
)
def test_a_sentence_has_the_words_of_its_verdict(values, words):
    assert words in sentences._sentence(changed(ROW, **values), "r, 3 seeds")


def test_without_emergencies_accuracy_still_has_its_verdict():
    row = changed(ROW, difference=None, note="not available: no ED case")
    sentence = sentences._sentence(row, "r", also="accuracy -0.2 [-0.9, +0.5]: within 2 points")
    assert sentence.endswith("not available: no ED case; accuracy -0.2 [-0.9, +0.5]: within 2 points (r).")


def test_what_the_answer_says_is_at_the_prevalence_of_the_cases(read, published):
    of_f2 = replace(read("study"), claim=changed(CLAIM, figures=["ed_f2"]))
    assert answered(replace(of_f2, prevalence=0.05)) == answered(of_f2)


def test_one_seed_is_a_lack_where_trainings_are_compared_and_none_where_an_adapter_is_with_itself():
    row = changed(ROW, verdict="cannot conclude", seeds=1, more_groups=70)
    for rules, words in (("", "it would take a second seed"), ("kept", "it would take at least 70 more groups")):
        assert words in sentences._sentence(row, "r", moved_rules=rules)
