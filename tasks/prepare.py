"""Step: cases from wherever they are to one prepared, split and sealed dataset folder."""

from typing import Any

from prefect import task

from tasks.corpus.prepare import prepare_dataset
from tasks.runtime.store import home
from tasks.spec import Data


@task(task_run_name="prepare {data[source]}")
def prepare(data: dict[str, Any]) -> str:
    """Path of the dataset folder for the grid's `[data]` (as JSON)."""
    return str(prepare_dataset(Data.model_validate(data), home()))
