"""Step: a converted base model to a variant of one precision."""

from pathlib import Path

from prefect import task

from tasks.caching import is_transient
from tasks.landing import land_variant
from tasks.models.convert import QuantizeJob, variant_folder
from tasks.precisions import Precision
from tasks.progress import publisher
from tasks.runtime.child import run_child
from tasks.runtime.store import complete, home, mark_used
from tasks.spec import BaseModelSpec


@task(
    task_run_name="quantize {model.name} {precision.name}",
    retries=3,
    retry_delay_seconds=2,
    retry_condition_fn=is_transient,
)
def quantize(model: BaseModelSpec, source: Path, precision: Precision, group_size: int) -> Path:
    """The folder of a variant of a source, whose sizes are then in the warehouse; in bfloat16 it is
    the base model itself.
    """
    folder = variant_folder(source, home(), precision, group_size)
    if complete(folder) is None:
        job = QuantizeJob(source=source, root=home(), precision=precision, group_size=group_size)
        log = home() / "logs" / f"quantize-{folder.name}"
        emit = publisher(f"quantize {model.name} {precision.name}")
        run_child("tasks.models.convert:run_quantize", job.model_dump(mode="json"), log, emit)

    mark_used(folder)
    land_variant(folder)
    return folder
