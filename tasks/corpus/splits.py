"""Which case goes into which set, and what keeps sets apart: whole groups, or single texts by digest,
within limits; nothing leaks between sets, from them into evaluation sets, or into a prompt.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tasks.corpus.case import (
    SETS,
    Case,
    compared_digest,
    compared_group,
    from_json,
    text_digest,
    with_one_spelling,
)
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.near_copies import BATCH, Sketch, near_duplicates
from tasks.corpus.prompts import load_prompt
from tasks.corpus.reading.sources import Located
from tasks.corpus.reading.tables import read_set
from tasks.corpus.vignettes.sets import sets_of
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Data, EvaluationSet, PromptChoice

SHARES = {"train": 0.6, "valid": 0.1, "calibration": 0.1, "test": 0.2}
COPY = 0.8  # share of common runs of words from which two texts are copies of each other
COPIES_VERSION = 2  # of how copies are found; part of the digest of what is not embedded

LabelCounts = Counter[str]


def split_cases(
    cases: Sequence[Case], seed: int, shares: Mapping[str, float] = SHARES
) -> dict[str, list[Case]]:
    """Deal cases into the sets of `shares`, label by label. Groups and near copies stay together.

    The sets do not depend on the order of the cases, which is kept within a set.
    """
    keys = _unit_keys(cases)
    units: dict[str, LabelCounts] = defaultdict(Counter)
    for key, case in zip(keys, cases, strict=True):
        units[key][case.label] += 1

    total = Counter(str(case.label) for case in cases)
    dealt_counts: dict[str, LabelCounts] = {name: Counter() for name in shares}
    set_of: dict[str, str] = {}

    def need(name: str, counts: LabelCounts) -> float:
        """How far a set is behind its share in a unit's labels, rarest labels first."""
        return sum(
            n * (1 - dealt_counts[name][label] / (shares[name] * total[label])) / total[label]
            for label, n in counts.items()
        )

    # Large units first, each to the set that lacks its labels most: a large unit fits only while
    # sets are empty; among equals the seed decides, not the input.
    for key in sorted(units, key=lambda key: (-units[key].total(), _draw(key, seed))):
        needs = {name: need(name, units[key]) for name in shares}
        set_of[key] = max(needs, key=lambda name: needs[name])
        dealt_counts[set_of[key]].update(units[key])

    return {
        name: [case for key, case in zip(keys, cases, strict=True) if set_of[key] == name]
        for name in shares
    }


def _unit_keys(cases: Sequence[Case]) -> list[str]:
    """A key per case: its group, or else its text; near copies share the first one's."""
    from scipy.cluster.hierarchy import DisjointSet

    keys = [
        f"t:{text_digest(case.text)}" if case.group is None else f"g:{case.group}"
        for case in with_one_spelling(cases)
    ]
    # Chains of copies stay together too; the first key of the alphabet names a unit.
    units = DisjointSet(keys)
    for a, b, _ in Sketch.of([case.text for case in cases]).pairs(COPY):
        units.merge(keys[a], keys[b])
    leader = {key: min(unit) for unit in units.subsets() for key in unit}
    return [leader[key] for key in keys]


def _draw(key: str, seed: int) -> str:
    # A hash rather than a generator: the draw of one unit depends on no other unit.
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def limited(cases: Sequence[Case], limit: int, seed: int) -> list[Case]:
    """At most `limit` cases in their order, with the label shares kept, spread over the groups."""
    if len(cases) <= limit:
        return list(cases)

    shuffled = sorted(cases, key=lambda case: _draw(case.case_id + text_digest(case.text), seed))
    queues: dict[str, list[Case]] = {}
    for label in LABELS:
        # Round after round one case of each group: any prefix holds as many groups as it can.
        counts: Counter[str] = Counter()
        rounds = []
        for case in shuffled:
            if case.label == label:
                key = case.case_id if case.group is None else compared_group(case.group)
                rounds.append((counts[key], case))
                counts[key] += 1
        queues[label] = [case for _, case in sorted(rounds, key=lambda entry: entry[0])]

    sizes = {label: len(queue) for label, queue in queues.items()}
    case_ids = {
        case.case_id
        for label, quota in quotas(sizes, limit).items()
        for case in queues[label][:quota]
    }
    return [case for case in cases if case.case_id in case_ids]


def quotas(counts: Mapping[str, int], limit: int) -> dict[str, int]:
    """Largest-remainder shares of `limit` for the cases of each label, at least one where there is
    one.
    """
    total = sum(counts.values())
    exact = {label: limit * count / total for label, count in counts.items()}
    quotas = {label: max(int(share), min(counts[label], 1)) for label, share in exact.items()}

    while sum(quotas.values()) < limit:
        open_labels = [label for label in counts if quotas[label] < counts[label]]
        quotas[max(open_labels, key=lambda label: exact[label] - quotas[label])] += 1

    while sum(quotas.values()) > limit:
        quotas[max(quotas, key=lambda label: quotas[label])] -= 1

    return quotas


def check_sets(sets: Mapping[str, Sequence[Case]]) -> None:
    """Refuse the same text, id, group or near copies in two sets. Raises BadInput, which names cases
    by id only.
    """
    for name, case, first_set, first in _shared(sets, lambda case: compared_digest(case.text)):
        raise BadInput(
            f"Case {case.case_id} in {name} has the same text as case {first.case_id} in "
            f"{first_set}; delete one of the two."
        )
    for name, case, first_set, _ in _shared(sets, lambda case: case.case_id):
        raise BadInput(
            f"The id {case.case_id} is in {first_set} and in {name}; give each case its own id."
        )
    for name, case, first_set, first in _shared(sets, _group_key):
        raise BadInput(
            f"Case {case.case_id} in {name} is of the same group as case {first.case_id} in "
            f"{first_set}; keep a group's cases in one set."
        )
    check_copies(sets)


