"""The part of an export that needs a tokenizer or a model, as a child process runs it."""

from __future__ import annotations

import json
import shutil
from typing import Any

from tasks.bundle.agreement import (
    COMPUTE_PATH,
    compared,
    label_probabilities,
    refuse_beyond_bound,
    sampled_cases,
)
from tasks.bundle.export_arguments import ExportAgreement, ExportJob, ExportResult
from tasks.bundle.fuse import write_fused
from tasks.bundle.gguf_file import load_gguf, refuse_other_models, write_gguf
from tasks.bundle.prompt_file import write_prompt
from tasks.corpus.case import Case
from tasks.corpus.encode import Template
from tasks.judging.point_metrics import Floats
from tasks.runtime.events import Emit
from tasks.tuning.lora import Adapted, add_lora, load_weights
from tasks.tuning.sets import load_template
from tasks.tuning.variant import load_variant

GGUF_FILE = "model.gguf"
FUSED = "model"
FUSED_FOR_GGUF = ".fused"


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run an ExportJob; returns an ExportResult."""
    job = ExportJob.model_validate(args)
    template = load_template(job.weights, job.bundle.prompt)
    write_prompt(template, job.bundle.max_tokens, job.folder)
    if not (job.fuse or job.gguf):
        return ExportResult().model_dump(mode="json")

    if job.gguf:
        config = json.loads((job.weights / "config.json").read_text(encoding="utf-8"))
        refuse_other_models(config["model_type"])

    return _write_weights(job, template).model_dump(mode="json")


def _write_weights(job: ExportJob, template: Template) -> ExportResult:
    """Write the fused model, and a GGUF file of it, and compare each with the trained model."""
    cases = sampled_cases()
    trained_p = _probabilities(job, _trained_model(job), template, cases)
    folder = job.folder / (FUSED if job.fuse else FUSED_FOR_GGUF)
    write_fused(job.weights, job.adapter, folder, job.bundle.model_id)
    fused = _fused_model(load_variant(folder, COMPUTE_PATH))
    of_fused = compared(job.bundle, trained_p, _probabilities(job, fused, template, cases))
    refuse_beyond_bound(of_fused, "The fused model")

    of_gguf: ExportAgreement | None = None
    if job.gguf:
        path = job.folder / GGUF_FILE
        write_gguf(fused.stack, folder, path, [case.text for case in cases])
        # The same model, with the weights that the file holds.
        load_gguf(fused.stack, path)
        of_gguf = compared(job.bundle, trained_p, _probabilities(job, fused, template, cases))
        refuse_beyond_bound(of_gguf, "The GGUF file")

    if not job.fuse:
        shutil.rmtree(folder)
    return ExportResult(fused=of_fused if job.fuse else None, gguf=of_gguf)


def _trained_model(job: ExportJob) -> Adapted:
    bundle = job.bundle
    stack = load_variant(job.weights, COMPUTE_PATH)
    adapted = add_lora(stack, bundle.recipe, bundle.training, bundle.seed)
    load_weights(adapted, job.adapter / "adapters.safetensors")
    return adapted


def _fused_model(stack: Any) -> Adapted:
    """A model whose weights hold everything that it learned."""
    return Adapted(stack, (), stack.depth, 0)


def _probabilities(
    job: ExportJob, adapted: Adapted, template: Template, cases: list[Case]
) -> Floats:
    return label_probabilities(adapted, template, cases, job.bundle.max_tokens)
