"""What `triage predict` prints or writes: JSON lines, or a table for a person."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TextIO

from flows.cli.terminal import printable
from flows.report.figures import percent
from tasks.bundle.bundle import Bundle
from tasks.bundle.decision import Decision, answer, conformal_notes, why_no_decision, why_no_review
from tasks.spec import LABELS

Show = Callable[[str | None, Decision], None]  # the case's id, None for the only text
Writer = Callable[[Bundle, bool, TextIO], Show]
ID_WIDTH = 32
COLUMNS = f"{'case':<{ID_WIDTH}} {'decision':<9}" + "".join(f"{f'p({x})':>9}" for x in LABELS)


def json_lines(bundle: Bundle, many: bool, file: TextIO) -> Show:
    """One JSON object a line, with all digits."""

    def show(case_id: str | None, decision: Decision) -> None:
        case_fields = {"case_id": case_id} if many else {}
        file.write(json.dumps(case_fields | answer(bundle, decision), ensure_ascii=True) + "\n")
        file.flush()

    return show


def table(bundle: Bundle, many: bool, file: TextIO) -> Show:
    """One text: its answer in lines. Many: a row each, under what must be known with all of them."""
    if not many:
        return lambda case_id, decision: _write(file, _lines(bundle, decision))

    rule_notes = [] if bundle.rule.is_available else [why_no_decision(bundle)]
    head = f"{COLUMNS}  conformal set   review"
    _write(file, [*_about(bundle), *rule_notes, *conformal_notes(bundle), "", head])

    def show(case_id: str | None, decision: Decision) -> None:
        _write(file, [_row(bundle, case_id or "", decision)])

    return show


WRITERS: dict[str, Writer] = {"table": table, "jsonl": json_lines}


def _write(file: TextIO, lines: list[str]) -> None:
    file.write("".join(f"{line}\n" for line in lines))
    file.flush()


def _about(bundle: Bundle) -> list[str]:
    """The model, and the sentences that stand with every answer."""
    model = f"{bundle.model_id}, rule {bundle.rule.name}, {bundle.verdict}"
    return [line for line in (model, bundle.warning, bundle.notice) if line]


def _lines(bundle: Bundle, decision: Decision) -> list[str]:
    fields = answer(bundle, decision)
    p = ", ".join(f"{label} {value:.4f}" for label, value in fields["probabilities"].items())
    missed = f"aims to miss at most {percent(bundle.conformal.miss_rate)} of emergencies"
    return [
        f"decision       {decision.label or 'not available'}",
        f"probabilities  {p}",
        f"conformal set  {_set(decision)} ({missed})",
        f"review         {_review(bundle, decision)}",
        *(f"note           {note}" for note in fields["notes"]),
        "",
        *_about(bundle),
    ]


def _row(bundle: Bundle, case_id: str, decision: Decision) -> str:
    name = printable(case_id).replace("\n", " ")[:ID_WIDTH]
    p = "".join(f"{value:9.4f}" for value in decision.probabilities)
    review = "not available" if decision.review is None else _review(bundle, decision)
    unsafe = "  unsafe" if bundle.warning else ""
    shortened = "  shortened" if decision.shortened else ""
    markup = "  markup" if decision.markup else ""
    label = decision.label or "none"
    marks = f"{unsafe}{shortened}{markup}"
    return f"{name:<{ID_WIDTH}} {label:<9}{p}  {_set(decision):<15} {review}{marks}"


def _set(decision: Decision) -> str:
    return " ".join(decision.conformal_set) or "empty"


def _review(bundle: Bundle, decision: Decision) -> str:
    if decision.review is None:
        return why_no_review(bundle, decision.passes) or "not available"
    entropy = f"vote entropy {decision.vote_entropy:.3f} nats, {decision.passes} passes"
    return f"{'yes' if decision.review else 'no'} ({entropy})"
