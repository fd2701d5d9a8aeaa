"""The tables of `triage compare`, on a small warehouse: every figure with its reason where there is none, every mark."""

from __future__ import annotations

import io
import json
from datetime import datetime

from rich.console import Console
from sklearn.metrics import roc_auc_score

from flows.cli.compare import print_comparison
from flows.cli.status import print_status
from flows.report.evidence import as_markdown, evidence
from flows.report.figures import BASELINES, disclaimer, figure, percent
from flows.report.gates import GATES, gates, restated
from flows.report.leaderboard import leaderboard
from flows.report.pairs import NOT_MEASURABLE, headline, pair_rows, quantization
from flows.report.rules import TIMES
from flows.report.studies import SOURCES
from flows.report.table import ReportTable, print_table
from flows.report.typed_rows import leaderboard_rows
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.judging.inputs import cost_array
from tasks.judging.metrics import confusion
from tasks.judging.point_metrics import metric_values
from tasks.runtime.home import home
from tasks.spec import LABELS, Data
from tests.place import changed
from tests.warehouse.rows import COSTS, FIVE, PROBABILITIES, evaluation, full, land_pair, training
from tests.warehouse.test_studies import land_dataset
from tests.warehouse.test_views import random_cases
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

CASES = random_cases(60, 1)
NO_RULE = "not available: the recipe has no target ED recall"


def land(root, id="t4", rows=None, **values):
    write_landing(root, id, "training", training(id, **values))
    write_landing(root, f"e{id}", "evaluation", rows or evaluation(f"e{id}", id, CASES))
    load_all(root)


def tables(cells=None, prevalence=None):
    """The tables of the long form by the first words of their titles."""
    board = leaderboard_rows(cells)
    return {table.title.split(";")[0].split(" (")[0]: table for table in evidence(board, prevalence)}


def everything():
    """Every table of `triage compare --all`."""
    board = leaderboard_rows()
    return [leaderboard(board), quantization(pair_rows()), *evidence(board)]


def lines(frame, column, row=0):
    return frame[column][row].split("\n")


def without_primary_rule(id="et4", training_id="t4"):
    """An evaluation whose primary rule could not be applied, as rows.py lands one."""
    rows = evaluation(id, training_id, CASES)
    for row in rows["prediction"]:
        row["decision"] = None

    for row in rows["metric"]:
        if row["rule"] == "target_recall":
            row |= {"value": None, "low": None, "high": None, "note": NO_RULE}

    for row in rows["gate"]:
        row |= {"state": "NOT AVAILABLE", "value": None, "bound": None, "successes": None, "note": NO_RULE}
    return rows


def test_the_long_form_has_the_table_of_each_question(tmp_path):
    land(tmp_path)
    assert list(tables()) == [
        GATES.partition(";")[0],
        "Decision rules: how emergencies fare on the test set", "Decision rules: errors of all cases",
        "Decision rules: what the decisions cost",
        "What each rule chose on the calibration cases", TIMES.partition(" (")[0],
        "Confusion matrices, cases: a line for each true label, a column for each decision",
        "Training, and what it took", "Can the probabilities be trusted? Likelihood and calibration on the test set",
        "What is p(ED) worth? Slope 1 and intercept 0: calibrated",
        "Conformal sets", "The review flag of Monte Carlo dropout against scores of one pass at equal load",
    ]  # fmt: skip


def test_the_ranking_and_the_worth_of_p_ed_stand_beside_each_other(tmp_path):
    land(tmp_path)
    table = tables()["What is p(ED) worth? Slope 1 and intercept 0: calibrated"]
    is_ed = [case[0] == "ED" for case in CASES]
    p_ed = [PROBABILITIES[case[1]][0] for case in CASES]
    assert lines(table, "AUROC of ED")[0].split(" ")[0] == f"{roc_auc_score(is_ed, p_ed):.3f}"
    (row,) = query("SELECT DISTINCT net_benefit, over_always_ed FROM net_benefit WHERE threshold = 0.1").values.tolist()
    assert [line.split(" ")[0] for line in lines(table, "net benefit at 0.1")] == [f"{row[0]:.3f}", f"{row[1]:+.3f}"]


