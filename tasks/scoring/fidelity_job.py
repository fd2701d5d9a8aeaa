"""The fidelity step as a child process runs it: a base model and its quantised variants on a sample of the test cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.judging.fidelity import Predicted, fidelity_figures
from tasks.runtime.errors import TriageError
from tasks.runtime.events import Emit, ProgressReport
from tasks.runtime.store import verify
from tasks.scoring.sample import sample_numbers
from tasks.spec import LABELS, Training
from tasks.tuning.architecture import project, run_blocks
from tasks.tuning.batches import Batch, Cases, make_batch, sorted_batches
from tasks.tuning.engine import label_terms, leading_past
from tasks.tuning.frozen_prefix import Prefix, open_prefix
from tasks.tuning.lora import Adapted, load_variant
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.sets import LoadedSet, load_set, load_template

TOKENS_AT_ONCE = 1024  # logits of every position are needed, so batches are small


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """`args`: reference (folder of the base model), variants (bits -> folder), cases (at most), training, data, home.

    Returns bits -> distribution -> figures, and `set_cases`. All models compute in float32 from unpacked weights.
    """
    training, home = Training.model_validate(args["training"]), Path(args["home"])
    mx.set_cache_limit(CACHE_BYTES)
    reference = Path(args["reference"])
    test = load_set(Path(args["data"]), "test", load_template(reference), training.max_tokens)
    chosen = sample_numbers(
        [r["case_id"] for r in test.records], [r["label"] for r in test.records], args["cases"]
    )
    figures: dict[str, Any] = {}
    exact = _predict(reference, test, chosen, 0, home, emit)
    for bits, folder in args["variants"].items():
        quantised = _predict(Path(folder), test, chosen, training.num_layers, home, emit)
        figures[bits] = fidelity_figures(exact, quantised)
    return {"figures": figures, "set_cases": len(test.records)}


def _predict(
    folder: Path, test: LoadedSet, chosen: list[int], layers: int, home: Path, emit: Emit
) -> Predicted:
    """What a model predicts; with `layers` from the frozen prefix that recipes with so many trained blocks share."""
    stack = load_variant(folder, "dequantised_f32")
    boundary = max(stack.depth - layers, 0) if layers else 0
    model = Adapted(stack, (), boundary, 0)
    digest = verify(folder, deep=False)["digest"]
    prefix = open_prefix(stack, test.cases, boundary, home, digest, emit)
    past = leading_past(model, prefix)
    cases, place = test.cases, {case: i for i, case in enumerate(chosen)}
    logits: np.ndarray | None = None
    label_logp = np.empty((len(chosen), len(LABELS)), np.float32)
    nll, tokens, done = 0.0, 0, 0
    for some in sorted_batches(cases, TOKENS_AT_ONCE, chosen):
        batch = make_batch(cases, some)
        found, losses, count = _forward(model, prefix, cases, batch, past)
        nll, tokens = nll + losses, tokens + count
        if (
            logits is None
        ):  # one array from the start: a second copy of a thousand rows of Gemma's is a gigabyte
            logits = np.empty((len(chosen), len(found[0])), np.float32)
        for case, own, labels in zip(
            some, found, _labels(model, prefix, cases, batch, past, found), strict=True
        ):
            logits[place[case]], label_logp[place[case]] = own, labels
        done += len(some)
        emit(ProgressReport(f"fidelity of {folder.name}", done, len(place)))
    assert logits is not None  # a set has cases
    if not np.isfinite(logits).all():
        raise TriageError(
            f"{folder.name} gives logits that are not finite, so its fidelity cannot be measured."
        )
    mx.clear_cache()
    return Predicted(logits, label_logp, nll, tokens)


def _forward(
    model: Adapted, prefix: Prefix, cases: Cases, batch: Batch, past: Any
) -> tuple[list[np.ndarray], float, int]:
    """Logits at the label's position of each case, and the loss of the message's own tokens, summed and counted."""
    stack, skip = model.stack, cases.leading
    rows = batch.rows[:: cases.per_case]  # one per case: its rows differ in the completion alone
    hidden = run_blocks(
        stack, prefix.hidden(rows, batch.length), prefix.boundary, stack.depth, past
    )
    found, nll, tokens = [], mx.array(0.0), 0
    for i, row in enumerate(rows):
        own = project(stack, hidden[i, : row.first + 1 - skip])
        found.append(own[-1])
        following = mx.array(row.inputs[skip + 1 : row.first + 1])
        if len(following):  # of a single case, all tokens but the last are common to all cases
            chosen = mx.take_along_axis(own[:-1], following[:, None], axis=1)[:, 0]
            nll = nll + (mx.logsumexp(own[:-1], axis=1) - chosen).sum()
        tokens += len(following)
        mx.eval(nll, found[-1])
    return [np.array(f) for f in found], float(np.array(nll)), tokens


def _labels(
    model: Adapted, prefix: Prefix, cases: Cases, batch: Batch, past: Any, logits: list[np.ndarray]
) -> np.ndarray:
    """log P of each label up to a constant, (cases, 3): from the logits, or to their full length where labels are longer."""
    if cases.per_case == 1:
        return np.stack(logits)[:, list(cases.label_tokens)]
    return np.array(label_terms(model, prefix, batch, past).label_logp)
