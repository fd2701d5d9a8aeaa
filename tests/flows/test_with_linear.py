"""A trained model together with the linear baseline: judged by the product of their probabilities and by rules of its own,
ranked, and asked; never exported, and never beside a sealed claim."""

import json

import numpy as np
import pytest

from flows.cli.best import best
from flows.cli.experiments import find_model
from flows.cli.export import export
from flows.serve.app import KeptModel
from tasks.bundle.asking import decision_of
from tasks.corpus.manifest import DatasetManifest
from tasks.grids.grid import load_grid
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.scoring.baselines import cases_of, fitted_linear
from tasks.spec import LABELS, ExperimentSpec
from tasks.with_linear import with_linear
from tests.warehouse.test_studies import land_sweep
from warehouse.load import load_all
from warehouse.query import query

CELL = "tiny-llama-4bit-balanced_safe-s42"  # with dropout, and decided by a threshold
JOINED = "tiny-llama-4bit-balanced_safe-with-linear-s42"
P = "SELECT p_ed, p_gp, p_home FROM {} JOIN evaluation USING (evaluation_id) JOIN experiment USING (training_id) "


@pytest.fixture(scope="module")
def judged(smoke, tmp_path_factory):
    """A place with this model alone and together with `linear`, and the folder of its cases."""
    place = smoke[0].copy(tmp_path_factory.mktemp("with_linear") / "place")
    with pytest.MonkeyPatch.context() as patch:
        place.use(patch)
        folder = place.experiment(CELL)
        spec = ExperimentSpec.model_validate(json.loads((folder / "training.json").read_text())["spec"])
        (scores,) = (folder / "scores").iterdir()
        (variant,) = place.home.glob("models/tiny-llama*4bit*")
        (data,) = (one for one in place.home.glob("data/*-*") if DatasetManifest.read(one).dataset_digest in one.name)
        ids = with_linear.fn(spec, folder.name, scores.name, variant, data)
        own = query(f"SELECT training_id, evaluation_id FROM evaluation WHERE scores_id = '{scores.name}'").iloc[0]
        land_sweep(place.home / "landing", "both", [*own, *ids, ids[0].rpartition("-")[0]])
        load_all(place.home / "landing")
    return place, data


@pytest.fixture
def data(judged, own_home, monkeypatch):
    """The folder of the cases; this process has the home of the place."""
    judged[0].use(monkeypatch)
    return judged[1]


def probabilities(table, cell):
    rows = query(P.format(table) + f"WHERE cell_id = '{cell}' ORDER BY case_id")
    return rows.to_numpy()


def test_its_probabilities_are_the_product_and_its_threshold_is_chosen_on_calibration(data):
    for table, name in (("calibration_prediction", "calibration"), ("prediction", "test")):
        cases = sorted(cases_of(data, name), key=lambda case: case.case_id)
        product = probabilities(table, CELL) * fitted_linear(data, False)(cases)
        expected = product / product.sum(axis=1, keepdims=True)
        assert probabilities(table, JOINED) == pytest.approx(expected, abs=1e-12)
        assert not np.allclose(expected, probabilities(table, CELL), atol=0.05)

    thresholds = query("SELECT cell_id, decision_rule.threshold FROM decision_rule JOIN evaluation USING (evaluation_id) "
                       "JOIN experiment USING (training_id) WHERE rule = 'target_recall' "
                       f"AND cell_id IN ('{CELL}', '{JOINED}')")  # fmt: skip
    chosen = dict(thresholds.itertuples(index=False))
    emergencies = [case.label == "ED" for case in sorted(cases_of(data, "calibration"), key=lambda case: case.case_id)]
    assert chosen[JOINED] != chosen[CELL]
    assert any(np.isclose(probabilities("calibration_prediction", JOINED)[emergencies, 0], chosen[JOINED]))
    votes = query("SELECT cell_id, count(*) FROM mc_dropout JOIN evaluation USING (evaluation_id) "
                  "JOIN experiment USING (training_id) GROUP BY ALL")  # fmt: skip
    assert dict(votes.itertuples(index=False))[JOINED] == 6, "the passes of the model, each multiplied"


def test_a_text_is_decided_as_it_was_judged_with_the_review_flag(data):
    (case, *_) = cases_of(data, "test")
    decision = decision_of(KeptModel(find_model(JOINED), passes=8).ask(case.text))
    judged = query(P.format("prediction") + f"WHERE cell_id = '{JOINED}' AND case_id = '{case.case_id}'").iloc[0]
    assert decision.probabilities == pytest.approx(judged.tolist(), abs=1e-6)
    assert decision.passes == 8 and decision.label in LABELS


def test_it_is_ranked_beside_the_model_alone_and_is_no_training(data, capsys):
    best(study="both", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert {row["cell_id"] for row in found["ranking"]} == {CELL, JOINED} and found["left_out"] == []
    assert found["best"]["cell_id"] == JOINED, "linear has learned something, the random weights nothing"
    (counted,) = query("SELECT experiments FROM study WHERE study = 'both'").experiments
    assert counted == 1
    assert query(f"FROM gate_bounds JOIN evaluation USING (evaluation_id) WHERE training_id LIKE '{JOINED}%'").size


def test_it_is_not_exported_since_linear_holds_words_of_the_cases(data, tmp_path):
    with pytest.raises(BadInput, match=f"{JOINED} decides together .* words of your cases and is not exported"):
        export(JOINED, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_it_is_asked_at_its_own_precision_alone_and_says_that_linear_decides_too(data):
    with pytest.raises(BadInput, match="decides together with the linear baseline at its own precision alone; leave"):
        find_model(JOINED, "mxfp4")
    assert find_model(JOINED).bundle.origin.startswith("Its probabilities are multiplied with those of the linear")


def test_a_sealed_claim_hides_it_and_its_own_grid_refuses_it(data):
    values = {"base_model": "tiny-llama", "recipe": "balanced_safe", "seeds": [42], "sealed": True}
    own = query(f"SELECT evaluation_id FROM leaderboard WHERE cell_id IN ('{CELL}', '{JOINED}')").evaluation_id.tolist()
    claim = {"primary_claim": json.dumps(values), "primary_digest": "digest"}
    land_sweep(home() / "landing", "closed", own[:1], day=2, **claim)
    load_all(home() / "landing")
    assert set(own) <= set(query("FROM sealed_evaluation").evaluation_id) and len(own) == 2
    assert query(f"FROM leaderboard WHERE cell_id IN ('{CELL}', '{JOINED}')").empty
    with pytest.raises(BadInput, match="with_linear shows figures of models that primary.sealed hides"):
        load_grid("registered", ["scoring.with_linear=true"])
