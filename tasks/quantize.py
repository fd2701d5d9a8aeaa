"""Step: a converted base model to a variant of one precision."""

from pathlib import Path

from tasks.caching import as_cached, run_job, step
from tasks.landing import land_variant
from tasks.models.convert import QuantizeJob
from tasks.models.manifest import variant_folder
from tasks.precisions import Precision
from tasks.progress import publisher
from tasks.runtime.home import home
from tasks.runtime.store import mark_used, verified_manifest
from tasks.spec import BaseModelSpec


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
    was_there = verified_manifest(folder) is not None
    if not was_there:
        job = QuantizeJob(source=source, root=home(), precision=precision, group_size=group_size)
        emit = publisher(f"quantize {model.name} {precision.name}")
        function = "tasks.models.convert:run_quantize"
        run_job(function, job, f"quantize-{folder.name}", emit, at_most)

    mark_used(folder)
    land_variant(folder)
    return as_cached(folder, folder.name) if was_there else folder
