"""The tables of `triage compare`, on a small warehouse: every figure with its reason where there is none, every mark."""

from __future__ import annotations

import re

import pytest
from sklearn.metrics import roc_auc_score

from flows.report.evidence import evidence
from flows.report.figures import BASELINES, percent
from flows.report.gates import GATES, gates, restated
from flows.report.leaderboard import SOURCES, leaderboard
from flows.report.pairs import NOT_MEASURABLE, pair_rows, pairs_on, quantization, recipe_table, summary_rows
from flows.report.rules import CONFUSION, FARE, TIMES
from flows.report.typed_rows import leaderboard_rows
from tasks.judging.metrics import confusion
from tasks.judging.point_metrics import cost_array, metric_values
from tests.place import changed
from tests.warehouse.rows import COSTS, FIVE, PROBABILITIES, evaluation, full, land_arm, land_pair, training
from tests.warehouse.test_precisions import noisy
from tests.warehouse.test_studies import land_dataset
from tests.warehouse.test_views import random_cases
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

CASES = random_cases(60, 1)
NO_RULE = "not available: the recipe has no target ED recall"
WORTH = "What is p(ED) worth? Slope 1 and intercept 0: calibrated"
FLAG = "The review flag of Monte Carlo dropout against scores of one pass at equal load"
NO_MODEL = dict.fromkeys(("bits", "compute_path", "peak_memory_bytes", "train_seconds"))


def land(root, id="t4", rows=None, **values):
    write_landing(root, id, "training", training(id, **values))
    write_landing(root, f"e{id}", "evaluation", rows or evaluation(f"e{id}", id, CASES))
    load_all(root)


def tables(cells=None, prevalence=None):
    """The tables of the long form by the first words of their titles."""
    board = leaderboard_rows(cells)
    return {table.title.split(";")[0].split(" (")[0]: table for table in evidence(board, prevalence)}


