"""`triage bench corpus`: differences to the baseline are paired by case, with intervals over whole conditions."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.bench.corpus import BASELINE, JudgedModel, _answer, _models, _row, _verdict, bench_corpus
from flows.bench.decided import Decided, best_constant, difference
from flows.cli.main import app
from flows.report.table import ReportTable
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.vignettes.adversarial import NAME as ADVERSARIAL
from tasks.grids.grid import load_grid
from tasks.runtime.files import read_lines
from tasks.runtime.home import home
from tasks.runtime.store import read_manifest
from tasks.spec import EvaluationSet
from tasks.tuning.training_rows import sets_digest
from tests.warehouse.rows import evaluation, training
from warehouse.landing import write_landing
from warehouse.load import load_all

TRUTH = ["ED", "GP", "HOME", "ED", "GP", "HOME"] * 20
LABELS = {f"c{i}": label for i, label in enumerate(TRUTH)}
GROUPS: dict[str, str | None] = {f"c{i}": f"g{i // 3}" for i in range(len(TRUTH))}


def decided(**wrong: str) -> Decided:
    return Decided(LABELS, GROUPS, LABELS | wrong)


def test_a_model_without_an_error_beats_a_baseline_with_some_by_the_difference_of_their_figures() -> None:
    baseline = decided(**{f"c{i}": "GP" for i in range(0, 120, 12)})
    row_text = _row("test", "baseline", baseline, None)
    assert row_text["set"] == "test, 120 cases" and row_text["ED F2, difference"] == ""
    row = _row("test", "model", decided(), baseline)
    assert row["macro F1"] == row["ED F2"] == "1.000"
    # Baseline: 30 of 40 ED found, none in vain: F2 = 5 x 1 x 0.75 / (4 x 1 + 0.75) = 0.789.
    point, interval = row["ED F2, difference"].split("\n")
    low, high = map(float, interval.strip("[]").split(", "))
    assert point == "+0.211" and 0 < low < 0.211 < high <= 1
    assert row["earns its place?"] == "yes, by 0.05" and row_text["earns its place?"] == ""


def test_no_difference_gives_zero_and_an_interval_of_zero() -> None:
    same = decided(c0="GP")
    assert difference("macro_f1", same, same) == (0, 0, 0)


@pytest.mark.parametrize("metric", ["macro_f1", "ed_f2"])
def test_the_order_of_the_models_turns_the_sign(metric: str) -> None:
    good = decided()
    bad = decided(c0="GP", c6="HOME", c12="GP")
    assert difference(metric, good, bad).point > 0 > difference(metric, bad, good).point


def test_the_best_constant_answer_has_the_highest_macro_f1() -> None:
    rare = {id: "GP" if label == "HOME" else label for id, label in LABELS.items()}
    label, answers = best_constant(Decided(rare, GROUPS, {}))
    assert label == "GP" and set(answers.decisions.values()) == {"GP"}
    # Precision 80 of 120, recall 1; nothing for ED, and HOME does not occur.
    assert answers.figures()["macro_f1"] == pytest.approx(0.8 / 2)


def test_the_answer_sets_a_trained_model_against_all_that_learned_less() -> None:
    model = JudgedModel("smol 4bit\nr1 s42", ("smol", "4bit"), True, decided())
    untuned = JudgedModel("smol 4bit\nuntuned", ("smol", "4bit"), False, decided(c0="GP", c3="GP"))
    other = JudgedModel("smol 8bit\nuntuned", ("smol", "8bit"), False, decided(c0="GP"))
    (sentence,) = _answer("test", [model, untuned, other], decided(c0="GP", c6="GP"))
    assert sentence.startswith("smol 4bit r1 s42 on test: macro-F1 1.000; +0.017 [")
    # A third of the cases, all called GP, are found: F1 0.5 of one class, none of two.
    assert "] against its untuned model, +0.833 [" in sentence and "] against always-ED, +0.0" in sentence
    assert sentence.endswith("] against the bag of words.")
    assert list(_answer("test", [untuned], decided())) == []


@pytest.mark.parametrize(
    ("differences", "margin", "verdict"),
    [
        ([(0.06, 0.01, 0.11), (0.05, 0.02, 0.08)], 0.05, "yes, by 0.05"),
        ([(0.06, 0.01, 0.11), (0.04, 0.02, 0.08)], 0.05, "cannot conclude"),
        ([(0.06, -0.01, 0.11), (0.06, 0.02, 0.08)], 0.05, "cannot conclude"),
        ([(0.06, 0.01, 0.11), (0.01, -0.02, 0.04)], 0.05, "no, not by 0.05"),
        ([(0.02, 0.01, 0.03), (0.04, 0.01, 0.08)], 0.0, "yes"),
        ([(0.02, 0.01, 0.03), (-0.04, -0.08, 0.0)], 0.0, "no"),
        ([(0.06, None, None), (0.06, 0.02, 0.08)], 0.05, "cannot conclude"),
    ],
)
def test_a_model_earns_its_place_by_the_margin_in_both_figures_with_intervals_above_zero(
    differences, margin, verdict
) -> None:
    assert _verdict(differences, margin) == verdict


FEW = {"valid": 30, "calibration": 30, "test": 30}


def options(train: int, **limits: int) -> list[str]:
    return [f"data.limits.{name}={limit}" for name, limit in {**FEW, "train": train, **limits}.items()]


def printed_table(overrides: list[str]) -> ReportTable:
    return bench_corpus(Console(file=io.StringIO(), width=140), "tuned", overrides)


def prepared(overrides: list[str]) -> tuple[Path, dict[str, Any]]:
    """The folder and the manifest that the benchmark itself looks for."""
    sets = (EvaluationSet(name=ADVERSARIAL, source="embedded"),)
    folder = prepare_dataset(load_grid("tuned", overrides).data, home(), sets)
    return folder, read_manifest(folder) or {}


def land(root: Path, id: str, overrides: list[str], wrong: int) -> None:
    """A training on a dataset, scored on test and on the harder cases, of which it gets the first `wrong` wrong."""
    folder, manifest = prepared(overrides)
    own_values = {
        "dataset_digest": sets_digest(DatasetManifest.model_validate(manifest)),
        "settings_digest": f"settings of {id}",
    }
    write_landing(root, id, "training", training(id, **own_values))

    for name in ("test", ADVERSARIAL):
        cases = read_lines(folder / f"{name}.jsonl")
        judged = [(c["label"], "GP" if i < wrong else c["label"], c["label"]) for i, c in enumerate(cases)]
        rows = evaluation(f"{name}-{id}", id, judged, evaluation_set=name, set_digest=manifest["sets"][name]["digest"])
        for row, case in zip(rows["prediction"], cases, strict=True):
            row["case_id"] = case["case_id"]
        write_landing(root, f"{name}-{id}", "evaluation", rows)

    load_all(root)


def test_a_training_is_set_against_the_baseline_of_its_own_train_set_alone(tmp_path: Path) -> None:
    """Two trainings of one cell, which have the test set in common; the grid's `--set` says which is meant."""
    baselines = {}
    # Landed with more calibration cases than are asked for below: that changes nothing of what it has learned.
    land(tmp_path, "t60", options(60, calibration=60), 0)
    land(tmp_path, "t90", options(90), 25)

    for train, wrong in ((60, 0), (90, 25)):
        table = printed_table(options(train))
        assert table["model"] == [*[BASELINE, "smol 4bit\nr1 s42"] * 2, BASELINE]
        for place in (0, 2):
            baseline, model = table.records()[place : place + 2]
            assert baseline["set"] == model["set"] and (model["macro F1"] == "1.000") == (not wrong)
            difference = float(model["macro F1, difference"].split("\n")[0])
            assert difference == pytest.approx(float(model["macro F1"]) - float(baseline["macro F1"]), abs=0.0011)
        baselines[train] = table["macro F1"][0]

    assert baselines[60] != baselines[90], "the two could not be told apart"


