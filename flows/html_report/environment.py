"""What the study was computed with, and the commands that repeat it."""

from __future__ import annotations

from flows.html_report.study import EVERYTHING, ReportedStudy, Section
from flows.report.table import ReportTable
from flows.report.typed_rows import rows_of
from tasks.grids.grid import GRIDS, load_grid
from tasks.studies import grid_digest
from warehouse.connect import listed

READING = "Versions and machines of the trainings; those of one study should be the same."
SQL = """(
    SELECT
        triage_version, engine_version, mlx_version, mlx_lm_version, backend, compute_path,
        compute_dtype, blas, machine, weights_source, original_precision,
        count(*) AS trainings, sum(train_seconds) AS seconds
    FROM experiment
    WHERE training_id IN {ids} AND precision IS NOT NULL
    GROUP BY ALL
    ORDER BY ALL
)"""


def environment(study: ReportedStudy) -> Section:
    """A line for each environment; no chart."""
    ids = listed({row.training_id for row in study.board})
    rows = rows_of(SQL.format(ids=ids))
    records = [
        {
            name.replace("_", " "): _text(value)
            for name, value in vars(row).items()
            if name != "seconds"
        }
        | {"hours": "-" if row.seconds is None else f"{row.seconds / 3600:.2f}"}
        for row in rows
    ]
    tables = [ReportTable.of("Environments", records)] if records else []
    heading = "Environment, and how to repeat this"

    return Section("environment", heading, READING, tables=tables, commands=_commands(study))


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _commands(study: ReportedStudy) -> list[str]:
    name = "" if study.name == EVERYTHING else f" {study.name}"
    sweep = [_sweep(study.grid, study.grid_digest)] if study.grid else []
    return [*sweep, f"triage compare{name} --all", f"triage report{name}", "triage sql --list"]


def _sweep(grid: str, digest: str | None) -> str:
    """The sweep of a study, whose grid ships with triage, was changed by its user, or is theirs."""
    if not (GRIDS / f"{grid}.toml").is_file():
        return f"triage sweep GRID.toml  # your own grid file of {grid}"
    if grid_digest(load_grid(grid)) == digest:
        return f"triage sweep {grid}"
    return (
        f"triage sweep {grid}  # the study had other settings than this grid: by --set, or in a "
        "file"
    )
