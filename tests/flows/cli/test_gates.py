"""`triage gates`, the models that `triage best` takes, and restated prevalence, on a small warehouse."""

import io
import json
import re
from datetime import datetime
from unittest.mock import patch

import pytest
import typer
from rich.console import Console

from flows.cli.best import candidates as wanted
from flows.cli.experiments import find_evaluations
from flows.cli.gates import gates as print_gates
from flows.report.models import gate_record, gates, leaderboard
from flows.report.rows import Row, evaluation_ids, leaderboard_rows, restated, studied
from flows.report.table import print_table
from tasks.corpus.case import exact_digest
from tasks.runtime.errors import BadInput
from tests.place import made_once, shown
from tests.warehouse.rows import FIVE, evaluation, land_arm, training
from tests.warehouse.test_studies import land_sweep
from warehouse.landing import write_landing
from warehouse.load import load_all

MISSED = [*FIVE, ("ED", "GP", "GP"), ("ED", "HOME", "HOME")]


def printed(
    name: str | None = "t4", own_file=None, prevalence: float | None = None, width: int = 200, **options
) -> str:
    out = io.StringIO()
    with patch("flows.cli.gates.console", Console(file=out, width=width)):
        print_gates(name, own_file, prevalence, **options)
    return out.getvalue()


@pytest.fixture
def land(tmp_path):
    """Lands rows of an evaluation or, without rows, a small evaluation with these values, of the training `t4`."""

    def land_and_load(id: str = "e4", cases=FIVE, rows=None, **values) -> None:
        write_landing(tmp_path, id, "evaluation", rows or evaluation(id, "t4", cases, **values))
        load_all(tmp_path)

    write_landing(tmp_path, "t4", "training", training("t4"))
    return land_and_load


@made_once
def missed(folder):
    """A warehouse with one evaluation, two of whose emergencies are missed; tests only read it."""
    rows = evaluation("e4", "t4", MISSED)
    for i, row in enumerate(rows["prediction"]):
        row["case_digest"] = exact_digest(f"message {i}")
    write_landing(folder, "t4", "training", training("t4"))
    write_landing(folder, "e4", "evaluation", rows)
    load_all(folder, folder / "triage.duckdb")


@pytest.fixture
def landed(own_home, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(missed() / "triage.duckdb"))


def test_the_command_prints_gates_texts_from_the_users_own_file_only_and_restated_figures(landed, tmp_path):
    own_file = tmp_path / "own.jsonl"
    rows = ({"id": 1, "words": " message 5 "}, {"id": 2, "words": "half a surrogate pair: \ud83d"})
    own_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = printed("smol-4bit-r1-s42", own_file, 0.1)
    for words in ("2 of 4", "FAIL", "Clopper-Pearson", "unsafe", "Review flag: not available: dropout is 0"):
        assert words in text
    precision, f2 = restated(2 / 4, 2 / 3, 4 / 7, 0.1)
    assert f"At 10%: precision {precision:.3f}, F2 {f2:.3f}." in text
    after = text.split("c00005")[1].split("c00006")[0]
    assert "message 5" in after and text.count("its text is not in that file") == 1
    assert "message 6" not in text

    with pytest.raises(BadInput, match=r"between 0 and 1.* \(got 1\.5\)"):
        printed("t4", None, 1.5)


def test_synthetic_cases_have_their_text_without_a_file(landed, monkeypatch):
    assert "message" not in printed()
    monkeypatch.setattr("flows.report.cases.synthetic_texts", lambda sets: {exact_digest("message 5"): "message 5"})
    text = printed()
    assert text.count("message 5") == 1 and "its text is not" not in text


def test_without_a_name_every_experiment_is_listed_with_its_gates(landed):
    lines = printed(None).splitlines()
    (line,) = [line for line in lines if line.startswith("smol-4bit-r1-s42 ")]
    assert line.split() == ["smol-4bit-r1-s42", "unsafe", "FAIL", "FAIL"]
    assert lines[-1] == "For one of them: triage gates smol-4bit-r1-s42"
    with pytest.raises(BadInput, match="--check needs an experiment"):
        print_gates(check=True)


def test_a_check_ends_with_1_unless_every_gate_passes_on_each_set(land):
    land(verdict="passes_gates")
    printed(check=True)
    land("x4", evaluation_set="clinic", set_digest="other", verdict="provisional")
    with pytest.raises(typer.Exit) as ended:
        printed(check=True)
    assert ended.value.exit_code == 1


def test_the_gates_of_each_set_are_json_with_their_numbers(landed, capsys):
    print_gates("t4", as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["experiment"], found["verdict"], found["rule"]) == ("smol-4bit-r1-s42", "unsafe", "target_recall")
    recall = next(gate for gate in found["gates"] if gate["gate"] == "ed_recall")
    assert (recall["successes"], recall["n"], recall["value"], recall["state"]) == (2, 4, 0.5, "FAIL")


