"""`triage warehouse ...`: check the file with all results, fill it again, or from another machine;
list its studies, or forget one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.terminal import console, errors, load_what_waits, print_line, refresh_warehouse
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
        print_line(console, f"Audit {name} finds rows: {rows}. {texts[name]}")
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
    counts = f"taken over and loaded: {len(report.additions)}; here already: {len(report.present)}"
    print_line(console, f"Landing folders {counts}.")
    if report.differing:
        print_line(console, f"Another version is here and stays: {', '.join(report.differing)}")
    for kind, count in sorted(report.skipped.items()):
        print_line(console, f"Skipped, since this version does not know the kind {kind}: {count}.")

    for sentence in _about_trainings([*report.additions, *report.present]):
        print_line(console, sentence)

    refusals = {**loaded.refused, **report.refused}
    for id, reason in refusals.items():
        print_line(errors, f"Not taken over: {id}. {reason}")
    raise typer.Exit(1 if refusals else 0)


def _about_trainings(ids: Collection[str]) -> Iterator[str]:
    """Which of the trainings with these ids differ from what this machine trains, so that a seed of it
    joins no estimate of theirs, and which repeat a seed that is there.
    """
    from flows.report.figures import counted
    from flows.report.further_seeds import UNLIKE, named_seeds
    from flows.report.rows import TRAINED, rows_of
    from tasks.runtime.backend import backend, versions
    from tasks.spec import ENGINE_VERSION
    from warehouse.connect import listed

    here = {
        "backend": backend().name,
        "engine_version": ENGINE_VERSION,
        "mlx_version": versions()["mlx"],
        "mlx_lm_version": versions()["mlx-lm"],
    }
    trained = f"status = 'completed' AND recipe_kind IN {listed(TRAINED)}"
    kinds = rows_of(
        f"(SELECT {', '.join(here)}, max(triage_version) AS triage_version, count(*) AS trainings "
        f"FROM experiment WHERE {trained} AND training_id IN {listed(ids)} GROUP BY ALL ORDER BY ALL)"
    )
    for kind in kinds:
        unlike = [name for name, value in here.items() if getattr(kind, name) != value]
        if unlike:
            how = " and ".join(
                UNLIKE[name].format(f"{getattr(kind, name)}, not {here[name]}") for name in unlike
            )
            but = " but in the estimate of both backends" if unlike == ["backend"] else ""
            yield (
                f"{counted(kind.trainings, 'training')} {how} as here, by triage "
                f"{kind.triage_version}: a seed that is trained here is not averaged with theirs{but}."
            )

    repeated = rows_of(
        "(SELECT base_model, recipe, list_distinct(list(seed)) AS seeds "
        f"FROM experiment WHERE {trained} AND training_id IN {listed(ids)} AND cell_id IN "
        f"(SELECT cell_id FROM experiment WHERE {trained} AND training_id NOT IN {listed(ids)}) "
        "GROUP BY ALL ORDER BY ALL)"
    )
    for row in repeated:
        yield (
            f"There already, by other trainings: {row.base_model} {row.recipe}, "
            f"{named_seeds(row.seeds)}. All stay, and an estimate counts a seed once."
        )


@warehouse.command()
def rebuild() -> None:
    """Fill a new warehouse from the landing folders; results without one are written as one."""
    from warehouse.connect import check_replaceable, warehouse_path
    from warehouse.rebuild import rebuild

    path = warehouse_path()
    check_replaceable(path)
    report = rebuild(home() / "landing")
    print_line(
        console,
        f"The warehouse has been rebuilt from {len(report.loaded)} landing folders: {path}",
    )
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
    from flows.report.figures import cells
    from flows.report.rows import EARLIER, study_rows
    from flows.report.table import Table, print_table

    refresh_warehouse()
    if first is not None:
        if second is None or first == second:
            raise BadInput(f"Name two studies; triage compare {first} shows one.")
        print_table(console, side_by_side(first, second))
        return

    rows = study_rows()
    if not rows:
        print_line(console, "There is no study yet. Next: triage sweep demo")
        return

    columns = ("train_cases", "test_cases", "experiments", "evaluations", "sweeps")
    records = [
        {
            "study": row.study,
            "cases": f"{row.dataset} {row.dataset_digest}" if row.dataset else NONE,
        }
        | cells(row, *columns, "first_sweep", "last_sweep")
        for row in rows
    ]
    print_table(console, Table("Studies, the one of the last sweep first", records))
    if any(row.study == EARLIER for row in rows):
        print_line(
            console,
            f"{EARLIER}: results that no sweep names, since they are older than studies or "
            "their sweep was killed. Run that sweep again: it finds what is finished and takes "
            "it into its own study.",
        )
    print_line(console, "For one of them: triage compare STUDY")


@warehouse.command()
def forget(
    study: Annotated[
        str, typer.Argument(help="name of a study, as `triage warehouse studies` lists")
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="forget it; without this, only say what would go")
    ] = False,
) -> None:
    """Forget a study: its results, unless another study holds them too. Adapters stay."""
    from flows.report.rows import find_study
    from warehouse.connect import loading_waits
    from warehouse.forget import forget, what_would_be_forgotten

    refresh_warehouse()
    find_study(study)  # refuses an unknown name
    if yes and loading_waits(home() / "landing"):
        raise Locked(
            "Results wait to be loaded, so what belongs to a study is not known yet; close the "
            "program that holds the warehouse and try again."
        )

    going = forget(study, home() / "landing") if yes else what_would_be_forgotten(study)
    verb = "Forgotten" if yes else "To be forgotten"
    print_line(
        console,
        f"{verb}: the study {study} with {len(going.ids)} results. Other studies hold "
        f"{going.shared} further ones, which stay.",
    )
    if yes:
        print_line(
            console,
            "Adapters and scores stay where they are: a sweep lands their results again and trains "
            "nothing.",
        )
    else:
        command = f"triage warehouse forget {study} --yes"
        print_line(console, f"Nothing was forgotten. To forget it: {command}")


def side_by_side(*names: str) -> Table:
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
        models = study.models if study else []
        boards.append({(row.cell_id, row.random_weights): row for row in models})
        titles.append(f"{name}: {models[0].cases if models else 0} test cases")
        notes.append(rules_note(study.board) if study else None)

    figures = {
        "accuracy": lambda row: interval(row, "accuracy"),
        "ED recall": lambda row: interval(row, "ed_recall"),
        "gates": gates_of,
    }
    records = []
    for key in boards[0] | boards[1]:
        first, second = pair = [board.get(key) for board in boards]
        record = {"experiment": next(listed_name(row) for row in pair if row is not None)}
        for title, cell in figures.items():
            for name, row in zip(names, pair, strict=True):
                record[f"{title}\n{name}"] = NONE if row is None else cell(row)

        relation = "the same cases"
        if first is None or second is None:
            relation = "in one study only"
        elif first.set_digest != second.set_digest:
            relation = "on other cases: not comparable"
        records.append(record | {"the two": relation})
    return Table("; ".join(titles), records, '"FROM leaderboard"').noted(*notes)
