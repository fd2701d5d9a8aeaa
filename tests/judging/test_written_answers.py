import pytest

from tasks.judging import scores_folder
from tasks.judging.metrics import CLUSTERED, EXACT, INDEPENDENT
from tasks.judging.scores_folder import WrittenAnswer, generation_metrics


def read_answer(*args) -> WrittenAnswer:
    return scores_folder.read_answer("c", *args)


@pytest.mark.parametrize("text", ["GP", " HOME\n", "ED"])
def test_a_label_alone_complies(text):
    assert read_answer(text) == WrittenAnswer("c", True, text.strip())


@pytest.mark.parametrize("text", ["needed", "recommendED", "NEEDED", "I recommended rest", "EDGP", "", "ed", "Home"])
def test_a_label_inside_a_word_is_no_decision(text):
    """The earlier attempt searched for "ED" in the answer, and found it in "recommendED"."""
    assert read_answer(text) == WrittenAnswer("c", False, None)


def test_one_label_among_words_is_read_but_does_not_comply_and_two_are_no_decision():
    assert read_answer("Go to the ED now.") == WrittenAnswer("c", False, "ED")
    assert read_answer("ED or GP") == WrittenAnswer("c", False, None)
    assert read_answer("ED. ED!") == WrittenAnswer("c", False, "ED")


def test_the_words_for_the_labels_are_read_where_a_grid_names_them():
    words = {"ED": "emergency room", "GP": "doctor", "HOME": "home"}
    assert read_answer(" emergency room\n", words) == WrittenAnswer("c", True, "ED")
    assert read_answer("See a doctor.", words) == WrittenAnswer("c", False, "GP")
    assert read_answer("The doctor comes home", words) == WrittenAnswer("c", False, None)
    assert read_answer("homework, ED, GP", words) == WrittenAnswer("c", False, None)


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


def test_without_answers_nothing_is_claimed():
    for metric in generation_metrics([], [], 10):
        assert metric.value is None and metric.note.startswith("not available")
