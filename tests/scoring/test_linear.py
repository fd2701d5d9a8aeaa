"""The linear baseline: what it reads in a text, that it is the same twice, and that poor cases give an answer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from tasks.corpus.case import Case
from tasks.corpus.vignettes.sets import sets_of
from tasks.scoring import linear
from tasks.scoring.baselines import LINEAR, dataset_baseline_rows, fitted_linear
from tasks.scoring.linear import LinearModel, words_and_pairs
from tasks.spec import LABELS, Data, Label, Scoring
from tests.scoring.test_baselines import DATASET, write_sets

SENTENCES: dict[Label, str] = {
    "ED": "crushing chest pain and sweating", "GP": "a rash for weeks, no fever", "HOME": "runny nose since today",
}  # fmt: skip


def cases(count: int, labels: tuple[Label, ...] = LABELS, start: int = 0) -> list[Case]:
    """Cases of these labels in turn, every tenth of which is told in the words of another label."""
    made = []
    for i in range(start, start + count):
        label = labels[i % len(labels)]
        told = label if i % 10 else labels[(i + 1) % len(labels)]
        made.append(Case(f"c-{i}", f"{SENTENCES[told]} number {i} of {i % 7}", label))
    return made


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("No fever, rash: or cough. Pain", ["no", "not_fever", "not_rash", "not_or", "not_cough", "pain"]),
        ("I can't walk but eat", ["i", "can't", "not_walk", "but", "eat"]),
        ("isn’t hot! 38.5 and 7/10", ["isn’t", "not_hot", "38.5", "and", "7/10"]),
        ("Nothing denied; knows", ["nothing", "denied", "knows"]),
    ],
)
def test_words_after_a_negation_are_marked_to_the_end_of_the_clause(text: str, marked: list[str]) -> None:
    pairs = [f"{first} {second}" for first, second in pairwise(marked)]
    assert words_and_pairs(text) == marked + pairs


def test_two_fits_agree_to_the_bit_and_probabilities_are_those_of_calibration() -> None:
    train, valid, calibration, test = (cases(n, start=s) for n, s in ((90, 0), (30, 300), (60, 400), (60, 600)))
    first, second = (LinearModel(train, valid, calibration).predict(test) for _ in range(2))
    assert np.array_equal(first, second) and np.allclose(first.sum(axis=1), 1)
    hits = [LABELS[i] == case.label for i, case in zip(first.argmax(axis=1), test, strict=True)]
    assert np.mean(hits) == 0.9
    # A calibration set whose labels say nothing of the texts gives probabilities that say nothing.
    labels = np.random.default_rng(0).permutation([case.label for case in calibration])
    shuffled = [Case(case.case_id, case.text, label) for case, label in zip(calibration, labels, strict=True)]
    said = np.ptp(LinearModel(train, valid, shuffled).predict(test), axis=0)
    assert (said < np.ptp(first, axis=0) / 2).all()


def test_rare_emergencies_are_found_where_valid_asks_for_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of 6 % emergencies are those of three times as many others: without weights none is called ED."""

    def rare(start: int) -> list[Case]:
        made = []
        for i in range(start, start + 320):
            label: Label = "ED" if i % 16 == 0 else LABELS[1 + i % 2]
            told = "crushing chest pain" if i % 16 in (0, 1, 3, 5) else f"a sore {('toe', 'knee')[i % 2]}"
            made.append(Case(f"r-{i}", told, label))
        return made

    def found() -> float:
        p = LinearModel(rare(0), rare(320), rare(640)).predict(rare(960))
        return float(np.mean(p.argmax(axis=1)[::16] == 0))

    assert found() == 1
    monkeypatch.setattr(linear, "BALANCE", (0.0,))
    assert found() == 0


def test_a_calibration_set_that_lacks_a_label_leaves_the_scores_uncalibrated() -> None:
    test = cases(30, start=200)
    for labels in (("ED", "GP"), ("HOME",)):
        p = LinearModel(cases(90), cases(30, start=90), cases(20, labels)).predict(test)
        assert np.allclose(p.sum(axis=1), 1) and (p > 0).all()
        assert np.mean([LABELS[i] == case.label for i, case in zip(p.argmax(1), test, strict=True)]) >= 0.9


def test_a_label_that_train_lacks_has_probability_0() -> None:
    p = LinearModel(cases(60, ("ED", "HOME")), cases(30), cases(30)).predict(cases(30))
    assert (p[:, 1] == 0).all() and np.allclose(p.sum(axis=1), 1) and (p[:, 0] > 0.5).any()


@pytest.mark.parametrize(
    ("train", "constant"),
    [
        (cases(12), False),
        (cases(40, ("GP",)), True),
        ([Case(f"e-{i}", " " if i % 2 else "?", LABELS[min(i % 4, 2)]) for i in range(24)], True),
    ],
    ids=["12 cases", "one label", "no words"],
)
def test_poor_cases_give_an_answer_or_the_most_frequent_label(train: list[Case], constant: bool, tmp_path) -> None:
    write_sets(tmp_path, train=train, valid=cases(6), calibration=cases(9), test=cases(12, start=100))
    fitted_linear.cache_clear()  # pytest gives a folder's name again
    rows = dataset_baseline_rows(LINEAR, {"test": "t-1"}, Scoring(), tmp_path, DATASET)["test"]
    answers = {row["argmax"] for row in rows["prediction"]}
    (rule,) = (row for row in rows["decision_rule"] if row["rule"] == "target_recall")
    assert len(rows["prediction"]) == 12 and (rule["threshold"] is None) == constant
    assert not constant or answers == {max(LABELS, key=[case.label for case in train].count)}


def test_it_is_as_good_on_the_embedded_cases_as_such_a_model_can_be() -> None:
    """On half of train and test; on the 9,000 cases of the grid `study`: macro-F1 0.760, AUROC 0.929."""
    sets = sets_of(Data())
    test = sets["test"][::2]
    p = LinearModel(sets["train"][::2], sets["valid"][::2], sets["calibration"][::2]).predict(test)
    truth = np.array([LABELS.index(case.label) for case in test])
    assert f1_score(truth, p.argmax(axis=1), average="macro") > 0.65
    assert roc_auc_score(truth == 0, p[:, 0]) > 0.85
