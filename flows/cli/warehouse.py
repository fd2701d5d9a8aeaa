"""`triage warehouse ...`: check the file with all results, fill it again, or from another machine;
list its studies, or forget one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.terminal import console, errors, load_what_waits, print_line, refresh_warehouse
from flows.report.figures import counted
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.home import home

if TYPE_CHECKING:
    from flows.report.rows import Row
    from flows.report.table import Table

NONE = "-"

warehouse = typer.Typer(
    no_args_is_help=True,
    help="Check, merge or rebuild the file with all results; list or forget its studies.",
)

Study = Annotated[str, typer.Argument(help="name of a study, as `triage warehouse studies` lists")]


@warehouse.command()
def check() -> None:
    """Check tables, views and audits; the exit code is 1 where the warehouse is not sound."""
    from warehouse.connect import check_exists, warehouse_path
    from warehouse.health import COMPUTED, examine
    from warehouse.schema import sql_files

    path = warehouse_path()
    check_exists(path)
    load_what_waits()

    offending = examine(path)
    if offending is None:
        print_line(
            console,
            f"Another version made the tables or views of {path}: the next sweep brings it up to "
            "date, or triage compare.",
        )
        return

    print_line(console, "Tables and views: those of this version")
    texts = {file.name: file.head.split("\n")[0] for file in sql_files("audits")} | COMPUTED
    violated = {name: rows for name, rows in offending.items() if rows}
    for name, rows in violated.items():
        print_line(console, f"Audit {name}: {counted(rows, 'row')}. {texts[name]}")

    if violated:
        print_line(
            console,
            "The warehouse is not sound. Fill it again from what has landed: triage warehouse "
            "rebuild",
        )
        raise typer.Exit(1)
    print_line(console, f"Audits: {len(offending)}, and none finds a row: {path}")


@warehouse.command()
def merge(
    folder: Annotated[
        Path, typer.Argument(help="another machine's home, or the folder of a published study")
    ],
) -> None:
    """Take over the results of another machine or of a published study; what is here stays."""
    from warehouse.landing import merge
    from warehouse.load import load_all

    report = merge(folder, home() / "landing")
    loaded = load_all(home() / "landing")
    new = len(report.additions)
    old = len(report.present)
    added = f"{counted(new, 'landing folder')} {_was(new)} taken over and loaded"
    print_line(console, f"{added}; {old} {_was(old)} here already.")
    if report.differing:
        print_line(console, f"Another version is here and stays: {', '.join(report.differing)}")
    for kind, count in sorted(report.skipped.items()):
        print_line(console, f"Skipped, since this version does not know the kind {kind}: {count}.")

    refusals = {**loaded.refused, **report.refused}
    for id, reason in refusals.items():
        print_line(errors, f"Not taken over: {id}. {reason}")
    raise typer.Exit(1 if refusals else 0)


@warehouse.command()
def rebuild() -> None:
    """Fill a new warehouse from the landing folders; results without one are written as one."""
    from warehouse.connect import check_replaceable, warehouse_path
    from warehouse.rebuild import rebuild

    path = warehouse_path()
    check_replaceable(path)
    report = rebuild(home() / "landing")
    folders = counted(len(report.loaded), "landing folder")
    print_line(console, f"The warehouse has been rebuilt from {folders}: {path}")
    for sentence in report.sentences():
        print_line(console, sentence)

    for id, reason in report.refused.items():
        print_line(errors, f"Not in it: {id}. {reason}")
    if report.refused:
        print_line(
            errors,
            "To make these results again: run the sweep or the benchmark that made them once "
            "more; a sweep writes them from its scores and trains nothing",
        )
    raise typer.Exit(1 if report.refused else 0)


@warehouse.command()
def studies(
    first: Annotated[str | None, typer.Argument(help="show this study beside another")] = None,
    second: Annotated[str | None, typer.Argument(help="the other study")] = None,
) -> None:
    """List the studies, that of the last sweep first; or show two of them side by side."""
    from flows.report.rows import EARLIER, study_rows
    from flows.report.table import print_table

    refresh_warehouse()
    if first is None:
        rows = study_rows()
        if not rows:
            print_line(console, "There is no study yet. Next: triage sweep demo")
            return

        print_table(console, studies_table(rows))
        if any(row.study == EARLIER for row in rows):
            print_line(
                console,
                f"{EARLIER}: results that no sweep names, since they are older than studies or "
                "their sweep was killed. Run that sweep again: it finds what is finished and takes "
                "it into its own study.",
            )
        print_line(console, "For one of them: triage compare STUDY")
        return

    if second is None:
        raise BadInput(f"Name a study to show {first!r} beside; triage compare {first} shows one.")
    if first == second:
        raise BadInput(f"Both names are {first!r}; name two studies.")

    table = side_by_side((first, second))
    if not len(table):
        print_line(console, f"Neither {first} nor {second} holds a finished experiment yet.")
        return
    print_table(console, table)


@warehouse.command()
def forget(
    study: Study,
    yes: Annotated[
        bool, typer.Option("--yes", help="forget it; without this, only say what would go")
    ] = False,
) -> None:
    """Forget a study: its results, unless another study holds them too. Adapters stay."""
    from flows.report.rows import find_study
    from warehouse.connect import loading_waits
    from warehouse.forget import forget, what_would_be_forgotten

    refresh_warehouse()
    found = find_study(study)
    assert found, "a name that is unknown is refused"
    if yes and loading_waits(home() / "landing"):
        raise Locked(
            "Results wait to be loaded, so what belongs to a study is not known yet; close the "
            "program that holds the warehouse and try again."
        )

    going = forget(study, home() / "landing") if yes else what_would_be_forgotten(study)
    count = len(going.ids)
    shared = (
        f"{going.shared} that other studies hold too {'stays' if going.shared == 1 else 'stay'}"
    )
    if not count:
        what = f"Every result of the study {study} belongs to another study too and stays; its name"
        print_line(console, f"{what} {'is' if yes else 'would be'} forgotten.")
    else:
        what = f"{counted(count, 'result')} of the study {study}"
        verb = ("is" if count == 1 else "are") if yes else "would be"
        rest = shared if going.shared else "none is shared"
        print_line(console, f"{what} {verb} forgotten, {rest}.")

    sentence = (
        "Adapters and scores stay where they are: a sweep lands their results again and trains "
        "nothing."
    )
    if not yes:
        command = f"triage warehouse forget {study} --yes"
        sentence = f"Nothing was forgotten. To forget it: {command}"
    print_line(console, sentence)


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def studies_table(rows: Sequence[Row]) -> Table:
    """One row per study."""
    from flows.report.table import Table

    records = [
        {
            "study": row.study,
            "cases": NONE if row.dataset is None else f"{row.dataset} {row.dataset_digest}",
            "train": NONE if row.train_cases is None else str(row.train_cases),
            "test": NONE if row.test_cases is None else str(row.test_cases),
            "experiments": str(row.experiments),
            "evaluations": str(row.evaluations),
            "sweeps": str(row.sweeps),
            "first sweep": _minute(row.first_sweep),
            "last sweep": _minute(row.last_sweep),
        }
        for row in rows
    ]
    return Table("Studies, the one of the last sweep first", records)


def _minute(time: datetime | None) -> str:
    return NONE if time is None else f"{time:%Y-%m-%d %H:%M}"


def side_by_side(names: Sequence[str]) -> Table:
    """One row per experiment of either study, on the test set that each judged last.

    Differences have no interval here: only two evaluations of the same cases could be paired.
    """
    from flows.report.figures import interval, listed_name
    from flows.report.models import gates_of, rules_note
    from flows.report.rows import studied
    from flows.report.table import Table

    boards: list[dict[tuple[str, bool], Row]] = []
    titles = []
    notes = []
    for name in names:
        study = next(iter(studied(name)), None)
        boards.append(
            {(row.cell_id, row.random_weights): row for row in study.models} if study else {}
        )
        title = f"{name}: no finished experiment"
        if study:
            row = study.board[0]
            dataset = f" of dataset {row.dataset_digest}" if row.dataset_digest else ""
            title = f"{name}: {row.cases} test cases{dataset}"
            notes.append(rules_note(study.board))
        titles.append(title)

    records = []
    for key in boards[0] | boards[1]:
        pair = [board.get(key) for board in boards]
        record = {"experiment": next(listed_name(one) for one in pair if one is not None)}
        for title, metric in (("accuracy", "accuracy"), ("ED recall", "ed_recall"), ("gates", "")):
            for name, one in zip(names, pair, strict=True):
                cell = NONE
                if one is not None:
                    cell = interval(one, metric) if metric else gates_of(one)
                record[f"{title}\n{name}"] = cell
        records.append(record | {"the two": _relation(*pair)})
    return Table("; ".join(titles), records, '"FROM leaderboard"').noted(*notes)


def _relation(first: Row | None, second: Row | None) -> str:
    """Whether two rows may be compared, in a few words."""
    if first is None or second is None:
        return "in one study only"
    if first.evaluation_id == second.evaluation_id:
        return "one evaluation, in both"
    if first.set_digest != second.set_digest:
        return "on other cases: not comparable"
    if first.training_id == second.training_id:
        return "one training, judged otherwise"
    return "the same cases, other training"
