"""Experiments as chains of Prefect steps: train -> evaluate -> land, so that results land one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from prefect.futures import PrefectFuture

from flows.selection import Selection
from tasks.acquire import acquire
from tasks.baselines import baselines, zero_shot
from tasks.convert import convert
from tasks.evaluate import evaluate
from tasks.evaluation_sets import evaluate_sets
from tasks.fidelity import fidelity
from tasks.land import land
from tasks.landing import land_failure
from tasks.move import move_adapter
from tasks.prepare import prepare
from tasks.progress import publish
from tasks.quantize import quantize
from tasks.runtime import fork_server
from tasks.runtime.child import stop_children
from tasks.runtime.errors import BadInput, TriageError, disk_full, is_disk_full
from tasks.runtime.events import ExperimentFailed, ExperimentLanded, ExtraFinished, StepWarning
from tasks.runtime.store import home
from tasks.spec import ExperimentSpec
from tasks.train import train


@dataclass(frozen=True)
class Chain:
    """The futures of one experiment; `landed` is the last. `before`: the steps that it shares with others, in order:
    data, source, base model and variant. `beside`: named steps that stand beside the experiments."""

    spec: ExperimentSpec
    variant: Any
    data: Any
    before: tuple[PrefectFuture[Any], ...]
    landed: PrefectFuture[str]
    steps: tuple[PrefectFuture[Any], ...]
    beside: tuple[tuple[str, Any], ...] = ()


def submit_chain(spec: ExperimentSpec, data: Any, source: Any, base: Any, variant: Any) -> Chain:
    """Submit the steps of one experiment. The others are the futures of the steps before it.

    No Prefect tags: for a tagged task Prefect asks for a slot of each tag's limit, which took 0.3 s a task.
    """
    experiment = spec.model_dump(mode="json")
    trained: Any = train.submit(experiment, variant, data)
    scored: Any = evaluate.submit(experiment, trained, variant, data)
    landed = land.submit(experiment, trained, scored, variant, data)
    return Chain(
        spec, variant, data, (data, source, base, variant), landed, (trained, scored, landed)
    )


def submit_experiments(selection: Selection) -> list[Chain]:
    """Submit the whole grid; a base model's conversion and its variants are shared by the experiments on them."""
    sets = [entry.model_dump(mode="json") for entry in selection.grid.evaluation_sets]
    data: Any = prepare.submit(selection.grid.data.model_dump(mode="json"), sets)
    # Futures, which Prefect resolves before the next step runs.
    sources: dict[str, Any] = {}
    bases: dict[str, Any] = {}
    variants: dict[tuple[str, int], Any] = {}
    beside: list[tuple[str, Any]] = [("baselines", baselines.submit(_scoring(selection), data))]
    chains = []
    for spec in selection.cells:
        name, variant = spec.model.name, (spec.model.name, spec.bits)
        model = spec.model.model_dump(mode="json")
        if name not in bases:
            sources[name] = acquire.submit(model)
            bases[name] = convert.submit(model, sources[name])
        if variant not in variants:
            variants[variant] = quantize.submit(
                model, bases[name], spec.bits, spec.training.group_size
            )
            shared = spec.training.model_dump(mode="json")
            untuned = zero_shot.submit(
                model, spec.bits, _scoring(selection), shared, variants[variant], data
            )
            beside.append((f"zero-shot {name} {spec.bits}bit", untuned))
        chain = submit_chain(spec, data, sources[name], bases[name], variants[variant])
        if sets:
            beside.append(_sets_of(chain, [entry["name"] for entry in sets]))
        chains.append(replace(chain, beside=tuple(beside)))
        beside = []
    late = [
        *_fidelities(selection, bases, variants, data),
        *_moves(selection, chains, variants, data),
    ]
    chains[-1] = replace(chains[-1], beside=(*chains[-1].beside, *late))
    return chains


def _sets_of(chain: Chain, names: list[str]) -> tuple[str, Any]:
    """The grid's further evaluation sets, scored once the experiment itself is in the warehouse."""
    trained, scored, landed = chain.steps
    found: Any = evaluate_sets.submit(
        chain.spec.model_dump(mode="json"),
        trained,
        scored,
        chain.variant,
        chain.data,
        names,
        return_state=False,
        wait_for=[landed],
    )
    return f"evaluation sets of {chain.spec.cell_id}", found


