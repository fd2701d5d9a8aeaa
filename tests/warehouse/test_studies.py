"""Studies are kept apart: which results belong to which, on which cases, and what is forgotten with one of them."""

import itertools
import shutil
from datetime import datetime

import pytest

from tasks.runtime.home import home
from tests.warehouse.rows import FIVE, assert_sound, evaluation, full, load_landing, training
from tests.warehouse.test_load import contents
from warehouse.forget import forget, what_would_be_forgotten
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query
from warehouse.rebuild import rebuild

OTHER = [(label, label, label) for label, _, _ in FIVE]


def land_dataset(root, digest, sets_digest, test="set", further=()):
    """A dataset whose test set has the digest `test`, with evaluation sets of the names `further`."""
    id = f"dataset-{digest}"
    row = full(
        "dataset", dataset_id=id, dataset_digest=digest, dataset="embedded", sets_digest=sets_digest, is_embedded=True,
        seed=42, train_cases=4, valid_cases=4, calibration_cases=4, test_cases=5, further_sets=len(further),
    )  # fmt: skip
    counts = {"dataset_id": id, "cases": 5, "ed_cases": 2, "gp_cases": 2, "home_cases": 1}
    digests = {"calibration": "calibration", "test": test, **{name: name for name in further}}
    sets = [
        full("dataset_set", name=name, set_digest=value, is_further=name in further, **counts)
        for name, value in digests.items()
    ]
    write_landing(root, id, "dataset", {"dataset": [row], "dataset_set": sets})


def land_sweep(root, study, ids, day=1, dataset="d1", **values):
    id = f"sweep-{study}-{day}"
    row = full(
        "sweep", sweep_id=id, study=study, grid=study, grid_digest="g", dataset_digest=dataset, experiments=1, failures=0,
        started_at=datetime(2026, 3, day, microsecond=1), finished_at=datetime(2026, 3, day, 1), **values,
    )  # fmt: skip
    members = [full("sweep_member", sweep_id=id, id=member) for member in ids]
    write_landing(root, id, "sweep", {"sweep": [row], "sweep_member": members})


def land(root, id, training_id, cases=FIVE, bits=4, **values):
    write_landing(root, training_id, "training", training(training_id, bits, cell_id=training_id.partition("-")[0]))
    write_landing(root, id, "evaluation", evaluation(id, training_id, cases, **values))


@pytest.fixture(scope="module")
def studies_home(tmp_path_factory):
    """Two studies: `small` and `large` share an untuned model, which each judges on its own test set; `large` and `again`
    share an evaluation; one result is older than studies."""
    root = tmp_path_factory.mktemp("studies") / "landing"
    land_dataset(root, "d1", "sets1", test="set1")
    land_dataset(root, "d2", "sets2", test="set2")
    land(root, "e-small", "cell-small", set_digest="set1")
    land(root, "e-large", "cell-large", OTHER, set_digest="set2", created_at=datetime(2026, 2, 9))
    rows = training("zero", recipe_kind="baseline", recipe="zero_shot", cell_id="zero", dataset_digest="d1")
    write_landing(root, "zero", "training", rows)
    write_landing(root, "e-zero1", "evaluation", evaluation("e-zero1", "zero", set_digest="set1"))
    later = evaluation("e-zero2", "zero", set_digest="set2", created_at=datetime(2026, 2, 9))
    write_landing(root, "e-zero2", "evaluation", later)
    land(root, "e-old", "old-1", set_digest="set1")
    land_sweep(root, "small", ["cell-small", "e-small", "e-zero1"])
    land_sweep(root, "large", ["cell-large", "e-large", "e-zero2"], day=2, dataset="d2")
    land_sweep(root, "again", ["cell-large", "e-large"], day=3, dataset="d2")
    load_all(root, root.parent / "triage.duckdb")
    return root.parent


@pytest.fixture
def landing(studies_home):
    """The landing folders of these studies in the home of this test, beside its warehouse."""
    shutil.copytree(studies_home, home())
    return home() / "landing"


def rows(sql, **options):
    return [tuple(row) for row in query(sql, **options).itertuples(index=False)]


def test_a_study_says_its_grid_its_cases_its_sizes_and_its_sweeps(landing):
    columns = "study, dataset_digest, test_cases, experiments, evaluations, sweeps"
    rows = query(f"SELECT {columns} FROM study").astype(object).where(lambda frame: frame.notna(), None)
    assert rows.values.tolist() == [
        ["again", "d2", 5, 1, 1, 1], ["large", "d2", 5, 1, 2, 1], ["small", "d1", 5, 1, 2, 1],
        ["earlier", None, None, 1, 1, 0],
    ]  # fmt: skip


