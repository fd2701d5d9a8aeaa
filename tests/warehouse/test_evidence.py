"""Views behind the comparison: what is worth nothing says so, and every count is recomputed with pandas."""

import json
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from tasks.judging.uncertainty import judge_review
from tests.warehouse.rows import COSTS, FIVE, evaluation, full, land_arm, land_pair
from tests.warehouse.test_views import pair_of_cases, random_cases
from warehouse.cookbook import named_query
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

FLIPS = pair_of_cases(200, 1)
UNPRICED = pair_of_cases(50, 3)
MOVED = pair_of_cases(50, 7)
CONSTANT = [(label, "ED", "ED") for label in ["HOME"] * 60 + ["ED"] * 40]
UNCERTAIN = random_cases(80, 5, right=0.6)
ENTROPY = np.round(np.random.default_rng(5).random(80), 1)  # with ties
P = np.random.default_rng(6).dirichlet([1, 1, 1], 80)


def scenario(name: str) -> dict[str, str]:
    """A base model and a test set of its own: nothing else of the warehouse is compared with it."""
    return {"base_model": name, "on": name}


def with_dropout(id, cases, flags, set_digest):
    """An evaluation with a flag and an entropy of its first cases."""
    rows = evaluation(
        f"e{id}", f"t{id}", cases, mc_status="available", mc_reason=None, mc_cases=len(flags), mc_passes=50,
        set_digest=set_digest,
    )  # fmt: skip
    rows["mc_dropout"] = [
        full(
            "mc_dropout", evaluation_id=f"e{id}", case_id=f"c{i:05}", passes=50, majority="ED", confidence=0.8,
            entropy_nats=float(entropy), p_ed=1.0, p_gp=0.0, p_home=0.0, review=bool(flag),
        )
        for i, (flag, entropy) in enumerate(flags)
    ]  # fmt: skip
    return rows


