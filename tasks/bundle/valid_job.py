"""The process that scores a trained model on `valid`, the set that models are chosen by.

Only child processes import this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.bundle.arguments import ValidJob
from tasks.bundle.decide import label_shares
from tasks.bundle.loaded_model import load_model
from tasks.bundle.valid_scores import VALID_FILE
from tasks.corpus.case import exact_digest
from tasks.judging.scores_folder import ScoredCase, write_lines
from tasks.runtime.errors import Diverged
from tasks.runtime.events import Emit, Note
from tasks.runtime.store import build_folder
from tasks.spec import LABELS
from tasks.tuning.prefix_store import PrefixStore, open_prefix
from tasks.tuning.scores import score_cases
from tasks.tuning.sets import load_set


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a ValidJob; returns {"scores": the folder}, which holds
    `valid.jsonl`, a ScoredCase a line.
    """
    job = ValidJob.model_validate(args)
    build_folder(job.scores, lambda folder: _score(job, folder, emit))
    return {"scores": str(job.scores)}


def _score(job: ValidJob, folder: Path, emit: Emit) -> dict[str, Any]:
    model = load_model(job.model)
    loaded = load_set(job.data, "valid", model.template, model.max_tokens)
    stack = model.adapted.stack
    store = PrefixStore(job.home, job.bundle.weights_digest)
    prefix = open_prefix(stack, loaded.cases, model.adapted.boundary, store, emit)
    p = label_shares(score_cases(model.adapted, prefix).label_logp)
    if not (p >= 0).all():  # NaN is not
        raise Diverged(f"{job.bundle.cell_id}: scores on valid are not finite.")

    cases = [
        ScoredCase(
            case_id=record["case_id"],
            label=record["label"],
            group=record.get("group"),
            case_digest=exact_digest(record["text"]),
            p=dict(zip(LABELS, row, strict=True)),
        )
        for record, row in zip(loaded.records, p.tolist(), strict=True)
    ]
    write_lines(folder / VALID_FILE, cases)
    emit(Note(f"{job.bundle.cell_id}: {len(cases)} cases of valid are scored."))

    return {"model_id": job.bundle.model_id}
