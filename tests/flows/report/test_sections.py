"""The sections of a report: what their tables and charts say of the warehouse's rows, for the terminal, the artifact and
the page alike. Each warehouse is filled once; tests only read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from flows import compare
from flows.report.answer import NO_PAIR, answer
from flows.report.figures import RANDOM, figure, interval
from flows.report.models import first_table, leaderboard
from flows.report.rows import Row, Study, by_common_rules, restated, studied
from flows.report.sections import ASKED, SECTIONS, tables_of
from flows.report.table import WORDS
from tasks.judging.metrics import confusion
from tasks.judging.point_metrics import cost_array, metric_values
from tests.place import made_once
from tests.warehouse.rows import COSTS, FIVE, PROBABILITIES, evaluation, full, land_arm, training
from tests.warehouse.test_precisions import land as land_precision
from tests.warehouse.test_studies import land_dataset
from tests.warehouse.test_views import random_cases
from warehouse.connect import snapshot
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

CASES = random_cases(60, 1)
NO_RULE = "not available: the recipe has no target ED recall"
NO_MODEL = dict.fromkeys(("bits", "compute_path", "peak_memory_bytes", "train_seconds"))
LINEAR = "linear model (words, characters)"


@contextmanager
def at(folder) -> Iterator[None]:
    """This process reads and fills the warehouse of a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIAGE_HOME", str(folder))
        patch.setenv("TRIAGE_WAREHOUSE", str(folder / "triage.duckdb"))
        yield


def land(root, id="t4", rows=None, **values):
    write_landing(root, id, "training", training(id, **values))
    write_landing(root, f"e{id}", "evaluation", rows or evaluation(f"e{id}", id, CASES))


def land_baseline(root, id="b", recipe="linear", cases=CASES):
    values = {"recipe": recipe, "recipe_kind": "baseline", "base_model": "none", "cell_id": recipe}
    land(root, id, evaluation(f"e{id}", id, cases), **values, **NO_MODEL)


def shown(section: str, study: Study) -> dict[str, dict[tuple[str, ...], dict[str, str]]]:
    """The tables of a section by the first words of their titles; the records by the columns that name them."""
    with snapshot():
        tables = SECTIONS[section](study).tables
    return {
        re.split(r"[;:?,]| \(", table.title)[0]: {
            tuple(list(record.values())[: table.names]): record for record in table.records
        }
        for table in tables
    }


def filled_by(land_all):
    """A fixture: this process reads a warehouse that `land_all` has filled once, and has its study, which tests only read."""

    @cache
    def read_once() -> tuple[Path, Study]:
        folder = made_once(land_all)()
        with at(folder):
            load_all(folder)
            with snapshot():
                study = studied()[0]
                assert study.models, "read once"
        return folder / "triage.duckdb", study

    @pytest.fixture
    def filled(own_home, monkeypatch) -> Iterator[Study]:
        file, study = read_once()
        monkeypatch.setenv("TRIAGE_WAREHOUSE", str(file))
        with snapshot():
            yield study

    return filled


# --- One experiment, judged on its test set and on that of a clinic, and a baseline ---------------


def land_one_model(root):
    clinic = evaluation("x4", "t4", FIVE, evaluation_set="clinic", set_digest="other")
    write_landing(root, "x4", "evaluation", clinic)
    values = {"train_loss": 0.25, "valid_loss": 0.5, "tokens_per_second": 1234.0, "weights_memory_bytes": 5e8}
    land(root, **values)
    land_baseline(root)


landed = filled_by(land_one_model)
MODEL = "smol-4bit-r1-s42"


