"""One experiment: train -> evaluate -> land, as one chain, so that results land one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect.futures import PrefectFuture

from tasks.evaluate import evaluate
from tasks.land import land
from tasks.spec import ExperimentSpec
from tasks.train import train


@dataclass(frozen=True)
class Chain:
    """The futures of one experiment; `landed` is the last."""

    spec: ExperimentSpec
    variant: Any
    data: Any
    landed: PrefectFuture[str]
    steps: tuple[PrefectFuture[Any], ...]


def submit_chain(spec: ExperimentSpec, variant: Any, data: Any) -> Chain:
    """Submit the steps of one experiment. `variant`, `data`: folders, or futures of them."""
    experiment = spec.model_dump(mode="json")
    trained: Any = train.submit(experiment, variant, data)
    scored: Any = evaluate.submit(experiment, trained, variant, data)
    landed = land.submit(experiment, trained, scored, variant, data)
    return Chain(spec, variant, data, landed, (trained, scored, landed))
