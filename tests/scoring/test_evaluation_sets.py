"""Further evaluation sets: scored with the trained adapter, judged by thresholds of the training dataset's calibration."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from tasks.corpus.manifest import DatasetManifest, SetEntry
from tasks.corpus.prepare import prepare_dataset
from tasks.experiment import evaluate, evaluate_sets, land
from tasks.grids.grid import known_models, load_grid
from tasks.identity import scores_folder, training_of
from tasks.judging.decision_rules import record_rules
from tasks.judging.evaluation_rows import Evaluation, evaluation_rows, judged_rows
from tasks.judging.scores_folder import EvaluationScores, ScoredCase, ScoresManifest, probability_table
from tasks.landing import land_rows, refill_warehouse
from tasks.models.manifest import VariantManifest
from tasks.runtime.errors import BadInput
from tasks.scoring.job import run
from tasks.spec import LABELS, SCORING_VERSION, EvaluationSet, Scoring, evaluation_id, experiments
from tasks.tuning.rows import TrainingOutcome, sets_digest, training_rows
from tests.scoring.trained import lines, quiet, train_and_score
from warehouse.connect import reading, writing
from warehouse.health import run_audits
from warehouse.query import query


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A safety recipe trained on a tiny model and scored; its dataset has two further evaluation sets."""
    patch = pytest.MonkeyPatch()
    home = tmp_path_factory.mktemp("study")
    patch.setenv("TRIAGE_HOME", str(home))
    sets = []
    for name, count, labels in (("clinic", 8, "EG"), ("single", 1, "E"), ("calm", 12, "GH"), ("ward", 12, "EGH")):
        chosen = [label for label in LABELS if label[0] in labels]
        cases = [{"text": f"a story of {name}, number {i}", "label": chosen[i % len(chosen)]} for i in range(count)]
        rows = [row | ({"group": f"g{i // 2}"} if name == "ward" else {}) for i, row in enumerate(cases)]
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        sets.append(EvaluationSet(name=name, source=str(home / f"{name}.jsonl")))

    few = ["recipe.iterations=2", "scoring.passes=2", "scoring.generated_cases=0"]
    limits = "data.limits={ train = 12, valid = 6, calibration = 12, test = 12 }"
    grid = load_grid("smoke", ["bits=[4]", "models=['tiny-llama']", limits, *few])
    spec = next(s for s in experiments(grid, known_models(grid)) if s.recipe.kind == "safety")
    data = prepare_dataset(grid.data, home, sets)
    yield spec, *train_and_score(spec, data, home)
    patch.undo()


@pytest.fixture
def warehouse(study, monkeypatch, tmp_path):
    """A warehouse of the test's own, beside the study's folders; no server is started for the progress, and no process
    for a step."""
    monkeypatch.setenv("TRIAGE_HOME", study[1]["home"])
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "triage.duckdb"))
    monkeypatch.setattr("tasks.experiment.publisher", lambda title: quiet)
    monkeypatch.setattr(
        "tasks.experiment.run_job", lambda name, job, log, emit, at_most: run(job.model_dump(mode="json"), emit)
    )


def evaluate_further(study, *names):
    spec, args, scores = study
    return evaluate_sets.fn(
        spec, args["training_id"], scores.name, Path(args["variant"]), Path(args["data"]), list(names)
    )


def failed_audits():
    with reading() as con:
        return {name: rows for name, rows in run_audits(con).items() if rows}


def land_training(spec, args, scores):
    dataset = DatasetManifest.read(Path(args["data"]))
    variant = VariantManifest.read(Path(args["variant"]))
    training = args["training_id"]
    outcome = TrainingOutcome.of_complete(Path(args["folder"]))
    land_rows(training, "training", training_rows(spec, training, variant, dataset, outcome))
    land_rows(evaluation_id(scores.name), "evaluation", evaluation_rows(spec, scores, dataset))


def test_each_set_lands_with_the_threshold_of_the_test_set_and_is_not_scored_again(
    study, warehouse, monkeypatch, tmp_path
):
    spec, args, scores = study
    dataset = DatasetManifest.read(Path(args["data"]))
    on_test = evaluation_rows(spec, scores, dataset)["evaluation"][0]
    alone = prepare_dataset(spec.data, tmp_path)  # a further set changes neither training nor evaluation
    assert training_of(spec, Path(args["variant"]), alone) == args["training_id"]
    assert sets_digest(DatasetManifest.read(alone)) == sets_digest(dataset)
    assert scores_folder(spec, args["training_id"], alone).name == scores.name
    names = ["clinic", "ward"]
    evaluation_ids = evaluate_further(study, *names)
    folders = [scores_folder(spec, args["training_id"], Path(args["data"]), name) for name in names]
    assert evaluation_ids == [evaluation_id(folder.name) for folder in folders]
    assert len({scores, *folders, *evaluation_ids}) == 5
    landed = query("SELECT * FROM evaluation ORDER BY evaluation_set")
    assert landed.evaluation_set.tolist() == names and landed.cases.tolist() == [8, 12]
    assert set(landed.threshold) == {on_test["threshold"]} and set(landed.training_id) == {args["training_id"]}
    rules = query("SELECT * FROM decision_rule JOIN evaluation USING (evaluation_id) WHERE rule = 'target_recall'")
    record = json.loads((scores / "rules.json").read_text())
    assert set(rules.chosen_at) == {datetime.fromisoformat(record["chosen_at"]).replace(tzinfo=None)}
    assert rules.test_scored_at.nunique() == 2 and (rules.test_scored_at > rules.chosen_at).all()
    notes = query("SELECT note FROM conformal").note
    assert len(notes) == 2 and all(note.startswith("no guarantee here") for note in notes)
    assert landed.has_groups.tolist() == [False, True]
    assert landed.mc_status.tolist() == ["not available"] * 2 and "test set only" in landed.mc_reason[0]

    for name, folder in zip(names, folders, strict=True):
        for file_name in ("calibration.jsonl", "rules.json"):
            assert (folder / file_name).read_bytes() == (scores / file_name).read_bytes()
        expected = [case["case_id"] for case in lines(Path(args["data"]) / f"{name}.jsonl")]
        assert [case["case_id"] for case in lines(folder / "test.jsonl")] == expected

    monkeypatch.setattr("tasks.experiment.run_job", lambda *_, **__: pytest.fail("scored again"))
    assert evaluate_further(study, *names) == evaluation_ids