def test_every_rule_has_the_figures_of_its_own_decisions_and_confusion_matrices_their_counts(landed):
    rules = shown("rules", landed)["Decision rules"]
    matrices = shown("confusion", landed)["Confusion matrices"]
    headings = {
        "ED recall": "ed_recall", "ED precision": "ed_precision", "ED F2": "ed_f2", "over-triage": "over_triage",
        "under-triage": "under_triage", "macro-F1": "macro_f1", "expected cost": "expected_cost", "cost skill": "cost_skill",
    }  # fmt: skip
    labels = [case[0] for case in CASES]
    for place, (rule, words) in enumerate((("argmax", "argmax"), ("target recall *", "threshold")), 1):
        counts = confusion(labels, [case[place] for case in CASES])
        cells = [[matrices[MODEL, t][f"{words}: {d}"] for d in ("ED", "GP", "HOME")] for t in ("ED", "GP", "HOME")]
        assert cells == [[str(count) for count in row] for row in counts.tolist()]
        values = metric_values(counts, cost_array(COSTS))
        for heading, name in headings.items():
            text = rules[MODEL, rule][heading]
            assert text.startswith(f"{values[name]:.{2 if 'cost' in name else 3}f} [") and text.endswith("]")
    assert rules[MODEL, "min cost"]["ED recall"].startswith("n/a: this evaluation")
    assert any(name == LINEAR for name, _ in rules), "each rule of each has a line"


def test_the_ranking_the_net_benefit_and_the_conformal_sets_are_those_of_the_rows(landed):
    is_ed = [case[0] == "ED" for case in CASES]
    p_ed = [PROBABILITIES[case[1]][0] for case in CASES]
    tables = shown("calibration", landed)
    assert tables["Probabilities on the test set"][MODEL,]["ED AUROC"].startswith(f"{roc_auc_score(is_ed, p_ed):.3f} [")
    (note,) = query("SELECT note FROM conformal WHERE evaluation_id = 'et4'").note
    assert tables["Conformal sets"][MODEL,]["mind"] == note
    (benefit,) = query("FROM net_benefit WHERE threshold = 0.1 AND evaluation_id = 'et4'").itertuples()
    row = shown("decision-curves", landed)["Net benefit of ED from p(ED) 0.1 on"][MODEL,]
    assert row["net benefit"] == figure(benefit.net_benefit, benefit.low, benefit.high)
    assert row["over everybody to ED"].startswith(f"{benefit.over_always_ed:+.3f}")


def test_gates_show_state_count_bound_and_method_on_every_set_and_no_baseline(landed):
    (rows,) = shown("gates", landed).values()
    assert len(rows) == 2 * 3
    for id, name in (("et4", MODEL), ("x4", f"{MODEL} on clinic (5 cases, 40% ED)")):
        (gate,) = query(f"FROM gate WHERE gate = 'ed_recall' AND evaluation_id = '{id}'").itertuples()
        row = rows[name, "target recall", "ED recall >= 0.95"]
        value = f"{gate.successes} of {gate.n} = {gate.value:.3f}"
        assert (row["state"], row["value"], row["bound"]) == (gate.state, value, f"{gate.bound:.3f}")
        assert row["bound by"] == "exact (Clopper-Pearson)"


def test_losses_time_speed_and_memory_are_shown_and_nothing_for_what_was_not_trained(landed):
    rows = shown("learning", landed)["Training"]
    row = rows[MODEL,]
    assert (row["train loss"], row["valid loss"], row["trained in"]) == ("0.250", "0.500", "40 s")
    assert (row["tokens/s"], row["weights MB"]) == ("1234", "500")
    other = [text for heading, text in rows[LINEAR,].items() if heading != "experiment"]
    assert set(other) == {"n/a"}


# --- Two seeds at both widths, with a further set and fidelity, on real and on random weights -------


def land_everything(root, marked):
    prefix = "random" if marked else "real"
    for seed, bits in ((seed, bits) for seed in (42, 43) for bits in (4, 8)):
        id = f"{prefix}{bits}s{seed}"
        values = {"seed": seed, "random_weights": marked, "day": 9 if marked else 1}
        land_arm(root, id, bits, CASES, cell_id=f"smol-{bits}bit-r1-s{seed}", **values)
        further = evaluation(f"x{id}", f"t{id}", FIVE, evaluation_set="clinic", set_digest="other")
        write_landing(root, f"x{id}", "evaluation", further)

    for bits in (4, 8):
        id = f"fidelity-{prefix}-{bits}"
        row = fidelity(id, bits=bits, random_weights=marked, kl_mean=0.5 if marked else 0.25)
        write_landing(root, id, "fidelity", {"fidelity": [row]})


