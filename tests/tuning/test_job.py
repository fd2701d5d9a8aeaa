"""A training as its child process runs it: killed at any moment it ends with the same bytes, and refuses in sentences; how far
it is, as another program reads it from the training's folder."""

import itertools
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks import trial
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.grids.grid import known_models, load_grid
from tasks.identity import training_of
from tasks.models.convert import run_quantize
from tasks.models.manifest import VariantManifest
from tasks.models.sources.fetch import fetch_base
from tasks.runtime.children import forked_steps, run_child
from tasks.runtime.errors import BadInput, Diverged, DoesNotFit
from tasks.runtime.events import Event, ProgressReport, StepWarning, TrainingReport, ValidationReport
from tasks.runtime.locks import is_locked, locked
from tasks.runtime.store import verify
from tasks.scoring import job as scoring_job
from tasks.search.space import Objective
from tasks.spec import ExperimentSpec, experiments
from tasks.tuning import job, rows, step
from tasks.tuning.data import TOKENS_AT_ONCE
from tasks.tuning.memory import MemoryChoice
from tasks.tuning.rows import FILE, Reported, TrainingJob, TrainingOutcome, reporting_to, training_rows
from tests.forked import new_fork_server
from warehouse.landing import write_landing

UPDATES = 9
CADENCE = 3
WHOLE_BATCH = MemoryChoice(4)
PROGRAMS = "tests.tuning.programs.killed"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Arguments of a training of the smoke grid with dropout, a decaying rate and checkpoints every few updates."""
    home = tmp_path_factory.mktemp("killed")
    overrides = [
        "bits=[4]", 'models=["tiny-llama"]', f"recipe.iterations={UPDATES}", f"training.evaluate_every={CADENCE}",
        'training.decay="cosine"', "training.max_gradient_norm=1.0",
        "data.limits={ train = 12, valid = 6, calibration = 12, test = 9 }",
    ]  # fmt: skip
    grid = load_grid("smoke", overrides)
    data = prepare_dataset(grid.data, home)
    spec = next(s for s in experiments(grid, known_models(grid)) if s.recipe.dropout > 0)
    source = fetch_base(spec.model, home)
    variant = run_quantize({"source": str(source), "root": str(home), "bits": 4, "group_size": 64})["folder"]

    return {"experiment": spec.model_dump(mode="json"), "training_id": training_of(spec, Path(variant), data),
            "variant": variant, "data": str(data), "home": str(home)}  # fmt: skip


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "whole"
    job.run(study | {"folder": str(folder)}, lambda event: None)
    return folder


@pytest.fixture(scope="module")
def forked():
    """Steps are forked from a server that has imported the job: its imports take longer than it does."""
    with new_fork_server(), forked_steps(PROGRAMS):
        yield


def train_in_children(study, folder, events=None, **changes) -> dict:
    """Train as a sweep does, each attempt in a child process; the summary of the training."""
    experiment = ExperimentSpec.model_validate(changed(study, **changes)["experiment"])
    paths = Path(study["variant"]), Path(study["data"]), Path(study["home"])
    rows.train_experiment(experiment, folder, *paths, [].append if events is None else events.append)
    return verify(folder)["summary"]


def outcome(folder: Path) -> tuple[bytes, bytes, list]:
    """Best and last adapters, byte for byte, and the curve without its timings."""
    curve = json.loads((folder / "training.json").read_text())["curve"]
    points = [{key: value for key, value in point.items() if key != "tokens_per_second"} for point in curve]
    return (folder / "adapters.safetensors").read_bytes(), (folder / "adapters_last.safetensors").read_bytes(), points


def test_a_training_killed_after_a_checkpoint_ends_as_one_that_never_was(study, whole, tmp_path, monkeypatch, forked):
    monkeypatch.setattr(rows, "JOB", f"{PROGRAMS}:after_checkpoint")
    events: list[Event] = []
    summary = train_in_children(study, tmp_path / "killed", events, recipe={"iterations": UPDATES})
    assert ["started again" in event.message for event in events if isinstance(event, StepWarning)].count(True) == 1
    assert outcome(tmp_path / "killed") == outcome(whole)
    assert summary["peak_memory_bytes"] >= summary["weights_memory_bytes"] > 0 <= summary["cache_memory_bytes"]
    assert summary["micro_batch"] == 4 and summary["checkpointed_blocks"] is False
    assert summary["memory_budget_bytes"] > 1 << 30 and summary["peak_rss_bytes"] > 1 << 26


def test_a_training_that_pauses_leaves_a_checkpoint_alone_and_ends_as_one_that_never_did(study, whole, tmp_path):
    """A pause between two checkpoints waits for the next one; one that is reached already changes nothing."""
    folder = tmp_path / "paused"
    first_end = ""
    for pause, reached in ((1, 3), (3, 3), (UPDATES - 1, UPDATES)):
        job.run(study | {"folder": str(folder), "pause_at": pause}, lambda event: None)
        assert [path.name for path in (folder / "checkpoint").iterdir()] == [f"{reached:07d}"]
        names = {path.name for path in folder.iterdir()}
        assert ("adapters.safetensors" in names) == ("manifest.json" in names) == (reached == UPDATES), names
        first_end = first_end or datetime.now(UTC).isoformat()

    assert verify(folder)["summary"]["started_at"] < first_end, "the first of its processes began it"
    assert outcome(folder) == outcome(whole)
    assert set(verify(folder)["files"]) == set(verify(whole)["files"])


def changed(study, recipe=None, training=None):
    """The arguments of the study's training with other settings, for one update unless the recipe says otherwise."""
    values = study["experiment"] | {
        "recipe": study["experiment"]["recipe"] | {"iterations": 1} | (recipe or {}),
        "training": study["experiment"]["training"] | (training or {}),
    }
    return study | {"experiment": values}


