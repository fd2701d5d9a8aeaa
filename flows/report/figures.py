"""Cells of the long tables: a figure with its interval on one line, a reason instead of a figure, lines that stay level."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

WIDEST = 24  # characters: a figure with its interval fits; a longer sentence is wrapped


def is_missing(value: Any) -> bool:
    """Whether a cell holds None, NaN, NaT or pandas' NA; without pandas, whose import takes longer than most queries."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # NA is neither equal to itself nor unequal
        return True


def with_interval(
    value: Any, low: Any = None, high: Any = None, digits: int = 3, sign: bool = False
) -> str:
    """A figure and its 95 % interval, `0.912 [0.871, 0.944]`, or the figure alone; `n/a` where there is none."""
    if is_missing(value):
        return "n/a"
    form = f"{'+' if sign else ''}.{digits}f"
    if is_missing(low) or is_missing(high):
        return f"{value:{form}}"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def why_not(note: Any) -> str:
    """What stands in a figure's place: `n/a: no ED case in this set`; the note is the landed one."""
    if is_missing(note) or not str(note):
        return "n/a"
    return f"n/a: {str(note).removeprefix('not available: ')}"


def stacked(
    head: dict[str, str], records: list[dict[str, str]], widest: int = WIDEST
) -> dict[str, str]:
    """One row of a table from several records, one below the other: `head`'s cells stand once, as they are.

    A sentence of more than `widest` characters is wrapped, and the other columns of that record wait for it.
    """
    columns: dict[str, list[str]] = {name: [] for record in records[:1] for name in record}
    for record in records:
        lines = {name: _wrapped(text, widest) for name, text in record.items()}
        height = max(len(own) for own in lines.values())
        for name, own in lines.items():
            columns[name] += own + [""] * (height - len(own))
    return head | {name: "\n".join(lines).rstrip("\n") for name, lines in columns.items()}


def _wrapped(text: str, widest: int) -> list[str]:
    return [
        part
        for line in text.split("\n")
        for part in textwrap.wrap(line, widest, break_on_hyphens=False) or [""]
    ]


def clock(seconds: float) -> str:
    """Seconds as people read them: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def percent(share: float) -> str:
    """A share in words of three digits, so that neither half a percent nor two and a half are rounded to a whole one."""
    return f"{100 * share:.3g}%"


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """Rows of a frame; figures of any type."""
    return list(frame.itertuples())


def figure(
    value: Any, low: Any = None, high: Any = None, digits: int = 3, sign: bool = False
) -> str:
    """A figure with its 95 % interval, e.g. `0.912` and below it `0.871 to 0.944`; `n/a` where there is none."""
    if is_missing(value):
        return "n/a"
    plus = "+" if sign else ""
    text = f"{value:{plus}.{digits}f}"
    if is_missing(low) or is_missing(high):
        return text
    return f"{text}\n{low:{plus}.{digits}f} to {high:{plus}.{digits}f}"