def _fidelities(
    selection: Selection, bases: dict[str, Any], variants: dict[Any, Any], data: Any
) -> list[tuple[str, Any]]:
    """One step per base model, after its experiments: these have stored the prefix that it reads."""
    settings = selection.grid.training.model_dump(mode="json")
    steps = []
    for model in selection.models:
        own = [variants[name, bits] for name, bits in variants if name == model.name]
        found: Any = fidelity.submit(
            model.model_dump(mode="json"),
            bases[model.name],
            _scoring(selection),
            settings,
            own,
            data,
        )
        steps.append((f"fidelity {model.name}", found))
    return steps


def _moves(
    selection: Selection, chains: list[Chain], variants: dict[Any, Any], data: Any
) -> list[tuple[str, Any]]:
    """If the grid asks for it: every adapter on the other bit width, where the sweep has that variant."""
    if not selection.grid.scoring.move_adapters:
        return []
    steps = []
    for chain in chains:
        spec, other = chain.spec, 12 - chain.spec.bits
        if (spec.model.name, other) in variants:
            trained: Any = chain.steps[0]
            scored: Any = chain.steps[1]
            moved: Any = move_adapter.submit(
                spec.model_dump(mode="json"),
                trained,
                scored,
                other,
                variants[spec.model.name, other],
                data,
            )
            steps.append((f"move {spec.cell_id} to {other}bit", moved))
    return steps


def _scoring(selection: Selection) -> dict[str, Any]:
    return selection.grid.scoring.model_dump(mode="json")


def finish_all(chains: list[Chain]) -> list[str]:
    """Wait for every experiment; returns the failures. An interruption ends the steps' processes at once."""
    with fork_server.kept():
        try:
            return [
                failure
                for chain in chains
                for failure in (finish(chain), *beside_failures(chain))
                if failure
            ]
        except BaseException:  # Ctrl-C, or Prefect's own signal for SIGTERM
            stop_children()
            raise


def beside_failures(chain: Chain) -> list[str]:
    """Wait for the steps beside the experiments. One that never ran, because of another step, has no failure of its own."""
    failures = []
    for name, step in chain.beside:
        step.wait()
        if error := failure_of(step):
            publish(name, StepWarning(f"{name}: {error}"))
            failures.append(f"{name}: {error}")
        elif step.state.is_completed():
            landed = step.result()
            ids = (landed,) if isinstance(landed, str) else tuple(landed)
            publish(name, ExtraFinished(ids))
    return failures


def finish(chain: Chain) -> str | None:
    """Wait for one experiment; None if it landed, else its name with the reason, which is landed too."""
    chain.landed.wait()
    error = next((e for step in (*chain.before, *chain.steps) if (e := failure_of(step))), None)
    if error is None and chain.landed.state.is_completed():
        publish(f"land {chain.spec.cell_id}", ExperimentLanded((chain.landed.result(),)))
        return None
    # Whatever the reason is: what has not landed is not done.
    error = error or TriageError(
        f"It never landed: its last step ended as {chain.landed.state.name}."
    )
    publish(f"land {chain.spec.cell_id}", ExperimentFailed(str(error), error))
    if all(step.state.is_completed() for step in chain.before):
        try:
            land_failure(chain.spec, chain.variant.result(), chain.data.result(), error)
        except (
            Exception
        ) as problem:  # a failure that cannot be recorded must not stop the other experiments
            publish(f"land {chain.spec.cell_id}", StepWarning(f"Not recorded: {problem}"))
    return f"{chain.spec.cell_id}: {error}"


def failure_of(future: PrefectFuture[str]) -> Exception | None:
    """The exception of a step that failed, crashed or was cancelled, or None; a step that never ran because of another
    has none of its own."""
    state = future.state
    if not (state.is_failed() or state.is_crashed() or state.is_cancelled()):
        return None
    result = future.result(raise_on_failure=False)
    error = result if isinstance(result, Exception) else RuntimeError(str(result))
    return disk_full(home()) if is_disk_full(error) and not isinstance(error, BadInput) else error
