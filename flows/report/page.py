"""`triage report`: the page of a study as one HTML text, where it lies, and whether it is current.

The answer with its picture and table is seen first. Everything else is folded below: sections with
their charts and tables, and single cases.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from flows.report.answer import answer
from flows.report.figures import counted, disclaimer
from flows.report.models import first_table
from flows.report.precisions import primary_chart
from flows.report.rows import Study, evaluation_ids, rows_of, studied
from flows.report.sections import SECTIONS
from flows.report.table import WORDS, Chart
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from warehouse.connect import quoted

EVERYTHING = "all results"  # the name where the warehouse knows no study


def reported_study(name: str | None) -> list[Study]:
    """The study of this name on each of its test sets, the one that is shown first; without a name,
    that of the last sweep.

    Raises BadInput, with the nearest name, for an unknown study, and where nothing has finished.
    """
    studies = studied(name)
    if not studies:
        of = f" of the study {name}" if name else ""
        raise BadInput(
            f"The warehouse holds no finished experiment{of}, so there is nothing to report; "
            "run `triage sweep demo` first, or name another study (triage warehouse studies)."
        )
    return studies


def made_report(
    studies: list[Study], landed: str, case_ids: Collection[str] = (), texts: Path | None = None
) -> tuple[str, dict[str, str], bool]:
    """The page of a study as HTML, with no script and nothing that is fetched; every chart as an SVG
    file of its own, by name; and whether there are patient texts on it. `landed` names what it is
    made from.

    Raises BadInput for cases and texts that the study does not have.
    """
    import altair as alt
    import jinja2

    from flows.report.cases import shown_cases
    from flows.report.charts import as_file, drawn, in_page

    study = studies[0]
    cases, left_out = shown_cases(study, case_ids, texts)
    given = answer(study)
    svgs: dict[str, str] = {}

    def draw(chart: Chart, section: str, heading: str) -> Any:
        """A chart in the page; Vega escapes its texts, in_page the alternative text."""
        # Letters, digits and hyphens, and a number where names of experiments differ in what the
        # name of a file cannot hold.
        name = re.sub(r"[^a-z0-9]+", "-", f"{section} {chart.title}".lower()).strip("-")
        if name in svgs:
            name = f"{name}-{len(svgs)}"
        svg, alt_text = drawn(chart), chart.alt(heading)
        svgs[name] = as_file(svg, alt_text)
        return Markup(in_page(svg, name, alt_text))

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flows.report", ""),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"prose": _prose, "draw": draw, "counted": counted}
    sections = []
    for id, make in SECTIONS.items():
        made = make(study)
        words = {name: text.format_map(made.values) for name, text in WORDS[id].items()}
        tables = [table.with_reasons_once() for table in made.tables if len(table)]
        sections.append({"id": id, "words": words, "made": made, "tables": tables})

    # Altair checks each part of a chart as it is built, which takes as long as drawing it. Charts
    # here differ in their rows alone, and the tests draw every kind with the checks on.
    with alt.utils.schemapi.debug_mode(False):
        html = environment.get_template("template.html.jinja").render(
            name=study.name or EVERYTHING,
            study=study,
            answer=given,
            picture=primary_chart(given.primary, *given.others),
            first=first_table(study),
            sections=sections,
            cases=cases,
            left_out=left_out,
            others=sum(len(other.board) for other in studies[1:]),
            notice=disclaimer({row.set_digest for other in studies for row in other.board}),
            has_texts=texts is not None,
            landed=landed,
        )
    return html, svgs, texts is not None


def _prose(text: str) -> Any:
    """A sentence, in which what stands between backquotes is code."""
    # Escaped first: the only tags of the result are those that are put here.
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


# --- Where reports lie ------------------------------------------------------------------------------

FORMAT = 4  # of the page: another one makes every report again
# Without sweeps: each run of one lands a record, whether or not there is a new result. Of all
# studies: the bound for all looks of a gate depends on who else was judged on the same cases.
FINGERPRINT = """(
    SELECT md5(
        coalesce(string_agg(id || coalesce(manifest_digest, ''), ' ' ORDER BY id), '')
        || (SELECT string_agg(sha256, ' ' ORDER BY version) FROM schema_migrations)
    ) AS fingerprint
    FROM landed
    WHERE kind <> 'sweep'
)"""


def report_path(study: str) -> Path:
    """Where the report of a study lies: TRIAGE_HOME/reports/<study>.html."""
    # No slash leads to another folder, and no dot in front hides the file.
    name = re.sub(r"[^\w.-]+", "-", study).strip(".-") or "study"
    return home() / "reports" / f"{name}.html"


def landed_fingerprint() -> str:
    """Changes whenever a result lands, is replaced or forgotten, or the warehouse computes its
    figures in another way.
    """
    (row,) = rows_of(FINGERPRINT)
    return f"{FORMAT}-{row.fingerprint}"


def is_current(study: str) -> bool:
    """Whether the study's report shows everything that has landed."""
    try:
        page = report_path(study).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    match = re.search(r'<meta name="triage-landed" content="([^"]*)"', page)
    return match is not None and match.group(1) == landed_fingerprint()


COMMAND = (sys.executable, "-m", "flows.cli", "report")


def refreshed_report(study: str) -> tuple[Path | None, str]:
    """Make the study's report unless it shows everything that has landed: where it is, or in a
    sentence why there is none. Never raises.

    A study on random weights alone, such as that of the grid `smoke`, tests an installation and
    gets no report by itself, nor does a sealed one: neither a place nor a sentence.
    """
    path = report_path(study)
    try:
        if not has_real_models(study) or rows_of(
            f"primary_claim WHERE study = {quoted(study)} AND sealed"
        ):
            return None, ""
        if is_current(study):
            return path, ""
        process = subprocess.run(
            [*COMMAND, study], capture_output=True, text=True, timeout=600, check=False
        )
        # Outdated already where another sweep of the study has landed a result meanwhile.
        if process.returncode == 0:
            return path, ""
        reason = (process.stderr.strip() or f"exit code {process.returncode}").splitlines()[-1]
    except Exception as error:  # whatever it is, the sweep's results are safe
        reason = str(error)
    return None, f"The report of {study} was not made: {reason}"


def has_real_models(study: str) -> bool:
    """Whether the study has evaluated a model whose weights are not random."""
    rows = rows_of("leaderboard", only=evaluation_ids(study))
    return any(row.random_weights is False for row in rows)


def place_of_report(study: str) -> str | None:
    """A line that says where the report of a sweep is; None if none is needed."""
    path = report_path(study)
    if is_current(study):
        return f"Report: {path}"
    if not has_real_models(study):
        return None
    return f"The report {path} lacks the last result; triage report {study} makes it."