def _group_key(case: Case) -> str | None:
    return None if case.group is None else compared_group(case.group)


def _shared(
    sets: Mapping[str, Sequence[Case]], key_of: Callable[[Case], str | None]
) -> Iterator[tuple[str, Case, str, Case]]:
    """Each case whose key an earlier set has, too: its set, the case, and the first set and case."""
    first: dict[str, tuple[str, Case]] = {}
    for name, cases in sets.items():
        for case in cases:
            key = key_of(case)
            if key is not None:
                first_set, first_case = first.setdefault(key, (name, case))
                if first_set != name:
                    yield name, case, first_set, first_case


def check_copies(sets: Mapping[str, Sequence[Case]]) -> None:
    """Refuse texts of two sets that are nearly the same. Raises BadInput."""
    for first_set, first, other_set, other, share in near_duplicates(sets, COPY)[:1]:
        raise BadInput(
            f"Case {other.case_id} in {other_set} is nearly the same text as case {first.case_id} "
            f"in {first_set} ({share:.0%} of their runs of words); delete one of the two, or keep "
            "both in one set."
        )


Sets = dict[str, list[Case]]


def limited_sets(data: Data, located: Located) -> tuple[Sets, Sets]:
    """The four sets within their limits, and what an evaluation set must be apart from."""
    if data.source == "embedded":
        sets = sets_of(data)
    elif "all" in located.files:
        table = read_set(located.files["all"], data)
        sets = split_cases(table, data.seed, split_shares(data))
    else:
        sets = {name: read_set(paths, data) for name, paths in located.files.items()}
        sets.update(split_off(sets["train"], data, sets))
        sets = {name: sets[name] for name in SETS}  # in the order of SETS, not of the files

    # Before the limits: what one grid leaves out, a grid with other limits may take.
    check_sets(sets)
    learned: Sets = {name: sets[name] for name in SETS if name != "test"}
    if "all" in located.files:  # all of it: the seed decides which cases go to test
        cases_of_table = [case for cases in sets.values() for case in cases]
        learned = {"the table that is split": cases_of_table}

    for name, limit in data.limits.items():
        sets[name] = limited(sets[name], limit, data.seed)
    check_labels(sets, data.source)

    return sets, learned


def split_shares(data: Data) -> dict[str, float]:
    """The share of each set in one table that the project splits."""
    shares = data.set_shares or SHARES
    return {name: shares[name] for name in SETS}


def split_off(train: Sequence[Case], data: Data, given_sets: Collection[str]) -> Sets:
    """The sets into which the cases given as train are split: train, and what `given_sets` lack."""
    of_all = split_shares(data)
    shares = {"train": of_all["train"]}
    shares |= {name: of_all[name] for name in ("valid", "calibration") if name not in given_sets}
    total = sum(shares.values())
    return split_cases(train, data.seed, {name: share / total for name, share in shares.items()})


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
    if not missing:
        return

    of_label = [case for cases in sets.values() for case in cases if case.label == missing[0]]
    remedy = "add some: the source has none"
    if any(case.group is not None for case in of_label):
        remedy = "add some, or give more groups so that each set gets all labels"
    elif of_label:
        remedy = f"add some: the {len(of_label)} that there are, are in other sets"
    raise BadInput(f"{source}: train has no case labelled {missing[0]}; {remedy}.")


def check_apart(evaluation_set: EvaluationSet, cases: Sequence[Case], learned: Sets) -> None:
    """Refuse a text, near copy or group of what models learn or choose thresholds from; the familiar
    set is about groups of train.

    `learned`: its cases by the name for the error. Raises BadInput, with cases named by id only.
    """
    set_name = f"The evaluation set {evaluation_set.name} ({evaluation_set.source})"
    sets: dict[str, Sequence[Case]] = {**learned, evaluation_set.name: cases}
    for _, case, name, same in _shared(sets, lambda case: compared_digest(case.text)):
        raise BadInput(
            f"{set_name} has case {case.case_id} with the text of case {same.case_id} in {name}; "
            "leave one out."
        )

    if evaluation_set.is_familiar:
        sets.pop("train", None)
    for _, case, name, kin in _shared(sets, _group_key):
        raise BadInput(
            f"{set_name} shares the group {case.group!r} with {name} (its case {case.case_id}, "
            f"case {kin.case_id} there); leave the group out of one of the two, or rename the "
            "group in one if they have only the name in common."
        )

    for name, of_name in learned.items():
        try:
            check_copies({name: of_name, evaluation_set.name: cases})
        except BadInput as error:
            raise BadInput(f"{set_name} is not apart from {name}: {error}") from error


def check_examples(folder: Path, choices: Iterable[PromptChoice]) -> None:
    """Refuse a data set that holds an example of one of these prompts, or a near copy. Raises
    BadInput, with the case named by id only.
    """
    prompts = [prompt for prompt in map(load_prompt, choices) if prompt.examples]
    for name in DatasetManifest.read(folder).sets if prompts else ():
        with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
            cases = list(map(from_json, lines))
        for start, prompt in itertools.product(range(0, len(cases), BATCH), prompts):
            examples = [Case(entry.label, entry.text, entry.label) for entry in prompt.examples]
            batch = {"": examples, name: cases[start : start + BATCH]}
            for _, example, _, case, share in near_duplicates(batch, COPY)[:1]:
                raise BadInput(
                    f"Case {case.case_id} in {name} is the text, or nearly the text, of the example "
                    f"{example.case_id} in prompt {prompt.version} ({share:.0%} of their runs of "
                    "words), so the model would read its answer; leave the case out, or set "
                    "prompt.version = 1."
                )
