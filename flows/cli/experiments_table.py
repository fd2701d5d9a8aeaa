"""`triage status`: what is trained, scored and landed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.report.figures import rows_of
from flows.report.names import RANDOM, random_mark
from tasks.models.convert import has_random_weights
from tasks.runtime.store import complete, home
from warehouse.connect import warehouse_path
from warehouse.query import query


def print_status(console: Console, everything: bool = False) -> None:
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
        table.add_row(
            f"{folder.name}{mark}", trained, "done" if scored else "-", row.status if row else "-"
        )
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