def land_moved(root, name, original, moved, **values):
    """A training at 4 bits, and its adapter on 8 bits."""
    land_arm(root, f"4-{name}", 4, original, **scenario(name), cell_id=f"4-{name}")
    named = {"recipe": "r1 from 4bit", "recipe_kind": "moved_adapter", "cell_id": f"8-{name}"}
    land_arm(root, f"m-{name}", 8, moved, **scenario(name), **(named | {"source_training_id": f"t4-{name}"} | values))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Every scenario of this file in one warehouse."""
    root = tmp_path_factory.mktemp("evidence")

    def land_judged(rows):
        (row,) = rows["evaluation"]
        write_landing(root, row["evaluation_id"], "evaluation", rows)

    land_pair(root, CONSTANT, CONSTANT, name="-constant", **scenario("constant"))
    land_pair(root, *FLIPS, name="-flips", **scenario("flips"))

    land_pair(root, *UNPRICED, name="-unpriced", of_evaluation={"cost_matrix": None}, **scenario("unpriced"))

    eight = [("ED", "ED", "ED")] * 4
    four = [("ED", "GP", "GP"), ("ED", "GP", "GP"), ("ED", "ED", "ED"), ("ED", "GP", "GP")]
    land_pair(root, four, eight, name="-review", **scenario("review"))
    for bits, cases, flagged in ((4, four, (True, False)), (8, eight, (False, False))):
        flags = [(flag, 0.5) for flag in flagged]
        land_judged(with_dropout(f"{bits}-review", cases, flags, "review"))

    land_arm(root, "uncertain", 4, UNCERTAIN, cell_id="uncertain", **scenario("uncertain"))
    rows = with_dropout("uncertain", UNCERTAIN, [(h > 0.3, h) for h in ENTROPY], "uncertain")
    for row, p in zip(rows["prediction"], P.tolist(), strict=True):
        row |= dict(zip(("p_ed", "p_gp", "p_home"), p, strict=True))
    for table in ("reliability", "net_benefit", "conformal"):
        rows[table] = []
    rows["metric"] = [row for row in rows["metric"] if row["metric"] != "ed_auroc"]
    land_judged(rows)

    land_moved(root, "moved", *MOVED)
    # The cell was trained again, and only its earlier adapter was moved; or the other variant has random weights.
    land_moved(root, "moved-before", FIVE, FIVE, source_training_id="t-before")
    land_moved(root, "moved-random", FIVE, FIVE, random_weights=True)
    # Judged again, at another target, after its adapter was moved: what differs then is the target.
    land_moved(root, "moved-target", *MOVED)
    original, moved = MOVED
    for id, target, cases, training_id, month in (
        ("e4-moved-target", 0.96, original, "t4", 1),
        ("e4-again", 0.5, moved, "t4", 6),
        ("em-moved-target", 0.96, moved, "tm", 7),
    ):
        values = {"target": target, "created_at": datetime(2026, month, 2), "set_digest": "moved-target"}
        land_judged(evaluation(id, f"{training_id}-moved-target", cases, **values))

    rng = np.random.default_rng(0)
    labels = rng.choice(["ED", "GP", "HOME"], 120).tolist()
    for seed in (42, 43, 44):
        sides = [
            [(t, t if rng.random() < 0.7 else "GP", t if rng.random() < 0.8 else "GP") for t in labels] for _ in "48"
        ]
        land_pair(root, *sides, name=f"-spread-{seed}", seed=seed, **scenario("spread"))

    for seed, costs in ((42, COSTS), (43, dict(reversed(COSTS.items())))):
        values = {"of_evaluation": {"cost_matrix": json.dumps(costs)}, "seed": seed}
        land_pair(root, name=f"-prices-{seed}", **scenario("prices"), **values)

    # Seed 42 was trained with another decay, say, or from another revision, under the same names.
    for what in ("settings_digest", "source_digest", "target"):
        for seed, value, target in ((42, "former", 0.5), (43, "present", 0.96), (44, "present", 0.96)):
            values = {"of_evaluation": {what: target}} if what == "target" else {what: value}
            land_pair(root, name=f"-{what}-{seed}", seed=seed, **scenario(what), **values)

    report = load_all(root, root / "w.duckdb")
    assert report.refused == {}
    return root / "w.duckdb"


@pytest.fixture
def rows_of(file):
    """The rows of a view that are of one scenario."""

    def rows(view, name):
        return list(query(f"FROM {view} WHERE base_model = '{name}'", database=file).itertuples(index=False))

    return rows


def test_the_best_constant_answer_is_the_most_frequent_label(file):
    sql = "SELECT answer, accuracy, macro_f1 FROM best_constant WHERE evaluation_id = 'e4-constant'"
    expected = f1_score([case[0] for case in CONSTANT], ["HOME"] * 100, average="macro")
    assert query(sql, database=file).values.tolist() == [["HOME", 0.6, pytest.approx(expected)]]


def test_flips_are_what_pandas_counts_and_harmless_needs_a_cost_matrix(rows_of):
    four, eight = FLIPS
    (row,) = rows_of("flips", "flips")
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
    (row,) = rows_of("flips", "unpriced")
    assert row.flips > 0 and pd.isna(row.harmless) and pd.isna(row.flip_cost)


def test_flips_are_split_by_the_review_flag_of_either_side(rows_of):
    (row,) = rows_of("flips", "review")
    assert (row.flips, row.dropout_cases, row.flips_flagged, row.flips_not_flagged) == (3, 2, 1, 1)
    assert (row.ed_lost_flagged, row.ed_lost_not_flagged) == (1, 1)


def test_a_moved_adapter_is_compared_with_itself_by_its_own_rule_and_never_with_a_twin(rows_of):
    for name in ("moved", "moved-target"):
        (row,) = rows_of("flips", name)
        assert row.change == "adapter moved from 4 to 8 bits"
        assert (row.evaluation_before, row.evaluation_after) == (f"e4-{name}", f"em-{name}")
        assert row.flips == sum(a[2] != b[2] for a, b in zip(*MOVED, strict=True)) > 0
    for name in ("moved-before", "moved-random"):
        assert rows_of("flips", name) == []
    assert rows_of("quantization_comparison", "moved") == []


@pytest.mark.parametrize("what", ["settings_digest", "source_digest", "target"])
def test_seeds_of_other_settings_weights_or_targets_are_not_averaged_together(what, file, rows_of):
    ((group,),) = query(f"SELECT seed_group FROM seed_group WHERE evaluation_id = 'e4-{what}-44'", database=file).values
    for view, count in (("seeds", 2), ("seed_differences", 1)):
        rows = rows_of(view, what)
        assert {(row.seed_group, row.seeds) for row in rows} == {(group, 2)} and len(rows) == count, view
        assert what != "target" or {row.target_ed_recall for row in rows} == {0.96}


def test_the_curve_of_risk_and_coverage_has_the_area_that_was_landed_beside_it(file):
    labels, _, decisions = zip(*UNCERTAIN, strict=True)
    judged = judge_review(ENTROPY > 0.3, ENTROPY, P, labels, decisions)
    sql = "SELECT score, avg(error_kept) AS area FROM risk_coverage WHERE evaluation_id = 'euncertain' GROUP BY ALL"
    areas = query(sql, database=file).set_index("score").area
    assert {row["score"]: pytest.approx(row["aurc"]) for row in judged} == areas.to_dict()


def test_seeds_multiply_pairs_and_their_spread_is_shown_once(rows_of):
    pairs = pd.DataFrame(rows_of("quantization_comparison", "spread"))
    (row,) = rows_of("seed_differences", "spread")
    assert sorted(pairs.seed) == [42, 43, 44] and row.seeds == 3
    assert row.accuracy_diff_mean == pytest.approx(pairs.accuracy_diff.mean())
    assert row.ed_recall_diff_sd == pytest.approx(pairs.ed_recall_diff.std())
    assert row.accuracy_same_sign == (np.sign(pairs.accuracy_diff) == np.sign(pairs.accuracy_diff.mean())).sum()

    board = pd.DataFrame(rows_of("leaderboard", "spread"))
    for r in rows_of("seeds", "spread"):
        of_width = board[board.bits == r.bits]
        assert r.seeds == 3 and r.accuracy_mean == pytest.approx(of_width.accuracy.mean())
        assert r.ed_recall_sd == pytest.approx(of_width.ed_recall.std())
        assert r.ed_recall_worst == of_width.ed_recall.min()


def test_seeds_whose_cost_matrix_is_written_in_another_order_are_seeds_of_one_recipe(rows_of, file):
    assert [row.seeds for row in rows_of("seeds", "prices")] == [2, 2]
    assert [row.seeds for row in rows_of("seed_differences", "prices")] == [2]
    by_matrix = named_query("cost_by_matrix").sql.rstrip("; \n")
    assert len(query(f"SELECT DISTINCT cost_matrix FROM ({by_matrix})", database=file)) == 1
