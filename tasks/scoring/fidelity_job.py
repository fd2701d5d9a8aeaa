"""The fidelity step as a child process runs it: quantised variants against their base model.

All models compute in float32 from unpacked weights, on the same sample of the test cases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.judging.fidelity import Predicted, fidelity_figures
from tasks.runtime.backend import backend
from tasks.runtime.errors import TriageError
from tasks.runtime.events import Emit, ProgressReport
from tasks.runtime.store import Manifest
from tasks.scoring.arguments import FidelityJob, sample_numbers
from tasks.spec import LABELS
from tasks.tuning.activations import Prefix, PrefixStore, open_prefix
from tasks.tuning.data import Batch, load_set, load_template, make_batch, sorted_batches
from tasks.tuning.forward import label_terms, leading_past
from tasks.tuning.lora import Adapted, load_variant
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.model import SharedPast, project, run_blocks

PATH = "dequantised_f32"
TOKENS_AT_ONCE = 1024  # logits of every position are needed, so batches are small


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a FidelityJob. Returns `figures` (precision -> distribution -> figures) and `set_cases`."""
    job = FidelityJob.model_validate(args)
    mx.set_cache_limit(CACHE_BYTES)
    template = load_template(job.reference, job.prompt)
    test = load_set(job.data, "test", template, job.training.max_tokens)
    case_numbers = sample_numbers(
        [record["case_id"] for record in test.records],
        [record["label"] for record in test.records],
        job.cases,
    )

    def predict(folder: Path, trained_blocks: int) -> Predicted:
        """With `trained_blocks` a model starts from the frozen prefix that recipes with so many of
        them share, where they compute in float32 too: for a sample alone a prefix of the whole set
        is not stored.
        """
        stack = load_variant(folder, PATH)
        shared = trained_blocks > 0 and backend().compute_path == PATH
        boundary = max(stack.depth - trained_blocks, 0) if shared else 0
        store = PrefixStore(job.home, Manifest.read(folder).digest)
        prefix = open_prefix(stack, test.cases, boundary, store, emit)
        return _predict(folder.name, Adapted(stack, (), boundary, 0), prefix, case_numbers, emit)

    reference = predict(job.reference, 0)
    figures = {
        precision: fidelity_figures(reference, predict(folder, job.training.num_layers))
        for precision, folder in job.variants.items()
    }
    return {"figures": figures, "set_cases": len(test.records)}


def _predict(
    name: str, adapted: Adapted, prefix: Prefix, case_numbers: list[int], emit: Emit
) -> Predicted:
    """The predictions of the model `name` on these cases; TriageError if its logits are not finite."""
    past = leading_past(adapted, prefix)
    position = {number: i for i, number in enumerate(case_numbers)}
    logits: np.ndarray | None = None
    label_logp = np.empty((len(case_numbers), len(LABELS)), np.float32)

    text_nll = 0.0
    text_tokens = 0
    of_cases = np.zeros((len(case_numbers), 2))

    predicted_cases = 0
    for numbers in sorted_batches(prefix.cases, TOKENS_AT_ONCE, case_numbers):
        predicted = _forward(adapted, prefix, past, make_batch(prefix.cases, numbers))
        if logits is None:
            # One array from the start: a second copy of a thousand rows of Gemma's is a gigabyte.
            logits = np.empty((len(case_numbers), predicted.logits.shape[1]), np.float32)

        positions = [position[number] for number in numbers]
        logits[positions] = predicted.logits
        label_logp[positions] = predicted.label_logp
        text_nll += predicted.text_nll
        text_tokens += predicted.text_tokens
        of_cases[positions] = predicted.of_cases
        predicted_cases += len(numbers)
        emit(ProgressReport(f"fidelity of {name}", predicted_cases, len(case_numbers)))

    assert logits is not None  # a set has cases
    if not np.isfinite(logits).all():
        raise TriageError(
            f"{name} gives logits that are not finite, so its fidelity cannot be measured."
        )

    mx.clear_cache()
    return Predicted(logits, label_logp, text_nll, text_tokens, of_cases)


def _forward(
    adapted: Adapted, prefix: Prefix, past: list[SharedPast | None], batch: Batch
) -> Predicted:
    """The predictions on the cases of one batch; `past`: of the instruction."""
    stack = adapted.stack
    leading = prefix.cases.leading
    rows = batch.rows[:: prefix.cases.per_case]  # a case's rows differ in the completion alone
    hidden = prefix.hidden(rows, batch.length)
    hidden = run_blocks(stack, hidden, prefix.boundary, stack.depth, past)

    label_logits = []
    of_cases = []
    nll = mx.array(0.0)
    tokens = 0
    for i, row in enumerate(rows):
        logits = project(stack, hidden[i, : row.first + 1 - leading])
        label_logits.append(logits[-1])

        following = mx.array(row.inputs[leading + 1 : row.first + 1])
        if len(following):  # of a single case, all tokens but the last belong to the instruction
            at_token = mx.take_along_axis(logits[:-1], following[:, None], axis=1)[:, 0]
            of_case = (mx.logsumexp(logits[:-1], axis=1) - at_token).sum()
            nll = nll + of_case
        else:
            of_case = mx.array(0.0)

        tokens += len(following)
        # Case by case: the sums over one case's logits are done before the next one's are made.
        mx.eval(nll, of_case, label_logits[-1])
        of_cases.append((float(np.array(of_case)), len(following)))

    predicted = np.stack([np.array(logits) for logits in label_logits])
    if prefix.cases.per_case == 1:
        label_logp = np.asarray(predicted[:, list(prefix.cases.label_tokens)])
    else:  # from the labels' full length
        label_logp = np.array(label_terms(adapted, prefix, batch, past).label_logp)

    return Predicted(
        predicted, label_logp, float(np.array(nll)), tokens, np.array(of_cases, np.float64)
    )
