"""The whole report as one HTML text: sections in their order, with charts inlined, and what has no
chart: the data card, the environment with commands, and single cases.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
from markupsafe import Markup, escape

from flows.html_report import curves, models, pairs
from flows.html_report.charts import as_file, in_page
from flows.html_report.study import EVERYTHING, Panel, ReportedStudy, Section, full_name, named_rows
from flows.report.figures import counted
from flows.report.typed_rows import Row, rows_of
from tasks.grids.grid import GRIDS, load_grid
from tasks.landing import grid_digest
from tasks.runtime.errors import BadInput
from warehouse.connect import listed, quoted

ORDER = ("train", "valid", "calibration", "test")
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


def data_card(study: ReportedStudy, section: Section) -> None:
    """The cases that the models learned from and were judged on: a line for each set, no chart."""
    digests = listed({row.dataset_digest for row in study.board if row.dataset_digest})
    rows = rows_of(f"dataset JOIN dataset_set USING (dataset_id) WHERE dataset_digest IN {digests}")
    if not rows:
        return

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


def _with_share(count: int, row: Row) -> str:
    return f"{count} ({100 * count / row.cases:.1f} %)" if row.cases else str(count)


def environment(study: ReportedStudy, section: Section) -> None:
    """Versions and machines, a line for each environment, and commands; no chart."""
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
MISSED = """(
    SELECT case_id, count(*) FILTER (decision <> 'ED') AS missed, count(*) AS models
    FROM prediction
    WHERE evaluation_id IN {models} AND label = 'ED' AND decision IS NOT NULL
    GROUP BY case_id
    HAVING missed > 0
)"""
ANSWERS = """
    prediction
    LEFT JOIN (SELECT * EXCLUDE (p_ed, p_gp, p_home) FROM mc_dropout) USING (evaluation_id, case_id)
