"""Single cases of a report: the emergencies that models missed, what each model said, and their texts.

A text comes from the user's own file where one is given, and is matched by digest. Without one, only
the project's synthetic cases have theirs, from the data of this home.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from flows.report.figures import counted, listed_name
from flows.report.rows import Row, Study, grouped, named_rows, rows_of
from tasks.corpus.case import can_be_encoded, exact_digest
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.reading.tables import read_rows
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from warehouse.connect import listed, quoted

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
    WHERE evaluation_id IN {models} AND case_id IN {cases}
"""


def texts_by_digest(path: Path) -> dict[str, str]:
    """Every text of a JSONL, CSV or Parquet file by its digest in predictions. Raises BadInput."""
    # From every column, so that it need not be named; cases are stored without space around them.
    texts = (value for _, row in read_rows(path) for value in row.values())
    return {
        exact_digest(variant): variant
        for text in texts
        if isinstance(text, str) and can_be_encoded(text)
        for variant in (text, text.strip())
    }


def synthetic_texts(set_digests: Collection[str]) -> dict[str, str]:
    """The texts of those of these sets that are in this home and hold embedded cases, by digest."""
    texts: dict[str, str] = {}
    for folder in sorted((home() / "data").glob("*-*/")):
        manifest = DatasetManifest.read_if_complete(folder)
        for name, stored in manifest.sets.items() if manifest is not None else ():
            if stored.source == "embedded" and stored.digest in set_digests:
                texts |= texts_by_digest(folder / f"{name}.jsonl")
    return texts


def shown_cases(
    study: Study, case_ids: Collection[str], own_file: Path | None
) -> tuple[list[dict[str, Any]], int]:
    """The cases that were asked for; without any, emergencies that a model missed, flips first, and
    how many of these do not fit.

    A case has its `case_id`, `label` and `group`, a `summary`, `lines` of a model's name, decision,
    probabilities and passes, and its `text`, None where there is none to show.

    Raises BadInput for a case that the study does not have, and for a file whose texts fit no case.
    """
    names = {
        row.evaluation_id: listed_name(row) for row in study.board if row.precision is not None
    }
    flips = Counter(
        row.case_id
        for row in named_rows("flipped_cases", study.board_ids, label="ED")
        if "ED" in (row.at_8bit, row.at_4bit)
    )
    rows = rows_of(MISSED.format(models=listed(names)))
    rows.sort(key=lambda row: (-flips[row.case_id], -row.missed, row.case_id))
    missed = {row.case_id: row for row in rows}
    most = max(1, MOST_ROWS // max(1, len(names)))
    ids = list(dict.fromkeys(case_ids)) or list(missed)[:most]
    left_out = 0 if case_ids else len(missed) - len(ids)
    rows = rows_of(ANSWERS.format(models=listed(names), cases=listed(ids))) if ids else []
    answers = grouped(rows, lambda row: row.case_id)
    if unknown := [id for id in ids if id not in answers]:
        query = f"SELECT case_id FROM prediction WHERE evaluation_id = {quoted(study.board_ids[0])}"
        raise BadInput(
            f"No model of the study {study.name} was judged on a case {unknown[0]!r}; ids are those "
            f'of the warehouse: triage sql "{query}".'
        )

    texts = synthetic_texts({study.board[0].set_digest}) if own_file is None else {}
    if own_file is not None:
        texts = texts_by_digest(own_file)
        if not {row.case_digest for row in rows} & set(texts):
            raise BadInput(
                f"No text in {own_file} is that of a case in the report; give the file from which the "
                "test cases of this study were read."
            )

    cases = []
    for id in ids:
        by_model = {row.evaluation_id: row for row in answers[id]}
        first = answers[id][0]
        summary = "no model missed it as an emergency"
        if id in missed:
            summary = f"missed by {missed[id].missed} of {missed[id].models} models"
        if flips[id]:
            summary += f", caught at one precision alone in {counted(flips[id], 'pair')}"
        cases.append(
            {
                "case_id": id,
                "label": first.label,
                "group": first.case_group,
                "summary": summary,
                "lines": [
                    _line(name, by_model[model])
                    for model, name in names.items()
                    if model in by_model
                ],
                "text": texts.get(first.case_digest or ""),
            }
        )
    return cases, left_out


def _line(name: str, row: Row) -> tuple[str, str, str, str]:
    decision = row.decision or f"{row.argmax} (argmax)"
    passes = "-"
    if row.passes is not None and row.confidence is not None:
        flag = ", review" if row.review else ""
        passes = f"{row.majority} in {row.confidence:.0%} of {row.passes}{flag}"
    return name, decision, f"{row.p_ed:.2f} {row.p_gp:.2f} {row.p_home:.2f}", passes
