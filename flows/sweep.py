"""The sweep: grid -> data -> variants -> experiments -> comparison.

Experiments are chains (train, evaluate, land), not stages: mapping stage after stage would run every training before
the first evaluation, and a crash at experiment 59 would leave nothing in the warehouse. One worker thread per
accelerator, so steps never share it.
"""

from __future__ import annotations

import flows.settings  # noqa: F401  (before Prefect)

from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.compare import compare
from flows.experiment import Chain, submit_chain
from flows.selection import Selection, select
from tasks.acquire import acquire
from tasks.convert import convert
from tasks.land import land_failure
from tasks.prepare import prepare
from tasks.progress import tell
from tasks.quantize import quantize


ONE_AT_A_TIME: Any = ThreadPoolTaskRunner(max_workers=1)


@flow(name="sweep", flow_run_name="sweep {grid}", task_runner=ONE_AT_A_TIME)
def sweep(
    grid: str = "demo", overrides: list[str] | None = None, models: list[str] | None = None,
    bits: list[int] | None = None, recipes: list[str] | None = None, limit: int | None = None,
) -> State[Any]:  # fmt: skip
    """Run every experiment of a grid that is not finished yet, land each in the warehouse, and compare.

    Completed only if every planned experiment has landed; one failure never stops the others.
    """
    selection = select(grid, overrides, models, bits, recipes, limit)
    chains = submit_experiments(selection)
    failures = [failure for chain in chains if (failure := finish(chain))]
    compare()
    if failures:
        return Failed(message=f"{len(failures)} of {len(chains)} experiments failed: " + " | ".join(failures))
    return Completed(message=f"{len(chains)} experiments are in the warehouse")


def submit_experiments(selection: Selection) -> list[Chain]:
    """Submit the whole grid; a base model's conversion and its variants are shared by the experiments on them."""
    data = prepare.submit(selection.grid.data.model_dump(mode="json"))
    # Futures, which Prefect resolves before the next step runs.
    bases: dict[str, Any] = {}
    variants: dict[tuple[str, int], Any] = {}
    chains = []
    for spec in selection.cells:
        name, variant = spec.model.name, (spec.model.name, spec.bits)
        model = spec.model.model_dump(mode="json")
        if name not in bases:
            source: Any = acquire.submit(model)
            bases[name] = convert.submit(model, source)
        if variant not in variants:
            variants[variant] = quantize.submit(model, bases[name], spec.bits, spec.training.group_size)
        chains.append(submit_chain(spec, variants[variant], data))
    return chains


def finish(chain: Chain) -> str | None:
    """Wait for one experiment; None if it landed, else its name with the reason, which is landed too."""
    chain.landed.wait()
    error = next((e for step in (chain.data, chain.variant, *chain.steps) if (e := failure_of(step))), None)
    if error is None:
        tell(f"land {chain.spec.cell_id}", {"event": "landed"})
        return None
    tell(f"land {chain.spec.cell_id}", {"event": "failed", "message": str(error)})
    if not failure_of(chain.data) and not failure_of(chain.variant):
        land_failure(chain.spec, chain.variant.result(), chain.data.result(), error)
    return f"{chain.spec.cell_id}: {error}"


def failure_of(future: PrefectFuture[str]) -> Exception | None:
    """The exception of a failed step, or None; a step that never ran because of another has none of its own."""
    if not future.state.is_failed() and not future.state.is_crashed():
        return None
    result = future.result(raise_on_failure=False)
    return result if isinstance(result, Exception) else RuntimeError(str(result))
