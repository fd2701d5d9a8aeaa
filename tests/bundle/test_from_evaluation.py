"""A bundle says what its evaluation has landed: its conformal cut-offs, and whether its test cases are synthetic, also where
the home's data are gone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.bundle.bundle import Bundle
from tasks.bundle.decide import decide
from tasks.bundle.from_evaluation import bundle_of_evaluation
from tasks.runtime.store import seal
from tests.test_spec import experiment
from tests.test_steps import WEIGHTS
from tests.warehouse.rows import evaluation, training
from tests.warehouse.test_studies import land_dataset
from warehouse.landing import write_landing

NO_EVIDENCE = "synthetic cases are no evidence about patients"
CUTOFFS = {"threshold_ed": 0.1, "threshold_gp": 0.3, "threshold_home": 0.6}


@pytest.fixture
def home(tmp_path) -> Path:
    """A home with a training `t4` and its evaluation `e4` on the data set `d1`."""
    folders = {name: tmp_path / name for name in ("models/m", "experiments/t4")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    weights = seal(folders["models/m"], WEIGHTS | {"bits": 4, "group_size": 64, "precision": "4bit"})
    spec = experiment().model_dump(mode="json")
    (folders["experiments/t4"] / "training.json").write_text(json.dumps({"spec": spec}))
    (folders["experiments/t4"] / "adapters.safetensors").write_bytes(b"adapter")
    seal(folders["experiments/t4"], {})

    facts = {"weights_digest": weights["digest"], "dataset_digest": "d1", "triage_version": "0", "mlx_version": "0",
             "mlx_lm_version": "0", "backend": "cpu", "compute_dtype": "float32"}  # fmt: skip
    rows = evaluation("e4", "t4", review_entropy=0.3)
    rows["conformal"][0] |= CUTOFFS
    for rule in rows["decision_rule"]:
        rule["target"] = 0.95 if rule["rule"] == "target_recall" else None
    write_landing(tmp_path / "landing", "t4", "training", training("t4", **facts))
    write_landing(tmp_path / "landing", "e4", "evaluation", rows)
    land_dataset(tmp_path / "landing", "d1", "sets1", further=("train", "valid"))
    return tmp_path


def test_the_conformal_sets_are_those_of_the_landed_cut_offs(home):
    p = [[0.1, 0.29, 0.61], [0.09, 0.31, 0.6], [0.05, 0.36, 0.59], [0.7, 0.2, 0.1]]
    sets = [one.conformal_set for one in decide(bundle_of_evaluation(home, "e4").bundle, np.log(p))]
    assert sets == [("ED", "HOME"), ("GP", "HOME"), ("GP",), ("ED",)]


@pytest.mark.parametrize(
    ("changed", "is_synthetic"),
    [(None, True), ("dataset", False), ("dataset_set", False)],
    ids=["embedded", "own data", "another test set"],
)
def test_cases_are_known_as_synthetic_without_the_data_folder(changed, is_synthetic, home):
    folder = home / "landing" / "dataset-d1"
    tables = {path.stem: pq.read_table(path).to_pylist() for path in folder.glob("*.parquet")}
    values = {"is_embedded": False} if changed == "dataset" else {"set_digest": "another"}
    for row in tables[changed] if changed else ():
        row |= values
    write_landing(home / "landing", "dataset-d1", "dataset", tables)

    judged_on = bundle_of_evaluation(home, "e4").bundle.judged_on
    assert judged_on.synthetic is is_synthetic and judged_on.dataset_digest == "d1"
    assert (NO_EVIDENCE in bundle_of_evaluation(home, "e4").bundle.notice) == is_synthetic

    folder.rename(home / "elsewhere")
    assert not bundle_of_evaluation(home, "e4").bundle.judged_on.synthetic, "a data set that has not landed is not"


def test_a_bundle_is_that_of_its_evaluation_whatever_the_training_was_judged_by_before_or_after(home):
    """A second look at one training: another review limit, target and test set, and nothing trained again."""
    rows = evaluation("second", "t4", review_entropy=0.6, set_digest="corrected")
    rows["conformal"][0] |= CUTOFFS
    for rule in rows["decision_rule"]:
        rule["target"] = 0.98 if rule["rule"] == "target_recall" else None
    write_landing(home / "landing", "second", "evaluation", rows)
    land_dataset(home / "landing", "d2", "sets2", "corrected", further=("train", "valid"))

    for id, expected in (("e4", (0.3, 0.95, "d1")), ("second", (0.6, 0.98, "d2"))):
        bundle = bundle_of_evaluation(home, id).bundle
        found = bundle.review.entropy_limit, bundle.recipe.target_ed_recall, bundle.judged_on.dataset_digest
        assert found == expected and Bundle.model_validate(bundle.model_dump(mode="json")) == bundle