def lines(frame, column, row=0):
    return frame[column][row].split("\n")


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """One experiment, judged on its test set and on that of a clinic, and a baseline; tests only read it."""
    folder = tmp_path_factory.mktemp("evidence")
    clinic = evaluation("x4", "t4", FIVE, evaluation_set="clinic", set_digest="other")
    write_landing(folder / "landing", "x4", "evaluation", clinic)
    values = {"train_loss": 0.25, "valid_loss": 0.5, "tokens_per_second": 1234.0, "weights_memory_bytes": 5e8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIAGE_HOME", str(folder))
        patch.setenv("TRIAGE_WAREHOUSE", str(folder / "triage.duckdb"))
        land(folder / "landing", **values)
        land(folder / "landing", "b", recipe="linear", recipe_kind="baseline", base_model="none", cell_id="linear",
             **NO_MODEL)  # fmt: skip
    return folder / "triage.duckdb"


@pytest.fixture
def landed(warehouse, own_home, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(warehouse))


def test_the_long_form_has_the_table_of_each_question(landed):
    assert list(tables({"et4"})) == [
        GATES.partition(";")[0], FARE, "Decision rules: errors of all cases", "Decision rules: what the decisions cost",
        "What each rule chose on the calibration cases", TIMES.partition(" (")[0], CONFUSION,
        SOURCES.partition(" (")[0],
        "Training, and what it took", "Can the probabilities be trusted? Likelihood and calibration on the test set",
        WORTH, "Conformal sets", FLAG,
    ]  # fmt: skip
    of_study = [table.title for table in evidence(leaderboard_rows(["et4"]), ids=["et4"])]
    assert SOURCES not in of_study, "the study has not judged it"
    assert len(gates(leaderboard_rows(["et4"]), ["et4"])) == 1


def test_the_ranking_and_the_worth_of_p_ed_stand_beside_each_other(landed):
    table = tables({"et4"})[WORTH]
    is_ed = [case[0] == "ED" for case in CASES]
    p_ed = [PROBABILITIES[case[1]][0] for case in CASES]
    assert lines(table, "AUROC of ED")[0].split(" ")[0] == f"{roc_auc_score(is_ed, p_ed):.3f}"
    (row,) = query(
        "SELECT net_benefit, over_always_ed FROM net_benefit WHERE threshold = 0.1 AND evaluation_id = 'et4'"
    ).values.tolist()
    assert [line.split(" ")[0] for line in lines(table, "net benefit at 0.1")] == [f"{row[0]:.3f}", f"{row[1]:+.3f}"]


def test_every_rule_has_the_figures_of_its_own_decisions(landed):
    tables_by_title = tables({"et4"})
    emergencies = tables_by_title[FARE]
    assert [line for line in lines(emergencies, "rule") if line] == ["argmax", "target recall *", "min cost"]
    assert lines(emergencies, "ED recall")[2].startswith("n/a: this evaluation")

    titles = {
        "ED recall": "ed_recall", "ED precision": "ed_precision", "ED F2": "ed_f2", "over-triage": "over_triage",
        "under-triage": "under_triage", "macro-F1": "macro_f1", "expected cost": "expected_cost", "cost skill": "cost_skill",
    }  # fmt: skip
    labels = [case[0] for case in CASES]
    for line, rule in enumerate(("argmax", "threshold")):
        counts = confusion(labels, [case[line + 1] for case in CASES])
        shown = [lines(tables_by_title[CONFUSION], f"{rule}: {choice}") for choice in ("ED", "GP", "HOME")]
        assert [list(map(int, column)) for column in zip(*shown, strict=True)] == counts.tolist()

        values = metric_values(counts, cost_array(COSTS))
        for title, name in titles.items():
            (frame,) = (t for key, t in tables_by_title.items() if key.startswith("Decision") and title in t.columns)
            text = lines(frame, title)[line]
            assert text.startswith(f"{values[name]:.{2 if 'cost' in name else 3}f} [") and text.endswith("]")


def test_what_was_chosen_on_which_cases_and_when_is_shown_beside_the_rules(tmp_path):
    rows = evaluation("et4", "t4", CASES, threshold=0.25)
    for row in rows["decision_rule"]:
        if row["rule"] == "target_recall":
            row |= {"target": 0.96, "threshold": 0.25, "allowed_misses": 2, "misses": 1, "n_ed": 30, "bound": 0.828}
        if row["rule"] == "min_cost":
            row |= {"note": "not available: no cost matrix"}

    land(tmp_path, rows=rows)
    table = tables()["What each rule chose on the calibration cases"]
    assert lines(table, "rule")[0] == "target recall *"
    assert lines(table, "chosen") == ["p(ED) >= 0.25", "for recall 0.96", "n/a: no cost matrix"]
    assert lines(table, "calibration") == ["1 of 30 ED missed", "2 allowed, bound 0.828"]
    times = tables()[TIMES.partition(" (")[0]]
    assert (times["chosen at"], times["judged from"]) == (["2026-01-02 01:00:00"], ["2026-01-02 02:00:00"])


def test_a_rule_that_could_not_be_applied_gives_its_reason_and_no_zero_anywhere(tmp_path):
    rows = evaluation("et4", "t4", CASES)
    for row in rows["prediction"]:
        row["decision"] = row["target_recall"] = None

    for row in rows["metric"]:
        if row["rule"] == "target_recall":
            row |= {"value": None, "low": None, "high": None, "note": NO_RULE}

    for row in rows["gate"]:
        row |= {"state": "NOT AVAILABLE", "value": None, "bound": None, "successes": None, "note": NO_RULE}

    land(tmp_path, rows=rows)
    tables_by_title = tables()
    rules = tables_by_title[FARE]
    assert "n/a: the recipe has no target ED recall" in " ".join(lines(rules, "ED recall"))
    assert lines(rules, "ED F2")[1] == "n/a"
    matrix = tables_by_title[CONFUSION]
    assert {cell for choice in ("ED", "GP", "HOME") for cell in lines(matrix, f"threshold: {choice}")} == {"n/a"}

    gates = tables_by_title[GATES.partition(";")[0]]
    reason = "NOT AVAILABLE: n/a: the recipe has no target ED recall"
    assert [gates.rows[0][place] for place in range(3, 18, 5)] == [reason] * 3
    assert {text for text in gates.rows[0][3:] if text != reason} == {"n/a"}


def test_gates_show_state_count_bound_and_method_on_every_set(landed):
    frame = tables({"et4"})[GATES.partition(";")[0]]
    assert lines(frame, "experiment", 1)[-1] == "clinic: 5 cases, 40% ED"
    for row, id in enumerate(("et4", "x4")):
        (g,) = query(f"FROM gate WHERE gate = 'ed_recall' AND evaluation_id = '{id}'").itertuples()
        state, value, bound = (frame[f"ED recall\n{of}"][row] for of in (">= 0.95", "value", "bound"))
        assert (state, value, bound) == (g.state, f"{g.successes} of {g.n} = {g.value:.3f}", f"{g.bound:.3f}")
        assert frame["ED recall\nby"][row] == "exact (Clopper-Pearson)"


def test_a_reason_is_printed_whole_where_there_is_no_figure(landed, tmp_path, monkeypatch):
    note = query("SELECT note FROM conformal WHERE evaluation_id = 'et4'").note[0]
    assert note and " ".join(tables({"et4"})["Conformal sets"]["mind"][0].split()) == note

    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "home" / "triage.duckdb"))
    no_dropout = "the recipe has dropout 0, so every pass would be the same"
    rows = evaluation("et4", "t4", [case for case in CASES if case[0] != "ED"], mc_reason=no_dropout)
    note = "not available: 40 cases, an ECE needs 300"
    rows["metric"].append(full("metric", evaluation_id="et4", rule="argmax", metric="ece", n=40, note=note))
    land(tmp_path, rows=rows)
    shown = tables()
    trust = next(frame for title, frame in shown.items() if title.startswith("Can the"))
    assert " ".join(lines(trust, "ECE")) == "n/a: 40 cases, an ECE needs 300"
    sets = " ".join(lines(shown["Conformal sets"], "ED missed"))
    assert "no ED case in this set" in sets and "0 of 0" not in sets
    assert shown[GATES.partition(";")[0]]["ED recall\n>= 0.95"] == ["NOT AVAILABLE: n/a: no ED case in this set"]
    flag = shown[FLAG]
    assert (flag["load"], flag["score"], flag["AURC"]) == ([f"not available: {no_dropout}"], [""], ["n/a"])


