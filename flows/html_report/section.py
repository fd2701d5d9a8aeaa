"""What a part of the report consists of, whoever makes it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from flows.report.figures import is_number
from flows.report.table import ReportTable

MOST_IN_ALT = 4  # figures that an alternative text repeats; the table has all


@dataclass(frozen=True)
class Panel:
    """One chart: `name` is that of its file, `alt` says what it shows with its main figures, and
    `drawing` is an SVG with placeholder colours (see drawing.py).
    """

    name: str
    title: str
    alt: str
    drawing: str


@dataclass(frozen=True)
class Section:
    """A part of the report with its charts and the rows behind them.

    `reading` says how to read the charts, `findings` what they show, with intervals. A part without
    rows has `missing` alone: what is not there, and what would give it.
    """

    id: str
    heading: str
    reading: str = ""
    findings: Sequence[str] = ()
    panels: Sequence[Panel] = ()
    tables: Sequence[ReportTable] = ()
    missing: str = ""
    commands: Sequence[str] = field(default=())


def panel_name(*parts: str) -> str:
    """The name of a chart's file: letters, digits and hyphens."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)


def with_own_names(sections: Iterable[Section]) -> list[Section]:
    """The sections of a report, in which a panel whose name an earlier one has gets a number: names
    of experiments may differ in what a file's name cannot hold.
    """
    taken: set[str] = set()
    return [
        replace(section, panels=[_with_own_name(panel, taken) for panel in section.panels])
        for section in sections
    ]


def _with_own_name(panel: Panel, taken: set[str]) -> Panel:
    """The panel under a name that is not among those taken, which it joins."""
    numbered_names = (f"{panel.name}-{number}" for number in itertools.count(2))
    names = itertools.chain([panel.name], numbered_names)
    own_name = next(name for name in names if name not in taken)
    taken.add(own_name)
    return replace(panel, name=own_name)


def some(texts: Collection[str]) -> str:
    """The first few texts, and how many more there are."""
    first_texts = list(texts)[:MOST_IN_ALT]
    remaining_count = len(texts) - len(first_texts)
    more = f"; and {remaining_count} more in the table" if remaining_count else ""
    return "; ".join(first_texts) + more


def one_line(label: str) -> str:
    """A label of a chart in a sentence."""
    return label.replace("\n", " ")


def number(value: float | None) -> float | None:
    """A figure that a chart can place, or None."""
    return float(value) if is_number(value) else None
