"""`triage gates EXPERIMENT`: the safety gates with their evidence, the emergencies that were missed, and who they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from flows.report.figures import figure, rows_of
from flows.report.frames import print_frame
from flows.report.names import NOT_A_DEVICE, random_mark, verdict
from flows.report.prevalence import check_prevalence, restated
from tasks.corpus.case import exact_digest
from tasks.corpus.tables import read_rows
from tasks.runtime.errors import BadInput
from warehouse.health import bring_up_to_date
from warehouse.query import query


def print_gates(
    console: Console, experiment: str, show_text: Path | None, prevalence: float | None
) -> None:
    """Print gates, subgroups and missed emergencies of the latest evaluation of an experiment on each of its sets.

    `experiment`: a cell id, training id or evaluation id, or an unambiguous beginning of one. `show_text`: the user's
    own file of cases, from which alone a text is read. Raises BadInput.
    """
    check_prevalence(prevalence)
    bring_up_to_date()
    texts = texts_by_digest(show_text) if show_text else None
    for evaluation in find_evaluations(experiment):
        _print_one(console, evaluation, texts, prevalence)
    console.print(NOT_A_DEVICE)


def find_evaluations(experiment: str) -> list[Any]:
    """Rows of evaluation_summary: the latest of the experiment on each evaluation set, and of its run on random weights."""
    frame = query("SELECT * FROM evaluation_summary ORDER BY finished_at, created_at")
    for matches in (
        frame[
            (frame.cell_id == experiment)
            | (frame.training_id == experiment)
            | (frame.evaluation_id == experiment)
        ],
        frame[
            frame.training_id.str.startswith(experiment)
            | frame.evaluation_id.str.startswith(experiment)
        ],
    ):
        cells = sorted(set(matches.cell_id))
        if len(cells) > 1:
            raise BadInput(
                f"{experiment!r} is the beginning of {len(cells)} experiments: {', '.join(cells[:6])}; give one whole."
            )
        if cells:
            kinds = matches.groupby(["evaluation_set", "random_weights"], sort=False, dropna=False)
            return rows_of(kinds.tail(1))
    known = ", ".join(sorted(set(frame.cell_id))[:6]) or "none yet"
    raise BadInput(f"The warehouse holds no finished experiment {experiment!r}; it has {known}.")


def texts_by_digest(path: Path) -> dict[str, str]:
    """Every text of a JSONL, CSV or Parquet file by its digest, as prediction rows know it. Raises BadInput."""
    values = (
        value for _, row in read_rows(path) for value in row.values() if isinstance(value, str)
    )
    return {exact_digest(text): text for value in values for text in (value, value.strip())}


def _print_one(
    console: Console, e: Any, texts: dict[str, str] | None, prevalence: float | None
) -> None:
    found = verdict(e).replace("\n", " ")
    console.print(
        f"{e.cell_id}{random_mark(e)} on {e.evaluation_set}: {found} ({e.cases} cases, rule {e.primary_rule})",
        style="bold",
    )
    print_frame(console, gate_table(e.evaluation_id), "Gates")
    console.print(_at(e, prevalence))
    groups = subgroup_table(e.evaluation_id)
    if len(groups):
        print_frame(console, groups, "ED recall by subgroup")
    else:
        console.print(
            "ED recall by subgroup: not available, no judged emergency names one (`subgroup_columns` reads them from your "
            "cases, which makes another dataset: its models are trained anew).",
            soft_wrap=True,
        )
    missed = missed_emergencies(e.evaluation_id)
    console.print(f"Missed emergencies: {missed_in_words(e, len(missed))}", soft_wrap=True)
    rows = rows_of(missed)
    if rows:
        console.print(_dropout(_rows("evaluation", e.evaluation_id)[0]), soft_wrap=True)
    for r in rows:
        flag = "" if pd.isna(r.review) else ", flagged for review" if r.review else ", not flagged"
        console.print(
            f"  {r.case_id}  decided {r.decision}, p(ED) {r.p_ed:.3f}{flag}", soft_wrap=True
        )
        if texts is not None:
            console.print(
                f"    {texts.get(r.case_digest, 'its text is not in that file')}", soft_wrap=True
            )


def gate_table(evaluation_id: str) -> pd.DataFrame:
    """The gates of an evaluation with counts, bound and method."""
    rows = [
        {
            "gate": f"{r.gate} {'<=' if r.gate == 'ed_false_negative_rate' else '>='} {r.threshold:g}", "state": r.state,
            "value": figure(r.value), "bound": figure(r.bound),
            "counts": f"n={r.n}" if pd.isna(r.successes) else f"{int(r.successes)} of {r.n}",
            "method": _lines(r.method, r.note),
        }
        for r in _rows("gate", evaluation_id)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["gate", "state", "value", "bound", "counts", "method"])


def subgroup_table(evaluation_id: str) -> pd.DataFrame:
    """ED recall of the primary rule in each subgroup."""
    rows = [
        {
            "subgroup": f"{r.field} {r.subgroup}", "ED cases": r.n,
            "ED recall": "not available" if pd.isna(r.value) else figure(r.value, r.low, r.high).replace("\n", " [") + "]",
            "method": _lines(r.method if r.method != "none" else None, r.note),
        }
        for r in _rows("subgroup_metric", evaluation_id)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def missed_emergencies(evaluation_id: str) -> pd.DataFrame:
    """ED cases that the primary rule sent elsewhere: case_id, case_digest, decision, p_ed, review (or NULL)."""
    return query(
        "SELECT case_id, case_digest, decision, p.p_ed, review "
        "FROM prediction AS p LEFT JOIN mc_dropout USING (evaluation_id, case_id) "
        f"WHERE evaluation_id = {_quoted(evaluation_id)} AND label = 'ED' AND decision <> 'ED' ORDER BY p.p_ed, case_id"
    )


def missed_in_words(e: Any, missed: int) -> str:
    """How many of an evaluation's emergencies were missed; the reason where nothing was decided or there is no emergency."""
    counted = query(
        "SELECT count(*) AS ed, count(decision) AS decided FROM prediction "
        f"WHERE evaluation_id = {_quoted(e.evaluation_id)} AND label = 'ED'"
    )
    (ed, decided) = counted.iloc[0]
    if not ed:
        return "not available: no ED case in this set"
    if not decided:
        notes = [r.note for r in _rows("gate", e.evaluation_id) if r.note]
        reason = (
            str(notes[0]).removeprefix("not available: ")
            if notes
            else f"rule {e.primary_rule} gave no decision"
        )
        return f"not available for {ed} ED cases: {reason}"
    return f"{missed} of {ed}" + (", most confident mistakes first" if missed else "")


def _dropout(e: Any) -> str:
    """On which cases the review flag of a row of `evaluation` rests: a case outside the sample has none."""
    if e.mc_status != "available":
        return f"Review flag: not available: {e.mc_reason}"
    return (
        f"Review flag: from {e.mc_passes:.0f} dropout passes on {e.mc_cases:.0f} of {e.cases} cases"
    )


def _at(e: Any, prevalence: float | None) -> str:
    own = f"At this set's prevalence of {e.ed_prevalence:.1%} ED: precision {figure(e.ed_precision)}, F2 {figure(e.ed_f2)}."
    if prevalence is None:
        return own
    precision, f2 = restated(e.ed_recall, e.ed_precision, e.ed_prevalence, prevalence)
    return f"{own} At {prevalence:.1%}: precision {figure(precision)}, F2 {figure(f2)} (same recall, same false alarms)."


def _rows(table: str, evaluation_id: str) -> list[Any]:
    return rows_of(
        query(f"FROM {table} WHERE evaluation_id = {_quoted(evaluation_id)} ORDER BY ALL")
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _lines(*parts: Any) -> str:
    return "\n".join(str(part) for part in parts if part is not None and not pd.isna(part))
