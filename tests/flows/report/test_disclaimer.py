"""The note below a comparison, in a home that holds no cases: results of a fleet, or merged from another machine."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.cli.gates import print_gates
from flows.report.figures import disclaimer
from tasks.runtime.home import home
from tests.warehouse.rows import evaluation, full, training
from tests.warehouse.test_studies import land_dataset
from warehouse.landing import write_landing
from warehouse.load import load_all

SHORT = "Research software, not a medical device."
LONG = "Research software, not a medical device; synthetic cases are no evidence about patients."


def land_own_data(root) -> None:
    """A user's own cases, judged on the project's adversarial set too, and on a further one of the user's."""
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
    write_landing(root, "dataset-own", "dataset", {"dataset": [row], "dataset_set": sets})


@pytest.fixture
def landed(tmp_path):
    land_dataset(tmp_path, "d1", "sets1", further=("test_adversarial_2", "clinic"))
    land_own_data(tmp_path)
    write_landing(tmp_path, "t4", "training", training("t4"))
    write_landing(tmp_path, "e4", "evaluation", evaluation("e4", "t4"))
    load_all(tmp_path)
    assert not (home() / "data").exists()


def test_results_on_synthetic_cases_of_another_home_are_called_that(landed):
    out = io.StringIO()
    print_gates(Console(file=out, width=200), "t4", None, None)
    assert out.getvalue().splitlines()[-1] == LONG


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
def test_a_further_set_is_synthetic_only_where_it_is_one_of_the_projects_own(digest, sentence, landed):
    assert disclaimer({digest}) == sentence
