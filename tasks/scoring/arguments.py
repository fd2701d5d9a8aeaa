"""Arguments of the jobs that score a model, and the fixed samples of a set that some of them score.

No MLX: the parent process builds them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field

from tasks.spec import ExperimentSpec, PromptChoice, Scoring, Strict, Training

SampleSize = int | Literal["all"]


class TrainedJob(Strict):
    """A trained experiment to score. `adapter`: the folder of the training; `variant`: the weights,
    of another precision than the experiment's for a moved adapter.
    """

    experiment: ExperimentSpec
    variant: Path
    data: Path
    home: Path
    adapter: Path


class ScoringJob(TrainedJob):
    """Score a trained experiment on evaluation sets: `sets` has the folder to build, by name.

    `rules_from`: the scores folder whose rules are used; None to choose them on calibration.
    `judged_from`: scores folders, by set, whose judged cases are taken, so that only calibration is
    scored: the rules of test are chosen again there.
    """

    sets: dict[str, Path]
    rules_from: Path | None = None
    judged_from: dict[str, Path] = Field(default_factory=dict)


class ValidScoringJob(TrainedJob):
    """Score an adapter of an experiment on `valid`: its ED recall at this `over_triage`.

    `adapter`: the file of the adapter, which may be that of a checkpoint.
    """

    over_triage: float


class UntunedScoringJob(Strict):
    """Score an untuned variant into the folder `scores`, and on `sets` as in ScoringJob."""

    scoring: Scoring
    training: Training
    prompt: PromptChoice = PromptChoice()
    variant: Path
    data: Path
    home: Path
    scores: Path
    sets: dict[str, Path]


class FidelityJob(Strict):
    """Compare quantised variants (folders by precision) with their base model (`reference`) on a
    sample of at most `cases` test cases.
    """

    reference: Path
    variants: dict[str, Path]
    cases: SampleSize
    training: Training
    prompt: PromptChoice = PromptChoice()
    data: Path
    home: Path


def sample_numbers(case_ids: list[str], labels: list[str], size: SampleSize) -> list[int]:
    """Positions, ascending, of at most `size` cases of a set, each label in its share of the set:
    the same for every experiment, so that figures can be paired.

    Shares are rounded by largest remainders; within a label the digest of the id alone decides.
    """
    if size == "all" or size >= len(case_ids):
        return list(range(len(case_ids)))

    numbers_by_label: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        numbers_by_label.setdefault(label, []).append(number)

    shares = {label: size * len(all_) / len(case_ids) for label, all_ in numbers_by_label.items()}
    quotas = {label: int(share) for label, share in shares.items()}
    by_remainder = sorted(shares, key=lambda label: (quotas[label] - shares[label], label))
    for label in by_remainder[: size - sum(quotas.values())]:
        quotas[label] += 1

    digests = [hashlib.sha256(case_id.encode()).hexdigest() for case_id in case_ids]
    sample: list[int] = []
    for label, numbers in numbers_by_label.items():
        sample += sorted(numbers, key=lambda number: digests[number])[: quotas[label]]
    return sorted(sample)
