import pytest

from tasks.spec import LABELS
from tests.warehouse.rows import FIVE, evaluation, land_pair, offending_rows, training
from warehouse.connect import writing
from warehouse.health import COMPUTED, run_audits
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.schema import sql_files

AUDITS = {name for name, _ in sql_files("audits")} | set(COMPUTED)
DROPOUT = (
    "INSERT INTO mc_dropout BY NAME SELECT 'e4' AS evaluation_id, 'c00000' AS case_id, 50 AS passes, 'ED' AS majority, "
    "1 AS confidence, 0 AS entropy_nats, 0.5 AS p_ed, 0.3 AS p_gp, 0.1 AS p_home, false AS review"
)
UNSCALED = "temperature = 1, bias_ed = 0, bias_gp = 0, bias_home = 0"
DEFECTS = {
    "orphan_rows": [
        "DELETE FROM experiment WHERE training_id = 't4'",
        "DELETE FROM evaluation WHERE evaluation_id = 'e4'",
        "DELETE FROM landed WHERE id = 'e8'",
        "INSERT INTO sweep_member VALUES ('no sweep', 'e4')",
    ],
    "duplicate_keys": [
        "UPDATE prediction SET case_digest = 'same' WHERE evaluation_id = 'e4'",
        *(
            f"INSERT INTO {table} FROM (FROM {table} WHERE evaluation_id = 'e4' LIMIT 1)"
            for table in ("prediction", "cost", "decision_count")
        ),
    ],
    "probabilities_sum_to_one": ["UPDATE prediction SET p_gp = p_gp + 0.00001 WHERE case_id = 'c00001'", DROPOUT],
    "argmax_is_most_probable": [
        "UPDATE prediction SET p_ed = 0.1, p_gp = 0.8 WHERE argmax = 'ED'",
        "UPDATE decision_rule SET temperature = 1, bias_ed = 3, bias_gp = 0, bias_home = 0 WHERE rule = 'argmax'",
    ],
    "counts_agree": [
        "UPDATE evaluation SET cases = 7 WHERE evaluation_id = 'e4'",
        "UPDATE evaluation SET accuracy = 0 WHERE evaluation_id = 'e4'",
        "UPDATE prediction SET case_group = NULL WHERE evaluation_id = 'e4'",
        "UPDATE evaluation SET has_groups = false WHERE evaluation_id = 'e4'",
        "UPDATE evaluation SET mc_status = 'available', mc_cases = 60",
        DROPOUT,
    ],
    "metrics_agree": [
        "UPDATE metric SET value = 0.5 WHERE metric = 'macro_f1' AND rule = 'argmax'",
        "UPDATE metric SET value = 0 WHERE metric = 'ed_f2' AND rule = 'target_recall'",
        "UPDATE metric SET value = NULL, note = 'not available' WHERE metric = 'under_triage'",
        "UPDATE decision_count SET ed_as_ed = ed_as_ed + 1, ed_as_gp = ed_as_gp - 1 WHERE rule = 'argmax'",
    ],
    "metrics_are_reproduced": [
        "UPDATE metric SET value = 0 WHERE metric = 'ed_f2' AND rule = 'target_recall'",
        "UPDATE metric SET value = 1 WHERE metric = 'expected_cost' AND rule = 'argmax'",
        "UPDATE metric SET value = 0.5, note = NULL WHERE metric = 'cost_skill' AND rule = 'argmax'",
        "UPDATE metric SET value = NULL, note = 'not available' WHERE metric = 'under_triage'",
        "INSERT INTO metric BY NAME SELECT 'e4' AS evaluation_id, 'min_cost' AS rule, 'ed_recall' AS metric, 1 AS value",
        "DELETE FROM cost WHERE label = 'GP' AND decision = 'GP'",
        "UPDATE cost SET cost = 7 WHERE label = 'ED' AND decision = 'GP'",
        "DELETE FROM metric WHERE evaluation_id = 'e4'",
        "UPDATE decision_count SET ed_as_ed = ed_as_ed + 1, ed_as_gp = ed_as_gp - 1 WHERE rule = 'argmax'",
    ],
    "decision_counts_agree": [
        "UPDATE prediction SET label = 'HOME' WHERE label = 'ED' AND evaluation_id = 'e4'",
        "UPDATE prediction SET target_recall = 'HOME' WHERE target_recall = 'ED'",
        "DELETE FROM prediction WHERE evaluation_id = 'e4'",
        "DELETE FROM prediction WHERE evaluation_id = 'e4' AND case_id = 'c00003'",
        "UPDATE prediction SET decision = NULL WHERE case_id = 'c00003'",
        "UPDATE prediction SET nll = nll + 1 WHERE case_id = 'c00003'",
        "DELETE FROM decision_count WHERE rule = 'primary'",
        "UPDATE decision_count SET gp_as_home = gp_as_home + 1 WHERE evaluation_id = 'e4'",
    ],
    "metric_intervals": [
        "UPDATE metric SET low = 0.9, high = 0.1 WHERE metric = 'ed_f1'",
        "UPDATE metric SET exact_low = exact_high + 0.1 WHERE metric = 'ed_recall'",
        "UPDATE metric SET low = value, high = value WHERE metric = 'accuracy'",
    ],
    "gates_agree": [
        "UPDATE gate SET clustered_low = bound - 0.01 WHERE gate = 'ed_recall'",
        "UPDATE gate SET state = 'PASS' WHERE gate = 'ed_recall'",
        "UPDATE gate SET state = 'FAIL' WHERE gate = 'ed_recall'",
        "UPDATE evaluation SET verdict = 'passes_gates'",
        "DELETE FROM gate WHERE gate = 'ed_f2'",
    ],
    "rules_before_test": [
        "DELETE FROM decision_rule WHERE rule = 'target_recall'",
        "UPDATE decision_rule SET chosen_at = test_scored_at + INTERVAL 1 MICROSECOND",
        "UPDATE decision_rule SET note = NULL WHERE rule = 'min_cost'",
        "UPDATE decision_rule SET misses = 1, allowed_misses = 0 WHERE rule = 'target_recall'",
        "UPDATE evaluation SET threshold = 0.3",
        "UPDATE evaluation SET threshold = 0.8; UPDATE decision_rule SET threshold = 0.8",
        "UPDATE prediction SET decision = 'HOME' WHERE case_id = 'c00001'",
        "UPDATE decision_rule SET threshold = 0.1 WHERE rule = 'target_recall'",
        "UPDATE decision_rule SET threshold = 0.45, misses = 0 WHERE rule = 'argmax'; INSERT INTO "
        "calibration_prediction SELECT evaluation_id, case_id, label, p_ed, p_gp, p_home FROM prediction",
        f"UPDATE decision_rule SET {UNSCALED} WHERE rule = 'min_cost'; UPDATE prediction SET min_cost = 'GP'",
    ],
    "judgements_agree": [
        "UPDATE reliability SET n = n + 1 WHERE low = 0",
        "UPDATE conformal SET ed_missed = 3 WHERE evaluation_id = 'e4'",
        "INSERT INTO subgroup_metric SELECT 'e4', 'voice', 'nurse', 'ed_recall', 1, 0.9, 1, 'exact', 99, NULL",
        "INSERT INTO mc_dropout BY NAME SELECT evaluation_id, case_id, 50 AS passes, 'ED' AS majority, 1 AS confidence, "
        "0 AS entropy_nats, p_ed, p_gp, p_home, true AS review FROM prediction WHERE evaluation_id = 'e4'; INSERT INTO "
        "review_flag BY NAME SELECT 'e4' AS evaluation_id, 'vote_entropy' AS score, 30 AS cases, 0 AS load, 0 AS aurc, 0 "
        "AS missed_ed",
    ],
    "probabilities_agree": [
        "UPDATE metric SET value = value - 0.01 WHERE metric = 'ed_auroc'",
        "DELETE FROM metric WHERE metric = 'ed_auroc' AND evaluation_id = 'e4'",
        "UPDATE net_benefit SET always_ed = 0.5 WHERE threshold = 0.1",
        "UPDATE net_benefit SET over_always_ed_low = 2",
        "DELETE FROM net_benefit WHERE evaluation_id = 'e8'",
    ],
    "latest_judging": ["INSERT INTO judged_again VALUES ('e4', 'e8')", "UPDATE evaluation SET scores_id = 'e4'"],
    "pairs_agree": [
        "INSERT INTO reference_metric BY NAME SELECT 'e4' AS evaluation_id, 'e8' AS reference_evaluation, 'argmax' AS "
        "rule, 'accuracy' AS metric, 1 AS cases",
        "DELETE FROM pair_metric",
        "UPDATE pair_metric SET b = b + 1 WHERE metric = 'accuracy'",
        "UPDATE pair_metric SET value_4bit = 1, difference = 1 - value_8bit WHERE metric = 'ed_f2'",
        "UPDATE pair_metric SET value_4bit = 0.6, difference = 0.6 - value_8bit WHERE metric = 'ed_auroc'",
        "UPDATE prediction SET case_id = 'other' WHERE evaluation_id = 'e8' AND case_id = 'c00000'",
        "UPDATE experiment SET learning_rate = 1 WHERE training_id = 't4'",
    ],
    "pools_are_reproduced": [
        "UPDATE pooled_metric SET low = low - 0.0001 WHERE metric = 'accuracy'",
        "UPDATE pooled_metric SET verdict = 'within' WHERE metric = 'ed_recall'",
        "DELETE FROM pooled_metric WHERE rule = 'primary'",
        "UPDATE adjusted_bound SET bound = 0.97 WHERE gate = 'ed_recall'",
    ],
    "pairs_are_reproduced": [
        "UPDATE pair_metric SET low = low - 0.0001 WHERE low < 0",
        "UPDATE pair_metric SET verdict = 'within' WHERE metric = 'ed_f2'",
        "DELETE FROM pair_metric WHERE metric = 'accuracy'",
    ],
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest")
    land_pair(folder, FIVE * 6, [(a, b, a) for a, b, _ in FIVE] * 6, groups=True)
    load_all(folder, folder / "honest.duckdb")
    with writing(folder / "honest.duckdb") as con:
        yield con


@pytest.fixture
def con(honest):
    """What a test changes is taken back."""
    honest.begin()
    yield honest
    honest.rollback()


def test_honest_results_pass_every_audit_and_each_has_a_defect_that_it_finds(con):
    assert run_audits(con) == dict.fromkeys(AUDITS, 0)
    assert DEFECTS.keys() == AUDITS
    # p(ED) is at least 0.1 everywhere, and an emergency missed costs fifty times what a case sent too high does.
    con.execute("UPDATE prediction SET min_cost = 'ED'")
    con.execute(f"UPDATE decision_rule SET {UNSCALED} WHERE rule = 'min_cost'")
    assert offending_rows(con, "rules_before_test") == 0


@pytest.mark.parametrize(("audit", "defect"), [(audit, sql) for audit, several in DEFECTS.items() for sql in several])
def test_a_planted_defect_is_found(audit, defect, con):
    con.execute(defect)
    assert offending_rows(con, audit) > 0


def test_the_confusion_matrix_has_nine_cells_for_each_rule_that_decided(con):
    rows = con.execute("SELECT * FROM confusion_matrix WHERE evaluation_id = 'e4'").fetchall()
    expected = {
        (rule, label, decision): sum(c[0] == label and c[place] == decision for c in FIVE * 6)
        for rule, place in (("argmax", 1), ("target_recall", 2), ("primary", 2))
        for label in LABELS
        for decision in LABELS
    }
    assert len(rows) == len(expected) == 27 and {tuple(row[1:4]): row[4] for row in rows} == expected


def test_neither_an_experiment_that_failed_nor_a_case_without_a_group_is_an_offence(tmp_path):
    """Among grouped ones such a case is a unit of its own."""
    rows = training("t1", status="failed", error="The disk is full.", finished_at=None, compute_path=None)
    write_landing(tmp_path, "t1", "training", rows)
    land_pair(tmp_path, FIVE * 6, FIVE * 6, groups=True)
    for bits in (4, 8):
        rows = evaluation(f"e{bits}", f"t{bits}", FIVE * 6, groups=True)
        rows["prediction"][0]["case_group"] = None
        write_landing(tmp_path, f"e{bits}", "evaluation", rows)

    load_all(tmp_path)
    with writing() as con:
        assert run_audits(con) == dict.fromkeys(AUDITS, 0)
        assert con.execute("SELECT DISTINCT groups FROM pair_metric WHERE metric = 'accuracy'").fetchall() == [(16,)]
