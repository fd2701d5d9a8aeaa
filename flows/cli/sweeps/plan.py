"""What `triage sweep --plan` prints: what would run, from where the weights come, time and disk."""

from __future__ import annotations

import shutil
from collections import Counter

from rich.console import Console
from rich.table import Table

from deployments.interruptions import interrupted_by_signals
from flows.cli.storage.data_check import tokenizers
from flows.cli.sweeps.plan_power import print_power
from flows.cli.sweeps.plan_time import print_time
from flows.cli.terminal import print_line
from flows.plan import PlannedCell, estimated_bytes, plan_cells, sources_of, work_left
from flows.plan_prefixes import planned_prefixes
from flows.plan_time import MachineSpeeds, assumed_machine, measured_machine
from flows.power.planned_cases import PlannedCases, planned_cases
from flows.report.figures import clock, counted
from flows.report.names import RANDOM
from flows.selection import Selection
from flows.set_sizes import set_size
from tasks.corpus.case import SETS
from tasks.corpus.checks.lengths import shared_tokens
from tasks.corpus.prompts import load_prompt
from tasks.corpus.reading.sources import is_hub
from tasks.models.manifest import has_random_weights
from tasks.models.sources.fetch import is_offered, stored, unpinned
from tasks.runtime.backend import backend
from tasks.runtime.home import existing_home, home
from tasks.spec import BaseModelSpec, Data

Sources = dict[str, list[tuple[str, str]]]
"""What `sources_of` returns."""


def print_plan(console: Console, selection: Selection) -> None:
    """Print the state of each experiment, the sources of weights, and estimates of time and disk."""
    # A closed terminal must leave no texts behind.
    with interrupted_by_signals(), planned_cases(selection.grid) as cases:
        _print_plan(console, selection, cases)


def _print_plan(console: Console, selection: Selection, cases: PlannedCases) -> None:
    this_machine = measured_machine() or assumed_machine()
    cells = list(plan_cells(selection, this_machine.speeds, cases))
    console.print(_table(selection, cells))
    sources = sources_of(selection)
    _print_sources(console, selection, sources)

    for prompt in map(load_prompt, selection.prompts):
        if prompt.examples:
            print_line(console, shared_tokens(prompt, tokenizers()))

    print_line(console, _set_sizes(selection.grid.data))
    print_line(console, _summary(selection, cells, this_machine))
    _print_prefixes(console, selection, cells)
    print_time(console, selection.grid, cells, this_machine)
    print_power(console, selection, cases)
    _print_unanswered(console, cells, sources)


def _table(selection: Selection, cells: list[PlannedCell]) -> Table:
    table = Table(title=f"Grid {selection.grid.name}", title_justify="left")
    for column in ("#", "experiment", "state", "about"):
        table.add_column(column, no_wrap=column != "experiment", overflow="fold")

    random_models = {model.name for model in selection.models if _is_random(model)}
    for number, cell in enumerate(cells, 1):
        mark = RANDOM if cell.spec.model.name in random_models else ""
        duration = "" if cell.scored else clock(cell.seconds)
        table.add_row(str(number), f"{cell.spec.cell_id}{mark}", cell.state, duration)

    return table


def _is_random(model: BaseModelSpec) -> bool:
    """Whether the weights on this machine, or else all that the sources offer, are random."""
    if folder := stored(model, home()):
        return has_random_weights(folder)
    return all(source.kind == "random" for source in model.sources)


def _print_sources(console: Console, selection: Selection, sources: Sources) -> None:
    for name, source_states in sources.items():
        for source, state in source_states:
            print_line(console, f"weights  {name}: {source}: {state}")
    for model in selection.models:
        for note in unpinned(model):
            print_line(console, f"weights  {model.name}: {note}")


def _print_unanswered(console: Console, cells: list[PlannedCell], sources: Sources) -> None:
    """Say last of all which base models nobody offers now, so that a sweep could not train them."""
    needed_models = {cell.spec.model.name for cell in cells if not cell.trained}
    missing = [
        name
        for name, source_states in sources.items()
        if name in needed_models and not any(is_offered(state) for _, state in source_states)
    ]
    if missing:
        print_line(
            console,
            f"No source of {', '.join(missing)} answers now: try again, connect to a network, or "
            "list a source with kind = 'folder' in the grid.",
            style="yellow",
        )


def _print_prefixes(console: Console, selection: Selection, cells: list[PlannedCell]) -> None:
    """Say what the frozen prefixes take, and before a sweep begins that they have no room."""
    prefixes = planned_prefixes(selection.grid, cells)
    if prefixes.needed:
        style = None if prefixes.have_room else "yellow"
        print_line(console, f"prefixes {prefixes.sentence}", style=style)


def _set_sizes(data: Data) -> str:
    """How many cases each set gets."""
    if is_hub(data.source, data.folder):
        return (
            f"cases    those of {data.source} are counted when it is fetched: triage data check "
            f"{data.source}"
        )
    sizes = ", ".join(f"{name} {set_size(data, name):,}" for name in SETS)
    note = "" if data.source == "embedded" else " (rows, repeats among them)"
    return f"cases    {sizes}{note}"


def _summary(selection: Selection, cells: list[PlannedCell], this_machine: MachineSpeeds) -> str:
    states = Counter(cell.state for cell in cells)
    to_train = states["to train"]
    counts = (
        f"{counted(len(cells), 'experiment')}, {len(cells) - to_train} trained, "
        f"{to_train} to train, {states['to score']} to score"
    )
    duration = clock(work_left(selection.grid, cells).at(this_machine.speeds).total)
    disk_space = f"{estimated_bytes(selection) / 1e9:.1f} GB of disk"
    free = f"{shutil.disk_usage(existing_home()).free / 1e9:.0f} GB free"
    mark = f" on {backend().name} (experimental)" if backend().experimental else ""

    return f"{counts}: about {duration}{mark}, about {disk_space} ({free})."
