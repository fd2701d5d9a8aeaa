from types import SimpleNamespace

import pytest

from tasks.judging import evaluation_rows, scores_folder
from tasks.judging.intervals import CLUSTERED, EXACT, INDEPENDENT
from tasks.judging.scores_folder import LABELS_THEMSELVES, WrittenAnswer


def read_answer(*args) -> WrittenAnswer:
    return scores_folder.read_answer("c", *args)


def generation_metrics(*args, **options):
    """Compliance and agreement, with their columns as attributes."""
    return [SimpleNamespace(**row) for row in evaluation_rows.generation_metrics(*args, **options)]


WORDS = {"ED": "emergency room", "GP": "doctor", "HOME": "home"}


@pytest.mark.parametrize(
    ("words", "complies", "label", "texts"),
    [
        (LABELS_THEMSELVES, True, "GP", ["GP", " GP\n"]),
        (LABELS_THEMSELVES, True, "ED", ["ED"]),
        (LABELS_THEMSELVES, True, "HOME", [" HOME\n"]),
        (LABELS_THEMSELVES, False, "ED", ["Go to the ED now.", "ED. ED!"]),
        (LABELS_THEMSELVES, False, None, ["ED or GP", "", "ed", "Home"]),
        # inside a word
        (LABELS_THEMSELVES, False, None, ["needed", "recommendED", "NEEDED", "I recommended rest", "EDGP"]),
        (WORDS, True, "ED", [" emergency room\n"]),
        (WORDS, False, "GP", ["See a doctor."]),
        (WORDS, False, None, ["The doctor comes home", "homework, ED, GP"]),
    ],
)
def test_a_label_alone_complies_one_among_words_is_read_and_one_inside_a_word_is_none(words, complies, label, texts):
    for text in texts:
        assert read_answer(text, words) == WrittenAnswer("c", complies, label), text


def test_compliance_and_agreement_are_counted_on_the_sample_and_a_note_says_so():
    answers = [read_answer(text) for text in ("ED", "needed", "See your GP", "HOME")]
    compliance, agreement = generation_metrics(answers, ["ED", "ED", "GP", "HOME"], 200)
    assert (compliance.value, compliance.n) == (0.5, 4) and agreement.value == 0.75
    assert "4 of 200 cases" in compliance.note and compliance.low < 0.5 < compliance.high


def test_answers_to_cases_of_few_conditions_are_not_taken_for_independent():
    answers = [read_answer("ED" if i // 10 % 2 else "needed") for i in range(200)]
    scored = ["ED"] * 200
    groups = [str(i // 10) for i in range(200)]
    alone, grouped = (generation_metrics(answers, scored, 200, own_values, seed=1)[0] for own_values in (None, groups))
    assert alone.method == EXACT and INDEPENDENT in alone.note and alone.clustered_low is None
    assert grouped.method == CLUSTERED and INDEPENDENT not in grouped.note and grouped.value == alone.value == 0.5
    assert (grouped.exact_low, grouped.exact_high) == (alone.low, alone.high)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