def test_the_command_takes_set_and_names_the_sweep_that_would_fill_the_table() -> None:
    typed = [word for option in options(90) for word in ("--set", option)]
    result = CliRunner().invoke(app, ["bench", "corpus", "tuned", *typed])
    text = result.stdout.replace("\n", " ")
    assert result.exit_code == 0 and "no model trained on these cases" in text
    assert "Next: triage sweep tuned --model smollm2-135m --bits 4 " + " ".join(typed) in text


def test_trainings_of_one_cell_stand_side_by_side_with_their_ids_and_an_untuned_model_beside_any(
    tmp_path: Path,
) -> None:
    untuned = {"cell_id": "smol-4bit-zero_shot", "recipe": "zero_shot", "recipe_kind": "baseline"}
    own_values: dict[str, dict[str, Any]] = {
        "t1": {"settings_digest": "one"},
        "t2": {"settings_digest": "two"},
        "t3": {"settings_digest": "three", "dataset_digest": "other"},
        "z": {**untuned, "dataset_digest": "first"},
    }
    for day, (id, values) in enumerate(own_values.items(), start=1):
        write_landing(tmp_path, id, "training", training(id, day=day, **values))
        write_landing(tmp_path, f"e-{id}", "evaluation", evaluation(f"e-{id}", id))

    again = evaluation("e-again", "t1", [("ED", "HOME", "ED")], created_at=datetime(2026, 3, 1))
    write_landing(tmp_path, "e-again", "evaluation", again)
    load_all(tmp_path)
    outcome = _models("set", "set", {"data"})
    assert [model.name for model in outcome] == [
        "smol 4bit\nr1 s42\nt1",
        "smol 4bit\nr1 s42\nt2",
        "smol 4bit\nuntuned (zero-shot)",
    ]
    assert outcome[0].decided.decisions == {"c00000": "HOME"}, "the latest evaluation of a training"
    assert _models("set", "set", {"other"})[0].name == "smol 4bit\nr1 s42"
