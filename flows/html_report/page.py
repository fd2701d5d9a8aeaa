"""The whole report as one HTML text: sections in their order, with charts inlined, and what has no
chart: the data card, the environment with commands, and single cases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import jinja2
from markupsafe import Markup, escape

from flows.html_report.charts import as_file, in_page
from flows.html_report.curves import decision_curve, learning, reliability, risk_coverage
from flows.html_report.models import baselines, bytes_and_recall, confusion, gates, rules, subgroups
from flows.html_report.pairs import flips, forest
from flows.html_report.study import EVERYTHING, Panel, ReportedStudy, Section, file_names, full_name
from flows.report.figures import counted
from flows.report.typed_rows import Row, rows_of
from tasks.grids.grid import GRIDS, load_grid
from tasks.runtime.errors import BadInput
from tasks.studies import grid_digest
from warehouse.connect import listed, quoted

ORDER = ("train", "valid", "calibration", "test")
SETS = """(
    SELECT dataset.*, name, cases, ed_cases, gp_cases, home_cases, groups, is_further
    FROM dataset_set JOIN dataset USING (dataset_id)
    WHERE dataset_digest IN {digests}
)"""
ENVIRONMENTS = """(
    SELECT
        triage_version, engine_version, mlx_version, mlx_lm_version, backend, compute_path,
        compute_dtype, blas, machine, weights_source, original_precision,
        count(*) AS trainings, sum(train_seconds) / 3600 AS hours
    FROM experiment
    WHERE training_id IN {ids} AND precision IS NOT NULL
    GROUP BY ALL
    ORDER BY ALL
)"""


def data_card(study: ReportedStudy) -> Section:
    """The cases that the models learned from and were judged on: a line for each set, no chart."""
    section = Section("data")
    digests = listed({row.dataset_digest for row in study.board if row.dataset_digest})
    rows = rows_of(SETS.format(digests=digests))
    if not rows:
        return section

    places = {name: place for place, name in enumerate(ORDER)}
    rows.sort(key=lambda row: (row.dataset_digest, places.get(row.name, len(ORDER)), row.name))
    for row in rows:
        origin = (
            "the project's own synthetic cases" if row.is_embedded else "cases of the user's own"
        )
        sentence = f"Dataset {row.dataset} {row.dataset_digest}: {origin}, seed {row.seed}."
        if sentence not in section.findings:
            section.findings.append(sentence)

    records = [
        {
            "set": row.name,
            "cases": str(row.cases),
            "ED": _with_share(row.ed_cases, row),
            "GP": _with_share(row.gp_cases, row),
            "HOME": _with_share(row.home_cases, row),
            "groups": "-" if row.groups is None else str(row.groups),
        }
        for row in rows
    ]
    section.tabulate("Sets", records)
    return section


def _with_share(count: int, row: Row) -> str:
    return f"{count} ({100 * count / row.cases:.1f} %)" if row.cases else str(count)


def environment(study: ReportedStudy) -> Section:
    """Versions and machines, a line for each environment, and commands; no chart."""
    section = Section("environment")
    rows = rows_of(ENVIRONMENTS.format(ids=listed({row.training_id for row in study.board})))
    records = [
        {name.replace("_", " "): _text(value) for name, value in vars(row).items()} for row in rows
    ]
    if records:
        section.tabulate("Environments", records)

    name = "" if study.name == EVERYTHING else f" {study.name}"
    section.commands = [f"triage compare{name} --all", f"triage report{name}", "triage sql --list"]
    if study.grid:
        section.commands.insert(0, _sweep(study.grid, study.grid_digest))
    return section


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


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


MOST_ROWS = 6000  # a line for each case and model: more would not fit into 6 MB with the charts
MATTERS = """(
    WITH decided AS (
        SELECT
            case_id, label, bool_or(decision = 'ED') AS caught,
            count(*) FILTER (decision <> 'ED') AS missed, count(*) AS models
        FROM prediction
        WHERE evaluation_id IN {models} AND label = 'ED' AND decision IS NOT NULL
        GROUP BY case_id, label
    ),
    flipped AS (
        SELECT eight.case_id, count(*) AS flips
        FROM quantization_comparison AS pair
        JOIN prediction AS eight ON eight.evaluation_id = pair.evaluation_8bit
        JOIN prediction AS four
            ON four.evaluation_id = pair.evaluation_4bit AND four.case_id = eight.case_id
        WHERE eight.label = 'ED' AND (four.decision = 'ED') <> (eight.decision = 'ED')
        GROUP BY eight.case_id
    )
    SELECT case_id, missed, models, coalesce(flips, 0) AS flips
    FROM decided LEFT JOIN flipped USING (case_id)
    WHERE missed > 0
    ORDER BY flips DESC, missed DESC, case_id
)"""
ANSWERS = """(
    SELECT p.*, m.passes, m.decision_majority, m.decision_confidence, m.majority, m.confidence, m.review
    FROM prediction AS p LEFT JOIN mc_dropout AS m USING (evaluation_id, case_id)
    WHERE p.evaluation_id IN {models} AND p.case_id IN {cases}
)"""


class ShownCases(NamedTuple):
    """The cases of a report, and of how many missed emergencies; `left_out` of them do not fit.

    A case has its `case_id`, `label` and `group`, a `summary`, `lines` of a model's name, decision,
    probabilities and passes, and a `text` only from the user's own file.
    """

    shown: list[dict[str, Any]]
    missed: int
    left_out: int


def shown_cases(study: ReportedStudy, case_ids: Collection[str], texts: Path | None) -> ShownCases:
    """The cases that were asked for; without any, emergencies that a model missed, flips first.

    Raises BadInput for a case that the study does not have, and for a file whose texts fit no case.
    """
    names = {row.evaluation_id: full_name(row) for row in study.board if row.precision is not None}
    models = listed(names)
    missed = {row.case_id: row for row in rows_of(MATTERS.format(models=models), only=study.ids)}
    most = max(1, MOST_ROWS // max(1, len(names)))
    ids = list(dict.fromkeys(case_ids)) or list(missed)[:most]
    left_out = 0 if case_ids else len(missed) - len(ids)
    if not ids:
        return ShownCases([], 0, 0)

    answers: dict[str, dict[str, Row]] = {id: {} for id in ids}
    for row in rows_of(ANSWERS.format(models=models, cases=listed(ids))):
        answers[row.case_id][row.evaluation_id] = row
    for id, rows in answers.items():
        if not rows:
            query = f"SELECT case_id FROM prediction WHERE evaluation_id = {quoted(study.ids[0])}"
            raise BadInput(
                f"No model of the study {study.name} was judged on a case {id!r}; ids are those of "
                f'the warehouse: triage sql "{query}".'
            )

    own_texts = _texts(texts, answers) if texts else {}
    cases = []
    for id, rows in answers.items():
        first = next(iter(rows.values()))
        lines = [_line(name, rows[model]) for model, name in names.items() if model in rows]
        case = {"case_id": id, "label": first.label, "group": first.case_group, "lines": lines}
        text = own_texts.get(first.case_digest or "")
        cases.append(case | {"summary": _summary(missed.get(id)), "text": text})

    return ShownCases(cases, len(missed), left_out)


def _texts(path: Path, answers: dict[str, dict[str, Row]]) -> dict[str, str]:
    from flows.cli.gates import texts_by_digest

    texts = texts_by_digest(path)
    if not any(row.case_digest in texts for rows in answers.values() for row in rows.values()):
        raise BadInput(
            f"No text in {path} is that of a case in the report; give the file from which the test "
            "cases of this study were read."
        )

    return texts


def _summary(missed: Row | None) -> str:
    if missed is None:
        return "no model missed it as an emergency"

    summary = f"missed by {missed.missed} of {missed.models} models"
    if missed.flips:
        summary += f", caught at one precision alone in {counted(missed.flips, 'pair')}"
    return summary


def _line(name: str, row: Row) -> tuple[str, str, str, str]:
    decision = row.decision or f"{row.argmax} (argmax)"
    passes = "-"
    if row.passes is not None and row.confidence is not None:
        flag = ", review" if row.review else ""
        passes = f"{row.majority} in {row.confidence:.0%} of {row.passes}{flag}"
    return name, decision, f"{row.p_ed:.2f} {row.p_gp:.2f} {row.p_home:.2f}", passes


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


@dataclass(frozen=True)
class ReportPage:
    """The page, and every chart as an SVG file of its own, by name."""

    html: str
    charts: dict[str, str]
    has_texts: bool


def made_report(
    study: ReportedStudy, landed: str, case_ids: Collection[str] = (), texts: Path | None = None
) -> ReportPage:
    """The page of a study, with no script and nothing that is fetched; `landed` names what it is
    made from.

    Raises BadInput for cases and texts that the study does not have.
    """
    cases = shown_cases(study, case_ids, texts)
    # Altair checks each part of a chart as it is built, which takes as long as drawing it. Charts
    # here differ in their rows alone, and the tests draw every kind with the checks on.
    with alt.utils.schemapi.debug_mode(False):
        sections = [section(study) for section in SECTIONS]

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flows.html_report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"prose": _prose, "drawn": _drawn, "counted": counted}
    template = environment.get_template("template.html.jinja")
    has_texts = any(case["text"] is not None for case in cases.shown)
    html = template.render(
        study=study, sections=sections, cases=cases, has_texts=has_texts, landed=landed
    )
    panels = file_names(sections)
    charts = {name: as_file(panel.drawing, panel.alt) for name, panel in panels.items()}
    return ReportPage(html, charts, has_texts)


def _prose(text: str) -> Markup:
    """A sentence, in which what stands between backquotes is code."""
    # Escaped first: the only tags of the result are those that are put here.
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _drawn(panel: Panel, prefix: str) -> Markup:
    """A chart in the page. Vega escapes its texts, in_page the alternative text."""
    return Markup(in_page(panel.drawing, prefix, panel.alt))
