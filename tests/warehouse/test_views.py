import json
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, fbeta_score

from flows.report.models import leaderboard
from flows.report.rows import studied
from tests.warehouse.rows import COSTS, FIVE, evaluation, land_arm, land_pair, load_pair, offending_rows, training
from warehouse.connect import reading, snapshot, writing
from warehouse.health import bring_up_to_date
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

LABELS = ["ED", "GP", "HOME"]
RIGHT = [(label, label, label) for label, _, _ in FIVE]
TURNED = json.dumps({truth: dict(reversed(costs.items())) for truth, costs in reversed(COSTS.items())}, indent=1)
COSTLIER = json.dumps(COSTS | {"GP": {"ED": 3, "GP": 1, "HOME": 10}})


def random_cases(n, seed, right=0.7):
    rng = np.random.default_rng(seed)
    labels = rng.choice(LABELS, n)

    def decide():
        return [label if rng.random() < right else str(rng.choice(LABELS)) for label in labels]

    return list(zip(map(str, labels), decide(), decide(), strict=True))


def pair_of_cases(n, seed):
    """The same labels decided by two models."""
    four = random_cases(n, seed)
    eight = random_cases(n, seed + 100)
    return four, [(a[0], *b[1:]) for a, b in zip(four, eight, strict=True)]


