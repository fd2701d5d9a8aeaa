"""Tables of the comparison as Markdown, for artifacts in the Prefect UI."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flows.report.answer import answer
from flows.report.disclaimer import disclaimer
from flows.report.evidence import evidence
from flows.report.leaderboard import leaderboard, named_sets
from flows.report.pairs import PairRow, headline, pairs_on, quantization
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow
from warehouse.comparison.summary import PooledSet

PAIRS = "4 bits against 8 bits"
NO_ROWS = "No rows yet."


def as_markdown(
    board: list[EvaluationRow],
    pairs: list[PairRow],
    sets: Sequence[PooledSet] = (),
    ids: Collection[str] | None = None,
) -> str:
    """The whole comparison as one Markdown page, the answer first; each test set has its own
    tables. `sets`: the pooled figures; `ids`: the evaluations of the study.
    """
    parts = [(name, rows, pairs_on(rows, pairs)) for name, rows in named_sets(board) or [("", [])]]
    headlines = [headline(of_set, name) for name, _, of_set in parts]
    sections = [(_title(PAIRS, name), quantization(of_set)) for name, _, of_set in parts]
    sections += [(_title("Leaderboard", name), leaderboard(rows)) for name, rows, _ in parts]
    sections += [(table.title, table) for table in evidence(board, ids=ids)]
    texts = [text for title, table in sections for text in (f"# {title}", _grid(table))]
    lines = "\n".join(f"- {line}" for line in answer(board, pairs, sets))
    notice = disclaimer({row.set_digest for row in board})
    return "\n\n".join([lines, *headlines, *texts, notice])


def _title(title: str, set_name: str) -> str:
    return f"{title}: {set_name}" if set_name else title


def _grid(table: ReportTable) -> str:
    if not len(table):
        return NO_ROWS
    head = _line([name.replace("\n", " ") for name in table.columns])
    rule = "|" + "---|" * len(table.columns)
    cells = ([text.replace("\n", "<br>") for text in row] for row in table.rows)
    rows = [_line(texts) for texts in cells]
    return "\n".join([head, rule, *rows])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
