"""What all steps have in common: which errors are tried again, a progress artifact, and a folder of its own for each order."""

import json
import pickle
import shutil
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect.states import Failed

import tasks.baselines
import tasks.caching
import tasks.experiment
from flows.selection import select
from tasks import progress
from tasks.baselines import fidelity, zero_shot
from tasks.caching import CACHE_VERSION, cached_folder, is_transient
from tasks.experiment import evaluate, score_moved, train
from tasks.grids.grid import known_models, load_grid
from tasks.identity import INGREDIENTS
from tasks.inputs import acquire, convert, prepare, quantize
from tasks.precisions import of_bits
from tasks.progress import publisher
from tasks.runtime import errors
from tasks.runtime.errors import TriageError
from tasks.runtime.events import ProgressReport
from tasks.runtime.home import home
from tasks.runtime.store import build_folder, seal
from tasks.scoring.arguments import TrainedJob

PASSES_BY_ITSELF = {"SourceUnavailable", "Locked", "NotShared", "LostChild", "TookTooLong", "GpuFailed"}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TriageError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_transient_errors_are_retried(kind):
    assert is_transient(None, None, Failed(data=kind("A sentence."))) is (kind.__name__ in PASSES_BY_ITSELF)


def test_a_source_whose_answer_stays_the_same_and_a_bug_are_not_tried_again():
    refusal = errors.SourceUnavailable("There is no such revision.", transient=False)
    bugs = [ValueError("a bug"), OSError("a disk"), KeyError("k"), RuntimeError("r")]
    for error in (refusal, pickle.loads(pickle.dumps(refusal)), *bugs):
        assert is_transient(None, None, Failed(data=error)) is False


@pytest.mark.parametrize("step", [acquire, prepare, convert, quantize, train, evaluate], ids=lambda step: step.name)
def test_what_passes_by_itself_ends_no_sweep(step):
    assert step.retries >= 1 and step.retry_condition_fn is is_transient


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Prefect's folder of results, with a record for the key of the folder below."""
    from prefect.settings import PREFECT_RESULTS_LOCAL_STORAGE_PATH, temporary_settings

    with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: tmp_path / "results"}):
        record = tmp_path / "results" / "train" / CACHE_VERSION / "made-0123456789ab"
        record.parent.mkdir(parents=True)
        record.write_text("{}")
        yield record


def fill(folder: Path) -> dict:
    (folder / "adapters.bin").write_bytes(b"weights")
    return {}


def test_a_key_is_the_content_id_and_the_version_without_what_decides_no_result(tmp_path, results):
    folder = tmp_path / "made-0123456789ab"
    build_folder(folder, fill)
    key = cached_folder("train", lambda name, suffix="": tmp_path / f"{name}{suffix}")
    assert key(None, {"name": folder.name}) == f"train/{CACHE_VERSION}/{folder.name}" and results.exists()
    assert key(None, {"name": "another", "at_most": 3.0}) == key(None, {"name": "another", "at_most": None})


@pytest.mark.parametrize("damage", ["gone", "one byte of the same length"])
def test_a_result_whose_folder_is_gone_or_damaged_does_not_count_and_is_not_deleted(damage, tmp_path, results):
    folder = tmp_path / "made-0123456789ab"
    key = cached_folder("train", lambda name: tmp_path / name)

    def now() -> str:
        return key(None, {"name": folder.name}).rpartition("/")[2]

    assert now() == f"{folder.name}.2" and results.exists()
    results.with_name(now()).write_text("{}")  # the step has run, and its folder is there
    build_folder(folder, fill)
    assert now() == f"{folder.name}.2", "what it ran under is what is found"

    if damage == "gone":
        shutil.rmtree(folder)
    else:
        (folder / "adapters.bin").write_bytes(b"weighte")

    before = sorted(results.parent.iterdir())
    assert now() == f"{folder.name}.3" and sorted(results.parent.iterdir()) == before


def test_a_step_does_not_wait_for_a_server_that_does_not_answer_and_its_bar_is_removed_once_that_does(monkeypatch):
    answers = threading.Event()
    removed = threading.Event()
    headers = []
    id = uuid4()

    def create(progress, **artifact):
        headers.append(progress)
        assert answers.wait(60)
        return id

    server = SimpleNamespace(delete_artifact=lambda gone: gone == id and removed.set())
    monkeypatch.setattr(progress, "create_progress_artifact", create)
    monkeypatch.setattr(progress, "get_client", lambda sync_client: nullcontext(server))
    monkeypatch.setattr(progress, "ARTIFACT_SECONDS", 0)
    monkeypatch.setattr(progress, "REQUEST_SECONDS", 0.01)
    emit = publisher("train a")

    for result in (1, 2, 10):
        emit(ProgressReport("cases", result, 10))

    assert headers == [10.0] and not removed.is_set()
    answers.set()
    assert removed.wait(60) and headers == [10.0]