def test_every_rule_stands_beside_the_others_with_the_figures_of_its_own_decisions(tmp_path):
    land(tmp_path)
    tables_by_title = tables()
    emergencies = tables_by_title["Decision rules: how emergencies fare on the test set"]
    assert [line for line in lines(emergencies, "rule") if line] == ["argmax", "target recall *", "min cost"]
    labels, argmax, decisions = ([case[i] for case in CASES] for i in range(3))
    both = {i: metric_values(confusion(labels, by), cost_array(COSTS)) for i, by in enumerate((argmax, decisions))}

    output = {
        "ED recall": "ed_recall", "ED precision": "ed_precision", "ED F2": "ed_f2", "over-triage": "over_triage",
        "under-triage": "under_triage", "macro-F1": "macro_f1", "expected cost": "expected_cost", "cost skill": "cost_skill",
    }  # fmt: skip
    for title, name in output.items():
        (frame,) = (t for key, t in tables_by_title.items() if key.startswith("Decision rules") and title in t.columns)
        for line, values in both.items():
            digits = 2 if "cost" in name else 3
            text = lines(frame, title)[line]
            assert text.startswith(f"{values[name]:.{digits}f} [") and text.endswith("]")

    assert lines(emergencies, "ED recall")[2].startswith("n/a: this evaluation")


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
    land(tmp_path, rows=without_primary_rule())
    tables_by_title = tables()
    rules = tables_by_title["Decision rules: how emergencies fare on the test set"]
    assert "n/a: the recipe has no target ED recall" in " ".join(lines(rules, "ED recall"))
    assert lines(rules, "ED F2")[1] == "n/a"
    matrix = tables_by_title["Confusion matrices, cases: a line for each true label, a column for each decision"]
    assert {cell for choice in ("ED", "GP", "HOME") for cell in lines(matrix, f"primary: {choice}")} == {"n/a"}

    gates = tables_by_title[GATES.partition(";")[0]]
    reason = "NOT AVAILABLE: n/a: the recipe has no target ED recall"
    assert [gates.rows[0][place] for place in range(3, 18, 5)] == [reason] * 3
    assert {text for text in gates.rows[0][3:] if text != reason} == {"n/a"}


def test_the_confusion_matrices_are_those_of_the_decisions(tmp_path):
    land(tmp_path)
    matrix = tables()["Confusion matrices, cases: a line for each true label, a column for each decision"]
    labels = [case[0] for case in CASES]

    for rule, i in (("argmax", 1), ("primary", 2)):
        expected = confusion(labels, [case[i] for case in CASES])
        cell_lines = [[int(n) for n in lines(matrix, f"{rule}: {choice}")] for choice in ("ED", "GP", "HOME")]
        assert [
            list(column) for column in zip(*cell_lines, strict=True)
        ] == expected.tolist() and expected.sum() == len(CASES)


def test_shares_keep_three_digits():
    assert [percent(share) for share in (0.27, 0.125, 0.005, 0.025, 1.0)] == ["27%", "12.5%", "0.5%", "2.5%", "100%"]


def test_gates_show_state_count_bound_and_method_on_every_set(tmp_path):
    write_landing(
        tmp_path, "x4", "evaluation", evaluation("x4", "t4", FIVE, evaluation_set="clinic", set_digest="other")
    )
    land(tmp_path)
    gates = next(frame for title, frame in tables().items() if title.startswith("Gates"))
    assert lines(gates, "experiment", 1)[-1] == "clinic: 5 cases, 40% ED"

    for row, id in enumerate(("et4", "x4")):
        (g,) = query(f"FROM gate WHERE gate = 'ed_recall' AND evaluation_id = '{id}'").itertuples()
        state, value, bound = (gates[f"ED recall\n{of}"][row] for of in (">= 0.95", "value", "bound"))
        assert (state, value, bound) == (g.state, f"{g.successes} of {g.n} = {g.value:.3f}", f"{g.bound:.3f}")
        assert gates["ED recall\nby"][row] == "exact (Clopper-Pearson)"


