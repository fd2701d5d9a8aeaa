import json

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tasks.corpus.manifest import DatasetManifest, SetEntry
from tasks.scoring import baselines
from tasks.scoring.baselines import (
    OF_A_DATASET,
    PENALTIES,
    baseline_scores_id,
    dataset_baseline_id,
    dataset_baseline_rows,
)
from tasks.spec import LABELS, Scoring
from tests.test_spec import COSTS

WORDS = {"ED": "crushing chest pain", "GP": "rash for weeks", "HOME": "runny nose"}
SETS = ("train", "valid", "calibration", "test", "clinic")
DATASET = DatasetManifest(digest="", sets={name: SetEntry(cases=0, digest=name, labels={}) for name in SETS})


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("train", 90), ("valid", 30), ("calibration", 60), ("test", 60), ("clinic", 30)):
        lines = []
        for i in range(n):
            label = LABELS[i % 3]
            sentence = WORDS[label if rng.random() < 0.8 else LABELS[rng.integers(3)]]
            text = f"{sentence} {' '.join(rng.choice(['today', 'mild', 'bad', 'slow', 'again'], 3))} {name} {i}"
            lines.append({"case_id": f"{name}-{i}", "text": text, "label": label, "group": None, "subgroup": {}})
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))

    return tmp_path


def rows_by_set(name, data):
    settings = Scoring(cost_matrix=COSTS)
    training = dataset_baseline_id(name, DATASET)
    ids = {judged: baseline_scores_id(training, settings, DATASET, judged=judged) for judged in DATASET.evaluation_sets}
    return dataset_baseline_rows(name, ids, settings, data, DATASET)


def rows(name, data):
    return rows_by_set(name, data)["test"]


@pytest.mark.parametrize(("name", "label"), [("always_gp", "GP"), ("always_ed", "ED")])
def test_a_constant_answers_one_label_and_offers_no_other_rule(name, label, data):
    landed = rows(name, data)
    assert {p["argmax"] for p in landed["prediction"]} == {p["decision"] for p in landed["prediction"]} == {label}
    assert {p["nll"] for p in landed["prediction"]} == {None} and landed["evaluation"][0]["loss"] is None
    other_values = [m for m in landed["metric"] if m["rule"] != "argmax"]
    assert other_values and all(m["value"] is None and "constant" in m["note"] for m in other_values)
    assert landed["evaluation"][0]["verdict"] == "unsafe"


def test_the_bag_of_words_is_scikit_learns_and_is_gated_by_argmax(data):
    landed = rows("tfidf_lr", data)
    sets = {
        k: [json.loads(line) for line in (data / f"{k}.jsonl").read_text().splitlines()]
        for k in ("train", "valid", "test")
    }
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    x = vectors.fit_transform([r["text"] for r in sets["train"]])
    models = [LogisticRegression(C=c, max_iter=1000).fit(x, [r["label"] for r in sets["train"]]) for c in PENALTIES]
    scores = [m.predict_log_proba(vectors.transform([r["text"] for r in sets["valid"]])) for m in models]
    truth = [LABELS.index(r["label"]) for r in sets["valid"]]
    best = models[int(np.argmax([s[np.arange(len(truth)), truth].mean() for s in scores]))]
    expected = best.predict_proba(vectors.transform([r["text"] for r in sets["test"]]))
    own_result = [[p[f"p_{label.lower()}"] for label in LABELS] for p in landed["prediction"]]
    assert own_result == pytest.approx(expected, abs=1e-9)
    assert landed["evaluation"][0]["primary_rule"] == "argmax" and landed["evaluation"][0]["accuracy"] > 0.6
    assert {m["rule"] for m in landed["metric"] if m["value"] is not None} == {"argmax", "target_recall", "min_cost"}


def test_a_further_set_is_judged_separately_by_the_rules_of_the_calibration_set(data):
    landed = rows_by_set("tfidf_lr", data)
    assert list(landed) == ["test", "clinic"]
    test, clinic = (landed[name]["evaluation"][0] for name in landed)
    assert (clinic["evaluation_set"], clinic["cases"], clinic["set_digest"]) == ("clinic", 30, "clinic")
    assert clinic["training_id"] == test["training_id"] and clinic["evaluation_id"] != test["evaluation_id"]
    thresholds = [{rule["rule"]: rule["threshold"] for rule in landed[name]["decision_rule"]} for name in landed]
    assert thresholds[0] == thresholds[1] and thresholds[0]["target_recall"] is not None
    assert {p["case_id"].partition("-")[0] for p in landed["clinic"]["prediction"]} == {"clinic"}


def test_one_class_in_train_gives_a_constant_instead_of_an_error(data):
    lines = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    (data / "train.jsonl").write_text("\n".join(json.dumps(line | {"label": "GP"}) for line in lines))
    assert {p["argmax"] for p in rows("tfidf_lr", data)["prediction"]} == {"GP"}


def test_other_cases_or_costs_give_another_id_and_the_same_ones_the_same():
    def ids(dataset=DATASET, **scoring):
        return {baseline_scores_id(dataset_baseline_id(n, dataset), Scoring(**scoring), dataset) for n in OF_A_DATASET}

    new_test = SetEntry(cases=0, digest="new", labels={})
    other = DATASET.model_copy(update={"sets": DATASET.sets | {"test": new_test}})
    assert ids() == ids(passes=100) and not ids() & ids(cost_matrix=COSTS) and not ids() & ids(other)
    assert baselines.TARGET == 0.95