def fidelity(id, **values):
    return full(
        "fidelity", fidelity_id=id, base_model="smol", distribution="labels", reference_precision="bf16",
        variant_digest="v", reference_digest="r", cases=6, set_cases=60, same_top1=1.0,
        **({"bits": 4, "dataset_digest": "data", "random_weights": False} | values),
    )  # fmt: skip


def land_both_kinds(root):
    for marked in (False, True):
        land_everything(root, marked)
    land_baseline(root)


seeds = filled_by(land_both_kinds)


@pytest.mark.parametrize(
    "section", ["forest", "baselines", "gates", "frontier", "rules", "flips", "other-sets", "learning"]
)
def test_random_weights_are_marked_in_every_row_and_at_every_mark_and_hide_no_real_one(seeds, section):
    made = SECTIONS[section](seeds)
    for table in made.tables:
        names = [" ".join(list(record.values())[: table.names]) for record in table.records]
        models = [name for name in names if LINEAR not in name]
        assert 2 * sum(RANDOM in name for name in models) == len(models) > 0, table.title
    for chart in made.charts:
        names = [" ".join(str(mark.get(k, "")) for k in ("label", "kind")) + chart.title for mark in chart.marks]
        models = [name for name in names if "linear" not in name]
        assert 2 * sum(RANDOM.strip() in name for name in models) in (0, len(models), 2 * len(models)), chart.title


def test_the_spread_is_that_of_the_seeds_of_the_study_and_restated_with_the_rest(seeds):
    real = [f"ereal{bits}s{seed}" for bits in (4, 8) for seed in (42, 43)]
    (study,) = studied(prevalence=0.1, only=real)
    spread = shown("other-sets", study)["Spread between seeds of one experiment"]
    assert [name for (name,) in spread] == ["smol 4bit r1", "smol 8bit r1"]
    assert {row["seeds"] for row in spread.values()} == {"2"}
    board = by_common_rules(study.board)[0]
    precision, f2 = restated(board.ed_recall, board.ed_precision, board.ed_prevalence, 0.1)
    table = leaderboard(study)
    assert (table["ED precision"][0], table["ED F2"][0]) == (f"{precision:.3f}", f"{f2:.3f}")
    assert "ED precision and F2 restated at 10% ED" in table.notes
    of_seeds = SECTIONS["other-sets"](study).tables[-1]
    assert of_seeds["ED F2"][0].startswith(f"{f2:.3f} ±")


def test_each_option_asks_for_sections_and_every_table_has_a_query_or_few_rows(seeds):
    assert {id for ids in ASKED.values() for id in ids} < set(SECTIONS) == set(WORDS)
    tables = tables_of([seeds])
    assert len(tables) > 15
    assert [table.title for table in tables if len(table) > 20 and not table.query] == []
    only_gates = tables_of([seeds], ["gates"])
    assert len(only_gates) == 1 and only_gates[0].title.startswith("Gates of the primary rule")


def test_the_latest_fidelity_on_the_same_test_set_is_shown_whichever_data_set_has_it(tmp_path):
    land(tmp_path)
    for id, kl, dataset in (("z-old", 0.9, "data"), ("a-new", 0.1, "data"), ("b-other", 0.7, "elsewhere")):
        write_landing(tmp_path, id, "fidelity", {"fidelity": [fidelity(id, kl_mean=kl, dataset_digest=dataset)]})
        load_all(tmp_path)
    title = "What quantisation alone changes"
    assert [row["mean"] for row in shown("fidelity", studied()[0])[title].values()] == ["0.10000"]
    (set_digest,) = {row.set_digest for row in studied()[0].board}
    land_dataset(tmp_path, "elsewhere", "its four sets", set_digest)
    load_all(tmp_path)
    assert [row["mean"] for row in shown("fidelity", studied()[0])[title].values()] == ["0.70000"]


