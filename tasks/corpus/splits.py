"""Which case goes into which set: whole groups, or single texts by digest; and checks that nothing
leaks between sets."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.corpus.case import Case, text_digest
from tasks.corpus.compared_forms import compared_digest, compared_group, with_one_spelling
from tasks.corpus.near_copies import Sketch, near_duplicates
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS

SHARES = {"train": 0.6, "valid": 0.1, "calibration": 0.1, "test": 0.2}
COPY = 0.8  # share of common runs of words from which two texts are copies of each other
COPIES_VERSION = 2  # of how copies are found; part of the digest of what is not embedded

LabelCounts = Counter[str]


def split_cases(
    cases: Sequence[Case], seed: int, shares: Mapping[str, float] = SHARES
) -> dict[str, list[Case]]:
    """Deal cases into the sets of `shares`, label by label. Groups and near copies stay together.

    Depends on the seed and the cases, not on their order. Within a set the order is that of the
    input.
    """
    keys = _unit_keys(cases)
    units: dict[str, list[Case]] = defaultdict(list)
    for key, case in zip(keys, cases, strict=True):
        units[key].append(case)

    set_of = _deal(units, seed, shares)
    return {
        name: [case for key, case in zip(keys, cases, strict=True) if set_of[key] == name]
        for name in shares
    }


def _deal(
    units: Mapping[str, Sequence[Case]], seed: int, shares: Mapping[str, float]
) -> dict[str, str]:
    """The set of each unit: large units first, each to the set that lacks its labels most."""
    total = Counter(str(case.label) for cases in units.values() for case in cases)
    dealt_counts: dict[str, LabelCounts] = {name: Counter() for name in shares}
    set_of: dict[str, str] = {}

    # A large unit fits only while sets are empty; among equals the seed decides, not the input.
    for key in sorted(units, key=lambda key: (-len(units[key]), _draw(key, seed))):
        counts = Counter(str(case.label) for case in units[key])
        needs = {
            name: _need(counts, dealt_counts[name], total, share) for name, share in shares.items()
        }
        set_of[key] = max(needs, key=lambda name: needs[name])
        dealt_counts[set_of[key]].update(counts)

    return set_of


def _unit_keys(cases: Sequence[Case]) -> list[str]:
    """A key per case: its group, or else its text; near copies share the first one's."""
    keys = [
        f"g:{case.group}" if case.group is not None else f"t:{text_digest(case.text)}"
        for case in with_one_spelling(cases)
    ]
    leader = {key: key for key in keys}

    def lead(key: str) -> str:
        while leader[key] != key:
            key = leader[key]
        return key

    # Union of the units of each pair of copies, so that chains of copies stay together too.
    for a, b, _ in Sketch.of([case.text for case in cases]).pairs(COPY):
        first, second = sorted((lead(keys[a]), lead(keys[b])))
        leader[second] = first

    return [lead(key) for key in keys]


def _need(
    counts: LabelCounts, dealt_counts: LabelCounts, total: LabelCounts, share: float
) -> float:
    """How far a set is behind its share in the labels that a unit brings, rarest labels first."""
    return sum(
        n * (1 - dealt_counts[label] / (share * total[label])) / total[label]
        for label, n in counts.items()
    )


def _draw(key: str, seed: int) -> str:
    # A hash rather than a generator: the draw of one unit depends on no other unit.
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def limited(cases: Sequence[Case], limit: int, seed: int) -> list[Case]:
    """At most `limit` cases in the order of the input, with the label shares kept.

    They are spread over the groups.
    """
    if len(cases) <= limit:
        return list(cases)

    queues = {
        str(label): _spread([case for case in cases if case.label == label], seed)
        for label in LABELS
    }
    case_ids = {
        case.case_id
        for label, quota in quotas(queues, limit).items()
        for case in queues[label][:quota]
    }
    return [case for case in cases if case.case_id in case_ids]


def _spread(cases: Sequence[Case], seed: int) -> list[Case]:
    """Round after round one case of each group: any prefix holds as many groups as it can."""
    shuffled = sorted(cases, key=lambda case: _draw(case.case_id + text_digest(case.text), seed))
    counts: Counter[str] = Counter()
    rounds = []
    for rank, case in enumerate(shuffled):
        key = case.case_id if case.group is None else compared_group(case.group)
        rounds.append((counts[key], rank, case))
        counts[key] += 1

    return [case for _, _, case in sorted(rounds, key=lambda entry: entry[:2])]


def quotas(queues: Mapping[str, Sequence[object]], limit: int) -> dict[str, int]:
    """Largest-remainder shares of `limit`, with at least one case of each label that occurs."""
    total = sum(len(queue) for queue in queues.values())
    exact = {label: limit * len(queue) / total for label, queue in queues.items()}
    quotas = {label: max(int(share), 1 if queues[label] else 0) for label, share in exact.items()}

    while sum(quotas.values()) < limit:
        open_labels = [label for label in queues if quotas[label] < len(queues[label])]
        quotas[max(open_labels, key=lambda label: exact[label] - quotas[label])] += 1

    while sum(quotas.values()) > limit:
        quotas[max(quotas, key=lambda label: quotas[label])] -= 1

    return quotas


def check_sets(sets: Mapping[str, Sequence[Case]]) -> None:
    """Refuse the same text, id, group or near copies in two sets. Raises BadInput.

    Errors name cases by id only.
    """
    first_cases = _FirstCases({}, {}, {})
    for name, cases in sets.items():
        for case in cases:
            first_cases.check(name, case)

    check_copies(sets)


@dataclass(frozen=True)
class _FirstCases:
    """The set and the id of the first case of each text, id and group."""

    texts: dict[str, tuple[str, str]]
    ids: dict[str, str]
    groups: dict[str, tuple[str, str]]

    def check(self, name: str, case: Case) -> None:
        """Refuse a case of the set `name` that shares a text, id or group with another set."""
        key = compared_digest(case.text)
        first_set, first_id = self.texts.setdefault(key, (name, case.case_id))
        if first_set != name:
            raise BadInput(
                f"Case {case.case_id} in {name} has the same text as case {first_id} in "
                f"{first_set}; delete one of the two."
            )

        first_set = self.ids.setdefault(case.case_id, name)
        if first_set != name:
            raise BadInput(
                f"The id {case.case_id} stands in {first_set} and in {name}; give each case its "
                "own id."
            )

        if case.group is not None:
            self._check_group(name, case, case.group)

    def _check_group(self, name: str, case: Case, group: str) -> None:
        key = compared_group(group)
        first_set, first_id = self.groups.setdefault(key, (name, case.case_id))
        if first_set != name:
            raise BadInput(
                f"Case {case.case_id} in {name} is of the same group as case {first_id} in "
                f"{first_set}; keep a group's cases in one set."
            )


def check_copies(sets: Mapping[str, Sequence[Case]]) -> None:
    """Refuse texts of two sets that are nearly the same. Raises BadInput."""
    for pair in near_duplicates(sets, COPY)[:1]:
        raise BadInput(
            f"Case {pair.case_b} in {pair.set_b} is nearly the same text as case {pair.case_a} in "
            f"{pair.set_a} ({pair.similarity:.0%} of their runs of words); delete one of the two, "
            "or keep both in one set."
        )
