"""An experiment as a chain of Prefect steps, train -> evaluate -> land, and a sweep's chains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tasks.models.model_folders import base_folder
from tasks.runtime.home import home
from tasks.spec import ExperimentSpec
from tasks.studies import SweepRecord

# A PrefectFuture. As an argument of a later step Prefect replaces it by its value, so the
# signatures of steps name the value's type, and a future has no type here.
Step = Any


@dataclass(frozen=True)
class Shared:
    """The steps that the experiments on one variant share, in the order in which they run."""

    data: Step
    source: Step
    base: Step
    variant: Step

    @property
    def steps(self) -> list[Step]:
        return [self.data, self.source, self.base, self.variant]


@dataclass(frozen=True)
class Chain:
    """The steps of one experiment after those that it shares with others."""

    spec: ExperimentSpec
    shared: Shared
    training: Step
    scores: Step
    landing: Step

    @property
    def steps(self) -> list[Step]:
        """All steps that the experiment needs, in the order in which they run."""
        return [*self.shared.steps, self.training, self.scores, self.landing]

    @property
    def name(self) -> str:
        return self.spec.cell_id

    @property
    def ids(self) -> list[str]:
        """What landed of the experiment; empty where it did not."""
        if not self.landing.state.is_completed():
            return []
        return [self.training.result(), self.landing.result()]


@dataclass(frozen=True)
class Extra:
    """A step that is no experiment: baselines, further evaluation sets, fidelity, moved adapters."""

    name: str
    step: Step

    @property
    def ids(self) -> list[str]:
        """What landed of the step; empty where it did not finish."""
        if not self.step.state.is_completed():
            return []
        ids = self.step.result()
        return [ids] if isinstance(ids, str) else list(ids)


@dataclass
class SubmittedSweep:
    """The futures of a sweep: a chain per experiment, and the extras beside them, as submitted.

    `record`: what makes its results belong to its study. `bases`, `variants`: its models.
    """

    data: Step
    record: SweepRecord
    parts: list[Chain | Extra] = field(default_factory=list)
    bases: list[Step] = field(default_factory=list)
    variants: list[Step] = field(default_factory=list)

    @property
    def chains(self) -> list[Chain]:
        """The experiments, in the order of the grid."""
        return [part for part in self.parts if isinstance(part, Chain)]

    @property
    def model_ids(self) -> list[str]:
        """The base models and variants that were made or found, as they land."""
        bases = [base_folder(step.result(), home()) for step in self.bases if _has_ended_well(step)]
        variants = [step.result() for step in self.variants if _has_ended_well(step)]
        return sorted({folder.name for folder in [*bases, *variants]})


def _has_ended_well(step: Step) -> bool:
    return bool(step.state.is_completed())