def test_an_evaluation_of_another_study_is_in_no_table_of_this_one(tmp_path):
    land(tmp_path)
    further = evaluation("x4", "t4", FIVE, evaluation_set="clinic", set_digest="other")
    write_landing(tmp_path, "x4", "evaluation", further)
    load_all(tmp_path)
    board = leaderboard_rows(["et4"])
    of_study = [table.title for table in evidence(board, ids=["et4"])]
    of_all = {table.title for table in evidence(board)}
    assert SOURCES in of_all and SOURCES not in of_study
    assert len(gates(board)) == 2 and len(gates(board, ["et4"])) == 1, "of the test set alone"


def test_a_reason_is_printed_whole_where_there_is_no_figure(tmp_path):
    rows = evaluation("et4", "t4", [(t, a, d) for t, a, d in CASES if t != "ED"])
    note = "not available: 40 cases, an ECE needs 300"
    rows["metric"].append(full("metric", evaluation_id="et4", rule="argmax", metric="ece", n=40, note=note))
    land(tmp_path, rows=rows)
    tables_by_title = tables()
    trust = next(frame for title, frame in tables_by_title.items() if title.startswith("Can the"))
    assert " ".join(lines(trust, "ECE")) == "n/a: 40 cases, an ECE needs 300"
    sets = " ".join(lines(tables_by_title["Conformal sets"], "ED missed"))
    assert "no ED case in this set" in sets and "0 of 0" not in sets
    gates = next(frame for title, frame in tables_by_title.items() if title.startswith("Gates"))
    assert gates["ED recall\n>= 0.95"] == ["NOT AVAILABLE: n/a: no ED case in this set"]


def test_what_is_to_be_minded_of_conformal_sets_is_said(tmp_path):
    land(tmp_path)
    note = query("SELECT note FROM conformal").note[0]
    assert note and " ".join(tables()["Conformal sets"]["mind"][0].split()) == note


def test_a_recipe_without_dropout_reads_not_available_with_the_reason(tmp_path):
    land(
        tmp_path,
        rows=evaluation("et4", "t4", CASES, mc_reason="the recipe has dropout 0, so every pass would be the same"),
    )
    review = tables()["The review flag of Monte Carlo dropout against scores of one pass at equal load"]
    assert review["load"] == ["not available: the recipe has dropout 0, so every pass would be the same"]
    assert (review["score"], review["AURC"]) == ([""], ["n/a"])


def test_losses_time_speed_and_memory_are_shown_and_nothing_for_what_was_not_trained(tmp_path):
    values = {"train_loss": 0.25, "valid_loss": 0.5, "tokens_per_second": 1234.0, "weights_memory_bytes": 5e8}
    land(tmp_path, **values)
    land(tmp_path, "b", recipe="tfidf_lr", recipe_kind="baseline", base_model="none", cell_id="tfidf_lr",
         bits=None, compute_path=None, peak_memory_bytes=None, train_seconds=None)  # fmt: skip
    table = {row["experiment"]: row for row in tables()["Training, and what it took"].records()}
    own_row = table["smol-4bit-r1-s42"]
    assert (own_row["train\nloss"], own_row["valid.\nloss"]) == ("0.250", "0.500")
    assert (own_row["trained\nin"], own_row["tokens/s"], own_row["weights\nMB"]) == ("40 s", "1234", "500")
    other = table[BASELINES["tfidf_lr"].replace("\n", " ")]
    assert {other[name] for name in ("train\nloss", "trained\nin", "tokens/s", "weights\nMB", "peak\nMB")} == {"n/a"}


