"""Who goes into which set: whole groups, or single texts by digest; and checks that nothing leaks between sets."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tasks.corpus.case import Case, text_digest
from tasks.corpus.near_copies import Sketch, near_duplicates
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS

SHARES = {"train": 0.5, "valid": 0.1, "calibration": 0.2, "test": 0.2}
COPY = 0.8  # share of common runs of words from which two texts are taken for copies of each other


def split_cases(
    cases: Sequence[Case], seed: int, shares: Mapping[str, float] = SHARES
) -> dict[str, list[Case]]:
    """Deal cases into the sets of `shares`. Groups and near copies stay together; others are dealt label by label.

    Depends on the seed and the cases, not on their order. Within a set the order is that of the input.
    """
    units: dict[str, list[Case]] = defaultdict(list)
    keys = _units(cases)
    for key, case in zip(keys, cases, strict=True):
        units[key].append(case)
    placed: dict[str, Counter[str]] = {name: Counter() for name in shares}
    total = Counter(str(case.label) for case in cases)
    home: dict[str, str] = {}
    for key in sorted(units, key=lambda key: (-len(units[key]), _draw(key, seed))):
        counts = Counter(str(case.label) for case in units[key])
        home[key] = max(shares, key=lambda name: _need(counts, placed[name], total, shares[name]))
        placed[home[key]].update(counts)
    return {
        name: [case for key, case in zip(keys, cases, strict=True) if home[key] == name]
        for name in shares
    }


def _units(cases: Sequence[Case]) -> list[str]:
    """A key per case: its group, or else its text; near copies share the first one's."""
    keys = [
        f"g:{case.group}" if case.group is not None else f"t:{text_digest(case.text)}"
        for case in cases
    ]
    leader = {key: key for key in keys}

    def lead(key: str) -> str:
        while leader[key] != key:
            key = leader[key]
        return key

    for a, b, _ in Sketch.of([case.text for case in cases]).pairs(COPY):
        one, other = sorted((lead(keys[a]), lead(keys[b])))
        leader[other] = one
    return [lead(key) for key in keys]


def _need(counts: Counter[str], placed: Counter[str], total: Counter[str], share: float) -> float:
    """How far the set is behind its share in the labels that this unit brings, rarest labels first."""
    return sum(
        n * (1 - placed[label] / (share * total[label])) / total[label]
        for label, n in counts.items()
    )


def _draw(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def limited(cases: Sequence[Case], limit: int, seed: int) -> list[Case]:
    """At most `limit` cases with the label shares kept, spread over the groups; the order of the input is kept."""
    if len(cases) <= limit:
        return list(cases)
    queues = {str(label): _spread([c for c in cases if c.label == label], seed) for label in LABELS}
    chosen = {c.case_id for label, n in quotas(queues, limit).items() for c in queues[label][:n]}
    return [case for case in cases if case.case_id in chosen]


def _spread(cases: Sequence[Case], seed: int) -> list[Case]:
    """Round after round one case of each group, so that a prefix of the list holds as many groups as it can."""
    shuffled = sorted(cases, key=lambda case: _draw(case.case_id + text_digest(case.text), seed))
    seen: Counter[str] = Counter()
    rounds = []
    for place, case in enumerate(shuffled):
        key = case.group if case.group is not None else case.case_id
        rounds.append((seen[key], place, case))
        seen[key] += 1
    return [case for _, _, case in sorted(rounds, key=lambda entry: entry[:2])]


def quotas(queues: Mapping[str, Sequence[object]], limit: int) -> dict[str, int]:
    """Largest-remainder shares of `limit`, with at least one case of each label there is."""
    total = sum(len(queue) for queue in queues.values())
    exact = {label: limit * len(queue) / total for label, queue in queues.items()}
    quotas = {label: max(int(share), 1 if queues[label] else 0) for label, share in exact.items()}
    while sum(quotas.values()) < limit:
        quotas[
            max(
                (n for n in queues if quotas[n] < len(queues[n])),
                key=lambda n: exact[n] - quotas[n],
            )
        ] += 1
    while sum(quotas.values()) > limit:
        quotas[max(quotas, key=lambda label: quotas[label])] -= 1
    return quotas


def check_sets(sets: Mapping[str, Sequence[Case]]) -> None:
    """Refuse the same text, near copies or the same group in two sets, naming cases by id only. Raises BadInput."""
    texts: dict[str, tuple[str, str]] = {}
    groups: dict[str, tuple[str, str]] = {}
    ids: dict[str, str] = {}
    for name, cases in sets.items():
        for case in cases:
            where = texts.setdefault(text_digest(case.text), (name, case.case_id))
            if where[0] != name:
                raise BadInput(
                    f"Case {case.case_id} in {name} has the same text as case {where[1]} in {where[0]}; delete one of the two."
                )
            if ids.setdefault(case.case_id, name) != name:
                raise BadInput(
                    f"The id {case.case_id} stands in {ids[case.case_id]} and in {name}; give each case its own id."
                )
            if case.group is None:
                continue
            where = groups.setdefault(case.group, (name, case.case_id))
            if where[0] != name:
                raise BadInput(
                    f"Case {case.case_id} in {name} is of the same group as case {where[1]} in {where[0]}; "
                    "keep a group's cases in one set."
                )
    check_copies(sets)


def check_copies(sets: Mapping[str, Sequence[Case]]) -> None:
    """Refuse texts of two sets that are nearly the same. Raises BadInput."""
    for pair in near_duplicates(sets, COPY)[:1]:
        raise BadInput(
            f"Case {pair.case_b} in {pair.set_b} is nearly the same text as case {pair.case_a} in {pair.set_a} "
            f"({pair.similarity:.0%} of their runs of words); delete one of the two, or keep both in one set."
        )
