"""What the benchmarks share: engines, the variant that is measured, and how a result lands."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console

from tasks.grids.grid import known_models
from tasks.landing import land_rows
from tasks.models.convert import QuantizeJob
from tasks.models.model_folders import variant_folder
from tasks.models.model_shape import is_known
from tasks.models.sources.fetch import fetch_base
from tasks.precisions import of_bits
from tasks.runtime.backend import versions
from tasks.runtime.children import run_child
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.home import home
from tasks.runtime.store import intact_manifest
from tasks.spec import BaseModelSpec, RandomSource, Training

BITS = (4, 8)
BenchmarkRows = list[dict[str, object]]  # rows of the table `benchmark`, by column


@dataclass(frozen=True)
class Engine:
    """One column of a table; `environment` is added to the environment of its process."""

    key: str
    title: str
    environment: dict[str, str]


WHEELS_OWN_BLAS = {"TRIAGE_BLAS": "none"}


def variant_of(console: Console, model: str, bits: int) -> Path:
    """Folder of the quantised model, fetched and converted first if it is not on this machine yet.

    If its weights are not available, random ones of its shape are used: memory and speed are
    theirs, and the table says so. Raises BadInput for an unknown model or other bits than 4 or 8.
    """
    models = known_models()
    if model not in models:
        raise BadInput(f"Unknown base model {model!r}; known are {', '.join(sorted(models))}.")
    if bits not in BITS:
        raise BadInput(f"--bits {bits} is not possible; give 4 or 8.")

    source = _source_of(console, models[model])
    group_size = Training().group_size

    folder = variant_folder(source, home(), of_bits(bits), group_size)
    if intact_manifest(folder) is None:
        job = QuantizeJob(
            source=source, root=home(), precision=of_bits(bits), group_size=group_size
        )
        log = home() / "logs" / f"quantize-{model}-{bits}bit"
        run_child("tasks.models.convert:run_quantize", job.model_dump(mode="json"), log)

    return folder


def _source_of(console: Console, model: BaseModelSpec) -> Path:
    """Folder of a base model's weights, or of random ones of its shape."""
    say = functools.partial(console.print, soft_wrap=True)
    try:
        return fetch_base(model, home(), say)
    except SourceUnavailable as error:
        if not is_known(model.name):
            raise
        say(f"{error} Random weights of its shape are used.")
        random = RandomSource(kind="random", shape=model.name)
        return fetch_base(model.model_copy(update={"sources": (random,)}), home(), say)


def blocks_of(variant: Path, model: str, *layers: int) -> int:
    """How many blocks a variant has. Raises BadInput for a number of trained `layers` that it
    cannot have.
    """
    config = json.loads((variant / "config.json").read_text(encoding="utf-8"))
    blocks = int(config["num_hidden_layers"])
    for count in layers:
        if not 1 <= count <= blocks:
            raise BadInput(
                f"--layers {count}, but {model} has {blocks} blocks; "
                f"give at most {blocks}, and at least 1."
            )

    return blocks


def own_versions() -> dict[str, str]:
    """Versions that a measurement depends on."""
    return versions() | {"triage-sweep": metadata.version("triage-sweep")}


def land_benchmark(run_id: str, rows: BenchmarkRows) -> None:
    """Land and load rows of the table `benchmark`."""
    land_rows(run_id, "benchmark", {"benchmark": rows})
