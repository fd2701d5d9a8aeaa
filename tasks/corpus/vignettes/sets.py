"""The embedded cases that the settings of `[data]` ask for, and the embedded evaluation sets."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.corpus.case import Case, normal_text
from tasks.corpus.vignettes.adversarial import SIZES as ADVERSARIAL_SIZES
from tasks.corpus.vignettes.adversarial import adversarial_records
from tasks.corpus.vignettes.contrast.cases import contrast_records
from tasks.corpus.vignettes.generator import (
    SIZES,
    Record,
    embedded_records,
    familiar_records,
    further_records,
    share_key,
)
from tasks.spec import FAMILIAR, Data, EvaluationSet

FAMILIAR_VERSION = 1  # of how the cases of test_familiar are drawn
EVALUATION_SIZES = ADVERSARIAL_SIZES | {FAMILIAR: 1200}


def records_of(data: Data) -> tuple[Record, ...]:
    """Every case of the four sets with the facts behind it, train first.

    A share of train is made of contrast cases, and a share of its other cases is about the further
    problems. Valid keeps its cases and gains contrast cases in other words, up to the same share,
    so that it shows whether their point was learned. Calibration and test stay as they are:
    thresholds are chosen on cases of the kind that they will meet.
    """
    shares = share_key(data.shares)
    size = data.train_cases or SIZES["train"]
    contrasts = round(size * data.contrast_share)
    further = round((size - contrasts) * data.further_share)
    if not data.contrast_share and not further:
        return embedded_records(data.seed, shares, data.sizes)

    sizes = data.sizes | {"train": size - contrasts - further}
    usual = embedded_records(data.seed, shares, sizes)
    in_valid = added_to_valid(data.contrast_share)
    return (
        *(record for record in usual if record.set == "train"),
        *further_records(further, shares, data.seed),
        *contrast_records("train", contrasts, shares, data.seed),
        *(record for record in usual if record.set == "valid"),
        *contrast_records("valid", in_valid, shares, data.seed),
        *(record for record in usual if record.set in ("calibration", "test")),
    )


def added_to_valid(contrast_share: float) -> int:
    """How many contrast cases valid has beside its own."""
    return round(SIZES["valid"] * contrast_share / (1 - contrast_share))


def sets_of(data: Data) -> dict[str, list[Case]]:
    """The cases by set name."""
    sets: dict[str, list[Case]] = {name: [] for name in SIZES}
    for record in records_of(data):
        sets[record.set].append(record.case)
    return sets


def evaluation_records(
    columns: EvaluationSet, data: Data, train: Sequence[Case]
) -> tuple[Record, ...]:
    """The cases of an embedded evaluation set beside the data set of `data`.

    `train`: what is learned from. The familiar set is about its problems, and repeats no text of
    the four sets.
    """
    if not columns.is_familiar:
        return adversarial_records(data.seed, columns.name)

    problem_ids = {case.group for case in train if case.group is not None}
    texts = {normal_text(record.case.text) for record in records_of(data)}
    shares = share_key(data.shares)
    return familiar_records(EVALUATION_SIZES[FAMILIAR], problem_ids, shares, data.seed, texts)
