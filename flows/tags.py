"""Tags of a flow run, by which the UI finds it: base models, bits, recipes and their kinds.

On the flow run, not on its tasks: for a tagged task Prefect asks for a slot of each tag's limit, 0.3 s a task.
"""

from __future__ import annotations

import contextlib
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from tasks.spec import ExperimentSpec


def tags_of(cells: list[ExperimentSpec]) -> list[str]:
    """What a person filters by, each once, e.g. smollm2-135m, 4bit, ultra_safe, safety."""
    rows = [(c.model.name, f"{c.bits}bit", c.recipe.name, c.recipe.kind) for c in cells]
    return list(dict.fromkeys(tag for column in zip(*rows, strict=True) for tag in column))


def tag_run(cells: list[ExperimentSpec]) -> None:
    """Add the tags of `cells` to the flow run that calls this; what it has stays."""
    with (
        contextlib.suppress(Exception),
        get_client(sync_client=True) as client,
    ):  # a label: no reason to lose a sweep
        client.update_flow_run(UUID(str(flow_run.id)), tags=[*flow_run.tags, *tags_of(cells)])
