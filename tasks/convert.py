"""Step: a source folder to a base model in MLX's layout, in bfloat16."""

from pathlib import Path

from tasks.caching import as_cached, run_job, step
from tasks.landing import land_variant
from tasks.models.convert import ConvertJob
from tasks.models.manifest import base_folder
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
    was_there = verified_manifest(folder) is not None
    if not was_there:
        job = ConvertJob(source=source, root=home())
        emit = publisher(f"convert {model.name}")
        function = "tasks.models.convert:run_convert"
        run_job(function, job, f"convert-{folder.name}", emit, at_most)

    mark_used(folder)
    land_variant(folder)
    return as_cached(source, folder.name) if was_there else source
