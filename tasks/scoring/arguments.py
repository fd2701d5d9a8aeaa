"""Arguments of the jobs that score a model: built by a step, sent as JSON, parsed by the job.

They are here, and not beside the jobs, since the parent process must not load MLX.
"""

from __future__ import annotations

from pathlib import Path

from tasks.scoring.sample import SampleSize
from tasks.spec import ExperimentSpec, PromptChoice, Scoring, Strict, Training


class ScoringJob(Strict):
    """Score a trained experiment on calibration and test into the folder `scores`.

    `adapter`: the folder of the training; `variant`: the weights, of another precision than the
    experiment's for a moved adapter, which is then judged by the rules of the scores folder
    `rules_from`.
    """

    experiment: ExperimentSpec
    variant: Path
    data: Path
    home: Path
    adapter: Path
    scores: Path
    rules_from: Path | None = None


class SetsScoringJob(Strict):
    """Score further evaluation sets of a trained experiment.

    `sets`: the folder to build, by name of the set; `rules_from`: the scores folder of the test
    set, whose rules are used on each of them.
    """

    experiment: ExperimentSpec
    variant: Path
    data: Path
    home: Path
    adapter: Path
    rules_from: Path
    sets: dict[str, Path]


class ValidScoringJob(Strict):
    """Score an adapter of an experiment on `valid`, the set by which it is trained.

    `adapter`: the file of the adapter, which may be that of a checkpoint; `over_triage`: at which
    the ED recall is taken; None for the macro-F1 instead.
    """

    experiment: ExperimentSpec
    variant: Path
    data: Path
    home: Path
    adapter: Path
    over_triage: float | None


class UntunedScoringJob(Strict):
    """Score an untuned variant into the folder `scores`, and on `sets` as in SetsScoringJob."""

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