def land_everything(root, marked):
    """A pair, its moved adapter, two seeds, dropout, a further set and fidelity, all on random weights or on real ones."""
    prefix = "random" if marked else "real"
    for seed in (42, 43):
        for bits in (4, 8):
            id = f"{prefix}{bits}s{seed}"
            own_values = {"seed": seed, "cell_id": f"smol-{bits}bit-r1-s{seed}", "random_weights": marked}
            write_landing(root, id, "training", training(id, bits, day=9 if marked else 1, **own_values))
            write_landing(
                root, f"e{id}", "evaluation", evaluation(f"e{id}", id, CASES, created_at=datetime(2026, 1, 3))
            )
            further = evaluation(f"x{id}", id, FIVE, evaluation_set="clinic", set_digest="other")
            write_landing(root, f"x{id}", "evaluation", further)

    for bits in (4, 8):
        id = f"fidelity-{prefix}-{bits}"
        row = full(
            "fidelity", fidelity_id=id, base_model="smol", bits=bits, distribution="labels", reference_precision="bf16",
            random_weights=marked, variant_digest="v", reference_digest="r", dataset_digest="data", cases=6, set_cases=60,
            kl_mean=0.5 if marked else 0.25, same_top1=1.0,
        )  # fmt: skip
        write_landing(root, id, "fidelity", {"fidelity": [row]})

    load_all(root)


def test_every_row_of_every_table_marks_random_weights_and_none_hides_a_real_one(tmp_path):
    land_everything(tmp_path / "real", marked=False)
    before = {table.title: len(table) for table in everything()}
    land_everything(tmp_path / "random", marked=True)
    all_tables = everything()
    assert len(all_tables) == 2 + 16

    for table in all_tables:
        first = table["experiment" if "experiment" in table.columns else table.columns[0]]
        marks = ["(random weights)" in name for name in first]
        assert sum(marks) * 2 == len(table), table.title
        assert before[table.title] * 2 == len(table), table.title


def test_seeds_stand_beside_baselines_which_have_no_bits_and_where_only_some_experiments_are_shown(tmp_path):
    land_everything(tmp_path / "real", marked=False)
    land(tmp_path / "base", "b", recipe="tfidf_lr", recipe_kind="baseline", base_model="none", cell_id="tfidf_lr",
         bits=None, compute_path=None, peak_memory_bytes=None, train_seconds=None)  # fmt: skip
    spread = next(table for title, table in tables().items() if title.startswith("Spread"))
    assert spread["experiment"] == ["smol 4bit r1", "smol 8bit r1", "smol r1, 4 minus 8 bits"]
    assert lines(spread, "ED precision")[-1] == f"of {percent(sum(case[1] == 'ED' for case in CASES) / 60)} ED"
    spread = next(table for title, table in tables({"ereal4s42"}).items() if title.startswith("Spread"))
    assert spread["experiment"] == ["smol 4bit r1", "smol r1, 4 minus 8 bits"]


def land_seeds(root, recipe, seeds):
    """Pairs of a recipe, whose evaluations are named as in `eRECIPE-4-42`."""
    for seed in seeds:
        for bits in (4, 8):
            id = f"{recipe}-{bits}-{seed}"
            write_landing(root, id, "training", training(id, bits, recipe=recipe, seed=seed, cell_id=id))
            write_landing(root, f"e{id}", "evaluation", evaluation(f"e{id}", id, CASES))

    load_all(root)


def spread_of(ids):
    """The rows of the spread between seeds in the evidence of these evaluations."""
    sections = evidence(leaderboard_rows(ids), sections=["sets and seeds"], ids=ids)
    table = next(table for table in sections if table.title.startswith("Spread"))
    return list(zip(table["experiment"], table["seeds"], strict=True))


def test_the_spread_is_that_of_the_seeds_of_the_study(tmp_path):
    land_seeds(tmp_path, "r1", range(42, 47))
    ids = [f"er1-{bits}-{seed}" for bits in (4, 8) for seed in (42, 43)]
    assert spread_of(ids) == [("smol 4bit r1", "2"), ("smol 8bit r1", "2"), ("smol r1, 4 minus 8 bits", "2")]