def test_missed_cases_are_shown_by_id_alone_and_the_review_flag_with_its_cases(land):
    land(cases=MISSED, mc_status="available", mc_reason=None, mc_passes=50, mc_cases=3)
    text = printed()
    for words in ("from 50 dropout passes on 3 of 7 cases; the others", "Missed emergencies: 2", "c00005", "c00006"):
        assert words in text
    assert "message" not in text and "no passes" not in text


def test_an_unknown_experiment_is_answered_with_all_that_there_are_the_most_similar_first(tmp_path):
    def offered(name: str, **options) -> list[str]:
        with pytest.raises(BadInput, match=f"no finished experiment '{name}'; it has") as caught:
            find_evaluations(name, **options)
        return str(caught.value).rstrip(".").partition("first: ")[2].split(", ")

    cells = [f"smol-4bit-recipe{i}-s42" for i in range(3)]
    baselines = ["smol-4bit-zero", "always_ed"]
    for cell in cells + baselines:
        kind = "standard" if cell in cells else "baseline"
        write_landing(tmp_path, f"{cell}-t", "training", training(f"{cell}-t", cell_id=cell, recipe_kind=kind))
        write_landing(tmp_path, f"{cell}-t-e", "evaluation", evaluation(f"{cell}-t-e", f"{cell}-t"))
    load_all(tmp_path)
    names = offered("recipe1")
    assert names[0] == "smol-4bit-recipe1-s42" and sorted(names) == sorted(cells + baselines)
    assert sorted(offered("/nosuch")) == sorted(names), "a path is no name"
    assert sorted(offered("nosuch", for_its_model=True)) == cells, "a baseline has no model"
    (choice,) = find_evaluations("smol-4bit-recipe1", for_its_model=True)
    assert choice.cell_id == "smol-4bit-recipe1-s42"
    for options, count in (({}, 4), ({"for_its_model": True}, 3)):
        with pytest.raises(BadInput, match=f"beginning of {count} experiments: smol-4bit-recipe0-s42, "):
            find_evaluations("smol", **options)


def test_it_is_said_which_evaluation_is_taken_and_a_result_of_no_study_hides_none_of_a_study(land, tmp_path):
    """One training, judged in two studies, and last by a sweep that was killed."""
    for day, id in enumerate(("e4-small", "e4-large", "e4-killed"), 1):
        land(id, set_digest=id, created_at=datetime(2026, 3, day))
    land_sweep(tmp_path, "small", ["e4-small"])
    land_sweep(tmp_path, "large", ["e4-large"], day=2)
    load_all(tmp_path)
    text = printed()
    assert "on test: provisional (5 cases, study large, judged 2026-03-02 00:00, rule target_recall)" in text
    others = "e4-small (5 cases, study small, judged 2026-03-01 00:00); e4-killed (5 cases, study earlier, judged 2026"
    assert f"Not used on test; to use one, give its id: {others}" in text
    own_output = printed("e4-killed")
    assert "study earlier, judged 2026-03-03 00:00" in own_output and "Not used" not in own_output


def test_where_nothing_was_decided_or_there_is_no_emergency_no_zero_of_misses_is_printed(land):
    """A rule that could not be applied misses nothing, and neither does a set without emergencies."""
    rows = evaluation("e4", "t4")
    for row in rows["prediction"]:
        row["decision"] = None
    empty = dict.fromkeys(("value", "bound", "successes"))
    for row in rows["gate"]:
        row |= empty | {"state": "NOT AVAILABLE", "note": "not available: the recipe has no target ED recall"}

    land(rows=rows)
    land("x4", [case for case in FIVE if case[0] != "ED"], evaluation_set="clinic", set_digest="other")
    text = printed()
    assert "on clinic: not judged: no ED case (3 cases," in text
    assert "ED recall by subgroup: not available, no judged emergency names one" in text
    assert "Missed emergencies: not available for 2 ED cases: the recipe has no target ED recall" in text
    assert "Missed emergencies: not available: no ED case in this set" in text and "Missed emergencies: 0" not in text


def test_a_rule_that_misses_no_emergency_says_of_how_many_and_a_rare_prevalence_is_not_rounded_to_none(land):
    land(ed_prevalence=0.0004)
    text = printed()
    assert "Missed emergencies: 0 of 2\n" in text and "At this set's prevalence of 0.04% ED: precision" in text
    assert "At 0.25%: precision" in printed("t4", None, 0.0025)
    assert "ED precision and F2 restated at 0.25% ED" in leaderboard(studied(prevalence=0.0025)[0]).notes


