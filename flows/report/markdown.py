"""Tables of the comparison as Markdown, for artifacts in the Prefect UI."""

from __future__ import annotations

import pandas as pd

from flows.report.evidence import evidence
from flows.report.names import NOT_A_DEVICE

PAIRS, NO_ROWS = "4 bits against 8 bits", "No rows yet."


def as_markdown(board: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """The tables as one Markdown page."""
    parts = [f"# {PAIRS}", _table(pairs), "# Leaderboard", _table(board)]
    parts += [text for title, frame in evidence() for text in (f"# {title}", _table(frame))] + [
        NOT_A_DEVICE
    ]
    return "\n\n".join(parts)


def _table(frame: pd.DataFrame) -> str:
    if frame.empty:
        return NO_ROWS
    head = (
        "| "
        + " | ".join(c.replace("\n", " ") for c in frame.columns)
        + " |\n|"
        + "---|" * len(frame.columns)
    )
    return "\n".join(
        [
            head,
            *(
                "| " + " | ".join(str(v).replace("\n", "<br>") for v in row) + " |"
                for row in frame.itertuples(index=False)
            ),
        ]
    )
