"""Which errors are tried again, and when a cached result counts."""

import pickle
import shutil
from pathlib import Path

import pytest
from prefect.client.schemas.objects import StateType
from prefect.states import Failed

from tasks import caching
from tasks.caching import CACHE_VERSION, as_cached, cached_folder, is_transient
from tasks.experiment import evaluate, train
from tasks.inputs import acquire, convert, prepare, quantize
from tasks.runtime import errors
from tasks.runtime.errors import TriageError
from tasks.runtime.store import build_folder

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


@pytest.mark.parametrize("step", [acquire, prepare, convert, quantize, train, evaluate], ids=lambda step: step.name)
def test_what_passes_by_itself_ends_no_sweep(step):
    assert step.retries >= 1 and step.retry_condition_fn is is_transient


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


def test_a_step_that_had_nothing_to_do_ends_as_cached_with_its_content_id(monkeypatch):
    assert as_cached(["a"], "id") == ["a"], "outside a run it is the result itself"
    monkeypatch.setattr(caching.TaskRunContext, "get", lambda: object())
    state = as_cached(["a"], "made-0123456789ab")
    assert (state.name, state.type, state.data) == ("Cached", StateType.COMPLETED, ["a"])
    assert "made-0123456789ab" in state.message