def test_differences_of_a_recipe_that_is_not_shown_are_not_shown(tmp_path):
    for recipe in ("r1", "r2"):
        land_seeds(tmp_path, recipe, (42, 43))

    spread = tables([f"er1-{bits}-{seed}" for bits in (4, 8) for seed in (42, 43)])
    (table,) = (table for title, table in spread.items() if title.startswith("Spread"))
    assert table["experiment"] == ["smol 4bit r1", "smol 8bit r1", "smol r1, 4 minus 8 bits"]


def test_a_verdict_is_headed_by_the_margin_in_points(tmp_path):
    """A margin of 0.02 is no share of the figure beside it."""
    land_pair(tmp_path)
    load_all(tmp_path)
    columns = quantization(pair_rows()).columns
    assert [name for name in columns if "points" in name] == ["at 2 points", "ED at 2 points", "AUROC at 2 points"]
    assert not any("%" in name for name in columns)


def test_the_latest_fidelity_on_the_same_dataset_is_shown_whatever_its_hash(tmp_path):
    land(tmp_path)
    for id, kl, dataset in (("z-old", 0.9, "data"), ("a-new", 0.1, "data"), ("b-other", 0.7, "elsewhere")):
        row = full(
            "fidelity", fidelity_id=id, base_model="smol", bits=4, distribution="labels", reference_precision="bf16",
            random_weights=False, variant_digest="v", reference_digest="r", dataset_digest=dataset, cases=6, set_cases=60,
            kl_mean=kl, same_top1=1.0,
        )  # fmt: skip
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
    changed = {table.title: table for table in evidence(leaderboard_rows(), 0.1)}
    own_tables = evidence(leaderboard_rows())
    for (title, table), before in zip(changed.items(), own_tables, strict=True):
        assert title.endswith("restated at 10% ED") != title.endswith("--prevalence does not apply"), title
        assert (table.rows == before.rows) == title.endswith("does not apply"), title

    board = query("SELECT * FROM leaderboard").iloc[0]
    precision, f2 = restated(board.ed_recall, board.ed_precision, board.ed_prevalence, 0.1)
    rules = next(frame for title, frame in changed.items() if "how emergencies fare" in title)
    assert lines(rules, "ED precision")[1] == f"{precision:.3f}" and lines(rules, "ED F2")[1] == f"{f2:.3f}"
    (seeds,) = (frame for title, frame in changed.items() if title.startswith("Spread"))
    assert lines(seeds, "ED F2")[0] == f"{f2:.3f}" and lines(seeds, "ED precision")[0] == f"{precision:.3f}"
    (further,) = (frame for title, frame in changed.items() if title.startswith("On further"))
    assert lines(further, "ED precision")[1] == "of 10% ED"


def test_the_short_form_says_where_the_rest_is(tmp_path):
    land_pair(tmp_path)
    load_all(tmp_path)

    out = {}
    for short in (True, False):
        console = Console(file=io.StringIO(), width=120)
        print_comparison(console, sections=() if short else None)
        out[short] = console.file.getvalue()

    assert "Gates of the primary rule" in out[False] and "Gates of the primary rule" not in out[True]
    assert "triage compare" in out[True] and out[True].count("\n") * 2 < out[False].count("\n")
    assert max(len(line) for line in out[False].splitlines() if line.startswith(("smol", "  "))) <= 120


def test_a_short_table_that_is_too_wide_is_turned_on_its_side_without_an_empty_header():
    console = Console(file=io.StringIO(), width=60)
    print_table(console, ReportTable.of("", [{f"column {i}": "x" * 20 for i in range(6)}] * 2))
    lines = [line for line in console.file.getvalue().splitlines() if "x" in line or "column" in line]
    assert [line.count("x" * 20) for line in lines] == [2] * 6 and "┃" not in console.file.getvalue()


def test_a_title_is_as_wide_as_the_terminal_however_narrow_its_table_is():
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    print_table(console, ReportTable.of("A title that is wider than its table", [{"column": "x"}]))
    assert console.file.getvalue().splitlines()[0] == "A title that is wider than its table"


