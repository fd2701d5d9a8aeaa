"""What the tasks of all steps have in common: retries, their jobs, and how one ends that had nothing
to do.

A step looks for the folder or the landing of its content id itself, and verifies it: Prefect's own
cache would keep folders by their paths, and answer with one that is gone or damaged.

`at_most` of a step: seconds that an attempt of its job may take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Completed
from pydantic import BaseModel

from tasks.runtime.children import run_step
from tasks.runtime.errors import TriageError
from tasks.runtime.events import Emit
from tasks.runtime.home import home

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


def step(
    name: str, retries: int = 2, delay: float = 5
) -> Callable[[Callable[Parameters, Result]], Task[Parameters, Result]]:
    """Make a function a Prefect task whose runs have this name, tried again, `delay` seconds later,
    after transient failures.
    """
    return task(
        task_run_name=name,
        retries=retries,
        retry_delay_seconds=delay,
        retry_condition_fn=is_transient,
    )


def run_job(
    function: str, job: BaseModel, log: str, emit: Emit, at_most: float | None = None
) -> dict[str, Any]:
    """`run_step` of a job whose folder is the one of this name in the home's logs."""
    arguments = job.model_dump(mode="json")
    return run_step(function, arguments, home() / "logs" / log, emit, at_most)


def as_cached(result: Result, id: str) -> Result:
    """The result of a step that had nothing to do, since what it makes was there.

    In a run its state is named `Cached`, as those of Prefect's own cache are, and says the content
    id.
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