# --- What cannot be computed ------------------------------------------------------------------------


def test_a_rule_that_could_not_be_applied_gives_its_reason_once_and_no_zero_anywhere(tmp_path):
    rows = evaluation("et4", "t4", CASES)
    for row in rows["prediction"]:
        row["decision"] = row["target_recall"] = None
    empty = dict.fromkeys(("value", "low", "high", "bound", "successes"))
    for row in (one for one in rows["metric"] if one["rule"] == "target_recall"):
        row |= dict.fromkeys(("value", "low", "high")) | {"note": NO_RULE}
    for row in rows["gate"]:
        row |= {name: None for name in empty if name in row} | {"state": "NOT AVAILABLE", "note": NO_RULE}
    no_ece = "not available: 60 cases, an ECE needs 300"
    rows["metric"].append(full("metric", evaluation_id="et4", rule="argmax", metric="ece", n=60, note=no_ece))
    land(tmp_path, rows=rows)
    load_all(tmp_path)

    (study,) = studied()
    rules = shown("rules", study)["Decision rules"][MODEL, "target recall *"]
    assert rules["ED recall"] == "n/a: the recipe has no target ED recall"
    threshold = [
        text
        for name, text in shown("confusion", study)["Confusion matrices"][MODEL, "ED"].items()
        if "threshold" in name
    ]
    assert threshold == ["n/a"] * 3
    trust = shown("calibration", study)["Probabilities on the test set"]
    assert trust[MODEL,]["ECE"] == "n/a: 60 cases, an ECE needs 300"
    (table,) = SECTIONS["gates"](study).tables
    once = table.with_reasons_once()
    assert once["state"] == once["value"] == ["n/a"] * 3
    assert once.notes == ("n/a (state): the recipe has no target ED recall",)
    flag = shown("risk-coverage", study)[
        "The review flag of Monte Carlo dropout against scores of one pass at equal load"
    ]
    assert flag[MODEL, ""]["load"] == "n/a: dropout is 0" and flag[MODEL, ""]["AURC"] == "n/a"


def test_sections_without_rows_say_what_would_give_them(tmp_path):
    write_landing(tmp_path, "t4", "training", training("t4") | {"training_curve": []})
    rows = evaluation("e4", "t4") | {"net_benefit": [], "reliability": [], "gate": []}
    write_landing(tmp_path, "e4", "evaluation", rows)
    load_all(tmp_path)
    (study,) = studied()
    made = {id: make(study) for id, make in SECTIONS.items()}
    missing = {id for id, section in made.items() if not any(map(len, section.tables))}
    words = "forest flips reliability decision-curves subgroups gates data other-sets fidelity"
    assert missing == set(words.split())
    for id in missing:
        words = WORDS[id]["missing"].format_map(made[id].values)
        assert words.rstrip().endswith(".") and not made[id].charts


# --- The review flag --------------------------------------------------------------------------------


def test_the_review_table_has_catch_beside_load(tmp_path):
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
    load_all(tmp_path)

    (rows,) = shown("risk-coverage", studied()[0]).values()
    votes, one_pass = (rows["smol-4bit-r1-s42", score] for score in ("vote entropy", "max probability"))
    assert (votes["wrong caught"], one_pass["wrong caught"]) == ("5 of 10: 0.50", "10 of 10: 1.00")
    assert votes["missed ED caught"] == "1 of 4: 0.25"
    second = rows["smol-4bit-r1-s43", "vote entropy"]
    assert (second["wrong caught"], second["missed ED caught"]) == ("5 of 10: 0.50 [0.10, 0.90]", "no misses")


# --- The published studies --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(published_file) -> Study:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIAGE_WAREHOUSE", str(published_file))
        study = studied("study")[0]
        assert study.models and study.baseline, "read once"
    return study


