"""Arguments of the jobs that score a model: built by a step, sent as JSON, parsed by the job; and the
fixed samples of a set that some of them score.

They are here, and not beside the jobs, since the parent process must not load MLX.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

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
    """Score a trained experiment on evaluation sets, `test` or further ones.

    `sets`: the folder to build, by name of the set; `rules_from`: the scores folder whose rules are
    used on each of them, as for further sets and for moved adapters; None to choose them on
    calibration.
    """

    sets: dict[str, Path]
    rules_from: Path | None = None


class ValidScoringJob(TrainedJob):
    """Score an adapter of an experiment on `valid`, the set by which it is trained.

    `adapter`: the file of the adapter, which may be that of a checkpoint; `over_triage`: at which
    the ED recall is taken.
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
    """Compare quantised variants with their base model on a sample of at most `cases` test cases.

    `reference`: the folder of the base model; `variants`: the folder of each variant, by its
    precision; `training` and `prompt`: what the frozen prefix and the longest case depend on.
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
