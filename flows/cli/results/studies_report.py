"""What `triage studies` prints and does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from flows.cli.terminal import load_what_waits, print_line
from flows.report.figures import counted
from flows.report.studies import EARLIER, find_study, side_by_side, studies_table, study_rows
from flows.report.table import print_narrow, print_table
from flows.report.typed_rows import Row
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.home import home
from warehouse.health import bring_up_to_date
from warehouse.place import loading_waits

if TYPE_CHECKING:
    from warehouse.forget import Forgotten

ABOUT_EARLIER = (
    f"{EARLIER}: results that no sweep names, since they are older than studies or their sweep was "
    "killed. Run that sweep again: it finds what is finished and takes it into its own study."
)


def print_studies(console: Console) -> None:
    """Print a line per study."""
    load_what_waits()
    bring_up_to_date()
    rows = study_rows()
    if not rows:
        print_line(console, "There is no study yet. Next: triage sweep demo")
        return

    print_table(console, studies_table(rows))
    if any(row.study == EARLIER for row in rows):
        print_line(console, ABOUT_EARLIER)

    print_line(console, "For one of them: triage compare STUDY")


def print_two_studies(console: Console, first: str, second: str) -> None:
    """Print the experiments of two studies side by side, and what their cases have in common."""
    if first == second:
        raise BadInput(f"Both names are {first!r}; name two studies.")

    load_what_waits()
    bring_up_to_date()
    first_study = _study(first)
    second_study = _study(second)
    table = side_by_side(first_study, second_study)
    if not len(table):
        print_line(console, f"Neither {first} nor {second} holds a finished experiment yet.")
        return

    print_narrow(console, table, len(table))


def forget_study(console: Console, name: str, yes: bool) -> None:
    """Forget a study, or say what would be forgotten. Raises BadInput, or Locked."""
    from warehouse.forget import forget, what_would_be_forgotten  # SciPy comes with it

    load_what_waits()
    bring_up_to_date()
    study = _study(name)

    if not yes:
        print_line(console, _sentence(what_would_be_forgotten(study.study), yes))
        command = f"triage studies forget {study.study} --yes"
        print_line(console, f"Nothing was forgotten. To forget it: {command}")
        return
    if loading_waits(home() / "landing"):
        raise Locked(
            "Results wait to be loaded, so what belongs to a study is not known yet; close the "
            "program that holds the warehouse and try again."
        )

    forgotten = forget(study.study, home() / "landing")
    print_line(console, _sentence(forgotten, yes))


def _study(name: str) -> Row:
    study = find_study(name)
    assert study is not None, "a name that is unknown is refused"
    return study


def _sentence(forgotten: Forgotten, yes: bool) -> str:
    stay = "stays" if forgotten.shared == 1 else "stay"
    shared = (
        f"{forgotten.shared} that other studies hold too {stay}"
        if forgotten.shared
        else "none is shared"
    )
    if not forgotten.ids:
        name = "its name is forgotten" if yes else "its name would be forgotten"
        return (
            f"Every result of the study {forgotten.study} belongs to another study too and stays; "
            f"{name}."
        )

    again = (
        " Adapters and scores stay where they are: a sweep lands their results again and trains "
        "nothing."
        if yes
        else ""
    )
    count = len(forgotten.ids)
    is_or_are = "is" if count == 1 else "are"
    return (
        f"{counted(count, 'result')} of the study {forgotten.study} "
        f"{is_or_are if yes else 'would be'} forgotten, {shared}.{again}"
    )