def trained(study, folder, events=None, training=None, choice=WHOLE_BATCH, **recipe):
    """Train in this process, without probe steps unless `choice` is None; what the manifest keeps."""
    args = changed(study, recipe, training) | {"folder": str(folder), "choice": choice and asdict(choice)}
    return job.run(args, events.append if events is not None else lambda event: None)


def test_a_process_killed_holding_nearly_its_budget_is_tried_again_with_less(study, tmp_path, monkeypatch, forked):
    events: list[Event] = []
    monkeypatch.setattr(rows, "JOB", f"{PROGRAMS}:in_update")
    study = study | {"home": str(tmp_path / "home")}
    summary = train_in_children(
        study, tmp_path / "training", events, recipe={"iterations": 2}, training={"memory": "1GB"}
    )
    assert (summary["micro_batch"], summary["checkpointed_blocks"]) == (2, False)
    assert summary["memory_budget_bytes"] == 1_000_000_000
    assert sum("Out of memory: retrying with micro-batch" in getattr(event, "message", "") for event in events) == 1


def test_a_resumed_training_keeps_to_its_prefix_and_lack_of_room_is_warned_of(study, tmp_path, monkeypatch):
    study = study | {"home": str(tmp_path / "home")}
    events: list[Event] = []
    monkeypatch.setenv("TRIAGE_PREFIX_BYTES", "1KB")
    assert trained(study, tmp_path / "without", events)["frozen_blocks_stored"] == 0
    warnings = [event.message for event in events if isinstance(event, StepWarning)]
    lacks = [message for message in warnings if message.startswith("Frozen prefix: 0.00 GB are needed")]
    assert len(lacks) == 2 and all("1.5 times as long. Set TRIAGE_PREFIX_BYTES=1GB" in lack for lack in lacks)

    monkeypatch.delenv("TRIAGE_PREFIX_BYTES")
    assert trained(study, tmp_path / "without", events, iterations=2)["frozen_blocks_stored"] == 0
    assert any("began without one" in getattr(event, "message", "") for event in events)
    assert trained(study, tmp_path / "with")["frozen_blocks_stored"] == 2
    assert not any("cost_weight 5" in getattr(event, "message", "") for event in events)
    trained(study, tmp_path / "other", events, name="other", rank=8, scale=5.0, dropout=0.0, cost_weight=5.5)
    assert any("cost_weight 5.5 is above 5" in getattr(event, "message", "") for event in events)
    assert len(list((tmp_path / "home/prefixes").iterdir())) == 2, "train and valid, whatever the recipe"


