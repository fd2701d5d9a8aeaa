"""The study that a report shows: its evaluations, the rows about them, and what a section holds."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from importlib.resources import files

from flows.html_report.charts import Mark
from flows.report.answer import answer, claim_of
from flows.report.figures import disclaimer, experiment_name
from flows.report.leaderboard import by_test_set, evaluation_ids, find_study
from flows.report.pairs import pair_rows, summary_rows
from flows.report.table import ReportTable
from flows.report.typed_rows import Row, as_rows, grouped, leaderboard_rows
from tasks.runtime.errors import BadInput
from warehouse.cookbook import named_query
from warehouse.query import query_rows

EVERYTHING = "all results"  # the name where the warehouse knows no study
NO_MODEL = "no language model"
MOST_IN_ALT = 4  # figures that an alternative text repeats; the table has all
Interval = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class ReportedStudy:
    """What every part of the report is made from.

    `board`: the evaluations on the test set that is shown, in the leaderboard's order;
    `ids`: theirs. `further`: evaluations on other test sets, which are left out.
    `sentences`: those of `triage compare`.
    """

    name: str
    grid: str | None
    grid_digest: str | None
    board: list[Row]
    pairs: list[Row]
    recipes: list[Row]
    further: int
    sentences: list[str]
    notice: str

    @property
    def ids(self) -> list[str]:
        return [row.evaluation_id for row in self.board]

    def shown(
        self,
        rows: Iterable[Row],
        key: str = "evaluation_id",
        board: Collection[Row] | None = None,
    ) -> list[Row]:
        """The rows about evaluations of the study, or of a part of its board, in their order.

        Each also has the `evaluation` whose `key` it has; `model`, its name, and `two_lines`, the
        same for a chart; `series`, what a mark's colour stands for; and `panel`, which it shares with
        those that differ in precision alone.
        """
        by_key = grouped(rows, lambda row: getattr(row, key))
        shown_rows = []
        for evaluation in self.board if board is None else board:
            name = experiment_name(evaluation)
            first_line = f"{evaluation.base_model} {evaluation.precision}\n"
            of_evaluation = {
                "evaluation": evaluation,
                "model": full_name(evaluation),
                "two_lines": name,
                "series": evaluation.precision or NO_MODEL,
                "panel": name.replace(first_line, f"{evaluation.base_model} ").replace("\n", " "),
            }
            for row in by_key.get(getattr(evaluation, key), []):
                shown_rows.append(Row(**vars(row) | of_evaluation))

        return shown_rows


def reported_study(name: str | None) -> ReportedStudy:
    """The study of this name; without one, that of the last sweep, or
    everything where there is none.

    Raises BadInput, with the nearest name, for an unknown study, and where nothing has finished.
    """
    study = find_study(name)
    only = evaluation_ids(study.study) if study else None
    board = leaderboard_rows(only)
    if not board:
        of = f" of the study {study.study}" if study else ""
        raise BadInput(
            f"The warehouse holds no finished experiment{of}, so there is nothing to report; "
            "run `triage sweep demo` first, or name another study (triage warehouse studies)."
        )

    shown_rows = by_test_set(board)[0]
    recipes = summary_rows(only)
    return ReportedStudy(
        name=study.study if study else EVERYTHING,
        grid=study.grid if study else None,
        grid_digest=study.grid_digest if study else None,
        board=shown_rows,
        pairs=pair_rows([row.evaluation_id for row in shown_rows]),
        recipes=recipes,
        further=len(board) - len(shown_rows),
        sentences=answer(board, pair_rows(only), recipes, claim_of(study.study if study else None)),
        notice=disclaimer({row.set_digest for row in board}),
    )


@dataclass(frozen=True)
class Panel:
    """One chart, an SVG: `shows` says what it shows, `texts` are its main figures."""

    title: str
    shows: str
    texts: list[str]
    drawing: str

    @property
    def alt(self) -> str:
        """What is read in place of the chart, with the first few figures."""
        more_count = len(self.texts) - MOST_IN_ALT
        more = f"; and {more_count} more in the table" if more_count > 0 else ""
        return f"{self.shows}: {'; '.join(self.texts[:MOST_IN_ALT])}{more}."


WORDS = tomllib.loads((files("flows.html_report") / "words.toml").read_text(encoding="utf-8"))


@dataclass
class Section:
    """A part of the report with its charts and the rows behind them. `values` are what its words
    need; `findings` say what the charts show, with intervals.
    """

    id: str
    values: dict[str, object] = field(default_factory=dict)
    absent: str = "missing"
    findings: list[str] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    tables: list[ReportTable] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def show(self, title: str, shows: str, texts: list[str], drawing: str) -> None:
        """Add a panel."""
        self.panels.append(Panel(title, shows, texts, drawing))

    def tabulate(self, title: str, records: list[dict[str, str]]) -> None:
        """Add a table."""
        self.tables.append(ReportTable.of(title, records))

    @property
    def words(self) -> dict[str, str]:
        """The `heading`; the `reading`, how to read the charts; and `missing`, which stands in
        place of all where there are no rows: what is not there, and what would give it. `absent`
        names another text for that.
        """
        return {name: text.format(**self.values) for name, text in WORDS[self.id].items()}

    @property
    def missing(self) -> str:
        """Why nothing is shown; empty where something is."""
        return "" if self.tables else self.words.get(self.absent, "")


def named_rows(name: str, only: Collection[str], **values: str) -> list[Row]:
    """What `triage sql NAME` answers about these evaluations; `values` are those of the query's
    parameters.
    """
    stored_query = named_query(name)
    statement = stored_query.sql.rstrip().removesuffix(";")
    return as_rows(query_rows(statement, stored_query.values(values), only=only))


def by_panel(rows: Iterable[Row]) -> Iterable[tuple[str, list[Row], list[str]]]:
    """Each panel with its title, its rows and their series."""
    for title, group in grouped(rows, lambda row: row.panel).items():
        yield title, group, in_order(row.series for row in group)


def in_order(names: Iterable[str]) -> list[str]:
    """Each series once: short names first, and what is no model last."""
    return sorted(set(names), key=lambda name: (name == NO_MODEL, len(name), name))


def one_each(rows: Iterable[Row]) -> list[Row]:
    """The first row of each evaluation."""
    by_id = grouped(rows, lambda row: row.evaluation.evaluation_id)
    return [group[0] for group in by_id.values()]


def full_name(row: Row) -> str:
    """An experiment on one line."""
    return experiment_name(row).replace("\n", " ")


def interval(row: Row, name: str = "") -> Interval:
    """A figure of a row with the ends of its interval; without a name, of a row about one figure."""
    if not name:
        return row.value, row.low, row.high
    return getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high")


def along(field: str, values: Interval) -> Mark:
    """The fields of a mark that place a figure and its interval along an axis."""
    return dict(zip((field, f"{field}_low", f"{field}_high"), values, strict=True))


def and_others(values: Collection[float | None], best: float | None) -> str:
    """What follows the name of a best model, for those that reach the same; empty without one."""
    ties = list(values).count(best) - 1
    return f" and {ties} other{'s' if ties > 1 else ''} with the same figure" if ties > 0 else ""
