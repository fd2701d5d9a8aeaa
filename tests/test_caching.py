"""Which errors are tried again, and how a step ends that had nothing to do."""

import pickle

import pytest
from prefect.client.schemas.objects import StateType
from prefect.states import Failed

from tasks import caching
from tasks.caching import as_cached, is_transient
from tasks.experiment import evaluate, train
from tasks.inputs import acquire, convert, prepare, quantize
from tasks.runtime import errors
from tasks.runtime.errors import TriageError

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


def test_a_step_that_had_nothing_to_do_ends_as_cached_with_its_content_id(monkeypatch):
    assert as_cached(["a"], "id") == ["a"], "outside a run it is the result itself"
    monkeypatch.setattr(caching.TaskRunContext, "get", lambda: object())
    state = as_cached(["a"], "made-0123456789ab")
    assert (state.name, state.type, state.data) == ("Cached", StateType.COMPLETED, ["a"])
    assert "made-0123456789ab" in state.message