def test_a_diverged_training_lands_its_curve_up_to_then_and_its_memory(study, tmp_path, monkeypatch):
    update = step.update_gradients
    calls = itertools.count(1)

    def poisoned(*args):
        loss, parts, gradients = update(*args)
        return (loss * float("nan") if next(calls) == 4 else loss), parts, gradients

    monkeypatch.setattr(step, "update_gradients", poisoned)
    with pytest.raises(Diverged, match="at update 4") as error:
        trained(study, tmp_path, iterations=6)

    spec = ExperimentSpec.model_validate(study["experiment"])
    (variant, data) = (study["variant"], study["data"])
    manifests = VariantManifest.read(Path(variant)), DatasetManifest.read(Path(data))
    outcome = TrainingOutcome.of_failure(tmp_path, error.value)
    tables = training_rows(spec, "t1", *manifests, outcome)
    (row,) = tables["experiment"]
    curve = tables["training_curve"]
    assert row["status"] == "diverged" and row["last_iteration"] == 3
    assert row["peak_memory_bytes"] >= row["weights_memory_bytes"] > 0 and row["peak_rss_bytes"] > 0
    assert [(p["iteration"], p["split"]) for p in curve] == [(2, "train"), (3, "valid"), (3, "train")]
    assert all(p["loss"] == pytest.approx(p["label_loss"] + p["other_loss"] + p["cost"]) for p in curve)
    assert write_landing(tmp_path / "landing", "t1", "training", tables).is_dir()


@pytest.fixture
def rungs(study, monkeypatch):
    """A function that trains a trial of 4 times as many updates as its first rung has, here, to a rung."""

    def train_here(spec, folder, variant, data, home, on_event, pause_at, at_most):
        how = {"pause_at": pause_at, "choice": WHOLE_BATCH}
        paths = {"variant": variant, "data": data, "home": home}
        args = TrainingJob(experiment=spec, training_id=folder.name, folder=folder, **how, **paths)
        job.run(args.model_dump(mode="json"), on_event)

    monkeypatch.setattr(trial, "train_experiment", train_here)
    monkeypatch.setattr(trial, "publisher", lambda title: lambda event: None)  # it would start a server
    monkeypatch.setattr(trial, "run_child", lambda function, args, log, emit: scoring_job.run_valid(args, emit))
    monkeypatch.setenv("TRIAGE_HOME", study["home"])
    spec = ExperimentSpec.model_validate(study["experiment"])

    def reached(folder: Path, update: int, objective: Objective, **changes):
        recipe = spec.recipe.model_copy(update={"iterations": 4 * CADENCE, "learning_rate": 0.05} | changes)
        monkeypatch.setattr(trial, "experiment_folder", lambda *inputs: folder)
        paths = Path(study["variant"]), Path(study["data"])
        return trial.train_to_rung.fn(0, spec.model_copy(update={"recipe": recipe}), update, objective, *paths)

    return reached


def test_the_macro_f1_of_a_trial_is_that_of_its_curve(tmp_path, rungs):
    folder = tmp_path / "trial"
    reached = {
        update: rungs(folder, update, Objective("macro-F1"), select_by="macro_f1").value for update in (3, 6, 12)
    }
    training = json.loads((folder / "training.json").read_text())
    noted = [(p["iteration"], p["macro_f1"]) for p in training["curve"] if p["split"] == "valid"]
    assert [update for update, _ in noted] == [3, 6, 9, 12]
    for update in (3, 6, 12):
        assert reached[update] == max(value for at, value in noted if at <= update)


