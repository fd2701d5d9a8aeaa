import numpy as np
import pytest

from tasks.corpus.case import Case, to_json
from tasks.corpus.manifest import DatasetManifest, SetEntry
from tasks.scoring import baselines
from tasks.scoring.baselines import LINEAR, OF_A_DATASET, baseline_scores_id, dataset_baseline_id, dataset_baseline_rows
from tasks.spec import LABELS, Scoring
from tests.test_spec import COSTS

WORDS = {"ED": "crushing chest pain", "GP": "rash for weeks", "HOME": "runny nose"}
SETS = ("train", "valid", "calibration", "test", "clinic")
DATASET = DatasetManifest(digest="", sets={name: SetEntry(cases=0, digest=name, labels={}) for name in SETS})


def write_sets(folder, **sets):
    for name, cases in sets.items():
        (folder / f"{name}.jsonl").write_text("".join(to_json(case) + "\n" for case in cases))


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("train", 90), ("valid", 30), ("calibration", 60), ("test", 60), ("clinic", 30)):
        cases = []
        for i in range(n):
            label = LABELS[i % 3]
            sentence = WORDS[label if rng.random() < 0.8 else LABELS[rng.integers(3)]]
            text = f"{sentence} {' '.join(rng.choice(['today', 'mild', 'bad', 'slow', 'again'], 3))} {name} {i}"
            cases.append(Case(f"{name}-{i}", text, label))
        write_sets(tmp_path, **{name: cases})

    return tmp_path


def rows_by_set(name, data):
    settings = Scoring(cost_matrix=COSTS)
    training = dataset_baseline_id(name, DATASET)
    ids = {judged: baseline_scores_id(training, settings, DATASET, judged=judged) for judged in DATASET.evaluation_sets}
    return dataset_baseline_rows(name, ids, settings, data, DATASET)


@pytest.mark.parametrize(("name", "label"), [("always_gp", "GP"), ("always_ed", "ED")])
def test_a_constant_answers_one_label_and_offers_no_other_rule(name, label, data):
    landed = rows_by_set(name, data)["test"]
    assert {p["argmax"] for p in landed["prediction"]} == {p["decision"] for p in landed["prediction"]} == {label}
    assert {p["nll"] for p in landed["prediction"]} == {None} and landed["evaluation"][0]["loss"] is None
    other_values = [m for m in landed["metric"] if m["rule"] != "argmax"]
    assert other_values and all(m["value"] is None and "constant" in m["note"] for m in other_values)
    assert landed["evaluation"][0]["verdict"] == "unsafe"


def test_a_damaged_set_is_an_error_and_no_constant(data):
    (data / "valid.jsonl").write_text("{")
    with pytest.raises(ValueError, match="Expecting property name"):
        rows_by_set(LINEAR, data)


def test_the_linear_model_has_every_rule_and_judges_a_further_set_by_those_of_the_calibration_set(data):
    landed = rows_by_set(LINEAR, data)
    assert list(landed) == ["test", "clinic"]
    test, clinic = (landed[name]["evaluation"][0] for name in landed)
    assert test["primary_rule"] == "argmax" and test["accuracy"] > 0.6
    rules = {m["rule"] for m in landed["test"]["metric"] if m["value"] is not None}
    assert rules == {"argmax", "target_recall", "min_cost"}
    assert (clinic["evaluation_set"], clinic["cases"], clinic["set_digest"]) == ("clinic", 30, "clinic")
    assert clinic["training_id"] == test["training_id"] and clinic["evaluation_id"] != test["evaluation_id"]
    thresholds = [{rule["rule"]: rule["threshold"] for rule in landed[name]["decision_rule"]} for name in landed]
    assert thresholds[0] == thresholds[1] and thresholds[0]["target_recall"] is not None
    for set_name in landed:
        values = {m["metric"]: m["value"] for m in landed[set_name]["metric"] if m["rule"] == "target_recall"}
        assert values["ed_recall"] is not None and values["over_triage"] is not None
    assert {p["case_id"].partition("-")[0] for p in landed["clinic"]["prediction"]} == {"clinic"}


def test_other_cases_or_costs_give_another_id_and_the_same_ones_the_same():
    def ids(dataset=DATASET, **scoring):
        return {baseline_scores_id(dataset_baseline_id(n, dataset), Scoring(**scoring), dataset) for n in OF_A_DATASET}

    def changed(name):
        return DATASET.model_copy(update={"sets": DATASET.sets | {name: SetEntry(cases=0, digest="new", labels={})}})

    assert ids() == ids(passes=100) and not ids() & ids(cost_matrix=COSTS) and not ids() & ids(changed("test"))
    other = changed("calibration")
    again = [name for name in OF_A_DATASET if dataset_baseline_id(name, other) != dataset_baseline_id(name, DATASET)]
    assert again == [LINEAR], "its probabilities are fitted there"
    assert baselines.TARGET == 0.95
