"""The four sets of a dataset: given, split off or generated, within their limits, none without a case."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tasks.corpus.case import SETS, Case
from tasks.corpus.reading.readers import read_set
from tasks.corpus.reading.sources import Located
from tasks.corpus.splits import SHARES, check_sets, limited, split_cases
from tasks.corpus.vignettes.sets import sets_of
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Data, Label

Sets = dict[str, list[Case]]


def limited_sets(data: Data, located: Located) -> tuple[Sets, Sets]:
    """The four sets within their limits, and what an evaluation set must be apart from."""
    sets = _sets(data, located)
    # Before the limits: what one grid leaves out, a grid with other limits may take.
    check_sets(sets)
    learned = _learned(sets, located)
    limits: Mapping[str, int] = {str(name): limit for name, limit in data.limits.items()}
    sets = {
        name: limited(cases, limits.get(name, len(cases)), data.seed)
        for name, cases in sets.items()
    }
    check_labels(sets, data.source)

    return sets, learned


def _sets(data: Data, located: Located) -> Sets:
    """The four sets before any limit: embedded, given, or one table that is split."""
    if data.source == "embedded":
        return sets_of(data)

    sets = {name: read_set(paths, data) for name, paths in located.files.items()}
    if "all" in sets:
        return split_cases(sets["all"], data.seed, split_shares(data))

    # In the order of SETS, not of the files.
    sets.update(split_off(sets["train"], data, sets))
    return {name: sets[name] for name in SETS}


def split_shares(data: Data) -> dict[str, float]:
    """The share of each set in one table that the project splits."""
    if data.set_shares is None:
        return SHARES
    return {str(name): data.set_shares[name] for name in SETS}


def split_off(train: Sequence[Case], data: Data, given_sets: Collection[str]) -> Sets:
    """The sets into which the cases given as train are split: train, and what else is not given.

    `given_sets`: names of the sets that are given.
    """
    of_all = split_shares(data)
    shares = {"train": of_all["train"]}
    shares |= {name: of_all[name] for name in ("valid", "calibration") if name not in given_sets}
    total = sum(shares.values())
    return split_cases(train, data.seed, {name: share / total for name, share in shares.items()})


def _learned(sets: Sets, located: Located) -> Sets:
    """What an evaluation set must be apart from, by the name for the error.

    Of a table that the project splits that is all of it: the seed decides which cases go to test.
    """
    if "all" in located.files:
        return {"the table that is split": [case for cases in sets.values() for case in cases]}
    return {name: sets[name] for name in SETS if name != "test"}


def check_filled(sets: Mapping[str, Sequence[Case]], source: str) -> None:
    """Refuse a set without a case. Raises BadInput."""
    has_groups = any(case.group is not None for cases in sets.values() for case in cases)
    more = "more cases, more groups, or" if has_groups else "more cases or"
    for name, cases in sets.items():
        if not cases:
            raise BadInput(
                f"{source}: no cases are left for {name}; give {more} fewer copies of one text."
            )


def check_labels(sets: Mapping[str, Sequence[Case]], source: str) -> None:
    """Refuse an empty set, and a train set that lacks a label. Raises BadInput."""
    check_filled(sets, source)
    missing = sorted(set(LABELS) - {case.label for case in sets["train"]})
    if missing:
        raise BadInput(
            f"{source}: train has no case labelled {missing[0]}; {_remedy(sets, missing[0])}."
        )


def _remedy(sets: Mapping[str, Sequence[Case]], label: Label) -> str:
    """How `train` can get cases of a label that it has none of."""
    of_label = [case for cases in sets.values() for case in cases if case.label == label]
    if any(case.group is not None for case in of_label):
        return "add some, or give more groups so that each set gets all labels"
    if of_label:
        return f"add some: the {len(of_label)} that there are stand in other sets"
    return "add some: the source has none"
