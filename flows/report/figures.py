"""Cells of tables: a figure with its interval, a reason instead of a figure, lines that stay level."""

from __future__ import annotations

import math
from typing import TypeGuard

from tasks.bundle.bundle import gate_figure as gate_figure
from tasks.judging.gate_thresholds import ED_RECALL


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a figure: neither NULL nor NaN."""
    return value is not None and not math.isnan(value)


def figure(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    digits: int = 3,
    sign: bool = False,
    below: bool = False,
) -> str:
    """A figure with its 95 % interval, `0.912 [0.871, 0.944]`, or the figure alone; `n/a` if there
    is none.

    `below` puts the interval on a second line, for tables with many columns.
    """
    form = f"{'+' if sign else ''}.{digits}f"
    texts = [f"{number:{form}}" for number in (value, low, high) if is_number(number)]
    return _with_interval(value, texts, below)


def ed_recall_figure(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    digits: int = 3,
    below: bool = False,
) -> str:
    """A `figure` of ED recall, with more digits where `digits` would round the figure or an end of
    its interval to the gate or beyond.
    """
    numbers = [number for number in (value, low, high) if is_number(number)]
    texts = [gate_figure(number, ED_RECALL, digits) for number in numbers]
    return _with_interval(value, texts, below)


def _with_interval(value: float | None, texts: list[str], below: bool) -> str:
    """`texts`: the figure and both ends of its interval, or fewer where there are not all three."""
    if not is_number(value):
        return "n/a"
    if len(texts) < 3:
        return texts[0]
    return f"{texts[0]}{chr(10) if below else ' '}[{texts[1]}, {texts[2]}]"


def why_not(note: str | None) -> str:
    """A landed note in a figure's place, e.g. `n/a: no ED case in this set`."""
    return f"n/a: {note.removeprefix('not available: ')}" if note else "n/a"


def stacked(head: dict[str, str], records: list[dict[str, str]]) -> dict[str, str]:
    """One row of a table from several records, one below the other; `head`'s cells stand once.

    Where a cell has several lines, the other columns of that record wait for it.
    """
    columns: dict[str, list[str]] = {name: [] for record in records[:1] for name in record}
    for record in records:
        lines = {name: text.split("\n") for name, text in record.items()}
        height = max(len(cell) for cell in lines.values())
        for name, cell in lines.items():
            columns[name] += cell + [""] * (height - len(cell))
    return head | {name: "\n".join(lines).rstrip("\n") for name, lines in columns.items()}


def clock(seconds: float) -> str:
    """Seconds as people read them: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def percent(share: float) -> str:
    """A share in three digits, so that neither 0.5 % nor 2.5 % is rounded to a whole one."""
    return f"{100 * share:.3g}%"


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 case`, `1,134 cases`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def file_size(count: int) -> str:
    """Bytes as `90.3 MB`, or as `2.1 kB` below a megabyte."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def megabytes(count: float | None) -> str:
    return f"{count / 1e6:.0f}" if is_number(count) else "n/a"
