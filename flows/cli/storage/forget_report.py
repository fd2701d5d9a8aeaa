"""What `triage data forget` prints and does."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from flows.cli.terminal import print_line
from flows.report.figures import file_size
from flows.report.table import ReportTable, print_table
from tasks.forget_data import Forgetting, forget, matching_names, plan, unknown_data
from tasks.removal import refuse_while_working
from tasks.runtime.home import ask, check_home, home
from tasks.runtime.shared import shared_place, without_password

STAYS = (
    "The warehouse and landing/ stay: they hold no text, and know cases by id and digest "
    "(`triage warehouse forget` removes a study's results). Base models stay too. Your own files, "
    "exports, reports, published results and backups are not looked for: delete those yourself."
)
STAYS_SHARED = (
    "What machines share in {place} (TRIAGE_SHARED) stays too, and the next sweep brings adapters "
    "back from there: delete each of them in experiments/ there yourself."
)


def forget_data(console: Console, data: str, yes: bool) -> None:
    """Remove what came from a data set, or say what would go.

    Raises BadInput for a data set that is not here, Locked while something works in the home.
    """
    check_home()
    root = home()
    names = matching_names(root, data) or _of_grid(root, data)
    forgetting = plan(root, names)
    refuse_while_working(root)

    print_table(console, _table(root, forgetting, yes))
    for sentence in _what_stays():
        print_line(console, sentence)
    for name in forgetting.elsewhere:
        print_line(console, f"The data set {name} shares sets with it and stays: forget it, too.")
    if not yes:
        command = f"triage data forget {data} --yes"
        print_line(console, f"Nothing was removed. To remove it: {command}")
        return

    forget(root, forgetting)
    print_line(console, f"Removed: {', '.join(names)}, {file_size(forgetting.size)}.")


def _what_stays() -> list[str]:
    """What forgetting does not remove, in sentences."""
    place = without_password(shared_place())
    return [STAYS, STAYS_SHARED.format(place=place)] if place else [STAYS]


def _of_grid(root: Path, data: str) -> list[str]:
    """The data set that a grid names. Raises BadInput where there is neither."""
    from tasks.corpus.prepare import dataset_folder  # the readers of files come with it
    from tasks.grids.grid import GRIDS, load_grid

    if not data.endswith(".toml") and not ask(Path.is_file, GRIDS / f"{data}.toml"):
        raise unknown_data(root, data)

    grid = load_grid(data)
    name = dataset_folder(grid.data, root, grid.evaluation_sets).name
    if names := matching_names(root, name):
        return names

    raise unknown_data(root, name)


def _table(root: Path, forgetting: Forgetting, yes: bool) -> ReportTable:
    rows: list[tuple[str, str, str]] = [
        (part.kind, str(part.folder.relative_to(root)), file_size(part.size))
        for part in forgetting.parts
        if part.kind != "prefixes"
    ]
    prefixes = [part.size for part in forgetting.parts if part.kind == "prefixes"]
    if prefixes:
        rows.append(("prefixes", f"all {len(prefixes)} in prefixes", file_size(sum(prefixes))))

    title = "Goes" if yes else "Would go"
    return ReportTable(
        f"{title}: {file_size(forgetting.size)} of {root}", ("what", "folder", "size"), tuple(rows)
    )
