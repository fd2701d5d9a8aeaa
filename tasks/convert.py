"""Steps: a source folder to a base model in MLX's layout, in bfloat16, and that to a variant of one
precision.
"""

from pathlib import Path

from tasks.caching import as_cached, run_job, step
from tasks.landing import land_variant
from tasks.models.convert import ConvertJob, QuantizeJob
from tasks.models.manifest import base_folder, variant_folder
from tasks.precisions import Precision
from tasks.progress import publisher
from tasks.runtime.home import home
from tasks.runtime.store import mark_used, verified_manifest
from tasks.spec import BaseModelSpec


@step("convert {model.name}", retries=3, delay=2)
def convert(model: BaseModelSpec, source: Path, at_most: float | None = None) -> Path:
    """The source folder, once its converted base model exists and its sizes are in the warehouse.

    `at_most`: seconds that an attempt may take.
    """
    folder = base_folder(source, home())
    job = ConvertJob(source=source, root=home())
    was_there = _make("convert", model.name, folder, job, at_most)
    return as_cached(source, folder.name) if was_there else source


@step("quantize {model.name} {precision.name}", retries=3, delay=2)
def quantize(
    model: BaseModelSpec,
    source: Path,
    precision: Precision,
    group_size: int,
    at_most: float | None = None,
) -> Path:
    """The folder of a variant of a source, whose sizes are then in the warehouse; in bfloat16 it is
    the base model itself. `at_most`: seconds that an attempt may take.
    """
    folder = variant_folder(source, home(), precision, group_size)
    job = QuantizeJob(source=source, root=home(), precision=precision, group_size=group_size)
    was_there = _make("quantize", f"{model.name} {precision.name}", folder, job, at_most)
    return as_cached(folder, folder.name) if was_there else folder


def _make(verb: str, what: str, folder: Path, job: ConvertJob, at_most: float | None) -> bool:
    """Build a model folder in a child process and land its sizes; whether it was there before."""
    was_there = verified_manifest(folder) is not None
    if not was_there:
        function = f"tasks.models.convert:run_{verb}"
        run_job(function, job, f"{verb}-{folder.name}", publisher(f"{verb} {what}"), at_most)

    mark_used(folder)
    land_variant(folder)
    return was_there
