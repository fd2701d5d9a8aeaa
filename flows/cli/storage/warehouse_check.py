"""What `triage warehouse check` prints: migrations, and audits with the rows that they find."""

from __future__ import annotations

from rich.console import Console

from flows.cli.terminal import load_what_waits, print_line
from flows.report.figures import counted
from warehouse.comments import head_of
from warehouse.connect import check_exists, warehouse_path
from warehouse.health import REPRODUCED, examine
from warehouse.migrate import sql_files


def print_check(console: Console) -> bool:
    """Print whether the warehouse is sound; True if it is.

    Raises BadInput where there is none yet, or where the file is no warehouse.
    """
    path = warehouse_path()
    check_exists(path)
    load_what_waits()
    last = sql_files("migrations")[-1].name

    offending = examine(path)
    if offending is None:
        print_line(
            console,
            f"{path} waits for migrations or views of this version (the last is {last}); the next "
            "sweep applies them, or triage compare.",
        )
        return True

    print_line(console, f"Migrations: none is pending; the last is {last}")
    violated = {name: rows for name, rows in offending.items() if rows}
    texts = {file.name: head_of(file).split("\n")[0] for file in sql_files("audits")} | REPRODUCED

    for name, rows in violated.items():
        print_line(console, f"Audit {name}: {counted(rows, 'row')}. {texts[name]}")

    if violated:
        print_line(
            console,
            (
                "The warehouse is not sound. Fill it again from what has landed: triage warehouse "
                "rebuild"
            ),
        )
    else:
        print_line(console, f"Audits: {len(offending)}, and none finds a row: {path}")

    return not violated
