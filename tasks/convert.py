"""Step: a source folder to a base model in MLX's layout, in bfloat16."""

from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import is_transient
from tasks.landing import land_variant
from tasks.models.convert import base_folder, essentials
from tasks.progress import follow
from tasks.runtime.child import run_child
from tasks.runtime.store import home


@task(
    task_run_name="convert {model[name]}",
    retries=3,
    retry_delay_seconds=2,
    retry_condition_fn=is_transient,
)
def convert(model: dict[str, Any], source: str) -> str:
    """The source folder, once its converted base model is there and its sizes are in the warehouse."""
    folder = base_folder(Path(source), home())
    if essentials(folder) is None:
        args = {"source": source, "root": str(home())}
        log = home() / "logs" / f"convert-{folder.name}"
        run_child("tasks.models.convert:run_convert", args, log, follow(f"convert {model['name']}"))
    land_variant(folder)
    return source
