"""A fixed, label-stratified sample of a set: the same cases for every experiment, so that figures can be paired."""

from __future__ import annotations

import hashlib
from typing import Literal


def stratified_sample(
    case_ids: list[str], labels: list[str], size: int | Literal["all"]
) -> list[str]:
    """At most `size` case ids, each label in its share (largest remainders), chosen by digest of the id alone."""
    if size == "all" or size >= len(case_ids):
        return list(case_ids)
    by_label: dict[str, list[str]] = {}
    for case_id, label in zip(case_ids, labels, strict=True):
        by_label.setdefault(label, []).append(case_id)
    shares = {label: size * len(ids) / len(case_ids) for label, ids in by_label.items()}
    quota = {label: int(share) for label, share in shares.items()}
    rest = sorted(shares, key=lambda label: (quota[label] - shares[label], label))
    for label in rest[: size - sum(quota.values())]:
        quota[label] += 1
    kept = {i for label, ids in by_label.items() for i in sorted(ids, key=_order)[: quota[label]]}
    return [case_id for case_id in case_ids if case_id in kept]


def sample_numbers(case_ids: list[str], labels: list[str], size: int | Literal["all"]) -> list[int]:
    """Like `stratified_sample`, as places in the set, ascending."""
    kept = set(stratified_sample(case_ids, labels, size))
    return [i for i, case_id in enumerate(case_ids) if case_id in kept]


def _order(case_id: str) -> str:
    return hashlib.sha256(case_id.encode()).hexdigest()
