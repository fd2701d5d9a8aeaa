"""Cache keys and retries of the steps.

A key is a content id, readable and versioned (`train/v1/<training_id>`), never a hash of paths or
of source text: both go stale. A cached result whose folder is gone or damaged would dangle. Then
the key has a number behind it, one that no result has yet: so the step runs, and the key that it
ran under is the one that is found from then on.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.settings import get_current_settings
from prefect.states import Completed

from tasks.runtime.errors import TriageError
from tasks.runtime.store import intact_manifest

CACHE_VERSION = "v1"
Result = TypeVar("Result")


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
        results = _results(value)
        is_new = not results or intact_manifest(folder, deep=True) is None
        return _numbered(value, results + 1) if is_new else _numbered(value, results)

    return key


def _results(key: str) -> int:
    """How many results Prefect has stored under a key and the numbered ones that follow it."""
    stored = (_storage() / _numbered(key, number) for number in itertools.count(1))
    return sum(1 for _ in itertools.takewhile(Path.exists, stored))


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


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """A Prefect `retry_condition_fn`: retry transient failures, never the user's mistakes or a
    diverged run.
    """
    try:
        state.result()
    except TriageError as error:
        return error.transient
    # Any other error is a defect, which another attempt would repeat.
    except Exception:
        return False
    return False


def _storage() -> Path:
    return Path(get_current_settings().results.local_storage_path)
