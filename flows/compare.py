"""The comparison: warehouse -> tables for people, and Prefect artifacts for the UI."""

from __future__ import annotations

import flows.settings  # noqa: F401  (before Prefect)

import pandas as pd
from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.evidence import evidence
from flows.tables import NOT_A_DEVICE, leaderboard, quantization
from warehouse.connect import warehouse_path

PAIRS, NO_ROWS = "4 bits against 8 bits", "No rows yet."


@flow(name="compare", flow_run_name="comparison")
def compare() -> None:
    """Publish the leaderboard and the 4-bit against 8-bit comparison as artifacts of this run."""
    markdown = f"# {PAIRS}\n\n{NO_ROWS}"
    if warehouse_path().exists():
        board = leaderboard()
        if len(board):
            rows = [{str(k): v for k, v in row.items()} for row in board.to_dict("records")]
            create_table_artifact(table=rows, key="leaderboard", description="All experiments")
        markdown = as_markdown(board, quantization())
    create_markdown_artifact(markdown=markdown, key="comparison", description=PAIRS)


def as_markdown(board: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """The tables as one Markdown page."""
    parts = [f"# {PAIRS}", _table(pairs), "# Leaderboard", _table(board)]
    parts += [text for title, frame in evidence() for text in (f"# {title}", _table(frame))] + [NOT_A_DEVICE]
    return "\n\n".join(parts)


def _table(frame: pd.DataFrame) -> str:
    if frame.empty:
        return NO_ROWS
    head = "| " + " | ".join(c.replace("\n", " ") for c in frame.columns) + " |\n|" + "---|" * len(frame.columns)
    return "\n".join(
        [
            head,
            *(
                "| " + " | ".join(str(v).replace("\n", "<br>") for v in row) + " |"
                for row in frame.itertuples(index=False)
            ),
        ]
    )
