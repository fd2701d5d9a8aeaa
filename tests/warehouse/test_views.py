"""Views: small rows in, expected rows out, and every figure recomputed from prediction rows with pandas."""

import json
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, fbeta_score

from flows.report.models import leaderboard
from flows.report.rows import studied
from tests.warehouse.rows import COSTS, FIVE, assert_sound, evaluation, land_pair, load_pair, training
from warehouse.comparison import pairs
from warehouse.connect import reading, writing
from warehouse.health import bring_up_to_date, run_audits
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

LABELS = ["ED", "GP", "HOME"]


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


def land(root, id, cases=FIVE, bits=4, day=1, created=2, set="test", **values):
    write_landing(root, f"t-{id}", "training", training(f"t-{id}", bits, day, cell_id=values.pop("cell", id), **values))
    rows = evaluation(f"e-{id}", f"t-{id}", cases, evaluation_set=set, created_at=datetime(2026, 2, created))
    write_landing(root, f"e-{id}", "evaluation", rows)


def comparison() -> dict[str, object]:
    (row,) = query("FROM quantization_comparison").to_dict("records")
    return row


@pytest.mark.parametrize("seed", range(2))
def test_the_comparison_equals_a_recomputation_from_the_prediction_rows(seed, tmp_path):
    four, eight = pair_of_cases(150, seed)
    load_pair(tmp_path, four, eight, groups=seed == 1)
    (row,) = query("SELECT * FROM quantization_comparison").to_dict("records")
    rows = query("SELECT * FROM prediction ORDER BY evaluation_id, case_id")

    expected = {"cases": 150, "ed_cases": sum(c[0] == "ED" for c in four)}
    for side in ("4bit", "8bit"):
        p = rows[rows["evaluation_id"] == row[f"evaluation_{side}"]]
        ed = p[p["label"] == "ED"]
        urgency = {label: i for i, label in enumerate(LABELS)}
        expected |= {
            f"accuracy_{side}": (p["argmax"] == p["label"]).mean(),
            f"ed_recall_{side}": (ed["decision"] == "ED").mean(),
            f"ed_recall_argmax_{side}": (ed["argmax"] == "ED").mean(),
            f"ed_f2_{side}": fbeta_score(p["label"], p["decision"], beta=2, labels=["ED"], average="macro"),
            f"macro_f1_{side}": f1_score(p["label"], p["decision"], average="macro"),
            f"over_triage_{side}": (p["decision"].map(urgency) < p["label"].map(urgency)).mean(),
            f"loss_{side}": p["nll"].mean(),
        }

    for name in ("accuracy", "ed_recall", "ed_recall_argmax", "ed_f2", "macro_f1", "over_triage", "loss"):
        expected[f"{name}_diff"] = expected[f"{name}_4bit"] - expected[f"{name}_8bit"]

    both = rows.pivot(index="case_id", columns="evaluation_id", values=["argmax", "decision", "label"])
    right = {e: both[("argmax", e)] == both[("label", e)] for e in ("e4", "e8")}
    expected["right_at_4bit_only"] = (right["e4"] & ~right["e8"]).sum()
    expected["right_at_8bit_only"] = (~right["e4"] & right["e8"]).sum()
    caught = {e: (both[("decision", e)] == "ED")[both[("label", e)] == "ED"] for e in ("e4", "e8")}
    expected["ed_caught_at_4bit_only"] = (caught["e4"] & ~caught["e8"]).sum()
    expected["ed_caught_at_8bit_only"] = (~caught["e4"] & caught["e8"]).sum()
    assert {k: row[k] for k in expected} == pytest.approx(expected, abs=1e-12)

    for name in ("accuracy", "ed_recall", "ed_recall_argmax", "ed_f2", "macro_f1"):
        assert row[f"{name}_low"] < row[f"{name}_diff"] < row[f"{name}_high"]


def test_each_interval_is_that_of_its_own_metric_and_rule(tmp_path):
    load_pair(tmp_path, *pair_of_cases(150, 11))
    row = comparison()
    pairs = query("FROM pair_metric").set_index(["rule", "metric"]).to_dict("index")
    for column, rule, metric in (
        ("accuracy", "argmax", "accuracy"), ("ed_recall", "primary", "ed_recall"),
        ("ed_recall_argmax", "argmax", "ed_recall"), ("ed_f2", "primary", "ed_f2"), ("macro_f1", "primary", "macro_f1"),
    ):  # fmt: skip
        pair = pairs[rule, metric]
        assert (row[f"{column}_low"], row[f"{column}_high"]) == (pair["low"], pair["high"])
        assert row[f"{column}_diff"] == pytest.approx(pair["difference"])
        assert row.get(f"{column}_verdict", pair["verdict"]) == pair["verdict"]