def test_a_trial_whose_training_is_further_is_judged_as_it_was_at_its_rung(tmp_path, rungs):
    """By its adapter of then, which is not stored: a later one would beat all other trials."""
    aim = Objective("ED recall", 0.5)
    in_steps = [rungs(tmp_path / "in_steps", update, aim) for update in (CADENCE, 4 * CADENCE)]
    whole = tmp_path / "whole"
    last = rungs(whole, 4 * CADENCE, aim)
    first = rungs(whole, CADENCE, aim)
    assert [first.value, last.value] == [rung.value for rung in in_steps] and first.value != last.value
    assert first.train_seconds == pytest.approx(last.train_seconds / 4)
    assert {path.name for path in tmp_path.iterdir()} == {"in_steps", ".in_steps.lock", "whole", ".whole.lock"}


def refusal(study, folder, kind=BadInput, **training) -> str:
    with pytest.raises(kind) as refused:
        trained(study, folder, training=training, choice=None)
    return str(refused.value)


def test_a_budget_smaller_than_one_case_and_a_window_that_no_prompt_fits_are_refused_in_a_sentence(study, tmp_path):
    assert "is less than one case needs" in refusal(study, tmp_path / "memory", DoesNotFit, memory="300KB")
    assert "raise training.max_tokens" in refusal(study, tmp_path / "window", max_tokens=64)


def test_the_memory_choice_of_a_training_is_saved_and_another_budget_chooses_again(study, tmp_path, forked):
    probes: list[Event] = []

    def choice(memory):  # in a process of its own: what earlier tests left in this one would be counted as held
        events: list[Event] = []
        args = changed(study, training={"memory": memory}) | {"folder": str(tmp_path)}
        run_child(rows.JOB, args, tmp_path, events.append)
        probes.extend(event for event in events if "micro-batch" in getattr(event, "message", ""))
        return json.loads((tmp_path / "memory.json").read_text())

    first = choice("2GB")
    assert first == {
        "micro_batch": 4, "checkpointing": False, "limit": 2_000_000_000, "tokens_at_once": TOKENS_AT_ONCE,
        "cache_bytes": 250_000_000, "stored": ["train", "valid"],
    }  # fmt: skip
    assert choice("2GB") == first and len(probes) == 1

    def needed():
        return probes[-1].held_bytes + probes[-1].case_bytes

    less = choice(f"{(needed() + 1.5 * probes[-1].further_bytes) * 8 / 7}")
    assert len(probes) == 2  # again: the peaks of so small a model vary by a third with its threads
    room = less["limit"] - needed() - less["cache_bytes"]
    assert less["micro_batch"] == 1 + room // probes[-1].further_bytes < 4


TRAINING = TrainingReport(
    iteration=40, split="train", iterations=120, loss=0.5, tokens_per_second=800.0, seconds_left=300.0
)
VALIDATION = ValidationReport(iteration=40, split="valid", loss=0.9, always_ed=False)


def test_the_last_reports_of_a_running_training_can_be_read_and_a_stopped_or_earlier_ones_cannot(tmp_path):
    events = []
    emit = reporting_to(tmp_path / "t", events.append)
    emit(ProgressReport("frozen prefix", 1, 2))

    with locked(tmp_path / "t"):
        assert Reported.of_running(tmp_path / "t") is None
        emit(TRAINING)
        emit(VALIDATION)
        expected = Reported(iteration=40, iterations=120, loss=0.5, validation=0.9, seconds_left=300.0)
        assert Reported.of_running(tmp_path / "t") == expected
        (tmp_path / "t" / FILE).write_text("{")
        assert Reported.of_running(tmp_path / "t") is None, "a damaged file is no reason to fail"

    assert not is_locked(tmp_path / "t") and Reported.of_running(tmp_path / "t") is None
    assert len(events) == 3, "the display gets every event"
    reporting_to(tmp_path / "t", events.append)
    assert not (tmp_path / "t" / FILE).exists()
