"""Views behind the comparison: what is worth nothing says so, and every count is recomputed with pandas."""

import json
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from tasks.judging.uncertainty import judge_review
from tests.warehouse.rows import COSTS, FIVE, assert_sound, evaluation, full, land_arm, land_pair, load_pair, training
from tests.warehouse.test_views import pair_of_cases, random_cases
from warehouse.connect import reading
from warehouse.cookbook import named_query
from warehouse.health import run_audits
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query


def test_two_models_that_learned_nothing_are_shown_with_their_difference_and_do_not_qualify(tmp_path):
    """The same 600 wrong decisions twice, beside a linear model that is right."""
    right = [(label, label, label) for label in ["GP"] * 300 + ["ED"] * 200 + ["HOME"] * 100]
    constant = [(label, "GP", "GP") for label, *_ in right]
    land_pair(tmp_path, constant, constant)
    values = {"recipe": "linear", "recipe_kind": "baseline", "random_weights": None, "cell_id": "linear"}
    land_arm(tmp_path, "linear", None, right, **values)
    load_all(tmp_path)
    (pair,) = query("FROM quantization_comparison").itertuples()
    assert (pair.accuracy_diff, pair.accuracy_verdict) == (0, "within")
    assert set(query("FROM quantization_summary").qualifies) == {False}


def test_the_best_constant_answer_is_the_most_frequent_label(tmp_path):
    cases = [(label, "ED", "ED") for label in ["HOME"] * 60 + ["ED"] * 40]
    load_pair(tmp_path, cases, cases)
    (row,) = query("SELECT DISTINCT answer, accuracy, macro_f1 FROM best_constant").values.tolist()
    assert row == ["HOME", 0.6, pytest.approx(f1_score([c[0] for c in cases], ["HOME"] * 100, average="macro"))]


def test_flips_are_what_pandas_counts(tmp_path):
    four, eight = pair_of_cases(200, 1)
    load_pair(tmp_path, four, eight)
    (row,) = query("FROM flips").itertuples(index=False)
    label, before, after = ([c[i] for c in cases] for cases, i in ((four, 0), (eight, 2), (four, 2)))
    flips = [(t, b, a) for t, b, a in zip(label, before, after, strict=True) if a != b]
    lost, gained = ([f for f in flips if f[i] == f[0]] for i in (1, 2))
    counts = (row.cases, row.flips, row.correct_to_wrong, row.wrong_to_correct)
    assert counts == (200, len(flips), len(lost), len(gained))
    assert row.ed_lost == sum(t == "ED" for t, *_ in lost) and row.ed_gained == sum(t == "ED" for t, *_ in gained)
    other_values = [f for f in flips if f not in lost and f not in gained]
    assert row.harmless == sum(COSTS[t][a] <= COSTS[t][b] for t, b, a in other_values) < len(flips)
    assert row.flip_cost == pytest.approx(sum(COSTS[t][a] - COSTS[t][b] for t, b, a in flips))
    assert row.change == "8 to 4 bits" and row.dropout_cases == 0


def dropout_row(id, i, review, entropy=0.5):
    return full(
        "mc_dropout", evaluation_id=id, case_id=f"c{i:05}", passes=50, majority="ED", confidence=0.8, entropy_nats=entropy,
        p_ed=1.0, p_gp=0.0, p_home=0.0, review=review,
    )  # fmt: skip


def test_flips_are_split_by_the_review_flag_of_either_side(tmp_path):
    eight = [("ED", "ED", "ED")] * 4
    four = [("ED", "GP", "GP"), ("ED", "GP", "GP"), ("ED", "ED", "ED"), ("ED", "GP", "GP")]
    for bits, cases, flagged in ((4, four, [True, False]), (8, eight, [False, False])):
        write_landing(tmp_path, f"t{bits}", "training", training(f"t{bits}", bits))
        rows = evaluation(
            f"e{bits}", f"t{bits}", cases, mc_status="available", mc_reason=None, mc_cases=2, mc_passes=50
        )
        rows["mc_dropout"] = [dropout_row(f"e{bits}", i, flag) for i, flag in enumerate(flagged)]
        write_landing(tmp_path, f"e{bits}", "evaluation", rows)

    load_all(tmp_path)
    (row,) = query("FROM flips").itertuples(index=False)
    assert (row.flips, row.dropout_cases, row.flips_flagged, row.flips_not_flagged) == (3, 2, 1, 1)
    assert (row.ed_lost_flagged, row.ed_lost_not_flagged) == (1, 1)


def land_moved(root, cases=FIVE, **values):
    """The adapter of training t4 on 8 bits."""
    named = {"recipe": "r1 from 4bit", "recipe_kind": "moved_adapter", "cell_id": "smol-8bit-r1-from4bit-s42"}
    arm = training("m8", 8, **({**named, "source_training_id": "t4"} | values))
    write_landing(root, "m8", "training", arm)
    write_landing(root, "em8", "evaluation", evaluation("em8", "m8", cases))


