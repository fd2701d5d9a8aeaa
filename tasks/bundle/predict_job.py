"""The process that answers texts: it loads a model once, then reads
requests from its parent's pipe.

No text is printed, logged or written. Only child processes import this file.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from tasks.bundle.arguments import PredictJob
from tasks.bundle.decide import decide
from tasks.bundle.decision import Decision
from tasks.bundle.loaded_model import LoadedModel, load_model
from tasks.runtime.conversation import requests
from tasks.runtime.events import Answer, Emit, Ready
from tasks.tuning.streams import batches_at_once


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a PredictJob: an Answer with the fields of a Decision for each request {number, text}.

    Returns {"answered": how many}.
    """
    job = PredictJob.model_validate(args)
    model = load_model(job.model)
    emit(Ready())

    answer_count = 0
    # As many as run side by side: the first answer does not wait for the others.
    for group in requests(batches_at_once()):
        decisions = _decisions(job, model, [request["text"] for request in group])
        for request, decision in zip(group, decisions, strict=True):
            emit(Answer(request["number"], asdict(decision)))
        answer_count += len(group)

    return {"answered": answer_count}


def _decisions(job: PredictJob, model: LoadedModel, texts: list[str]) -> list[Decision]:
    read = [model.read(text) for text in texts]
    encoded = [read_text.encoded for read_text in read]
    passes = model.dropout_passes(encoded, job.passes) if job.passes else None
    decisions = decide(job.bundle, model.log_likelihoods(encoded), passes)

    return [
        replace(decision, shortened=read_text.encoded.shortened, markup=read_text.markup)
        for decision, read_text in zip(decisions, read, strict=True)
    ]
