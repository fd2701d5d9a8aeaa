"""The embedded cases that the settings of `[data]` ask for, and the embedded evaluation sets."""

from __future__ import annotations

from tasks.corpus.case import Case
from tasks.corpus.vignettes.contrast.cases import contrast_records
from tasks.corpus.vignettes.generator import (
    SHARES,
    SIZES,
    Record,
    embedded_records,
    further_records,
    share_key,
)
from tasks.spec import LABELS, Data


def records_of(data: Data) -> tuple[Record, ...]:
    """Every case of the four sets with the facts behind it, train first.

    A share of train is made of contrast cases, and a share of its other cases is about the further
    problems. Valid keeps its cases and gains contrast cases in other words, up to the same share,
    so that it shows whether their point was learned. Calibration and test stay as they are:
    thresholds are chosen on cases of the kind that they will meet.
    """
    label_shares = share_key(data.shares) or tuple(SHARES[label] for label in LABELS)
    size = data.train_cases or SIZES["train"]
    contrasts = round(size * data.contrast_share)
    further = round((size - contrasts) * data.further_share)
    if not data.contrast_share and not further:
        return embedded_records(data.seed, share_key(data.shares), data.sizes)

    further_records = {
        "train": (
            *_further(further, label_shares, data.seed),
            *contrast_records("train", contrasts, label_shares, data.seed),
        ),
        "valid": _contrasts_of_valid(data.contrast_share, label_shares, data.seed),
    }
    sizes = data.sizes | {"train": size - contrasts - further}
    usual = embedded_records(data.seed, share_key(data.shares), sizes)

    return tuple(
        record
        for name in SIZES
        for record in (
            *(usual_one for usual_one in usual if usual_one.set == name),
            *further_records.get(name, ()),
        )
    )


def _further(count: int, shares: tuple[float, ...], seed: int) -> tuple[Record, ...]:
    return further_records(count, shares, seed) if count else ()


def _contrasts_of_valid(share: float, shares: tuple[float, ...], seed: int) -> tuple[Record, ...]:
    return contrast_records("valid", added_to_valid(share), shares, seed)


def added_to_valid(contrast_share: float) -> int:
    """How many contrast cases valid has beside its own."""
    return round(SIZES["valid"] * contrast_share / (1 - contrast_share))


def sets_of(data: Data) -> dict[str, list[Case]]:
    """The cases by set name."""
    sets: dict[str, list[Case]] = {name: [] for name in SIZES}
    for record in records_of(data):
        sets[record.set].append(record.case)
    return sets