def test_five_cases_give_the_figures_worked_by_hand(tmp_path):
    load_pair(tmp_path, FIVE, [(label, label, label) for label, _, _ in FIVE])
    row = comparison()
    assert (row["accuracy_4bit"], row["accuracy_8bit"]) == (0.8, 1.0)
    assert (row["ed_recall_4bit"], row["ed_recall_argmax_4bit"], row["ed_recall_8bit"]) == (1.0, 0.5, 1.0)
    assert row["ed_f2_4bit"] == pytest.approx(5 * 2 / (4 * 2 + 3))
    assert (row["over_triage_4bit"], row["over_triage_8bit"]) == (0.2, 0.0)
    assert (row["stored_bytes_4bit"], row["stored_bytes_8bit"], row["bytes_ratio"]) == (4000, 8000, 0.5)
    assert row["stored_bytes_diff"] == -4000
    assert row["loss_4bit"] == pytest.approx(0.2)
    assert row["accuracy_verdict"] == "cannot conclude"
    assert (row["right_at_4bit_only"], row["right_at_8bit_only"], row["accuracy_mcnemar_p"]) == (0, 1, 1.0)


def test_a_primary_rule_that_could_not_be_applied_gives_nulls_and_leaves_the_argmax_figures(tmp_path):
    land_pair(tmp_path)
    rows = evaluation("e8", "t8", verdict="unsafe")
    rows["prediction"] = [row | {"decision": None} for row in rows["prediction"]]
    write_landing(tmp_path, "e8", "evaluation", rows)
    load_all(tmp_path)
    row = comparison()
    assert all(pd.isna(row[name]) for name in ("ed_recall_8bit", "ed_recall_diff", "ed_recall_low", "macro_f1_8bit"))
    assert (row["cases"], row["accuracy_8bit"], row["ed_recall_4bit"], row["ed_recall_argmax_8bit"]) == (5, 0.8, 1, 0.5)
    notes = query("SELECT DISTINCT note FROM pair_metric WHERE rule = 'primary'")["note"].tolist()
    assert notes == ["not available: the rule could not be applied on both sides"]

    with reading() as con:
        assert run_audits(con)["pairs_agree"] == 0


RESOURCES = [f"{name}_{side}" for name in ("peak_memory_bytes", "train_seconds") for side in ("4bit", "8bit")]


def test_memory_and_time_are_compared_only_where_quantised_kernels_did_the_work_and_time_on_one_machine(tmp_path):
    load_pair(tmp_path)
    row = comparison()
    assert [row[name] for name in RESOURCES] == [400, 800, 40.0, 80.0] and row["resources"] == "measured"

    with writing() as con:
        con.execute("UPDATE experiment SET machine = 'm2' WHERE training_id = 't8'")
    row = comparison()
    assert row["peak_memory_bytes_8bit"] == 800 and pd.isna(row["train_seconds_8bit"])
    assert row["resources"] == "memory measured; time not comparable between machines"

    with writing() as con:
        con.execute("UPDATE experiment SET compute_path = 'dequantised_f32'")
    row = comparison()
    assert all(pd.isna(row[name]) for name in RESOURCES)
    assert (row["resources"], row["bytes_ratio"]) == ("not measurable on this backend", 0.5)


def test_sides_that_differ_in_anything_but_bits_or_are_judged_otherwise_are_no_pair(tmp_path):
    load_pair(tmp_path)
    trained = [
        "learning_rate = 3e-5", "weights_source = 'package'", "original_precision = 'Q4_1'", "source_digest = 'other'",
        "engine_version = 2", "seed = 7", "recipe = 'r2'", "base_model = 'big'", "status = 'diverged'",
        "bits = NULL, precision = NULL", "cost_weight = 5", "compute_path = 'dequantised_f32'", "settings_digest = 'other'",
    ]  # fmt: skip
    judged = ["set_digest = 'other'", "scoring_version = 2", "primary_rule = 'argmax'"]
    changes = [
        "SELECT 1",
        *(f"UPDATE experiment SET {change} WHERE training_id = 't8'" for change in trained),
        *(f"UPDATE evaluation SET {change} WHERE evaluation_id = 'e8'" for change in judged),
        "DELETE FROM cost WHERE evaluation_id = 'e8'",
    ]
    with writing() as con:
        for change in changes:
            con.begin()
            con.execute(change)
            pairs.refresh(con)
            shown = len(con.execute("FROM quantization_comparison").fetchall())
            figures = len(con.execute("FROM pair_metric").fetchall())
            con.rollback()
            assert (shown, figures > 0) == (change == "SELECT 1", change == "SELECT 1"), change


