"""What the benchmarks share: engines, the variant that is measured, and how a result lands."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from tasks.grid import known_models
from tasks.models.convert import QuantizeJob, variant_folder
from tasks.models.model_shape import is_known
from tasks.models.sources import fetch_base
from tasks.runtime.child import run_child
from tasks.runtime.device import versions
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.store import complete, home
from tasks.spec import RandomSource, Training
from warehouse.landing import write_landing
from warehouse.load import load_landing

BITS = (4, 8)


@dataclass(frozen=True)
class Engine:
    """One column of the table; `environment` is what its process gets beyond ours."""

    key: str
    title: str
    environment: dict[str, str]


WHEELS_OWN_BLAS = {"TRIAGE_BLAS": "none"}


def variant_of(console: Console, model: str, bits: int) -> Path:
    """Folder of the quantised model, fetched and made first where it is not there yet.

    Where its weights cannot be had, random ones of its shape do: memory and speed are theirs, and the table says so.
    """
    models = known_models()
    if model not in models:
        raise BadInput(f"Unknown base model {model!r}; known are {', '.join(sorted(models))}.")
    if bits not in BITS:
        raise BadInput(f"--bits {bits} is not possible; give 4 or 8.")
    say = functools.partial(console.print, soft_wrap=True)
    try:
        source = fetch_base(models[model], home(), say)
    except SourceUnavailable as error:
        if not is_known(model):
            raise
        say(f"{error} Random weights of its shape are used.")
        random = RandomSource(kind="random", shape=model)
        source = fetch_base(models[model].model_copy(update={"sources": (random,)}), home(), say)
    group_size = Training().group_size
    folder = variant_folder(source, home(), bits, group_size)
    if complete(folder) is None:
        job = QuantizeJob(source=source, root=home(), bits=bits, group_size=group_size)
        run_child(
            "tasks.models.convert:run_quantize",
            job.model_dump(mode="json"),
            home() / "logs" / f"quantize-{model}-{bits}bit",
        )
    return folder


def blocks_of(variant: Path, model: str, *layers: int) -> int:
    """How many blocks a variant has. Raises BadInput for a number of trained `layers` that it cannot have."""
    blocks = int(
        json.loads((variant / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    )
    for count in layers:
        if not 1 <= count <= blocks:
            raise BadInput(
                f"--layers {count}, but {model} has {blocks} blocks; give at most {blocks}, and at least 1."
            )
    return blocks


def own_versions() -> dict[str, str]:
    """Versions that a measurement depends on."""
    return versions() | {"triage-sweep": metadata.version("triage-sweep")}


def land_benchmark(run_id: str, rows: list[dict[str, Any]]) -> None:
    """Load rows of the table `benchmark`."""
    load_landing(write_landing(home() / "landing", run_id, "benchmark", {"benchmark": rows}))