def test_every_figure_of_the_leaderboard_is_by_one_rule_which_the_note_names(study, published):
    def of_rule(rule: str, metric: str) -> dict[str, str]:
        rows = query(f"FROM metric WHERE rule = '{rule}' AND metric = '{metric}'").itertuples()
        return {row.evaluation_id: figure(row.value, row.low, row.high) for row in rows}

    table = leaderboard(study)
    by_label, by_threshold = of_rule("argmax", "accuracy"), of_rule("target_recall", "over_triage")
    for row, record in zip(study.board, table.records, strict=True):
        assert record["accuracy"] == by_label[row.evaluation_id]
        constant = row.recipe.startswith("always")
        assert record["over-triage"] == (interval(row, "over_triage") if constant else by_threshold[row.evaluation_id])
    linear = next(record for record in table.records if record["experiment"] == LINEAR)
    assert (linear["ED recall"][:5], linear["over-triage"][:5], linear["gates"]) == ("0.946", "0.275", "-")
    assert "chosen on calibration for an ED recall of 0.95 or 0.96" in str(table.notes)


def test_by_a_rule_of_its_own_a_model_stands_beside_baselines_by_that_rule(study, published):
    by_argmax = {row.recipe: row for row in by_common_rules(study.board, "argmax")}
    assert round(by_argmax["tfidf_lr"].ed_recall, 3) == 0.629 and by_argmax["always_ed"].ed_recall == 1
    assert study.baseline.recipe == "linear"


def test_the_forest_has_a_line_for_each_recipe_with_its_trainings_and_the_baseline_where_it_learned(study, published):
    charts = {chart.title: chart for chart in SECTIONS["forest"](study).charts}
    marks = charts["ED recall"].marks
    assert [mark["series"] for mark in marks] == ["mean"] * 5 + ["one training"] * 6 + ["linear baseline"] * 2
    (row,) = (r for r in study.recipes if (r.recipe, r.metric, r.rule) == ("tuned", "over_triage", "target_recall"))
    mean, *trainings, baseline = (
        m for m in charts["over-triage"].marks if m["label"] == "smollm2-135m\ntuned, 3 seeds"
    )
    assert [mean[end] for end in ("x", "x_low", "x_high")] == [100 * end for end in (row.difference, row.low, row.high)]
    assert sum(mark["x"] for mark in trainings) / 3 == pytest.approx(mean["x"])
    assert baseline["x"] == pytest.approx(100 * (row.linear_value - row.value_8bit))


def test_recipes_have_intervals_and_a_verdict_only_where_they_learned_and_no_claim_is_fixed(study, published):
    rows = {(r.recipe, r.metric, r.rule): r for r in study.recipes}
    row = rows["tuned", "accuracy", "argmax"]
    records = {record["recipe"]: record for record in SECTIONS["forest"](study).tables[0].records}
    tuned, baseline = records["smollm2-135m tuned"], records["smollm2-135m baseline"]
    expected = f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}] p {row.holm_p:.3f}"
    assert (tuned["accuracy"], tuned["seeds"]) == (expected, "3")
    verdicts = [name for name in tuned if "verdict" in name]
    assert len(verdicts) == 2 and all(tuned[name].startswith("cannot conclude: at least ") for name in verdicts)
    assert {baseline[name] for name in verdicts} == {"none: learned too little"}
    fixed = SECTIONS["forest"](replace(study, claim=Row(study="study"))).tables[0]
    assert not [name for name in fixed.columns if "verdict" in name]


def test_charts_have_every_row_of_the_warehouse_and_say_figures_to_those_who_read(study, published):
    benefits = query("FROM net_benefit", only=study.board_ids)
    charts = SECTIONS["decision-curves"](study).charts
    own = {(mark["x"], mark["y"]) for chart in charts for mark in chart.marks if mark["kind"] == "by p(ED)"}
    models = {row.evaluation_id for row in study.board if row.precision} | {study.baseline.evaluation_id}
    of_models = benefits[benefits.evaluation_id.isin(models)]
    assert {(row.threshold, row.net_benefit) for row in of_models.itertuples()} <= own
    matrix = next(chart for chart in SECTIONS["confusion"](study).charts if chart.title == "smollm2-135m tuned s42")
    assert len(matrix.marks) == 2 * 9 and re.search(r"ED 4bit decided ED: \d+", matrix.alt("Confusion"))