def test_the_artifact_holds_the_long_form_in_whole_rows(tmp_path):
    land(tmp_path)
    page = as_markdown(leaderboard_rows(), pair_rows())
    assert "# Gates of the primary rule" in page and "# Confusion matrices" in page
    assert all(line.endswith("|") for line in page.splitlines() if line.startswith("|"))


def test_one_formatter_writes_a_figure_with_its_interval_on_one_line_or_two():
    assert figure(0.9125, 0.871, 0.9444) == "0.912 [0.871, 0.944]"
    assert figure(-0.5, -1.0, 0.25, digits=2, sign=True, below=True) == "-0.50\n[-1.00, +0.25]"
    assert (figure(None), figure(float("nan")), figure(0.5, None, 1.0), figure(3, digits=0)) == (
        "n/a",
        "n/a",
        "0.500",
        "3",
    )


def test_pairs_without_memory_and_time_have_no_column_of_reasons(tmp_path):
    land_pair(tmp_path)
    load_all(tmp_path)
    (pair,) = pair_rows()
    unmeasured = changed(pair, resources=NOT_MEASURABLE)
    assert "memory, time" not in quantization([unmeasured]).columns
    assert quantization([unmeasured]).title.endswith("; memory and time are not measurable on this backend")
    assert quantization([pair, unmeasured])["memory, time"][1] == NOT_MEASURABLE


def test_the_headline_counts_pairs_by_verdict(tmp_path):
    land_pair(tmp_path)
    load_all(tmp_path)
    (pair,) = pair_rows()
    pair = changed(
        pair, accuracy_verdict="cannot conclude: neither model beats always-GP in accuracy", ed_recall_verdict=None
    )
    words = ["cannot conclude (neither model beats always-GP in accuracy)", "cannot conclude"]
    assert headline([pair, pair]) == (
        f"4 bits against 8 bits, 2 pairs. Accuracy: {words[0]} in 2 of 2. ED recall: {words[1]} in 2 of 2."
    )
    assert headline([]) == "4 bits against 8 bits: no pair of otherwise equal experiments yet."


def test_a_baseline_is_never_confused_with_the_recipe_of_that_name(tmp_path):
    none = {"bits": None, "compute_path": None, "peak_memory_bytes": None, "train_seconds": None}
    cell = "smol-4bit-baseline-s42"
    land(tmp_path / "recipe", recipe="baseline", cell_id=cell)
    for name in BASELINES:
        kind = {"recipe": name, "recipe_kind": "baseline", "base_model": "none", "cell_id": name}
        land(tmp_path / name, name, **kind, **none)

    names = leaderboard(leaderboard_rows())["experiment"]
    assert names[0] == cell and set(names[1:]) == {name.replace("\n", " ") for name in BASELINES.values()}
    assert not any("baseline" in name for name in names[1:])


def test_synthetic_cases_are_spoken_of_only_where_the_cases_are_the_embedded_ones(tmp_path):
    limits = {"train": 30, "valid": 3, "calibration": 3, "test": 9}
    rows = [{"id": f"c{i}", "text": f"story {i * 7919}", "label": LABELS[i % 3]} for i in range(300)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    embedded, own_digest = (
        DatasetManifest.read(prepare_dataset(data, home())).digest_of("test")
        for data in (Data(limits=limits), Data(source=str(tmp_path / "own.jsonl")))
    )
    assert disclaimer({own_digest}) == disclaimer({"unknown"}) == "Research software, not a medical device."

    for digests in ({embedded}, {embedded, own_digest}):
        assert disclaimer(digests).endswith("; synthetic cases are no evidence about patients.")


def test_status_marks_random_weights(tmp_path):
    land(tmp_path, random_weights=True)
    land(tmp_path / "other", "t8", bits=8)
    console = Console(file=io.StringIO(), width=120)
    print_status(console)
    marked = {line.split("│")[1].strip() for line in console.file.getvalue().splitlines() if line.startswith("│")}
    assert marked == {"t4 (random weights)", "t8"}
