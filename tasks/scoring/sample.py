"""A fixed, label-stratified sample of a set.

It is the same for every experiment, so that figures can be paired.
"""

from __future__ import annotations

import hashlib
from typing import Literal

SampleSize = int | Literal["all"]


def stratified_sample(case_ids: list[str], labels: list[str], size: SampleSize) -> list[str]:
    """At most `size` case ids, in their order, each label in its share of the set.

    Shares are rounded by largest remainders; within a label the digest of the id alone decides.
    """
    if size == "all" or size >= len(case_ids):
        return list(case_ids)

    ids_by_label: dict[str, list[str]] = {}
    for case_id, label in zip(case_ids, labels, strict=True):
        ids_by_label.setdefault(label, []).append(case_id)

    quotas = _quotas(ids_by_label, size, len(case_ids))

    sampled: set[str] = set()
    for label, ids in ids_by_label.items():
        sampled.update(sorted(ids, key=_digest)[: quotas[label]])
    return [case_id for case_id in case_ids if case_id in sampled]


def _quotas(ids_by_label: dict[str, list[str]], size: int, cases: int) -> dict[str, int]:
    """Number of cases to take of each label, `size` in all."""
    shares = {label: size * len(ids) / cases for label, ids in ids_by_label.items()}
    quotas = {label: int(share) for label, share in shares.items()}
    by_remainder = sorted(shares, key=lambda label: (quotas[label] - shares[label], label))
    for label in by_remainder[: size - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def sample_numbers(case_ids: list[str], labels: list[str], size: SampleSize) -> list[int]:
    """Like `stratified_sample`, as positions in the set, ascending."""
    sampled = set(stratified_sample(case_ids, labels, size))
    return [number for number, case_id in enumerate(case_ids) if case_id in sampled]


def _digest(case_id: str) -> str:
    return hashlib.sha256(case_id.encode()).hexdigest()
