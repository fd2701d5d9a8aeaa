"""Step: cases from wherever they are to one prepared, split and sealed dataset folder."""

from collections.abc import Sequence
from typing import Any

from prefect import task

from tasks.corpus.prepare import prepare_dataset
from tasks.runtime.store import home
from tasks.spec import Data, EvaluationSet


@task(task_run_name="prepare {data[source]}")
def prepare(data: dict[str, Any], evaluation_sets: Sequence[dict[str, Any]] = ()) -> str:
    """Path of the dataset folder for the grid's `[data]` and `[[evaluation_set]]` (as JSON)."""
    sets = [EvaluationSet.model_validate(entry) for entry in evaluation_sets]
    return str(prepare_dataset(Data.model_validate(data), home(), sets))
