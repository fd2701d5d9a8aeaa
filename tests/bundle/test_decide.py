"""A bundle decides as the evaluation that it comes from, whichever its rule; and which texts of a user's file it takes, in
sentences that repeat nothing of a text."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from flows.cli.predict import table
from tasks.bundle.asking import Decision, answer, checked_text, numbered_texts
from tasks.bundle.bundle import (
    Bundle,
    BundledModel,
    ConformalCutoffs,
    JudgedOn,
    Review,
    Rule,
    Scaling,
    Versions,
    read_bundle,
    write_bundle,
)
from tasks.bundle.decide import decide
from tasks.judging.decision_rules import record_rules
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, PromptChoice, Training
from tests.tuning.tiny import recipe

RNG = np.random.default_rng(5)
INFORMED = softmax(RNG.normal(size=(90, 3)) + 2 * np.tile(np.eye(3), (30, 1)), axis=1)
COSTS = {
    "ED": {"ED": 0, "GP": 9, "HOME": 9},
    "GP": {"ED": 1, "GP": 0, "HOME": 3},
    "HOME": {"ED": 1, "GP": 1, "HOME": 0},
}
LOG_LIKELIHOODS = log_softmax(RNG.normal(size=(200, 3)) * 3, axis=1) - RNG.uniform(0, 9, (200, 1))


def bundle(rule: Rule, scaling: Scaling | None = None, **changes) -> Bundle:
    values = {
        "model_id": "m4-s1-0123", "cell_id": "m4-s1", "base_model": "m", "licence": "Apache-2.0", "precision": "4bit",
        "bits": 4, "recipe": recipe(), "training": Training(), "seed": 1, "prompt": PromptChoice(), "prompt_digest": "d",
        "words": {label: label for label in LABELS}, "chat": False, "rule": rule, "scaling": scaling,
        "conformal": ConformalCutoffs(miss_rate=0.05, cutoffs=(0.1, 0.3, 0.6)),
        "gates": ({"gate": "ed_recall", "state": "FAIL", "threshold": 0.95, "value": 0.9, "note": None},),
        "verdict": "unsafe", "review": Review(available=True, entropy_limit=0.3),
        "judged_on": JudgedOn(evaluation_id="e", scores_id="s", scoring_version=7, dataset_digest="d", test_digest="t",
                              calibration_digest="c", cases=100, has_groups=True, synthetic=True),
        "versions": Versions(triage="0", engine=5, mlx="0", mlx_lm="0", backend="cpu", compute_dtype="float32",
                             compute_path="dequantised_f32"),
        "random_weights": False, "weights": "weights", "weights_digest": "w", "adapter": None,
    }  # fmt: skip
    return Bundle(**(values | changes))


SHIFTED = softmax(np.log(INFORMED) / 2 + [-1, 0.5, 0], axis=1)


@pytest.mark.parametrize(
    ("name", "own"), [("argmax", None), ("target_recall", None), ("min_cost", None), ("argmax", SHIFTED)]
)
def test_each_rule_decides_as_the_recorded_one(name, own):
    rules = record_rules(INFORMED, list(LABELS) * 30, "digest", target=0.9, costs=COSTS, own_p=own).rules
    chosen = rules[name]
    threshold = chosen.threshold.value if chosen.threshold else None
    scaling = Scaling(temperature=chosen.scaling.temperature, biases=chosen.scaling.biases) if chosen.scaling else None
    offsets = scaling if name == "argmax" else None
    decision_bundle = bundle(Rule(name=name, threshold=threshold, costs=COSTS, offsets=offsets), scaling)

    p = np.exp(log_softmax(LOG_LIKELIHOODS, axis=1))
    decisions = decide(decision_bundle, LOG_LIKELIHOODS)
    assert [one.label for one in decisions] == chosen.decide(p, COSTS)
    assert np.array([one.probabilities for one in decisions]) == pytest.approx(p, abs=1e-12)
    assert len({one.label for one in decisions}) == 3


def test_the_review_flag_is_that_of_the_passes_and_without_them_not_available():
    agreeing = [0.8, 0.1, 0.1]
    divided = [0.1, 0.8, 0.1]
    passes = [[agreeing, agreeing]] * 5 + [[agreeing, divided]] * 5
    first, second = decide(bundle(Rule(name="argmax")), np.zeros((2, 3)), passes)
    assert (first.review, second.review) == (False, True) and second.vote_entropy == pytest.approx(np.log(2))
    assert (first.passes, second.passes) == (10, 10)

    without = answer(bundle(Rule(name="argmax")), decide(bundle(Rule(name="argmax")), np.zeros((1, 3)))[0])
    assert without["review"] is None and "not available: it needs dropout passes" in without["review_note"]
    no_dropout = bundle(Rule(name="argmax"), review=Review(available=False, entropy_limit=0.3))
    assert "the recipe has dropout 0" in answer(no_dropout, first)["review_note"]


def shown(decision_bundle: Bundle, decision: Decision, case_id: str | None = None) -> str:
    """What a person reads."""
    out = io.StringIO()
    table(decision_bundle, case_id is not None, out)(case_id, decision)
    return out.getvalue()


def test_a_person_reads_the_case_and_what_must_be_minded_about_each_answer():
    """What to mind about conformal sets is said of every answer, and their miss rate is an aim."""
    few = "12 calibration cases of ED are too few to rule it out at 0.05"
    minded = bundle(Rule(name="argmax"), conformal=ConformalCutoffs(miss_rate=0.0025, cutoffs=(0, 0.3, 0.6), note=few))
    decision = Decision("GP", (0.1, 0.8, 0.1), ("ED", "GP"))
    sentence = f"Conformal sets, when they were judged: {few}."
    text = shown(minded, decision)
    assert answer(minded, decision)["notes"] == [sentence] and sentence in text
    assert "conformal set  ED GP (aims to miss at most 0.25% of emergencies)\n" in text

    plain = Decision("GP", (0.1, 0.8, 0.1), ("GP",))
    text = shown(bundle(Rule(name="argmax")), plain, "a\x1b[2J")
    assert "decision       GP\n" in text and "note" not in text.split("decision")[1] and "a\\x1b[2J\n" in text
    text = shown(
        bundle(Rule(name="argmax")),
        replace(plain, shortened=True, markup=True, review=True, vote_entropy=0.5, passes=8),
    )
    for words in ("middle was left out", "markup", "yes (vote entropy 0.500 nats, 8 passes)"):
        assert words in text


def test_a_rule_that_is_not_available_gives_no_label_and_says_why():
    unavailable = bundle(Rule(name="min_cost", note="not available: no cost matrix"))
    said = answer(unavailable, decide(unavailable, np.zeros((1, 3)))[0])
    assert (said["decision"], said["notes"]) == (None, ["The rule min_cost is not available: no cost matrix."])
    with_note = bundle(Rule(name="target_recall", threshold=0.3, note="of 12 calibration cases"))
    assert answer(with_note, decide(with_note, np.zeros((1, 3)))[0])["notes"] == []


def test_an_unsafe_model_and_a_moved_one_say_so_in_every_answer_and_random_weights_are_named():
    answer_text = answer(bundle(Rule(name="argmax")), Decision("GP", (0.1, 0.8, 0.1), ("GP",)))
    assert answer_text["warning"] == "This model is unsafe by its gates: ED recall 0.900 (at least 0.95 is required)."
    assert answer_text["notice"].startswith("Research software, not a medical device; synthetic cases are no evidence")
    assert answer_text["origin"] is None
    moved = bundle(Rule(name="target_recall", threshold=0.3), trained_at="8bit")
    chosen = "the threshold, 0.3, was chosen again on calibration at 4bit"
    assert answer(moved, decide(moved, np.zeros((1, 3)))[0])["origin"] == f"The adapter was trained at 8bit; {chosen}."
    assert bundle(Rule(name="argmax"), verdict="provisional").warning is None
    assert "random weights" in bundle(Rule(name="argmax"), random_weights=True, verdict="provisional").warning


def test_a_bundle_comes_back_from_its_file_and_a_damaged_one_is_named(tmp_path):
    rule = Rule(name="target_recall", threshold=0.3193435663044174)
    decision_bundle = bundle(rule, Scaling(temperature=0.9, biases=(1, 2, 0)))
    (tmp_path / "weights").mkdir()
    write_bundle(decision_bundle, tmp_path)
    assert read_bundle(tmp_path) == BundledModel(bundle=decision_bundle, folder=tmp_path)

    text = (tmp_path / "bundle.json").read_text()
    (tmp_path / "bundle.json").write_text(text.replace('"state": "FAIL"', '"state": "fail"'))
    with pytest.raises(
        BadInput, match=r"bundle\.json: gates\.0\.state: Input should be 'PASS', .*export the model again"
    ):
        read_bundle(tmp_path)
    (tmp_path / "bundle.json").write_text(text)

    (tmp_path / "weights").rmdir()
    with pytest.raises(BadInput, match=r"weights is missing, which .*bundle\.json names"):
        read_bundle(tmp_path)

    (tmp_path / "bundle.json").write_text("{}")
    with pytest.raises(BadInput, match=r"bundle\.json: model_id: Field required; export the model again"):
        read_bundle(tmp_path)
    with pytest.raises(BadInput, match="holds no model that can be used"):
        read_bundle(tmp_path / "nowhere")


SAID = "My chest hurts"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", f"{SAID}, and my left arm\nI cut my finger, badly\n", "has no column 'text' among its 2"),
        ("a.jsonl", f'{{"{SAID}": "and my left arm"}}\n', "has no column 'text' among its 1"),
    ],
)
def test_a_file_without_a_header_is_refused_without_its_words(
    name: str, content: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput) as error:
        list(numbered_texts(tmp_path / name, "text"))
    assert sentence in str(error.value) and not {"chest", "arm", "finger"} & set(str(error.value).split())


def test_rows_are_known_by_their_id_or_by_the_digest_of_their_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "I cough.", "id": "c1"}\n{"text": "I cough."}\n')
    (first, second) = numbered_texts(path, "text")
    assert first == ("c1", "I cough.") and second[0].startswith("text-") and second[1] == "I cough."


@pytest.mark.parametrize("text", ["", " \n", "\x01\x07", "\u200b \ufeff"])
def test_a_text_of_which_nothing_can_be_seen_is_empty(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="The text is empty"):
        checked_text(text)

    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    with pytest.raises(BadInput, match="'text' is empty"):
        list(numbered_texts(tmp_path / "a.jsonl", "text"))