def test_a_moved_adapter_is_compared_with_itself_and_never_with_a_twin(tmp_path):
    original, moved = pair_of_cases(50, 7)
    land_arm(tmp_path, "4", 4, original)
    land_moved(tmp_path, moved)
    load_all(tmp_path)
    (row,) = query("FROM flips").itertuples(index=False)
    assert row.change == "adapter moved from 4 to 8 bits"
    assert (row.evaluation_before, row.evaluation_after) == ("e4", "em8")
    assert row.flips == sum(a[2] != b[2] for a, b in zip(original, moved, strict=True))
    assert query("FROM quantization_comparison").empty


@pytest.mark.parametrize("other", [{"source_training_id": "t4-before"}, {"random_weights": True}])
def test_a_moved_adapter_of_another_training_or_on_random_weights_is_not_compared(other, tmp_path):
    """The cell was trained again, and only its earlier adapter was moved; or the other variant has random weights."""
    land_arm(tmp_path, "4")
    land_moved(tmp_path, **other)
    load_all(tmp_path)
    assert query("FROM flips").empty


def judged_at(id, target, cases=FIVE, **values):
    """An evaluation by a threshold that was chosen for a target."""
    rows = evaluation(id, cases=cases, **values)
    for row in rows["decision_rule"]:
        row["target"] = target if row["rule"] == "target_recall" else None
    return rows


def test_a_moved_adapter_is_compared_with_the_evaluation_of_its_own_target(tmp_path):
    """The training was judged again, at another target, after its adapter was moved: what differs then is the target."""
    original, moved = pair_of_cases(50, 7)
    write_landing(tmp_path, "t4", "training", training("t4", 4))
    write_landing(tmp_path, "e4", "evaluation", judged_at("e4", 0.96, original, training_id="t4"))
    later = judged_at("e4-again", 0.5, moved, training_id="t4", created_at=datetime(2026, 6, 1))
    write_landing(tmp_path, "e4-again", "evaluation", later)
    land_moved(tmp_path, moved)
    arm = judged_at("em8", 0.96, moved, training_id="m8", created_at=datetime(2026, 6, 2))
    write_landing(tmp_path, "em8", "evaluation", arm)
    load_all(tmp_path)
    (row,) = query("FROM flips").itertuples(index=False)
    assert (row.evaluation_before, row.evaluation_after) == ("e4", "em8")
    assert row.flips == sum(a[2] != b[2] for a, b in zip(original, moved, strict=True)) > 0


@pytest.mark.parametrize("what", ["settings_digest", "source_digest", "target"])
def test_seeds_of_other_settings_weights_or_targets_are_not_averaged_together(what, tmp_path):
    """Seed 42 was trained with another decay, say, or from another revision, under the same names."""
    for seed, value, target in ((42, "former", 0.5), (43, "present", 0.96), (44, "present", 0.96)):
        land_pair(tmp_path, name=f"-{seed}", seed=seed, **({} if what == "target" else {what: value}))
        for bits in (4, 8) if what == "target" else ():
            id = f"e{bits}-{seed}"
            write_landing(tmp_path, id, "evaluation", judged_at(id, target, training_id=f"t{bits}-{seed}"))

    load_all(tmp_path)
    of_present = "SELECT DISTINCT seed_group FROM seed_group WHERE evaluation_id = 'e4-44'"
    ((group,),) = query(of_present).values
    for view in ("seeds", "seed_differences"):
        frame = query(f"FROM {view}")
        assert set(zip(frame.seed_group, frame.seeds, strict=True)) == {(group, 2)}, view
        assert what != "target" or set(frame.target_ed_recall) == {0.96}
    assert len(query("FROM seeds")) == 2 and len(query("FROM seed_differences")) == 1


def test_harmless_is_not_available_without_a_cost_matrix(tmp_path):
    four, eight = pair_of_cases(50, 3)
    land_pair(tmp_path, four, eight)
    for bits, cases in ((4, four), (8, eight)):
        write_landing(tmp_path, f"e{bits}", "evaluation", evaluation(f"e{bits}", f"t{bits}", cases, cost_matrix=None))
    load_all(tmp_path)
    (row,) = query("FROM flips").itertuples(index=False)
    assert row.flips > 0 and pd.isna(row.harmless) and pd.isna(row.flip_cost)