def test_each_test_set_has_a_leaderboard_of_its_own_and_a_study_shows_its_rows_alone(landing):
    assert rows("SELECT set_digest, cell_id FROM leaderboard ORDER BY ALL") == [
        ("set1", "cell"), ("set1", "old"), ("set1", "zero"), ("set2", "cell"), ("set2", "zero"),
    ]  # fmt: skip
    sets = query("SELECT set_digest FROM leaderboard")["set_digest"].tolist()
    assert sets == sorted(sets, reverse=True), "the set that was judged last comes first"
    ids = "SELECT evaluation_id FROM leaderboard_of(evaluations_of('large')) ORDER BY 1"
    assert rows(ids) == [("e-large",), ("e-zero2",)]
    assert rows("SELECT evaluation_id FROM leaderboard ORDER BY 1", only=["e-old"]) == [("e-old",)]
    studies = query("SELECT evaluation_id, studies FROM evaluation_summary ORDER BY 1").values.tolist()
    assert {id: list(of_one) for id, of_one in studies} == {
        "e-large": ["again", "large"], "e-old": ["earlier"], "e-small": ["small"],
        "e-zero1": ["small"], "e-zero2": ["large"],
    }, "one row each"  # fmt: skip


def test_an_untuned_model_that_is_judged_on_another_dataset_names_that_one(landing):
    """Its training names the dataset with which it landed first."""
    write_landing(landing, "e-zero3", "evaluation", evaluation("e-zero3", "zero", set_digest="unknown"))
    load_all(landing)
    of_untuned = "SELECT evaluation_id, dataset_digest, dataset FROM leaderboard WHERE recipe = 'zero_shot' ORDER BY 1"
    assert rows(of_untuned)[:2] == [("e-zero1", "d1", "embedded"), ("e-zero2", "d2", "embedded")]
    assert rows("SELECT count(dataset_digest) FROM evaluation_origin WHERE evaluation_id = 'e-zero3'") == [(0,)]


def test_a_dataset_with_a_further_set_is_no_other_one_for_a_training_in_any_order_of_loading(tmp_path):
    root = tmp_path / "landing"
    write_landing(root, "t-old", "training", training("t-old", dataset_digest="d1"))
    write_landing(root, "t-new", "training", training("t-new", dataset_digest="d1-further"))
    land_dataset(root, "d1", "sets1")
    land_dataset(root, "d1-further", "sets1", further=["clinic"])
    ids = ["t-old", "t-new", "dataset-d1", "dataset-d1-further"]
    for number, order in enumerate(list(itertools.permutations(ids))[::8]):
        database = tmp_path / f"{number}.duckdb"
        for id in order:
            load_landing(root / id, database)
        assert rows("SELECT DISTINCT dataset_digest FROM experiment", database=database) == [("d1",)], order

    write_landing(root, "e1", "evaluation", evaluation("e1", "t-old", set_digest="set"))
    further = evaluation("e2", "t-old", evaluation_set="clinic", set_digest="clinic")
    write_landing(root, "e2", "evaluation", further)
    load_all(root, database)
    outcome = rows("SELECT evaluation_id, dataset_digest FROM evaluation_origin ORDER BY 1", database=database)
    assert outcome == [("e1", "d1"), ("e2", "d1-further")], "a further set belongs to the dataset that has it"


def test_forgetting_removes_what_no_other_study_holds_and_a_rebuild_does_not_bring_it_back(landing):
    planned = what_would_be_forgotten("large")
    assert (planned.ids, planned.shared) == (("e-zero2",), 3), "e-large, its training, and the untuned model are shared"
    assert len(rows("FROM sweep")) == 3, "a plan changes nothing"

    assert forget("large", landing) == planned
    assert rows("SELECT study FROM study ORDER BY 1") == [("again",), ("earlier",), ("small",)]
    assert rows("SELECT count(*) FROM evaluation WHERE evaluation_id IN ('e-zero2', 'e-large')") == [(1,)]
    assert_sound()

    before = contents()
    rebuild(landing)
    assert contents() == before and not (landing / "e-zero2").exists()
    assert not list(landing.glob(".forgotten-*"))


def test_a_training_stays_as_long_as_an_evaluation_of_another_study_needs_it(landing):
    result = forget("again", landing)
    assert (result.ids, result.shared) == ((), 2), "what shares everything loses its name alone"
    assert rows("SELECT count(*) FROM evaluation") == [(5,)] and len(rows("FROM sweep")) == 2
    assert "zero" not in forget("small", landing).ids
    assert rows("SELECT count(*) FROM experiment WHERE training_id = 'zero'") == [(1,)]
    assert forget("earlier", landing).ids == ("e-old", "old-1")
    assert_sound()
