"""The section of the data card on cases about further problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tasks.corpus.case import Case
from tasks.corpus.embedded_card import references_in
from tasks.corpus.vignettes.knowledge_base import further_digest, further_problems
from tasks.corpus.vignettes.reader_check import describe_checks_of
from tasks.spec import LABELS

FURTHER = """\
## Further problems

{cases} cases of `train` ({labels}) are about {problems} further problems, which no other set has (knowledge {digest}). Their
labels follow from the facts by the same rules. No wording of theirs is that of a held-out problem, or nearly (a test
compares them).

Further references, named by a language model and not looked up: {references}.

{reader}"""


def further_card(train: Sequence[Case]) -> str:
    """The section as Markdown, for a train set that holds such cases."""
    cases = [case for case in train if case.group in further_problems()]
    labels = Counter(case.label for case in cases)
    problems = {str(case.group) for case in cases}
    sources = (further_problems()[problem].source for problem in problems)

    return FURTHER.format(
        cases=f"{len(cases):,}",
        labels=", ".join(f"{labels[label]:,} {label}" for label in LABELS),
        problems=len(problems),
        digest=further_digest()[:12],
        references="; ".join(references_in(sources)),
        reader=describe_checks_of("further"),
    )
