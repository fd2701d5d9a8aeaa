"""What the tasks of all steps have in common: retries, cache keys, and their jobs.

A key is a content id, readable and versioned (`train/v1/<training_id>`), never a hash of paths or
of source text: both go stale. A cached result whose folder is gone or damaged would dangle. Then
the key has a number behind it, one that no result has yet: so the step runs, and the key that it
ran under is the one that is found from then on.

`at_most` of a step: seconds that an attempt of its job may take.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.settings import get_current_settings
from prefect.states import Completed
from pydantic import BaseModel

from tasks.runtime.children import run_step
from tasks.runtime.errors import TriageError
from tasks.runtime.events import Emit
from tasks.runtime.home import home
from tasks.runtime.store import intact_manifest

CACHE_VERSION = "v1"
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


def step(
    name: str, retries: int = 2, delay: float = 5, cache_key_fn: Callable[..., str] | None = None
) -> Callable[[Callable[Parameters, Result]], Task[Parameters, Result]]:
    """Make a function a Prefect task whose runs have this name, tried again, `delay` seconds later,
    after transient failures; results with a key are cached.
    """
    return task(
        task_run_name=name,
        retries=retries,
        retry_delay_seconds=delay,
        retry_condition_fn=is_transient,
        cache_key_fn=cache_key_fn,
        persist_result=cache_key_fn is not None or None,
        result_serializer="json",
    )


def run_job(
    function: str, job: BaseModel, log: str, emit: Emit, at_most: float | None = None
) -> dict[str, Any]:
    """`run_step` of a job whose folder is the one of this name in the home's logs."""
    arguments = job.model_dump(mode="json")
    return run_step(function, arguments, home() / "logs" / log, emit, at_most)


def cached_folder(
    step: str, name_of: Callable[..., Path]
) -> Callable[[TaskRunContext, dict[str, Any]], str]:
    """A Prefect `cache_key_fn` for a step that makes the folder `name_of(...)`, which takes those
    of the step's parameters that it names.

    It computes and changes nothing.
    """
    deciding = inspect.signature(name_of).parameters

    def key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
        folder = name_of(**{name: parameters[name] for name in deciding if name in parameters})
        value = f"{step}/{CACHE_VERSION}/{folder.name}"
        # How many results Prefect has stored under it, and under the numbered keys that follow.
        storage = Path(get_current_settings().results.local_storage_path)
        stored = (storage / _numbered(value, number) for number in itertools.count(1))
        results = sum(1 for _ in itertools.takewhile(Path.exists, stored))
        is_new = not results or intact_manifest(folder, deep=True) is None
        return _numbered(value, results + 1) if is_new else _numbered(value, results)

    return key


def _numbered(key: str, number: int) -> str:
    return key if number == 1 else f"{key}.{number}"


def as_cached(result: Result, id: str) -> Result:
    """The result of a step that had nothing to do, since what it makes was there.

    In a run its state is named `Cached`, as those of Prefect's own cache are, and says the content
    id. Prefect's cache itself would keep folders by their paths, and a home may move.
    """
    if TaskRunContext.get() is None:
        return result
    # Prefect takes a state that a step returns for that of its run, and its data for the result.
    return cast("Result", Completed(name="Cached", message=f"{id} was there", data=result))


def is_transient(of: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """A Prefect `retry_condition_fn`: retry transient failures, never the user's mistakes or a
    diverged run.
    """
    error = state.result(raise_on_failure=False)
    # Any other error is a defect, which another attempt would repeat.
    return isinstance(error, TriageError) and error.transient
