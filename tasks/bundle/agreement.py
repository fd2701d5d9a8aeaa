"""Whether a model that was rewritten still answers as the model that was trained.

Both are computed in float32 on unpacked weights, on the same embedded cases of `valid`, whatever
cases the model was trained on: those may be patients'.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.bundle.bundle import Bundle
from tasks.bundle.decide import rule_labels
from tasks.bundle.export_arguments import ExportAgreement
from tasks.corpus.case import Case
from tasks.corpus.encode import Template, encode
from tasks.corpus.vignettes.sets import sets_of
from tasks.judging.point_metrics import Floats
from tasks.runtime.errors import BadInput
from tasks.scoring.arguments import sample_numbers
from tasks.spec import Data
from tasks.tuning.batches import make_cases
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.lora import Adapted
from tasks.tuning.scores import score_cases

COMPUTE_PATH = "dequantised_f32"
CASES = 60
# Twenty times what rounding to float16 changes, and well below the width of any interval.
LARGEST_DIFFERENCE = 0.01


def sampled_cases() -> list[Case]:
    """The embedded cases of `valid` on which models are compared: the same every time."""
    cases = sets_of(Data())["valid"]
    numbers = sample_numbers(
        [case.case_id for case in cases], [case.label for case in cases], CASES
    )
    return [cases[number] for number in numbers]


def label_probabilities(
    adapted: Adapted, template: Template, cases: Sequence[Case], max_tokens: int
) -> Floats:
    """Probabilities (cases, 3) of the labels, order LABELS."""
    encoded = [encode(template, case.case_id, case.text, case.label, max_tokens) for case in cases]
    prefix = Prefix.embedded(adapted.stack, make_cases(template, encoded))
    return score_cases(adapted, prefix).probabilities


def compared(bundle: Bundle, trained_p: Floats, written_p: Floats) -> ExportAgreement:
    """How the probabilities (cases, 3) of two models, and their decisions, differ."""
    decisions = zip(rule_labels(bundle, trained_p), rule_labels(bundle, written_p), strict=True)
    return ExportAgreement(
        cases=len(trained_p),
        largest=float(abs(trained_p - written_p).max()),
        decided_otherwise=sum(
            trained_label != written_label for trained_label, written_label in decisions
        ),
    )


def refuse_beyond_bound(agreement: ExportAgreement, name: str) -> None:
    """Raise BadInput where a written model differs too much from the trained one."""
    if not agreement.largest <= LARGEST_DIFFERENCE:
        raise BadInput(
            f"{name} is not the model that was trained: on {agreement.cases} cases a probability "
            f"differs by up to {agreement.largest:.3g}, where {LARGEST_DIFFERENCE} is the most, "
            f"and {agreement.differing_decisions}. Export it without that option."
        )
