"""A bundle says whether its test cases are synthetic by what has landed, where the home's data are gone."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tasks.bundle.bundle import JudgedOn, Rule
from tasks.bundle.from_evaluation import _is_synthetic, _judged_on
from tests.bundle.test_decide import bundle
from tests.bundle.test_model_card import card
from tests.warehouse.rows import evaluation, training
from tests.warehouse.test_studies import land_dataset
from warehouse.landing import write_landing

NO_EVIDENCE = "synthetic cases are no evidence about patients"


def judged(home) -> JudgedOn:
    """What the bundle of an evaluation says about its cases."""
    rows = evaluation("e4", "t4")
    rules = {row["rule"]: row for row in rows["decision_rule"]}
    experiment = training("t4", dataset_digest="d1")["experiment"][0]
    return _judged_on(rows["evaluation"][0], rules, experiment, home)


@pytest.mark.parametrize("is_embedded", [True, False])
def test_cases_are_known_as_synthetic_without_the_data_folder(is_embedded, tmp_path):
    land_dataset(tmp_path / "landing", "d1", "sets1")
    if not is_embedded:
        folder = tmp_path / "landing" / "dataset-d1"
        tables = {path.stem: pq.read_table(path).to_pylist() for path in folder.glob("*.parquet")}
        tables["dataset"][0]["is_embedded"] = False
        write_landing(tmp_path / "landing", "dataset-d1", "dataset", tables)

    judged_on = judged(tmp_path)
    assert judged_on.synthetic is is_embedded and judged_on.dataset_digest == "d1"

    text = card(bundle(Rule(name="argmax"), judged_on=judged_on))
    assert (NO_EVIDENCE in text) == is_embedded
    assert ("Synthetic messages, written by rules" in text) == is_embedded
    assert ("of whoever trained this model" in text) != is_embedded


def test_another_test_set_than_that_of_the_landed_data_is_not_called_synthetic(tmp_path):
    land_dataset(tmp_path / "landing", "d1", "sets1")
    assert _is_synthetic(tmp_path, "d1", "set") and not _is_synthetic(tmp_path, "d1", "another")
    assert not _is_synthetic(tmp_path, "elsewhere", "set")