def test_one_case_and_no_emergency_at_all_go_from_the_real_scoring_through_every_audit(study, warehouse):
    land_training(*study)
    evaluate_further(study, "single", "calm")
    refill_warehouse()
    assert failed_audits() == {}
    assert query("SELECT DISTINCT evaluation_set FROM leaderboard").evaluation_set.tolist() == ["test"]
    landed = query("SELECT * FROM metric JOIN evaluation USING (evaluation_id) WHERE metric = 'ed_recall'")
    single, calm = (landed[landed.evaluation_set == name] for name in ("single", "calm"))
    assert len(single) == 3 and set(single.cases) == {1} and (single.exact_high - single.exact_low > 0.9).all()
    assert len(calm) == 3 and calm.value.isna().all() and all("no ED case in this set" in note for note in calm.note)
    gates = query("SELECT state FROM gate JOIN evaluation USING (evaluation_id) WHERE evaluation_set = 'calm'")
    assert set(gates.state) == {"NOT AVAILABLE"} and len(gates) == 3

    wrong = "UPDATE prediction SET min_cost = 'HOME' WHERE min_cost <> 'HOME'"
    with writing() as con:
        con.execute(wrong)
        rows = run_audits(con)

    assert rows["rules_before_test"] and rows["decision_counts_agree"], "of rules that are not primary too"


def test_a_rise_of_the_scoring_version_judges_stored_scores_again_without_a_model(study, warehouse, monkeypatch):
    spec, args, scores = study
    where = Path(args["variant"]), Path(args["data"])

    def finish():
        assert evaluate.fn(spec, args["training_id"], *where) == scores.name
        on_test = land.fn(spec, args["training_id"], scores.name, *where)
        return [on_test, *evaluate_further(study, "clinic")]

    with monkeypatch.context() as earlier:
        earlier.setattr("tasks.spec.grid.SCORING_VERSION", SCORING_VERSION - 1)
        earlier.setattr("tasks.judging.evaluation_rows.SCORING_VERSION", SCORING_VERSION - 1)
        before = finish()

    monkeypatch.setattr("tasks.experiment.run_job", lambda *_, **__: pytest.fail("a model ran"))

    after = finish()
    assert len({*before, *after}) == 4 and finish() == after
    refill_warehouse()
    times = query(
        "SELECT scores_id, count(DISTINCT (created_at, score_seconds, mc_seconds)) AS times, list(DISTINCT scoring_version) "
        "AS versions FROM evaluation WHERE evaluation_id IN $ids GROUP BY scores_id",
        params={"ids": [*before, *after]},
    )
    assert set(times.times) == {1} and len(times) == 2 and {len(outcome) for outcome in times.versions} == {2}
    assert query("SELECT evaluation_id FROM evaluation_summary").evaluation_id.isin(before).sum() == 0
    assert failed_audits() == {}


def test_ids_that_two_files_both_count_from_1_are_no_overlap_where_the_texts_differ():
    def scored(texts):
        p = dict(zip(LABELS, (0.6, 0.3, 0.1), strict=True))
        return [
            ScoredCase(case_id=str(i), label=label, group=None, case_digest=f"{texts}{i}", p=p)
            for i, label in enumerate(LABELS)
        ]

    def judged(name, texts):
        times = {"score_seconds": 0.0, "mc_seconds": 0.0, "created": "2026-01-01", "test_scored_at": "2026-01-01"}
        manifest = ScoresManifest(digest="", mc_status="not available: none", shortened_cases=0, **times)
        evaluation = Evaluation("t-s", name, SetEntry(cases=3, digest="d", labels={}), Scoring())
        rules = record_rules(probability_table(scored("ours")), LABELS, "digest")

        return judged_rows(evaluation, EvaluationScores(scored("ours"), scored(texts), rules, manifest))

    assert [row["decision"] for row in judged("clinic", "theirs")["prediction"]] == ["ED", "ED", "ED"]
    with pytest.raises(BadInput, match="in 3 cases .same text digest"):
        judged("clinic", "ours")
    with pytest.raises(BadInput, match="in 3 cases .same case id"):
        judged("test", "theirs")
