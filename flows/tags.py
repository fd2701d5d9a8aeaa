"""Name and tags of a flow run, by which the UI finds it: base models, precisions, recipes and
their
kinds.

The tags go on the flow run, not on its tasks: for a tagged task Prefect asks for a slot of each
tag's limit, which takes 0.3 s a task.
"""

from __future__ import annotations

import contextlib
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from flows.selection import Selection
from tasks.spec import ExperimentSpec


def tags_of(cells: list[ExperimentSpec]) -> list[str]:
    """What a person filters by, each once, e.g. smollm2-135m, 4bit, ultra_safe, safety."""
    rows = [
        (spec.model.name, spec.precision.name, spec.recipe.name, spec.recipe.kind) for spec in cells
    ]
    return list(dict.fromkeys(tag for column in zip(*rows, strict=True) for tag in column))


def label_run(selection: Selection, name: str | None = None) -> None:
    """Add the tags of the selection's cells to the current flow run, and rename it if `name` is
    given.

    Its other tags stay. A label is no reason to lose a sweep: a server that refuses is ignored.
    """
    tags = [*flow_run.tags, *tags_of(selection.cells)]
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(flow_run.id)), name=name, tags=tags)
