"""Step: a converted base model to a 4-bit or 8-bit variant."""

from pathlib import Path

from prefect import task

from tasks.caching import is_transient
from tasks.landing import land_variant
from tasks.models.convert import QuantizeJob, variant_folder
from tasks.progress import publisher
from tasks.runtime.child import run_child
from tasks.runtime.store import complete, home
from tasks.spec import BaseModelSpec


@task(
    task_run_name="quantize {model.name} {bits}bit",
    retries=3,
    retry_delay_seconds=2,
    retry_condition_fn=is_transient,
)
def quantize(model: BaseModelSpec, source: Path, bits: int, group_size: int) -> Path:
    """The folder of the quantised variant of a source, whose sizes are then in the warehouse."""
    folder = variant_folder(source, home(), bits, group_size)
    if complete(folder) is None:
        job = QuantizeJob(source=source, root=home(), bits=bits, group_size=group_size)
        log = home() / "logs" / f"quantize-{folder.name}"
        emit = publisher(f"quantize {model.name} {bits}bit")
        run_child("tasks.models.convert:run_quantize", job.model_dump(mode="json"), log, emit)

    land_variant(folder)
    return folder
