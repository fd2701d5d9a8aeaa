"""`triage sweep --plan`: what would run."""

from __future__ import annotations

import shutil
from collections import Counter

from rich.console import Console
from rich.table import Table

from flows.plan import estimated_bytes, plan_cells, sources_of
from flows.report.figures import clock
from flows.report.names import RANDOM
from flows.selection import Selection
from tasks.models.convert import has_random_weights
from tasks.models.sources import stored, unpinned
from tasks.runtime.store import existing_home, home
from tasks.spec import BaseModelSpec


def print_plan(console: Console, selection: Selection) -> None:
    """Cells of a sweep, what is cached, where weights can be had, and estimates of time and disk."""
    table = Table(title=f"Grid {selection.grid.name}", title_justify="left")
    for column in ("#", "experiment", "state", "about"):
        table.add_column(column, no_wrap=column != "experiment", overflow="fold")
    cells = list(plan_cells(selection))
    marks = {model.name: RANDOM if _is_random(model) else "" for model in selection.models}
    for number, cell in enumerate(cells, 1):
        name = f"{cell.spec.cell_id}{marks[cell.spec.model.name]}"
        table.add_row(str(number), name, cell.state, "" if cell.scored else clock(cell.seconds))
    console.print(table)
    for name, sources in sources_of(selection).items():
        for source, state in sources:
            console.print(f"weights  {name}: {source}: {state}", soft_wrap=True)
    for model in selection.models:
        for note in unpinned(model):
            console.print(f"weights  {model.name}: {note}", soft_wrap=True)
    total = sum(cell.seconds for cell in cells)
    waiting, states = sum(not cell.trained for cell in cells), Counter(cell.state for cell in cells)
    free = shutil.disk_usage(existing_home()).free
    console.print(
        f"{len(cells)} experiments, {len(cells) - waiting} trained, {waiting} to train, {states['to score']} to score: "
        f"about {clock(total)}, "
        f"about {estimated_bytes(selection) / 1e9:.1f} GB of disk ({free / 1e9:.0f} GB free)."
    )


def _is_random(model: BaseModelSpec) -> bool:
    """Whether a base model's weights are random: those on this machine, or all that it could have."""
    if folder := stored(model, home()):
        return has_random_weights(folder)
    return all(source.kind == "random" for source in model.sources)