def test_ids_and_texts_are_shown_and_not_obeyed_by_a_terminal(land, tmp_path):
    text = "chest pain\x1b]0;owned\x07 \x1b[8m"
    rows = evaluation("e4", "t4", [*FIVE, ("ED", "GP", "GP")])
    rows["prediction"][-1] |= {"case_id": "c\x1b[2J5", "case_digest": exact_digest(text)}
    land(rows=rows)
    own_file = tmp_path / "own.jsonl"
    own_file.write_text(json.dumps({"words": text}) + "\n")
    shown = printed("t4", own_file)
    assert "\x1b" not in shown and "\x07" not in shown
    assert r"c\x1b[2J5  decided GP" in shown and r"chest pain\x1b]0;owned" in shown


def candidates(root) -> list[str]:
    load_all(root)
    board = leaderboard_rows(evaluation_ids("study"))
    return [row.evaluation_id for row in wanted(board, "study", None, None)]


def test_best_takes_the_test_set_that_was_judged_last_however_late_a_model_was_trained(tmp_path):
    for bits, day in ((4, 1), (8, 9)):
        write_landing(tmp_path, f"t{bits}", "training", training(f"t{bits}", bits, day=day))
        write_landing(tmp_path, f"o{bits}", "evaluation", evaluation(f"o{bits}", f"t{bits}", set_digest="old"))

    rows = evaluation("n4", "t4", set_digest="new", created_at=datetime(2026, 2, 1))
    write_landing(tmp_path, "n4", "evaluation", rows)
    land_sweep(tmp_path, "study", ["t4", "t8", "o4", "o8", "n4"])
    assert candidates(tmp_path) == ["n4"], "the model at 8 bits was trained last"


def test_a_sweep_that_finds_its_models_judged_brings_their_test_set_back(land, tmp_path):
    """A study that was run on other cases in between, as by `--set data.source=...`."""
    for name, day in (("own", 2), ("other", 3)):
        land(name, set_digest=name, created_at=datetime(2026, 1, day))
    for day, name in enumerate(("own", "other", "own"), 1):
        land_sweep(tmp_path, "study", ["t4", name], day=day)
        assert candidates(tmp_path) == [name]


def test_a_later_run_on_random_weights_stands_beside_the_real_model_and_says_what_it_is(land, tmp_path):
    land_arm(tmp_path, "r4", day=9, random_weights=True)
    land()
    assert [one.evaluation_id for one in find_evaluations("smol-4bit-r1-s42")] == ["e4", "er4"]
    text = printed("smol-4bit-r1-s42")
    assert "s42 on test" in text and "s42 (random weights) on test" in text


@pytest.mark.parametrize("other", [0.1, 0.27, 0.6])
def test_restated_figures_are_those_of_a_set_with_that_prevalence(other):
    """1,000 cases at the other prevalence, with the same recall and the same rate of false alarms."""
    hits, ed, alarms, rest = 45, 54, 30, 146
    precision, f2 = restated(hits / ed, hits / (hits + alarms), ed / (ed + rest), other)
    tp = 1000 * other * hits / ed
    fp = 1000 * (1 - other) * alarms / rest
    fn = 1000 * other * (1 - hits / ed)
    assert precision == pytest.approx(tp / (tp + fp)) and f2 == pytest.approx(5 * tp / (5 * tp + 4 * fn + fp))


def test_without_a_precision_nothing_is_restated():
    assert restated(0.0, None, 0.2, 0.1) == (None, 0.0), "nothing decided ED: no precision, and no F2 at any prevalence"
    assert restated(0.0, 0.0, 0.2, 0.1) == (0.0, 0.0), "decided ED, always wrongly"
    assert restated(None, 0.5, 0.2, 0.1) == (None, None), "no emergencies"


def test_a_figure_just_below_its_gate_is_not_printed_as_the_gate(land):
    """1077 of 1134 are 0.94974, where 0.95 is required."""
    land(cases=[("ED", "ED", "ED")] * 1077 + [("ED", "GP", "GP")] * 57 + [("GP", "GP", "GP")])
    of_all, of_one = shown(print_table, gates(studied()[0]).tables[0], width=250), printed(width=250)
    for text in (of_all, of_one.partition("Missed")[0].partition("Gates")[2].partition("At this")[0]):
        assert "FAIL" in text and "0.9497" in text and "0.0503" in text
        assert not re.search(r"0\.950\b|0\.050\b", text)

    looked = {"gate": "ed_recall", "state": "FAIL", "threshold": 0.95, "value": 0.9, "bound": 0.8, "method": "by hand"}
    for models, bound, text in ((60, 0.94981, "0.9498 for 60 models"), (1, None, "n/a")):
        row = Row(**looked, successes=None, models=models, bound_adjusted=bound)
        assert gate_record(row)["bound for all looks"] == text