def test_the_review_table_has_catch_beside_load_and_the_models_of_a_recipe_together(tmp_path):
    """Rows as an earlier version landed them, without intervals, and of today."""
    ends = {"low": 0.1, "high": 0.9}
    today = {f"{of}_flagged_{end}": share for of in ("wrong", "missed_ed") for end, share in ends.items()}
    for seed, missed_ed, intervals in ((42, 4, {}), (43, 0, today)):
        id = f"t{seed}"
        rows = evaluation(f"e{id}", id, CASES, mc_status="available", mc_reason=None, mc_cases=60, mc_passes=50)
        rows["review_flag"] = [
            full("review_flag", evaluation_id=f"e{id}", score=score, cases=60, load=0.25, aurc=0.2, error_kept=(10 - caught) / 45,
                 error_flagged=caught / 15, missed_ed=missed_ed, missed_ed_flagged=0.25 if missed_ed else None, **intervals)
            for score, caught in (("vote_entropy", 5), ("single_pass_entropy", 5), ("max_probability", 10))
        ]  # fmt: skip
        land(tmp_path, id, rows, seed=seed, cell_id=f"smol-4bit-r1-s{seed}")

    first, second, together = tables()[FLAG].records()
    votes, _, one_pass = (line for line in first["wrong\ncaught"].split("\n"))
    assert (votes, one_pass) == ("5 of 10: 0.50", "10 of 10: 1.00")
    assert first["missed ED\ncaught"].split("\n")[0] == "1 of 4: 0.25"
    assert second["wrong\ncaught"].split("\n")[0] == "5 of 10: 0.50 [0.10, 0.90]"
    assert second["missed ED\ncaught"].split("\n")[0] == "no misses"
    assert together["experiment"] == "smol r1\n2 models together"
    cells = [together[name].split("\n")[0] for name in ("load", "missed ED\ncaught", "wrong\ncaught")]
    assert cells == ["0.250", "1 of 4", "10 of 20"]


