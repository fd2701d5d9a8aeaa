"""The embedded cases that the settings of `[data]` ask for, and the embedded evaluation sets."""

from __future__ import annotations

from tasks.corpus.case import Case
from tasks.corpus.vignettes.contrast.cases import contrast_records
from tasks.corpus.vignettes.generator import (
    SHARES,
    SIZES,
    Record,
    embedded_records,
    share_key,
)
from tasks.spec import LABELS, Data


def records_of(data: Data) -> tuple[Record, ...]:
    """Every case of the four sets with the facts behind it, train first.

    A share of train is made of contrast cases. Valid keeps its cases and gains contrast cases in
    other words, up to the same share, so that it shows whether their point was learned. Calibration
    and test stay as they are: thresholds are chosen on cases of the kind that they will meet.
    """
    share = data.contrast_share
    if not share:
        return embedded_records(data.seed, share_key(data.shares), data.sizes)

    size = data.train_cases or SIZES["train"]
    contrasts = round(size * share)
    usual = embedded_records(
        data.seed, share_key(data.shares), data.sizes | {"train": size - contrasts}
    )
    label_shares = share_key(data.shares) or tuple(SHARES[label] for label in LABELS)
    in_valid = round(SIZES["valid"] * share / (1 - share))
    added = {
        "train": contrast_records("train", contrasts, label_shares, data.seed),
        "valid": contrast_records("valid", in_valid, label_shares, data.seed),
    }
    return tuple(
        record
        for name in SIZES
        for record in (
            *(usual_one for usual_one in usual if usual_one.set == name),
            *added.get(name, ()),
        )
    )


def sets_of(data: Data) -> dict[str, list[Case]]:
    """The cases by set name."""
    sets: dict[str, list[Case]] = {name: [] for name in SIZES}
    for record in records_of(data):
        sets[record.set].append(record.case)
    return sets