def test_a_warehouse_whose_views_change_gets_the_pairs_that_they_see_now(tmp_path):
    load_pair(tmp_path)
    before = len(query("FROM pair_metric"))
    for renewed_by in (bring_up_to_date, lambda: load_all(tmp_path)):
        with writing() as con:  # as a version left it that saw no such pair
            con.execute("DELETE FROM pair_metric")
            con.execute("UPDATE schema_migrations SET sha256 = 'older' WHERE version = 0")
        renewed_by()
        assert len(query("FROM pair_metric")) == before > 0


def test_thresholds_chosen_on_other_cases_are_no_pair_and_other_test_cases_of_the_dataset_keep_it(tmp_path):
    """An untuned model keeps the dataset that it was first judged on, and a training is landed again with a later one."""
    land_pair(tmp_path)
    write_landing(tmp_path, "t8", "training", training("t8", 8, dataset_digest="other"))
    load_all(tmp_path)
    assert len(query("FROM quantization_comparison")) == 1 and len(query("FROM pair_metric")) > 0

    rows = evaluation("e8", "t8")
    for rule in rows["decision_rule"]:
        rule["calibration_digest"] = "other"

    write_landing(tmp_path, "e8", "evaluation", rows)
    load_all(tmp_path)
    assert len(query("FROM quantization_comparison")) == 0


def test_evaluations_at_other_targets_of_one_training_are_paired_by_target(tmp_path):
    """A training is not done again for another target: its evaluations at each stay comparable."""
    land_pair(tmp_path)
    for id, training_id, target in (("e4", "t4", 0.9), ("e8", "t8", 0.96), ("f8", "t8", 0.9)):
        rows = evaluation(id, training_id)
        next(r for r in rows["decision_rule"] if r["rule"] == "target_recall")["target"] = target
        write_landing(tmp_path, id, "evaluation", rows)
    load_all(tmp_path)
    assert query("SELECT evaluation_4bit, evaluation_8bit FROM equal_pair").values.tolist() == [["e4", "f8"]]


def test_a_cost_matrix_that_is_written_in_another_order_is_the_same_and_another_cost_is_not(tmp_path):
    """Pairs compare the rows of `cost`, not the text that landed."""
    land_pair(tmp_path)
    turned = {truth: dict(reversed(costs.items())) for truth, costs in reversed(COSTS.items())}
    write_landing(tmp_path, "e8", "evaluation", evaluation("e8", "t8", cost_matrix=json.dumps(turned, indent=1)))
    load_all(tmp_path)
    assert len(query("FROM equal_pair")) == 1 == len(query("FROM quantization_comparison"))
    costlier = COSTS | {"GP": {"ED": 3, "GP": 1, "HOME": 10}}
    write_landing(tmp_path, "e8", "evaluation", evaluation("e8", "t8", cost_matrix=json.dumps(costlier)))
    load_all(tmp_path)
    assert len(query("FROM equal_pair")) == 0


def test_a_later_pair_of_random_weights_or_of_an_external_set_does_not_hide_that_of_real_ones(tmp_path):
    for kind, day in ((False, 1), (True, 2)):
        for bits in (4, 8):
            land(tmp_path, f"{kind}{bits}", bits=bits, day=day, random_weights=kind)
            land(tmp_path, f"x{bits}", bits=bits, day=3, set="external", recipe="external")
    load_all(tmp_path)
    frame = query("SELECT random_weights, evaluation_4bit FROM quantization_comparison ORDER BY ALL")
    assert frame.values.tolist() == [[False, "e-False4"], [True, "e-True4"]]
    assert set(query("FROM pair_metric")["evaluation_set"]) == {"external", "test"}


