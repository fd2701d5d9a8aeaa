"""Prints plans, status and comparisons to the terminal."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from flows.display import RANDOM, clock
from flows.evidence import OWN_SHARE, evidence
from flows.plan import estimated_bytes, plan_cells, sources_of
from flows.selection import Selection
from flows.tables import NOT_A_DEVICE, check_prevalence, leaderboard, quantization, random_mark, rows_of
from tasks.models.convert import has_random_weights
from tasks.models.sources import stored, unpinned
from tasks.runtime.store import complete, existing_home, home
from tasks.spec import BaseModelSpec
from warehouse.connect import warehouse_path
from warehouse.health import bring_up_to_date
from warehouse.query import query

MOST_ON_SIDE = 4
MORE = "For gates, decision rules, confusion matrices, calibration, the review flag, flips and fidelity: triage compare"


def print_frame(console: Console, frame: pd.DataFrame, title: str | None = None) -> None:
    """A data frame as a table; one that is too wide is turned on its side, a column for each record."""
    cells = [[str(v) for v in row] for row in frame.itertuples(index=False)]
    columns = [str(c) for c in frame.columns]
    table = Table(title=title, title_justify="left", show_lines=any("\n" in text for row in cells for text in row))
    if _total(_widths(frame)) > console.width and len(cells) <= MOST_ON_SIDE:
        table.add_column("", no_wrap=True)
        for _ in cells:
            table.add_column("", overflow="fold")
        for i, name in enumerate(columns):
            table.add_row(name, *(row[i] for row in cells))
    else:
        for name in columns:
            table.add_column(name, overflow="fold")
        for row in cells:
            table.add_row(*row)
    console.print(table)


def print_in_parts(console: Console, frame: pd.DataFrame, title: str) -> None:
    """A table of experiments; one that is too wide goes on in further tables, each with the first column again."""
    widths, part = _widths(frame), [0]
    console.print(title, style="italic", soft_wrap=True)
    for i in range(1, len(widths)):
        if len(part) > 1 and _total([widths[j] for j in (*part, i)]) > console.width:
            print_frame(console, frame.iloc[:, part])
            part = [0]
        part.append(i)
    print_frame(console, frame.iloc[:, part])


def _widths(frame: pd.DataFrame) -> list[int]:
    """Characters that each column needs."""
    return [max(_width(str(text)) for text in (name, *frame.iloc[:, i])) for i, name in enumerate(frame.columns)]


def _total(widths: list[int]) -> int:
    return sum(widths) + 3 * len(widths) + 1


def _width(text: str) -> int:
    return max(len(line) for line in text.split("\n"))


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


def print_comparison(
    console: Console, only: Collection[str] | None = None, prevalence: float | None = None, short: bool = False
) -> None:
    """Leaderboard, 4-bit against 8-bit, and the evidence behind: of the latest evaluations, or of those whose
    ids are in `only`.

    `prevalence` restates precision and F2 at another share of emergencies. `short` leaves the evidence out, and says
    where it is.
    """
    check_prevalence(prevalence)
    bring_up_to_date()
    board, pairs = leaderboard(only, prevalence), quantization(only)
    if board.empty:
        nothing = "The warehouse holds no finished experiment"
        console.print(f"{nothing} yet. Next: triage sweep demo" if only is None else f"{nothing} of this sweep.")
        return
    print_in_parts(console, board, "Experiments on the test set, with 95 % intervals")
    if len(pairs):
        title = "4 bits (first line) against 8 bits (second line); differences are 4 minus 8, paired by case"
        title += "" if prevalence is None else OWN_SHARE
        show = print_frame if len(pairs) <= MOST_ON_SIDE else print_in_parts
        show(console, pairs, title)
    for title, frame in [] if short else evidence(only, prevalence):
        print_in_parts(console, frame, title)
    if short:
        console.print(MORE, soft_wrap=True)
    console.print(NOT_A_DEVICE)


def print_status(console: Console) -> None:
    """Experiments on this machine and what the warehouse holds; those on random weights are marked."""
    root = home() / "experiments"
    folders = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    landed: dict[str, Any] = {}
    if warehouse_path().exists():
        rows = rows_of(query("SELECT training_id, status, random_weights FROM experiment"))
        landed = {r.training_id: r for r in rows}
    if not folders and not landed:
        console.print("Nothing has run yet. Next: triage sweep demo")
        return
    table = Table(title=f"Experiments in {root}", title_justify="left")
    for column in ("experiment", "training", "evaluation", "warehouse"):
        table.add_column(column, overflow="fold")
    for folder in folders:
        started = any((folder / "checkpoint").glob("[0-9]*"))
        trained = "done" if complete(folder) else ("resumable" if started else "not finished")
        scored = sum(complete(p) is not None for p in (folder / "scores").glob("*-e*"))
        row = landed.pop(folder.name, None)
        mark = random_mark(row) if row else RANDOM if _on_random_weights(folder) else ""
        table.add_row(f"{folder.name}{mark}", trained, "done" if scored else "-", row.status if row else "-")
    for training, row in landed.items():
        table.add_row(f"{training}{random_mark(row)}", "-", "-", row.status)
    console.print(table)


def _on_random_weights(folder: Path) -> bool:
    """Whether the variant of a training that is not in the warehouse yet has random weights; False where it is gone."""
    try:
        args = json.loads((folder / "spec.json").read_text(encoding="utf-8"))["args"]
    except (OSError, ValueError, KeyError):
        return False
    return has_random_weights(Path(args["variant"]))
