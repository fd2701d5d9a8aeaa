"""Step: a converted base model to a 4-bit or 8-bit variant."""

from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import is_transient
from tasks.landing import land_variant
from tasks.models.convert import essentials, variant_folder
from tasks.progress import follow
from tasks.runtime.child import run_child
from tasks.runtime.store import home


@task(
    task_run_name="quantize {model[name]} {bits}bit",
    retries=3, retry_delay_seconds=2, retry_condition_fn=is_transient,
)  # fmt: skip
def quantize(model: dict[str, Any], source: str, bits: int, group_size: int) -> str:
    """Folder of the quantised variant of a converted source, whose sizes are then in the warehouse."""
    folder = variant_folder(Path(source), home(), bits, group_size)
    if essentials(folder) is None:
        args = {"source": source, "root": str(home()), "bits": bits, "group_size": group_size}
        log = home() / "logs" / f"quantize-{folder.name}"
        run_child(
            "tasks.models.convert:run_quantize",
            args,
            log,
            follow(f"quantize {model['name']} {bits}bit"),
        )
    land_variant(folder)
    return str(folder)
