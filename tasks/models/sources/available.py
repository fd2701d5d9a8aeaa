"""Which of a base model's sources have its weights now: all are asked at once, and nothing is
downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from tasks.models.sources import hub_source
from tasks.models.sources.kinds import KINDS, clause, describe, listed_sources, stored_folder
from tasks.runtime.errors import TriageError
from tasks.spec import BaseModelSpec, HubSource, Source

PROBE_SECONDS = 15.0  # pip alone may take five to start on a busy machine
PROBES_AT_ONCE = 8
# How the states of a source begin that has the weights, and what one says that may have them: a
# busy machine or a slow line.
OFFERED = ("here", "reachable", "in the local Hub cache")
NO_ANSWER = ("no answer", "did not answer in time")


def availability(spec: BaseModelSpec, root: Path) -> list[tuple[str, str]]:
    """(source, `here` | `reachable` | reason) for each source of a model, in order.

    Downloads nothing.
    """
    return availabilities([spec], root)[spec.name]


def availabilities(specs: Iterable[BaseModelSpec], root: Path) -> dict[str, list[tuple[str, str]]]:
    """`availability` of several models by name.

    All sources are probed at once, in at most PROBE_SECONDS.
    """
    probes = [(spec, source) for spec in specs for source in listed_sources(spec)]
    if any(_needs_hub(spec, source, root) for spec, source in probes):
        hub_source.import_ahead()  # so that the seconds are spent on answers

    workers = max(1, min(PROBES_AT_ONCE, len(probes)))
    pool = ThreadPoolExecutor(max_workers=workers)
    futures = [pool.submit(_state, spec, source, root) for spec, source in probes]
    wait(futures, timeout=PROBE_SECONDS)
    # Without a wait: a probe that hangs must not hold up what the others answered.
    pool.shutdown(wait=False, cancel_futures=True)

    states: dict[str, list[tuple[str, str]]] = {}
    for (spec, source), future in zip(probes, futures, strict=True):
        states.setdefault(spec.name, []).append((describe(source), _result(future)))
    return states


def is_offered(state: str) -> bool:
    """Whether the state of a source says that it has the weights."""
    return state.startswith(OFFERED)


def is_unanswered(state: str) -> bool:
    """Whether a source may have the weights, but did not say so in time."""
    return any(words in state for words in NO_ANSWER)


def unpinned(spec: BaseModelSpec) -> list[str]:
    """A sentence for each Hub source whose revision is a branch or a tag, and so may change."""
    return [
        f"{source.repo}@{source.revision} names no commit and may change; "
        "the commit that it led to is kept with the weights."
        for source in spec.sources
        if isinstance(source, HubSource) and not hub_source.is_pinned(source)
    ]


def _needs_hub(spec: BaseModelSpec, source: Source, root: Path) -> bool:
    return isinstance(source, HubSource) and stored_folder(spec, source, root) is None


def _state(spec: BaseModelSpec, source: Source, root: Path) -> str:
    """`here`, what the probe answers, or the reason why the source does not have the weights."""
    if stored_folder(spec, source, root) is not None:
        return "here"
    try:
        return KINDS[source.kind].probe(source)
    except TriageError as error:
        return clause(error)


def _result(future: Future[str]) -> str:
    """What a probe returned, or that it is still running."""
    if future.done() and not future.cancelled():
        return future.result()
    return f"no answer within {PROBE_SECONDS:.0f} s"