def test_the_curve_of_risk_and_coverage_has_the_area_that_was_landed_beside_it(tmp_path):
    rng = np.random.default_rng(5)
    cases = random_cases(80, 5, right=0.6)
    entropy = np.round(rng.random(80), 1)  # with ties
    rows = evaluation("e4", "t4", cases, mc_status="available", mc_reason=None, mc_cases=80, mc_passes=50)
    rows["mc_dropout"] = [dropout_row("e4", i, bool(h > 0.3), float(h)) for i, h in enumerate(entropy)]

    for row, p in zip(rows["prediction"], rng.dirichlet([1, 1, 1], 80), strict=True):
        row |= dict(zip(("p_ed", "p_gp", "p_home"), p.tolist(), strict=True))

    write_landing(tmp_path, "t4", "training", training("t4"))
    write_landing(tmp_path, "e4", "evaluation", rows)
    load_all(tmp_path)
    p = [[r["p_ed"], r["p_gp"], r["p_home"]] for r in rows["prediction"]]
    judged = judge_review(entropy > 0.3, entropy, p, [c[0] for c in cases], [c[2] for c in cases])
    areas = query("SELECT score, avg(error_kept) AS area FROM risk_coverage GROUP BY ALL").set_index("score").area
    assert {row["score"]: pytest.approx(row["aurc"]) for row in judged} == areas.to_dict()


def test_seeds_multiply_pairs_and_their_spread_is_shown_once(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.choice(["ED", "GP", "HOME"], 120).tolist()
    for seed in (42, 43, 44):
        sides = [
            [(t, t if rng.random() < 0.7 else "GP", t if rng.random() < 0.8 else "GP") for t in labels] for _ in "48"
        ]
        land_pair(tmp_path, *sides, name=f"-{seed}", seed=seed)

    load_all(tmp_path)
    pairs = query("SELECT seed, accuracy_diff, ed_recall_diff FROM quantization_comparison")
    assert sorted(pairs.seed) == [42, 43, 44]
    (row,) = query("FROM seed_differences").itertuples(index=False)
    assert row.seeds == 3 and row.accuracy_diff_mean == pytest.approx(pairs.accuracy_diff.mean())
    assert row.ed_recall_diff_sd == pytest.approx(pairs.ed_recall_diff.std())
    assert row.accuracy_same_sign == (np.sign(pairs.accuracy_diff) == np.sign(pairs.accuracy_diff.mean())).sum()
    spread = query("FROM seeds")
    board = query("FROM leaderboard")

    for r in spread.itertuples():
        of_width = board[board.bits == r.bits]
        assert r.seeds == 3 and r.accuracy_mean == pytest.approx(of_width.accuracy.mean())
        assert r.ed_recall_sd == pytest.approx(of_width.ed_recall.std())
        assert r.ed_recall_worst == of_width.ed_recall.min()


def test_seeds_whose_cost_matrix_is_written_in_another_order_are_seeds_of_one_recipe(tmp_path):
    for seed, costs in ((42, COSTS), (43, dict(reversed(COSTS.items())))):
        land_pair(tmp_path, name=f"-{seed}", seed=seed)
        for id in (f"4-{seed}", f"8-{seed}"):
            rows = evaluation(f"e{id}", f"t{id}", cost_matrix=json.dumps(costs))
            write_landing(tmp_path, f"e{id}", "evaluation", rows)

    load_all(tmp_path)
    assert query("SELECT seeds FROM seeds").values.tolist() == [[2]] * 2
    assert query("SELECT seeds FROM seed_differences").values.tolist() == [[2]]
    matrices = query("SELECT DISTINCT cost_matrix FROM (" + named_query("cost_by_matrix").sql.rstrip("; \n") + ")")
    assert len(matrices) == 1


def test_baselines_stand_in_the_leaderboard_and_pair_with_nothing(tmp_path):
    values = {"recipe": "always_gp", "recipe_kind": "baseline", "base_model": "none", "cell_id": "always_gp"}
    cases = [(label, "GP", "GP") for label in ["GP", "ED", "HOME"] * 4]
    land_arm(tmp_path, "always", None, cases, weights_source=None, random_weights=None, **values)
    rows = evaluation("ealways", "talways", cases)
    rows["prediction"] = [r | {"nll": None} for r in rows["prediction"]]
    write_landing(tmp_path, "ealways", "evaluation", rows)
    load_pair(tmp_path)
    assert set(query("FROM leaderboard").recipe_kind) == {"standard", "baseline"}
    assert len(query("FROM quantization_comparison")) == 1
    assert_sound()


def test_old_rows_survive_the_wider_tables_and_a_failed_metric_that_was_replaced_is_found(tmp_path):
    """The earlier attempt put accuracy into F1 and F2 where a metric had failed, beside a confusion matrix of zeros."""
    rows = evaluation("e4", "t4", random_cases(40, 1))
    accuracy = rows["evaluation"][0]["accuracy"]
    for row in rows["metric"]:
        if row["metric"] in ("macro_f1", "ed_f2") and row["rule"] == "argmax":
            row |= {"value": accuracy + 0.0123, "low": None, "high": None}

    write_landing(tmp_path, "t4", "training", training("t4"))
    write_landing(tmp_path, "e4", "evaluation", rows)
    load_all(tmp_path)

    with reading() as con:
        assert run_audits(con)["metrics_agree"] == 2

    assert json.loads(query("SELECT cost_matrix FROM evaluation").cost_matrix[0]) == COSTS
