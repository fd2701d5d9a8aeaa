"""The check that an evaluation set is apart from everything that models learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.corpus.case import Case, text_digest
from tasks.corpus.splits import check_copies
from tasks.runtime.errors import BadInput
from tasks.spec import EvaluationSet

Learned = Mapping[str, Sequence[Case]]


def check_apart(evaluation_set: EvaluationSet, cases: Sequence[Case], learned: Learned) -> None:
    """Refuse a text, near copy or group of what models learn or choose thresholds from.

    `learned`: its cases by the name for the error. Raises BadInput, with cases named by id only.
    """
    where = f"The evaluation set {evaluation_set.name} ({evaluation_set.source})"
    _check_texts(where, cases, learned)
    _check_groups(where, cases, learned)

    for name, members in learned.items():
        try:
            check_copies({name: members, evaluation_set.name: cases})
        except BadInput as error:
            raise BadInput(f"{where} is not apart from {name}: {error}") from error


def _check_texts(where: str, cases: Sequence[Case], learned: Learned) -> None:
    texts = {
        text_digest(case.text): (name, case.case_id)
        for name, members in learned.items()
        for case in members
    }
    for case in cases:
        digest = text_digest(case.text)
        if digest in texts:
            name, case_id = texts[digest]
            raise BadInput(
                f"{where} has case {case.case_id} with the text of case {case_id} in {name}; leave "
                "one out."
            )


def _check_groups(where: str, cases: Sequence[Case], learned: Learned) -> None:
    groups = {
        case.group: (name, case.case_id)
        for name, members in learned.items()
        for case in members
        if case.group
    }
    for case in cases:
        if case.group in groups:
            name, case_id = groups[case.group]
            raise BadInput(
                f"{where} shares the group {case.group!r} with {name} (its case {case.case_id}, "
                f"case {case_id} there); leave the group out of one of the two, or rename the "
                "group in one if they have only the name in common."
            )