def test_the_leaderboard_ranks_those_that_pass_by_over_triage_then_provisional_then_unsafe_and_baselines_at_the_foot(
    tmp_path,
):
    def cases(over, missed, n=150):
        ed = [("ED", "ED", "ED")] * (n - missed) + [("ED", "GP", "GP")] * missed
        return ed + [("GP", "ED", "ED")] * over + [("GP", "GP", "GP")] * (n - over)

    land(tmp_path, "careful", cases(over=20, missed=0))
    land(tmp_path, "precise", cases(over=0, missed=1))
    land(tmp_path, "few", cases(over=0, missed=0, n=20))
    land(tmp_path, "missing", cases(over=0, missed=40))
    land(tmp_path, "worst", cases(over=0, missed=60))
    land(tmp_path, "always_ed", cases(over=150, missed=0), recipe_kind="baseline")
    land(tmp_path, "always_gp", cases(over=0, missed=150), recipe_kind="baseline")
    load_all(tmp_path)
    frame = query("SELECT cell_id, verdict, over_triage, ed_recall FROM leaderboard")
    assert frame["cell_id"].tolist() == ["precise", "careful", "few", "missing", "worst", "always_ed", "always_gp"]
    assert frame["verdict"].tolist() == ["passes_gates", "passes_gates", "provisional"] + ["unsafe"] * 4
    assert frame["over_triage"].tolist() == pytest.approx([0, 20 / 300, 0, 0, 0, 0.5, 0])
    assert frame["ed_recall"].tolist() == pytest.approx([149 / 150, 1, 1, 110 / 150, 90 / 150, 1, 0])


def test_the_leaderboard_shows_the_latest_completed_training_of_a_cell_and_its_latest_test_evaluation(tmp_path):
    land(tmp_path, "old", day=1, cell="cell")
    land(tmp_path, "new", day=2, cell="cell")
    land(tmp_path, "newest-but-failed", day=3, cell="cell", status="failed")
    land(tmp_path, "newer-without-test", day=4, cell="cell", set="external")

    for created, id in ((5, "e-more-passes"), (4, "e-fewer-passes")):
        rows = evaluation(id, "t-new", created_at=datetime(2026, 2, created))
        write_landing(tmp_path, id, "evaluation", rows)

    load_all(tmp_path)
    assert query("SELECT training_id, evaluation_id FROM leaderboard").values.tolist() == [["t-new", "e-more-passes"]]
    assert len(query("FROM evaluation_summary")) == 5


def test_the_leaderboard_gives_the_primary_rules_figures_with_their_intervals(tmp_path):
    land(tmp_path, "one", random_cases(80, 4))
    load_all(tmp_path)
    (row,) = query("FROM leaderboard").to_dict("records")

    for metric in ("ed_recall", "ed_precision", "ed_f2"):
        (landed,) = query(
            f"SELECT value, low, high FROM metric WHERE rule = 'target_recall' AND metric = '{metric}'"
        ).values.tolist()
        assert [row[metric], row[f"{metric}_low"], row[f"{metric}_high"]] == landed


def test_a_sweeps_own_tables_show_its_evaluations_although_later_ones_of_the_same_cells_are_there(tmp_path):
    """`sweep X`, `sweep X` with another setting, `sweep X` again, which finds all done: its figures are the first's."""
    for name, day, right in (("first", 1, FIVE), ("other", 2, [(label, label, label) for label, _, _ in FIVE])):
        for bits in (4, 8):
            values = {"bits": bits, "day": day, "cell": f"smol-{bits}bit", "settings_digest": name}
            land(tmp_path, f"{name}{bits}", right, **values)

    load_all(tmp_path)
    requested = ["e-first4", "e-first8"]
    for only, output, accuracy in ((None, ["e-other4", "e-other8"], 1.0), (requested, requested, 0.8)):
        board = query("FROM leaderboard", only=only)
        assert sorted(board.evaluation_id) == output and set(board.accuracy) == {accuracy}
        (pair,) = query("FROM quantization_comparison", only=only).to_dict("records")
        assert [pair["evaluation_4bit"], pair["evaluation_8bit"], pair["accuracy_4bit"]] == [*output, accuracy]
        assert (pair["accuracy_diff"], pair["accuracy_verdict"]) == (0, "cannot conclude")
        (flip,) = query("FROM flips", only=only).itertuples()
        assert [flip.evaluation_after, flip.evaluation_before] == output

    assert query("FROM leaderboard", only=[]).empty and query("FROM matched_pair", only=["e-first4"]).empty
    (study,) = studied(only=requested)
    assert all(accuracy.startswith("0.800") for accuracy in leaderboard(study)["accuracy"]) and len(study.pairs) == 1
    assert_sound()