WEIGHTS = {
    "base_model": "m", "licence": "x", "original_precision": "bf16", "random_weights": True, "parameters": 1,
    "source": {"kind": "random"}, "weights_source": "x", "source_digest": "x", "stored_bytes": 2, "versions": {},
    "bits_per_weight": 16.0, "bytes_by_part": {}, "tokenizer_digest": "x", "prompt": "chat",
}  # fmt: skip


class Ordered(Exception):
    """Raised in place of the child process that a step would start."""


@pytest.fixture
def ordered(monkeypatch):
    """The folders in which steps order their results."""
    folders = []

    def run_step(function: str, args: dict, folder: Path, *rest, **more) -> None:
        folders.append(folder)
        raise Ordered

    monkeypatch.setattr(tasks.caching, "run_step", run_step)
    return folders


def test_a_complete_training_gets_the_ingredients_by_which_its_cases_are_forgotten(tmp_path, monkeypatch):
    """A run that was killed after it had brought an adapter leaves a complete folder without them."""
    folder = tmp_path / "made-0123456789ab"
    build_folder(folder, fill)
    monkeypatch.setattr(tasks.experiment, "experiment_folder", lambda *args: folder)
    monkeypatch.setattr(tasks.experiment, "training_ingredients", lambda *args: {"train": "t"})
    for name in ("VariantManifest", "DatasetManifest"):
        monkeypatch.setattr(tasks.experiment, name, SimpleNamespace(read=lambda path: None))
    assert train.fn(next(iter(select("smoke").cells)), tmp_path, tmp_path) == folder.name
    assert json.loads((folder / INGREDIENTS).read_text()) == {"train": "t"}


def test_fidelities_of_one_model_on_other_samples_do_not_share_a_folder(ordered, tmp_path, monkeypatch):
    facts_by_folder = {
        "reference": WEIGHTS | {"bits": None, "group_size": None},
        "variant": WEIGHTS | {"bits": 4, "group_size": 64},
        "data": {"sets": {"test": {"digest": "d", "cases": 40, "labels": {"ED": 10, "GP": 20, "HOME": 10}}}},
    }
    for name, facts in facts_by_folder.items():
        (tmp_path / name).mkdir()
        seal(tmp_path / name, facts)

    monkeypatch.setattr(tasks.baselines, "base_folder", lambda source, root: tmp_path / "reference")
    for cases in (20, 30, 30):
        grid = load_grid("smoke", [f"scoring.fidelity_cases={cases}"])
        with pytest.raises(Ordered):
            fidelity.fn(known_models()["tiny-llama"], tmp_path, grid, [tmp_path / "variant"], tmp_path / "data")

    assert ordered[0] != ordered[1] == ordered[2]


def test_scorings_of_one_model_on_other_further_sets_do_not_share_a_folder(ordered, tmp_path):
    # Nor does the record of the first one go: `triage forget` reads in it which scores are of which data set.
    variant = tmp_path / "variant"
    variant.mkdir()
    seal(variant, WEIGHTS | {"bits": 4, "group_size": 64})
    selection = select("smoke")
    grid, model = selection.grid, known_models()["tiny-llama"]
    spec = next(iter(selection.cells))
    for further in ("first", "second", "second"):
        data = tmp_path / further
        data.mkdir(exist_ok=True)
        sets = {name: {"digest": name, "cases": 3, "labels": {}} for name in ("calibration", "test", further)}
        seal(data, {"sets": sets, "evaluation_sets": ["test", further]})

        trained = TrainedJob(experiment=spec, variant=variant, data=data, home=home(), adapter=tmp_path)
        folders = {name: tmp_path / "moved" / f"{name}-scores" for name in ("test", further)}
        folders["test"].mkdir(parents=True, exist_ok=True)
        seal(folders["test"], {})
        with pytest.raises(Ordered):
            score_moved(trained, tmp_path, folders, lambda event: None)
        with pytest.raises(Ordered):
            zero_shot.fn(model, of_bits(4), grid, variant, data)

    assert ordered[0] != ordered[2] == ordered[4]
    assert ordered[1] != ordered[3] == ordered[5]
