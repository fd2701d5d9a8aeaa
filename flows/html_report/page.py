"""The whole report as one HTML text: sections in their order, with charts inlined."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import altair as alt
import jinja2
from markupsafe import Markup, escape

from flows.html_report.baselines import baselines
from flows.html_report.bytes_and_recall import bytes_and_recall
from flows.html_report.cases import ShownCases, shown_cases
from flows.html_report.confusion import confusion
from flows.html_report.data_card import data_card
from flows.html_report.decision_curve import decision_curve
from flows.html_report.drawing import as_file, in_page
from flows.html_report.environment import environment
from flows.html_report.flips import flips
from flows.html_report.forest import forest
from flows.html_report.gates import gates
from flows.html_report.learning import learning
from flows.html_report.reliability import reliability
from flows.html_report.risk_coverage import risk_coverage
from flows.html_report.rules import rules
from flows.html_report.study import ReportedStudy, Section, with_own_names
from flows.html_report.subgroups import subgroups
from flows.report.figures import counted

SECTIONS: tuple[Callable[[ReportedStudy], Section], ...] = (
    forest,
    bytes_and_recall,
    learning,
    confusion,
    rules,
    reliability,
    decision_curve,
    risk_coverage,
    flips,
    subgroups,
    gates,
    baselines,
    data_card,
    environment,
)
HERE = "flows.html_report"


@dataclass(frozen=True)
class ReportPage:
    """A study with everything that its page shows; `landed` names what it was made from."""

    study: ReportedStudy
    sections: list[Section]
    cases: ShownCases
    landed: str

    @property
    def charts(self) -> dict[str, str]:
        """Every chart as an SVG file of its own, by name."""
        panels = [panel for section in self.sections for panel in section.panels]
        return {panel.name: as_file(panel.drawing, panel.alt) for panel in panels}


def made_report(
    study: ReportedStudy,
    fingerprint: str,
    case_ids: Collection[str] = (),
    texts: Path | None = None,
) -> ReportPage:
    """Every section and case of a study. Raises BadInput for cases and texts that it does not have."""
    cases = shown_cases(study, case_ids, texts)
    # Altair checks each part of a chart as it is built, which takes as long as drawing it. Charts
    # here differ in their rows alone, and the tests draw every kind with the checks on.
    with alt.utils.schemapi.debug_mode(False):
        sections = with_own_names(section(study) for section in SECTIONS)
    return ReportPage(study, sections, cases, fingerprint)


def as_html(report: ReportPage) -> str:
    """The page: no script, and nothing that is fetched."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["lines"] = _lines
    environment.filters["prose"] = _prose
    environment.filters["counted"] = counted
    template = environment.from_string(_text("template.html.jinja"))
    drawings = {
        # Not escaped again: Vega escapes the texts of a chart, in_page the alternative text.
        panel.name: Markup(in_page(panel.drawing, panel.name, panel.alt))
        for section in report.sections
        for panel in section.panels
    }

    return template.render(report=report, drawings=drawings, style=Markup(_text("style.css")))


def _text(name: str) -> str:
    return (files(HERE) / name).read_text(encoding="utf-8")


def _lines(text: str) -> Markup:
    """A cell of a table, whose lines stay lines."""
    return Markup("<br>").join(text.split("\n"))


def _prose(text: str) -> Markup:
    """A sentence, in which what stands between backquotes is code."""
    # Escaped first: the only tags of the result are those that are put here.
    safe = str(escape(text))
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", safe))
