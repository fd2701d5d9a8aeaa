from tasks.judging.metrics import metric_table
from tasks.judging.subgroups import subgroup_recalls


def test_a_subgroup_has_the_recall_of_its_own_cases_with_interval_and_count():
    voices = ["nurse", "patient"] * 60
    labels = ["ED", "ED", "GP", "HOME"] * 30
    decisions = ["ED" if i % 8 else "GP" for i in range(120)]
    recalls = subgroup_recalls([{"voice": v} for v in voices], labels, decisions)
    rows = [i for i, v in enumerate(voices) if v == "nurse"]
    table = metric_table([labels[i] for i in rows], [decisions[i] for i in rows])
    assert recalls["voice", "nurse"] == next(m for m in table if m.name == "ed_recall")
    assert recalls["voice", "nurse"].value == 0.5 and recalls["voice", "patient"].value == 1.0
    assert recalls["voice", "nurse"].n == 30


def test_a_good_average_does_not_hide_a_group_that_is_failed():
    spelling = [{"spelling": "british"}] * 90 + [{"spelling": "american"}] * 10
    decisions = ["ED"] * 90 + ["GP"] * 10
    recalls = subgroup_recalls(spelling, ["ED"] * 100, decisions)
    assert recalls["spelling", "american"].value == 0.0 and recalls["spelling", "american"].high < 0.5


def test_few_emergencies_are_not_available_with_their_number():
    recalls = subgroup_recalls([{"age_band": "child"}] * 9 + [{}], ["ED"] * 10, ["ED"] * 10)
    assert recalls["age_band", "child"].value is None
    assert recalls["age_band", "child"].note == "not available: 9 ED cases of this subgroup are too few (it needs 10)"
    assert subgroup_recalls([{}], ["ED"], ["ED"]) == {}