# --- Several test sets ------------------------------------------------------------------------------

LATER = datetime(2026, 1, 5)
OLD, NEW = "abcdef-old", "fedcba-new"
OLD_NAME = "test set abcdef (5 cases, 2 of them emergencies)"
NEW_NAME = f"test set fedcba (60 cases, {sum(case[0] == 'ED' for case in CASES)} of them emergencies)"


def land_two_sets(root):
    """Pairs of two seeds on the old cases, of which seed 42 is judged on the new ones, too."""
    for seed, bits in ((seed, bits) for seed in (42, 43) for bits in (4, 8)):
        id = f"t{bits}s{seed}"
        values = {"seed": seed, "cell_id": f"smol-{bits}bit-r1-s{seed}"}
        write_landing(root, id, "training", training(id, bits, **values))
        write_landing(root, f"o{id}", "evaluation", evaluation(f"o{id}", id, FIVE, set_digest=OLD))
    for bits in (4, 8):
        rows = evaluation(f"n{bits}", f"t{bits}s42", CASES, set_digest=NEW, created_at=LATER)
        write_landing(root, f"n{bits}", "evaluation", rows)


judged_again = filled_by(land_two_sets)


def test_a_study_has_the_rows_of_each_test_set_apart_the_one_judged_last_first(judged_again):
    new, old = studied()
    assert (new.set_name, old.set_name) == (NEW_NAME, OLD_NAME)
    assert [len(study.board) for study in (new, old)] == [2, 4] and [len(s.pairs) for s in (new, old)] == [1, 2]
    assert {row.seeds for row in new.recipes} == {1} and {row.seeds for row in old.recipes} == {2}
    assert "test set fedcba" in first_table(new).title
    assert answer(new).primary.seeds.keys() == {42}
    (alone,) = studied(only=["n4"])
    assert alone.set_name == "" and answer(alone).sentence.startswith(NO_PAIR)
    tables = tables_of([new, old])
    for table in tables:
        assert table.notes[-1] in (NEW_NAME, OLD_NAME)
        assert (table.notes[-1] == NEW_NAME) <= ("s43" not in str(table.records))
    spread = [table.notes[-1] for table in tables if table.title.startswith("Spread")]
    assert spread == [OLD_NAME], "the new cases have one seed"


def test_the_artifact_has_the_answer_and_the_table_of_compare_and_names_other_test_sets(judged_again, monkeypatch):
    pages = []
    monkeypatch.setattr(compare, "create_markdown_artifact", lambda markdown, **_: pages.append(markdown))
    compare.publish_comparison(None)
    (page,) = pages
    (new, old) = studied()
    assert page.startswith(f"**{answer(new).sentence}**\n\n2 models on 60 test cases")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert "| ED recall<br>threshold |" in page, "one line would push the verdicts out of the page"
    assert rows[1:] == [[*record.values()] for record in first_table(new, digits=0, brief=True).records]
    assert f"on other cases: {old.set_name}" in page and "`triage compare earlier --all`" in page


def test_precisions_stand_against_the_reference_of_their_own_test_set(tmp_path):
    land_precision(tmp_path, "bf16", CASES)
    land_precision(tmp_path, "mxfp4", CASES, moved_from="bf16")
    for id in ("bf16", "mxfp4-from-bf16"):
        rows = evaluation(f"n-{id}", f"t-{id}", CASES, groups=True, set_digest=NEW, created_at=LATER)
        write_landing(tmp_path, f"n-{id}", "evaluation", rows)
    load_all(tmp_path)
    for study in studied():
        sizes = [len(table) for table in SECTIONS["fidelity"](study).tables]
        assert sizes == [1, 1] and len(SECTIONS["frontier"](study).tables[0]) == 2