def test_losses_time_speed_and_memory_are_shown_and_nothing_for_what_was_not_trained(landed):
    table = {row["experiment"]: row for row in tables()["Training, and what it took"].records()}
    own_row = table["smol-4bit-r1-s42"]
    assert (own_row["train\nloss"], own_row["valid.\nloss"]) == ("0.250", "0.500")
    assert (own_row["trained\nin"], own_row["tokens/s"], own_row["weights\nMB"]) == ("40 s", "1234", "500")
    other = table[BASELINES["linear"].replace("\n", " ")]
    assert {other[name] for name in ("train\nloss", "trained\nin", "tokens/s", "weights\nMB", "peak\nMB")} == {"n/a"}


def fidelity(id, **values):
    return full(
        "fidelity", fidelity_id=id, base_model="smol", distribution="labels", reference_precision="bf16",
        variant_digest="v", reference_digest="r", cases=6, set_cases=60, same_top1=1.0,
        **({"bits": 4, "dataset_digest": "data", "random_weights": False} | values),
    )  # fmt: skip


def land_everything(root, marked, recipes=("r1",)):
    """Pairs of two seeds, a further set and fidelity, all on random weights or on real ones."""
    prefix = "random" if marked else "real"
    for recipe, seed, bits in ((r, seed, bits) for r in recipes for seed in (42, 43) for bits in (4, 8)):
        id = f"{prefix}{bits}s{seed}" if recipe == "r1" else f"{recipe}-{bits}-{seed}"
        values = {"recipe": recipe, "seed": seed, "random_weights": marked, "day": 9 if marked else 1}
        land_arm(root, id, bits, CASES, cell_id=f"smol-{bits}bit-{recipe}-s{seed}", **values)
        further = evaluation(f"x{id}", f"t{id}", FIVE, evaluation_set="clinic", set_digest="other")
        write_landing(root, f"x{id}", "evaluation", further)

    for bits in (4, 8):
        id = f"fidelity-{prefix}-{bits}"
        row = fidelity(id, bits=bits, random_weights=marked, kl_mean=0.5 if marked else 0.25)
        write_landing(root, id, "fidelity", {"fidelity": [row]})
    load_all(root)


def test_every_row_of_every_table_marks_random_weights_and_none_hides_a_real_one(tmp_path):
    def everything():
        board = leaderboard_rows()
        return [leaderboard(board), quantization(pair_rows()), *evidence(board)]

    land_everything(tmp_path / "real", marked=False)
    before = {table.title: len(table) for table in everything()}
    land_everything(tmp_path / "random", marked=True)
    all_tables = everything()
    assert len(all_tables) == 2 + 16

    for table in all_tables:
        first = table["experiment" if "experiment" in table.columns else table.columns[0]]
        marks = ["(random weights)" in name for name in first]
        assert sum(marks) * 2 == len(table) == before[table.title] * 2, table.title


def test_the_spread_is_that_of_the_seeds_and_recipes_that_are_shown(tmp_path):
    land_everything(tmp_path / "real", marked=False, recipes=("r1", "r2"))
    land(tmp_path / "base", "b", recipe="linear", recipe_kind="baseline", base_model="none", cell_id="linear",
         **NO_MODEL)  # fmt: skip
    land(tmp_path / "third", "third", seed=44, cell_id="smol-4bit-r1-s44")

    def spread(shown=None, ids=None):
        found = evidence(leaderboard_rows(shown), sections=["sets and seeds"], ids=ids)
        return next(table for table in found if table.title.startswith("Spread"))

    of_r1 = ["smol 4bit r1", "smol 8bit r1", "smol r1, 4 minus 8 bits"]
    assert len(spread()) == 6
    assert lines(spread(), "ED precision")[-1] == f"of {percent(sum(case[1] == 'ED' for case in CASES) / 60)} ED"
    ids = [f"ereal{bits}s{seed}" for bits in (4, 8) for seed in (42, 43)]
    assert (spread(ids)["experiment"], spread(ids)["seeds"]) == (of_r1, ["3", "2", "2"])
    assert (spread(ids, ids)["experiment"], spread(ids, ids)["seeds"]) == (of_r1, ["2", "2", "2"]), "of the study alone"
    assert spread({"ereal4s42"})["experiment"] == [of_r1[0], of_r1[2]]