"""


def shown_cases(
    study: ReportedStudy, case_ids: Collection[str], texts: Path | None
) -> tuple[list[dict[str, Any]], int]:
    """The cases that were asked for; without any, emergencies that a model missed, flips first, and
    how many of these do not fit.

    A case has its `case_id`, `label` and `group`, a `summary`, `lines` of a model's name, decision,
    probabilities and passes, and a `text` only from the user's own file.

    Raises BadInput for a case that the study does not have, and for a file whose texts fit no case.
    """
    names = {row.evaluation_id: full_name(row) for row in study.board if row.precision is not None}
    models = listed(names)
    flips = Counter(
        row.case_id
        for row in named_rows("flipped_cases", study.ids, label="ED")
        if "ED" in (row.at_8bit, row.at_4bit)
    )
    rows = rows_of(MISSED.format(models=models))
    rows.sort(key=lambda row: (-flips[row.case_id], -row.missed, row.case_id))
    missed = {row.case_id: row for row in rows}
    most = max(1, MOST_ROWS // max(1, len(names)))
    ids = list(dict.fromkeys(case_ids)) or list(missed)[:most]
    left_out = 0 if case_ids else len(missed) - len(ids)
    if not ids:
        return [], 0

    answers: dict[str, dict[str, Row]] = {id: {} for id in ids}
    asked = f"evaluation_id IN {models} AND case_id IN {listed(ids)}"
    for row in rows_of(f"{ANSWERS} WHERE {asked}"):
        answers[row.case_id][row.evaluation_id] = row
    for id, answered in answers.items():
        if not answered:
            query = f"SELECT case_id FROM prediction WHERE evaluation_id = {quoted(study.ids[0])}"
            raise BadInput(
                f"No model of the study {study.name} was judged on a case {id!r}; ids are those of "
                f'the warehouse: triage sql "{query}".'
            )

    own_texts: dict[str, str] = {}
    if texts:
        from flows.cli.gates import texts_by_digest

        own_texts = texts_by_digest(texts)
        digests = {row.case_digest for rows in answers.values() for row in rows.values()}
        if not digests & set(own_texts):
            raise BadInput(
                f"No text in {texts} is that of a case in the report; give the file from which the "
                "test cases of this study were read."
            )

    cases = []
    for id, answered in answers.items():
        first = next(iter(answered.values()))
        lines = [_line(name, answered[model]) for model, name in names.items() if model in answered]
        case = {"case_id": id, "label": first.label, "group": first.case_group, "lines": lines}
        case["text"] = own_texts.get(first.case_digest or "")
        case["summary"] = "no model missed it as an emergency"
        if id in missed:
            case["summary"] = f"missed by {missed[id].missed} of {missed[id].models} models"
        if flips[id]:
            pairs = counted(flips[id], "pair")
            case["summary"] += f", caught at one precision alone in {pairs}"
        cases.append(case)

    return cases, left_out


def _line(name: str, row: Row) -> tuple[str, str, str, str]:
    decision = row.decision or f"{row.argmax} (argmax)"
    passes = "-"
    if row.passes is not None and row.confidence is not None:
        flag = ", review" if row.review else ""
        passes = f"{row.majority} in {row.confidence:.0%} of {row.passes}{flag}"
    return name, decision, f"{row.p_ed:.2f} {row.p_gp:.2f} {row.p_home:.2f}", passes


SECTIONS: dict[str, Callable[[ReportedStudy, Section], None]] = {
    "forest": pairs.forest,
    "frontier": models.bytes_and_recall,
    "learning": curves.learning,
    "confusion": models.confusion_matrices,
    "rules": models.rules,
    "reliability": curves.reliability,
    "decision-curves": curves.decision_curve,
    "risk-coverage": curves.risk_coverage,
    "flips": pairs.flip_bars,
    "subgroups": models.subgroups,
    "gates": models.safety_gates,
    "baselines": models.baselines,
    "data": data_card,
    "environment": environment,
}


def section_of(study: ReportedStudy, id: str) -> Section:
    """A section of the report, with its charts and tables."""
    section = Section(id)
    SECTIONS[id](study, section)
    return section


def made_report(
    study: ReportedStudy, landed: str, case_ids: Collection[str] = (), texts: Path | None = None
) -> tuple[str, dict[str, str], bool]:
    """The page of a study as HTML, with no script and nothing that is fetched; every chart as an SVG
    file of its own, by name; and whether there are patient texts on it. `landed` names what it is
    made from.

    Raises BadInput for cases and texts that the study does not have.
    """
    cases, left_out = shown_cases(study, case_ids, texts)
    # Altair checks each part of a chart as it is built, which takes as long as drawing it. Charts
    # here differ in their rows alone, and the tests draw every kind with the checks on.
    with alt.utils.schemapi.debug_mode(False):
        sections = [section_of(study, id) for id in SECTIONS]

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flows.html_report", ""),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"prose": _prose, "drawn": _drawn, "counted": counted}
    template = environment.get_template("template.html.jinja")
    has_texts = any(case["text"] is not None for case in cases)
    shown = {"study": study, "sections": sections, "cases": cases, "left_out": left_out}
    html = template.render(shown, has_texts=has_texts, landed=landed)
    return html, _files(sections), has_texts


def _files(sections: Iterable[Section]) -> dict[str, str]:
    """Charts by name: letters, digits and hyphens, and a number where names of experiments differ
    in what the name of a file cannot hold.
    """
    charts: dict[str, str] = {}
    for section in sections:
        for panel in section.panels:
            words = re.sub(r"[^a-z0-9]+", "-", f"{section.id} {panel.title}".lower()).strip("-")
            name = words
            number = 1
            while name in charts:
                number += 1
                name = f"{words}-{number}"
            charts[name] = as_file(panel.drawing, panel.alt)

    return charts


def _prose(text: str) -> Markup:
    """A sentence, in which what stands between backquotes is code."""
    # Escaped first: the only tags of the result are those that are put here.
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _drawn(panel: Panel, prefix: str) -> Markup:
    """A chart in the page. Vega escapes its texts, in_page the alternative text."""
    return Markup(in_page(panel.drawing, prefix, panel.alt))
