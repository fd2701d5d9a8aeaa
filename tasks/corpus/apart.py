"""The checks that an evaluation set is apart from everything that models learn from, and that every
set is apart from the examples in a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tasks.corpus.case import Case, from_json
from tasks.corpus.compared_forms import compared_digest, compared_group
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.near_copies import BATCH, near_duplicates
from tasks.corpus.prompts import Prompt, load_prompt
from tasks.corpus.splits import COPY, check_copies
from tasks.runtime.errors import BadInput
from tasks.spec import EvaluationSet, PromptChoice

Learned = Mapping[str, Sequence[Case]]


def check_apart(evaluation_set: EvaluationSet, cases: Sequence[Case], learned: Learned) -> None:
    """Refuse a text, near copy or group of what models learn or choose thresholds from.

    `learned`: its cases by the name for the error. Raises BadInput, with cases named by id only.
    """
    set_name = f"The evaluation set {evaluation_set.name} ({evaluation_set.source})"
    _check_texts(set_name, cases, learned)
    _check_groups(set_name, cases, learned)

    for name, members in learned.items():
        try:
            check_copies({name: members, evaluation_set.name: cases})
        except BadInput as error:
            raise BadInput(f"{set_name} is not apart from {name}: {error}") from error


def _check_texts(set_name: str, cases: Sequence[Case], learned: Learned) -> None:
    texts = {
        compared_digest(case.text): (name, case.case_id)
        for name, members in learned.items()
        for case in members
    }
    for case in cases:
        digest = compared_digest(case.text)
        if digest in texts:
            name, case_id = texts[digest]
            raise BadInput(
                f"{set_name} has case {case.case_id} with the text of case {case_id} in {name}; "
                "leave one out."
            )


def _check_groups(set_name: str, cases: Sequence[Case], learned: Learned) -> None:
    groups = {
        compared_group(case.group): (name, case.case_id)
        for name, members in learned.items()
        for case in members
        if case.group
    }
    for case in cases:
        group = compared_group(case.group or "")
        if group in groups:
            name, case_id = groups[group]
            raise BadInput(
                f"{set_name} shares the group {case.group!r} with {name} (its case {case.case_id}, "
                f"case {case_id} there); leave the group out of one of the two, or rename the "
                "group in one if they have only the name in common."
            )


def check_examples(folder: Path, choices: Iterable[PromptChoice]) -> None:
    """Refuse a set of a dataset folder that holds an example of one of
    these prompts, or a near copy.

    Raises BadInput, with the case named by id only.
    """
    prompts = [prompt for prompt in map(load_prompt, choices) if prompt.examples]
    if not prompts:
        return

    for name in DatasetManifest.read(folder).sets:
        with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
            cases = list(map(from_json, lines))
        for start in range(0, len(cases), BATCH):
            for prompt in prompts:
                _refuse_example(prompt, name, cases[start : start + BATCH])


def _refuse_example(prompt: Prompt, name: str, cases: Sequence[Case]) -> None:
    examples = [Case(example.label, example.text, example.label) for example in prompt.examples]
    for pair in near_duplicates({"": examples, name: cases}, COPY)[:1]:
        raise BadInput(
            f"Case {pair.case_b} in {name} is the text, or nearly the text, of the example "
            f"{pair.case_a} in prompt {prompt.version} ({pair.similarity:.0%} of their runs of "
            "words), so the model would read its answer; leave the case out, or set "
            "prompt.version = 1."
        )