def test_the_latest_fidelity_on_the_same_dataset_is_shown_whatever_its_hash(tmp_path):
    land(tmp_path)
    for id, kl, dataset in (("z-old", 0.9, "data"), ("a-new", 0.1, "data"), ("b-other", 0.7, "elsewhere")):
        row = fidelity(id, kl_mean=kl, dataset_digest=dataset)
        write_landing(tmp_path, id, "fidelity", {"fidelity": [row]})
        load_all(tmp_path)

    title = "What quantisation alone changes, before any training: KL divergence to the reference, in nats"
    assert tables()[title]["mean"] == ["0.10000"]

    # It is measured once on a test set, whichever of the data sets with it asks first.
    (set_digest,) = {row.set_digest for row in leaderboard_rows()}
    land_dataset(tmp_path, "elsewhere", "its four sets", set_digest)
    load_all(tmp_path)
    assert tables()[title]["mean"] == ["0.70000"]


def test_prevalence_reaches_every_table_or_is_said_not_to_apply(tmp_path):
    land_everything(tmp_path, marked=False)
    restated_tables = {table.title: table for table in evidence(leaderboard_rows(), 0.1)}
    own_tables = evidence(leaderboard_rows())
    for (title, table), before in zip(restated_tables.items(), own_tables, strict=True):
        assert title.endswith("restated at 10% ED") != title.endswith("--prevalence does not apply"), title
        assert (table.rows == before.rows) == title.endswith("does not apply"), title

    board = query("SELECT * FROM leaderboard").iloc[0]
    precision, f2 = restated(board.ed_recall, board.ed_precision, board.ed_prevalence, 0.1)
    rules = next(frame for title, frame in restated_tables.items() if "how emergencies fare" in title)
    assert lines(rules, "ED precision")[1] == f"{precision:.3f}" and lines(rules, "ED F2")[1] == f"{f2:.3f}"
    (seeds,) = (frame for title, frame in restated_tables.items() if title.startswith("Spread"))
    assert lines(seeds, "ED F2")[0] == f"{f2:.3f}" and lines(seeds, "ED precision")[0] == f"{precision:.3f}"
    (further,) = (frame for title, frame in restated_tables.items() if title.startswith("On further"))
    assert lines(further, "ED precision")[1] == "of 10% ED"


def test_pairs_and_recipes_have_intervals_and_no_verdict(tmp_path):
    for seed in (42, 43):
        land_pair(tmp_path, *(noisy(seed + bits, 0.8) for bits in (4, 8)), groups=True, name=f"s{seed}", seed=seed)
    load_all(tmp_path)
    pair, other = pair_rows()
    of_board = pairs_on(leaderboard_rows(), summary_rows())
    for table in (quantization([pair]), recipe_table(of_board, True)):
        assert not re.search("conclude|worse|within", str(table.rows))

    recipes = recipe_table(of_board, whole=True)
    (row,) = (row for row in of_board if (row.metric, row.rule) == ("accuracy", "argmax"))
    interval = f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
    assert recipes["accuracy"] == [f"{interval}\np {row.holm_p:.3f}"] and row.seeds == 2
    assert recipe_table(of_board)["accuracy"] == [interval] and "Holm" in recipes.title
    assert (recipes["recipe"], recipes["seeds"]) == (["smol r1"], ["2"])

    unmeasured = changed(pair, resources=NOT_MEASURABLE)
    assert "memory, time" not in quantization([unmeasured]).columns
    assert quantization([unmeasured]).title.endswith("; memory and time are not measurable on this backend")
    assert quantization([other, unmeasured])["memory, time"][1] == NOT_MEASURABLE


def test_a_baseline_is_never_confused_with_the_recipe_of_that_name(tmp_path):
    cell = "smol-4bit-baseline-s42"
    land(tmp_path / "recipe", recipe="baseline", cell_id=cell)
    for name in BASELINES:
        kind = {"recipe": name, "recipe_kind": "baseline", "base_model": "none", "cell_id": name}
        land(tmp_path / name, name, **kind, **NO_MODEL)

    names = leaderboard(leaderboard_rows())["experiment"]
    assert names[0] == cell and set(names[1:]) == {name.replace("\n", " ") for name in BASELINES.values()}
    assert not any("baseline" in name for name in names[1:])
