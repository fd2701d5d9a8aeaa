"""The note below a comparison, in a home that holds no cases: results of a fleet, or merged from another machine."""

from __future__ import annotations

import json
import shutil

import pytest

from flows.report.figures import disclaimer
from tasks.corpus.manifest import DatasetManifest, embedded_digests
from tasks.corpus.prepare import prepare_dataset
from tasks.runtime.home import home
from tasks.spec import LABELS, Data
from tests.place import smoke_home
from tests.warehouse.rows import full
from tests.warehouse.test_studies import land_dataset
from warehouse.landing import write_landing
from warehouse.load import load_all

SHORT = "Research software, not a medical device."
LONG = "Research software, not a medical device; synthetic cases are no evidence about patients."


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """The project's own cases; and a user's, judged on the project's adversarial set too, and on a further one of the
    user's."""
    root = tmp_path_factory.mktemp("disclaimer")
    land_dataset(root / "landing", "d1", "sets1", further=("test_adversarial_2", "clinic"))
    row = full(
        "dataset", dataset_id="dataset-own", dataset_digest="own", dataset="clinic", sets_digest="own", is_embedded=False,
        seed=42, train_cases=4, valid_cases=4, calibration_cases=4, test_cases=5, further_sets=2,
    )  # fmt: skip
    sets = [
        full(
            "dataset_set", dataset_id="dataset-own", name=name, set_digest=f"own {name}", cases=5, ed_cases=2, gp_cases=2,
            home_cases=1, is_further=name != "test",
        )
        for name in ("test", "test_adversarial", "phone")
    ]  # fmt: skip
    write_landing(root / "landing", "dataset-own", "dataset", {"dataset": [row], "dataset_set": sets})
    load_all(root / "landing", root / "triage.duckdb")
    return root / "triage.duckdb"


@pytest.mark.parametrize(
    ("digest", "sentence"),
    [
        ("set", LONG),
        ("test_adversarial_2", LONG),
        ("clinic", SHORT),
        ("own test", SHORT),
        ("own test_adversarial", LONG),
        ("own phone", SHORT),
        ("unknown", SHORT),
    ],
)
def test_a_set_of_another_home_is_synthetic_only_where_it_is_one_of_the_projects_own(
    digest, sentence, warehouse, monkeypatch
):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(warehouse))
    assert not (home() / "data").exists()
    assert disclaimer({digest}) == sentence


def test_in_a_home_with_data_the_embedded_cases_are_known_without_a_result(tmp_path):
    shutil.copytree(smoke_home() / "data", home() / "data")
    rows = [{"id": f"c{i}", "text": f"story {i * 7919}", "label": LABELS[i % 3]} for i in range(60)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = DatasetManifest.read(prepare_dataset(Data(source=str(tmp_path / "own.jsonl")), home())).digest_of("test")
    (embedded, *_) = embedded_digests(home())
    assert disclaimer({own}) == SHORT and disclaimer({embedded}) == disclaimer({embedded, own}) == LONG