def land(root, id, cases=FIVE, bits=4, created=2, set="test", **values):
    judging = {"evaluation_set": set, "created_at": datetime(2026, 2, created)}
    cell = values.pop("cell", id)
    land_arm(root, f"-{id}", bits, cases, of_evaluation=judging, cell_id=cell, **values)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Every scenario that is only read, each with a base model and a test set of its own."""
    root = tmp_path_factory.mktemp("views")

    def judged(name, bits, **changes):
        """The evaluation of a side once more, with other rows or values."""
        rows = evaluation(f"e{bits}-{name}", f"t{bits}-{name}", set_digest=name, **changes.pop("values", {}))
        changes.get("change", lambda rows: None)(rows)
        write_landing(root, f"e{bits}-{name}", "evaluation", rows)

    for seed in range(2):
        name = f"random{seed}"
        land_pair(root, *pair_of_cases(150, seed), groups=seed == 1, name=f"-{name}", base_model=name, on=name)
    for name in ("hand", "undecided", "calibrated", "turned", "costlier", "dataset", "targets"):
        land_pair(root, FIVE, RIGHT if name == "hand" else FIVE, name=f"-{name}", base_model=name, on=name)

    def undecided(rows):
        rows["evaluation"][0]["verdict"] = "unsafe"
        rows["prediction"] = [row | {"decision": None} for row in rows["prediction"]]

    def calibrated(rows):
        for rule in rows["decision_rule"]:
            rule["calibration_digest"] = "other"

    judged("undecided", 8, change=undecided)
    judged("calibrated", 8, change=calibrated)
    judged("turned", 8, values={"cost_matrix": TURNED})
    judged("costlier", 8, values={"cost_matrix": COSTLIER})
    # An untuned model keeps the dataset that it was first judged on, and a training is landed again with a later one.
    again = training("t8-dataset", 8, cell_id="8-dataset", base_model="dataset", dataset_digest="other")
    write_landing(root, "t8-dataset", "training", again)

    # A training is not done again for another target: its evaluations at each stay comparable.
    for id, bits, target in (("e4-targets", 4, 0.9), ("e8-targets", 8, 0.96), ("f8-targets", 8, 0.9)):
        rows = evaluation(id, f"t{bits}-targets", target=target, set_digest="targets")
        write_landing(root, id, "evaluation", rows)

    for is_random, day in ((False, 1), (True, 2)):
        for bits in (4, 8):
            values = {"base_model": "weights", "on": "weights", "cell": f"weights-{bits}"}
            land(root, f"{is_random}{bits}", bits=bits, day=day, random_weights=is_random, **values)
            land(root, f"x{bits}", bits=bits, day=3, set="external", recipe="external", **values)

    def cases(over, missed, n):
        ed = [("ED", "ED", "ED")] * (n - missed) + [("ED", "GP", "GP")] * missed
        return ed + [("GP", "ED", "ED")] * over + [("GP", "GP", "GP")] * (n - over)

    for id, over, missed, n in (
        *(("careful", 20, 0, 150), ("precise", 0, 1, 150), ("few", 0, 0, 20), ("missing", 0, 40, 150)),
        *(("worst", 0, 60, 150), ("always_ed", 150, 0, 150), ("always_gp", 0, 150, 150)),
    ):
        kind = "baseline" if id.startswith("always") else "standard"
        land(root, id, cases(over, missed, n), base_model="order", on="order", recipe_kind=kind)

    latest = {"base_model": "latest", "on": "latest", "cell": "cell"}
    land(root, "old", day=1, **latest)
    land(root, "new", day=2, **latest)
    land(root, "newest-but-failed", day=3, status="failed", **latest)
    land(root, "newer-without-test", day=4, set="external", **latest)
    for created, id in ((5, "e-more-passes"), (4, "e-fewer-passes")):
        rows = evaluation(id, "t-new", created_at=datetime(2026, 2, created), set_digest="latest")
        write_landing(root, id, "evaluation", rows)

    # `sweep X`, `sweep X` with another setting, `sweep X` again, which finds all done: its figures are the first's.
    for name, day, right in (("first", 1, FIVE), ("other", 2, RIGHT)):
        for bits in (4, 8):
            values = {"base_model": "again", "on": "again", "cell": f"again-{bits}bit", "settings_digest": name}
            land(root, f"{name}{bits}", right, bits=bits, day=day, **values)
    load_all(root, root / "w.duckdb")
    return root / "w.duckdb"


@pytest.fixture
def of_model(file, monkeypatch):
    """The rows of a view that are of one base model, in its order."""
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(file))

    def rows(view, name, **options):
        return query(f"FROM {view} WHERE base_model = '{name}'", **options)

    with snapshot():
        yield rows


@pytest.mark.parametrize("seed", range(2))
def test_the_comparison_and_the_leaderboard_equal_a_recomputation_from_the_prediction_rows(seed, of_model):
    name = f"random{seed}"
    (row,) = of_model("quantization_comparison", name).to_dict("records")
    expected = {"cases": 150, "ed_cases": sum(case[0] == "ED" for case in pair_of_cases(150, seed)[0])}
    right, caught = {}, {}
    for side in ("4bit", "8bit"):
        p = query(f"FROM prediction WHERE evaluation_id = '{row[f'evaluation_{side}']}' ORDER BY case_id")
        ed = p[p["label"] == "ED"]
        right[side], caught[side] = p["argmax"] == p["label"], ed["decision"] == "ED"
        urgency = {label: i for i, label in enumerate(LABELS)}
        expected |= {
            f"accuracy_{side}": right[side].mean(),
            f"ed_recall_{side}": caught[side].mean(),
            f"ed_recall_argmax_{side}": (ed["argmax"] == "ED").mean(),
            f"ed_f2_{side}": fbeta_score(p["label"], p["decision"], beta=2, labels=["ED"], average="macro"),
            f"macro_f1_{side}": f1_score(p["label"], p["decision"], average="macro"),
            f"over_triage_{side}": (p["decision"].map(urgency) < p["label"].map(urgency)).mean(),
            f"loss_{side}": p["nll"].mean(),
        }

    for metric in ("accuracy", "ed_recall", "ed_recall_argmax", "ed_f2", "macro_f1", "over_triage", "loss"):
        expected[f"{metric}_diff"] = expected[f"{metric}_4bit"] - expected[f"{metric}_8bit"]
    for side, other in (("4bit", "8bit"), ("8bit", "4bit")):
        expected[f"right_at_{side}_only"] = (right[side] & ~right[other]).sum()
        expected[f"ed_caught_at_{side}_only"] = (caught[side] & ~caught[other]).sum()
    assert {k: row[k] for k in expected} == pytest.approx(expected, abs=1e-12)

    figures = query(f"FROM pair_metric WHERE base_model = '{name}'").set_index(["rule", "metric"]).to_dict("index")
    for column in ("accuracy", "ed_recall", "ed_recall_argmax", "ed_f2", "macro_f1"):
        pair = figures[
            "argmax" if column in ("accuracy", "ed_recall_argmax") else "primary", column.removesuffix("_argmax")
        ]
        assert (row[f"{column}_low"], row[f"{column}_high"]) == (pair["low"], pair["high"])
        assert pair["low"] < row[f"{column}_diff"] < pair["high"]
        assert row.get(f"{column}_verdict", pair["verdict"]) == pair["verdict"]

    id = f"e4-{name}"
    shown = of_model("leaderboard", name).set_index("evaluation_id").loc[id]
    landed = query(f"FROM metric WHERE rule = 'target_recall' AND evaluation_id = '{id}'").set_index("metric")
    for metric in ("ed_recall", "ed_precision", "ed_f2"):
        ends = [shown[metric], shown[f"{metric}_low"], shown[f"{metric}_high"]]
        assert ends == landed.loc[metric, ["value", "low", "high"]].tolist()


def test_five_cases_give_the_figures_worked_by_hand(of_model):
    (row,) = of_model("quantization_comparison", "hand").to_dict("records")
    figures = {
        "accuracy_4bit": 0.8, "accuracy_8bit": 1.0, "ed_recall_4bit": 1.0, "ed_recall_argmax_4bit": 0.5,
        "ed_recall_8bit": 1.0, "ed_f2_4bit": 5 * 2 / (4 * 2 + 3), "over_triage_4bit": 0.2, "over_triage_8bit": 0.0,
        "stored_bytes_4bit": 4000, "stored_bytes_8bit": 8000, "bytes_ratio": 0.5, "stored_bytes_diff": -4000,
        "loss_4bit": 0.2, "right_at_4bit_only": 0, "right_at_8bit_only": 1, "accuracy_mcnemar_p": 1.0,
    }  # fmt: skip
    assert {name: row[name] for name in figures} == pytest.approx(figures)
    assert row["accuracy_verdict"] == "cannot conclude"


def test_a_primary_rule_that_could_not_be_applied_gives_nulls_and_leaves_the_argmax_figures(of_model):
    (row,) = of_model("quantization_comparison", "undecided").to_dict("records")
    assert all(pd.isna(row[name]) for name in ("ed_recall_8bit", "ed_recall_diff", "ed_recall_low", "macro_f1_8bit"))
    assert (row["cases"], row["accuracy_8bit"], row["ed_recall_4bit"], row["ed_recall_argmax_8bit"]) == (5, 0.8, 1, 0.5)
    notes = query("SELECT DISTINCT note FROM pair_metric WHERE rule = 'primary' AND base_model = 'undecided'")
    assert notes["note"].tolist() == ["not available: the rule could not be applied on both sides"]
    with reading() as con:
        assert offending_rows(con, "pairs_agree") == 0


RESOURCES = [f"{name}_{side}" for name in ("peak_memory_bytes", "train_seconds") for side in ("4bit", "8bit")]
TRAINED = [
    "learning_rate = 3e-5", "weights_source = 'package'", "original_precision = 'Q4_1'", "source_digest = 'other'",
    "engine_version = 2", "seed = 7", "recipe = 'r2'", "base_model = 'big'", "status = 'diverged'",
    "bits = NULL, precision = NULL", "cost_weight = 5", "compute_path = 'dequantised_f32'", "settings_digest = 'other'",
]  # fmt: skip
JUDGED = ["set_digest = 'other'", "scoring_version = 2", "primary_rule = 'argmax'"]


def test_what_is_trained_or_judged_otherwise_is_no_pair_and_costs_are_compared_where_they_can_be(tmp_path):
    """Memory and time only where quantised kernels did the work, and time on one machine."""
    load_pair(tmp_path)
    resources = f"SELECT {', '.join(RESOURCES)}, resources FROM quantization_comparison"
    with writing() as con:
        assert len(con.execute("FROM equal_pair").fetchall()) == 1
        for change in (
            *(f"UPDATE experiment SET {change} WHERE training_id = 't8'" for change in TRAINED),
            *(f"UPDATE evaluation SET {change} WHERE evaluation_id = 'e8'" for change in JUDGED),
            "DELETE FROM cost WHERE evaluation_id = 'e8'",
        ):
            con.begin()
            con.execute(change)
            assert con.execute("FROM equal_pair").fetchall() == [], change
            con.rollback()

        assert con.execute(resources).fetchall() == [(400, 800, 40.0, 80.0, "measured")]
        con.execute("UPDATE experiment SET machine = 'm2' WHERE training_id = 't8'")
        note = "memory measured; time not comparable between machines"
        assert con.execute(resources).fetchall() == [(400, 800, None, None, note)]
        con.execute("UPDATE experiment SET compute_path = 'dequantised_f32'")
        assert con.execute(resources).fetchall() == [(*[None] * 4, "not measurable on this backend")]


def test_a_warehouse_whose_views_change_gets_the_pairs_that_they_see_now(tmp_path):
    load_pair(tmp_path)
    before = len(query("FROM pair_metric"))
    with writing() as con:  # as a version left it that saw no such pair
        con.execute("DELETE FROM pair_metric")
        con.execute("UPDATE schema_migrations SET sha256 = 'older' WHERE version = 0")
    bring_up_to_date()
    assert len(query("FROM pair_metric")) == before > 0


@pytest.mark.parametrize(
    ("name", "paired"),
    [
        ("calibrated", []),  # thresholds were chosen on other cases
        ("dataset", [["e4-dataset", "e8-dataset"]]),  # other test cases of the dataset
        ("targets", [["e4-targets", "f8-targets"]]),
        ("turned", [["e4-turned", "e8-turned"]]),  # the same costs, written in another order
        ("costlier", []),
    ],
)
def test_pairs_are_judged_by_the_same_thresholds_and_costs(name, paired, of_model):
    columns = ["evaluation_4bit", "evaluation_8bit"]
    assert of_model("equal_pair", name)[columns].values.tolist() == paired
    assert len(of_model("quantization_comparison", name)) == len(paired)


def test_a_later_pair_of_random_weights_or_of_an_external_set_does_not_hide_that_of_real_ones(of_model):
    frame = of_model("quantization_comparison", "weights")[["random_weights", "evaluation_4bit"]]
    assert sorted(frame.values.tolist()) == [[False, "e-False4"], [True, "e-True4"]]
    assert set(of_model("pair_metric", "weights")["evaluation_set"]) == {"external", "test"}


def test_the_leaderboard_ranks_those_that_pass_by_over_triage_then_by_ed_recall_and_baselines_at_the_foot(of_model):
    frame = of_model("leaderboard", "order")
    assert frame["cell_id"].tolist() == ["precise", "careful", "few", "missing", "worst", "always_ed", "always_gp"]
    assert frame["verdict"].tolist() == ["passes_gates", "passes_gates", "provisional"] + ["unsafe"] * 4
    assert frame["over_triage"].tolist() == pytest.approx([0, 20 / 300, 0, 0, 0, 0.5, 0])
    assert frame["ed_recall"].tolist() == pytest.approx([149 / 150, 1, 1, 110 / 150, 90 / 150, 1, 0])


def test_the_leaderboard_shows_the_latest_completed_training_of_a_cell_and_its_latest_test_evaluation(of_model):
    (shown,) = of_model("leaderboard", "latest").itertuples()
    assert (shown.training_id, shown.evaluation_id) == ("t-new", "e-more-passes")
    assert len(of_model("evaluation_summary", "latest")) == 5


def test_a_sweeps_own_tables_show_its_evaluations_although_later_ones_of_the_same_cells_are_there(of_model):
    requested = ["e-first4", "e-first8"]
    for only, output, accuracy in ((None, ["e-other4", "e-other8"], 1.0), (requested, requested, 0.8)):
        board = of_model("leaderboard", "again", only=only)
        assert sorted(board.evaluation_id) == output and set(board.accuracy) == {accuracy}
        (pair,) = of_model("quantization_comparison", "again", only=only).to_dict("records")
        assert [pair["evaluation_4bit"], pair["evaluation_8bit"], pair["accuracy_4bit"]] == [*output, accuracy]
        assert (pair["accuracy_diff"], pair["accuracy_verdict"]) == (0, "cannot conclude")
        (flip,) = of_model("flips", "again", only=only).itertuples()
        assert [flip.evaluation_after, flip.evaluation_before] == output

    assert query("FROM leaderboard", only=[]).empty and query("FROM matched_pair", only=["e-first4"]).empty
    (study,) = studied(only=requested)
    assert all(accuracy.startswith("0.800") for accuracy in leaderboard(study)["accuracy"]) and len(study.pairs) == 1
