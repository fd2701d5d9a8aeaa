"""`triage best` on the smoke sweep's models: ranked on valid, one of them looked at, and the look kept."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta

import pyarrow.parquet as parquet
import pytest
from rich.console import Console

from flows.cli.best import best
from flows.report.answer import against_linear
from flows.report.figures import interval
from flows.report.rows import Row, by_common_rules, leaderboard_rows
from tasks.bundle.bundle import Rule
from tasks.bundle.decide import figure_on_valid
from tasks.bundle.from_evaluation import bundle_of_evaluation
from tasks.corpus.prepare import prepare_dataset
from tasks.grids.grid import load_grid
from tasks.judging.decision_rules import recall_at_over_triage
from tasks.judging.scores_folder import probability_table, read_cases
from tasks.runtime.errors import BadInput
from tasks.spec import Data
from tests.forked import new_fork_server
from tests.place import refusal
from warehouse.landing import write_landing
from warehouse.load import load_all

pytestmark = pytest.mark.usefixtures("at_home")


@pytest.fixture(scope="module")
def best_output(used):
    """What the command prints of the models at 4 bits, by macro-F1."""
    console = Console(width=140, highlight=False, markup=False)
    with pytest.MonkeyPatch.context() as patch, console.capture() as capture, new_fork_server():
        used.use(patch)
        patch.setattr("flows.cli.best.console", console)
        best("4bit", 100.0, "smoke", "macro-f1")
    return capture.get()


def test_the_look_is_recorded_with_its_question_and_ranking(best_output, used):
    (look,) = used.query("FROM look").to_dict("records")
    assert (look["study"], look["precision"], look["max_megabytes"]) == ("smoke", "4bit", 100)
    ranked = json.loads(look["ranked"])
    assert look["objective"] == "macro-F1 by each recipe's own rule" and look["candidates"] == len(ranked) == 4
    assert all("-4bit-" in one["training_id"] for one in ranked)
    values = [one["value"] for one in ranked]
    assert values == sorted(values, reverse=True) and look["value"] == values[0]
    assert look["training_id"] == ranked[0]["training_id"]
    assert used.audits() == {}


def test_the_ranking_has_a_line_a_model_and_the_test_figures_of_the_chosen_one_alone_stand_beside_the_baselines(
    best_output, used
):
    (look,) = used.query("FROM look").to_dict("records")
    cells = [one["training_id"].rpartition("-")[0] for one in json.loads(look["ranked"])]
    # A model of random weights on a dozen cases.
    assert best_output.startswith("It is not shown that this model or the linear one triages better.")
    ranking = best_output.partition(" on its test set")[0]
    lines = [line for line in ranking.splitlines() if "-4bit-" in line and "(random weights)" in line]
    assert [line.split()[0] for line in lines] == cells

    text = " ".join(best_output.split())
    assert text.count("on its test set") == 1 and f"{cells[0]} on its test set" in text
    chosen = next(row for row in leaderboard_rows() if row.evaluation_id == look["evaluation_id"])
    own = ("none", chosen.base_model)
    beside = [
        row for row in leaderboard_rows() if row.is_baseline and row.base_model in own and "8bit" not in row.cell_id
    ]
    for row in by_common_rules(beside, chosen.primary_rule):
        assert all(interval(row, name) in best_output for name in ("accuracy", "ed_recall", "over_triage")), row.cell_id
    assert "for this set so far: 1" in text and f"triage predict {look['evaluation_id']} -" in best_output


def test_test_figures_and_the_ranking_follow_the_recipes_own_rule_which_is_named(best_output, used):
    (look,) = used.query("FROM look").to_dict("records")
    rows = {row.evaluation_id: row for row in leaderboard_rows()}
    chosen = rows[look["evaluation_id"]]
    figure_text = interval(by_common_rules([chosen], chosen.primary_rule)[0], "accuracy")
    text = " ".join(best_output.split())
    assert f"decided by the model's rule, {chosen.primary_rule};" in text and figure_text in text
    assert f"accuracy by {chosen.primary_rule}" in best_output
    assert text.count("target_recall") > 1 and "argmax" in text, "the ranking names the rule of each"

    of_rule = used.query("SELECT evaluation_id, value FROM metric WHERE metric = 'accuracy' AND rule = 'target_recall'")
    safe = [(rows[id], value) for id, value in of_rule.values.tolist() if rows[id].primary_rule == "target_recall"]
    of_own_rule = by_common_rules([row for row, _ in safe], "target_recall")
    assert [row.accuracy for row in of_own_rule] == [value for _, value in safe]
    assert [row for row, value in safe if row.accuracy != value], "that of the argmax is another one"


def test_valid_was_scored_once_without_a_text_and_its_figure_is_that_of_the_cases(best_output, used):
    (look,) = used.query("FROM look").to_dict("records")
    (folder,) = (used.home / "valid").glob(f"{look['training_id']}-v*")
    cases = read_cases(folder / "valid.jsonl")
    assert len(cases) == 12 and "text" not in (folder / "valid.jsonl").read_text()
    bundle = bundle_of_evaluation(used.home, look["evaluation_id"]).bundle
    assert figure_on_valid(bundle, cases, "macro-f1", 0.3) == look["value"]
    labels = [case.label for case in cases]
    expected = recall_at_over_triage(probability_table(cases), labels, 0.4)
    assert figure_on_valid(bundle, cases, "ed-recall", 0.4) == expected


def test_macro_f1_is_that_of_a_models_own_rule_and_a_rule_that_decides_nothing_is_said(best_output, used):
    model = bundle_of_evaluation(used.home, used.query("FROM look").evaluation_id[0]).bundle
    cases = read_cases(next((used.home / "valid").glob("*-v*")) / "valid.jsonl")

    def value(**rule) -> float:
        return figure_on_valid(model.model_copy(update={"rule": Rule(**rule)}), cases, "macro-f1", 0.3)

    emergencies = sum(case.label == "ED" for case in cases)
    always_ed = 2 * emergencies / (len(cases) + emergencies) / 3
    assert value(name="target_recall", threshold=0.0) == pytest.approx(always_ed)
    assert value(name="target_recall", threshold=2.0) != pytest.approx(always_ed)

    with pytest.raises(BadInput, match="its rule target_recall is not available: no ED case, so it decides nothing"):
        value(name="target_recall", note="not available: no ED case")


def test_a_model_that_loses_to_the_linear_one_is_told_so(monkeypatch):
    """By figures of both, and by the whole interval."""
    verdicts = {
        ((-0.1, -0.12, -0.08), (0.01, -0.02, 0.04)): "The linear model triages better than this one",
        ((0.01, -0.02, 0.04), (0.1, 0.08, 0.12)): "The linear model triages better than this one",
        ((0.1, 0.08, 0.12), (-0.1, -0.12, -0.08)): "This model triages better than the linear one",
        ((0.1, 0.08, 0.12), (0.1, 0.08, 0.12)): "It is not shown that this model or the linear one",
    }
    for figures, verdict in verdicts.items():
        rows = {
            metric: Row(metric=metric, difference=difference, low=low, high=high)
            for metric, (difference, low, high) in zip(("macro_f1", "over_triage"), figures, strict=True)
        }
        monkeypatch.setattr("flows.report.answer.differences_of", lambda pairs, metrics, rows=rows: rows)
        assert against_linear(Row(evaluation_id="a"), Row(evaluation_id="b")).startswith(verdict)


@pytest.fixture
def rest(best_output, used, tmp_path, monkeypatch):
    """A copy of the state that a test may change."""
    rest = used.copy(tmp_path / "rest")
    rest.use(monkeypatch)
    return rest


@pytest.fixture
def ask(monkeypatch):
    """What the command prints."""
    console = Console(width=2000, highlight=False, markup=False)
    monkeypatch.setattr("flows.cli.best.console", console)

    def output() -> str:
        with console.capture() as capture:
            best("4bit", None, "smoke", "macro-f1")
        return capture.get()

    return output


def ranked(place) -> list[str]:
    """The trainings of the first look, the best first."""
    (look,) = place.query("FROM look").to_dict("records")
    return [one["training_id"] for one in json.loads(look["ranked"])]


def cell_of(training: str) -> str:
    return training.rpartition("-")[0]


def test_models_that_are_gone_are_left_out_and_named(rest, ask):
    first, *other_trainings = ranked(rest)
    shutil.rmtree(rest.home / "experiments" / first)
    output = ask()
    assert f"Left out: {cell_of(first)} (its model is no longer in {rest.home}). Run their sweep again" in output
    assert f"{cell_of(other_trainings[0])} on its test set" in output and len(rest.query("FROM look")) == 2

    for training in other_trainings:
        shutil.rmtree(rest.home / "experiments" / training)
    with pytest.raises(BadInput, match=f"No such model of the study smoke .*no longer in {rest.home}.* Run its"):
        ask()
    assert len(rest.query("FROM look")) == 2, "nothing was looked at"


def test_models_with_another_valid_are_left_out_and_named(rest, ask):
    *other_trainings, latest = ranked(rest)
    data = load_grid("smoke").data
    trained_later(rest, latest, data.model_copy(update={"limits": data.limits | {"valid": 9}}))
    output = ask()
    (sentence,) = (line for line in output.splitlines() if line.startswith("Left out"))
    assert "its `valid` has other cases than that of the latest model" in sentence
    assert all(cell_of(training) in sentence for training in other_trainings) and "Run their sweep again" in sentence
    assert "on `valid` (9 cases," in output and f"{cell_of(latest)} on its test set" in output
    look = rest.query("FROM look ORDER BY looked_at DESC LIMIT 1").to_dict("records")[0]
    assert (look["candidates"], look["training_id"]) == (1, latest)


def trained_later(place, training_id, data: Data) -> None:
    """Land a training once more: as a year later, and on these data."""
    digest = prepare_dataset(data, place.home).name.rpartition("-")[2]
    folder = place.home / "landing" / training_id
    tables = {path.stem: parquet.read_table(path).to_pylist() for path in folder.glob("*.parquet")}
    (row,) = tables["experiment"]
    row["dataset_digest"] = digest
    row["finished_at"] += timedelta(days=365)
    write_landing(folder.parent, training_id, "training", tables)
    load_all(folder.parent)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--precision", "5bit"), "no such model; its precisions are 4bit, 8bit"),
        (("--max-megabytes", "0.001"), "the smallest model has 0.1 MB"),
        (("--study", "smok"), "did you mean smoke?"),
    ],
)
def test_what_nothing_fits_is_one_sentence(args, sentence, used):
    assert sentence in refusal(used.ask("best", *args))
