"""The scoring steps as a child process runs them: a model and a dataset in; sealed scores folders, or
the figure by which a search compares recipes, out. And fidelity: quantised variants against their
base model, in float32 from unpacked weights.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import mlx.core as mx
import numpy as np

from tasks.judging.decision_rules import recall_at_over_triage
from tasks.judging.fidelity import Predicted, fidelity_figures
from tasks.runtime.backend import backend
from tasks.runtime.device import report_device
from tasks.runtime.errors import Diverged, TriageError
from tasks.runtime.events import Emit, ProgressReport
from tasks.runtime.store import Manifest, verify
from tasks.scoring.arguments import FidelityJob, ScoringJob, UntunedScoringJob, ValidScoringJob
from tasks.scoring.baselines import TARGET
from tasks.scoring.scorer import UNTUNED, Scorer, sample_of, score_sets
from tasks.spec import LABELS, ExperimentSpec, short_digest
from tasks.tuning.activations import Prefix, PrefixStore, open_prefix
from tasks.tuning.data import load_set, load_template, make_batch, sorted_batches
from tasks.tuning.lora import Adapted, add_lora, load_variant, load_weights
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.model import project, run_blocks
from tasks.tuning.step import label_terms, leading_past, score_cases


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a ScoringJob."""
    job = ScoringJob.model_validate(args)
    spec = job.experiment
    adapter = verify(job.adapter, deep=True)
    folders = [adapter["digest"], *(Manifest.read(f).digest for f in (job.variant, job.data))]
    scorer = Scorer(
        name=spec.cell_id,
        adapted=_load_adapted(job.variant, spec, job.adapter / "adapters.safetensors"),
        template=load_template(job.variant, spec.prompt),
        prefixes=_prefixes(job.home, job.variant),
        scoring=spec.scoring,
        max_tokens=spec.training.max_tokens,
        dropout=spec.recipe.dropout,
        seed=spec.seed,
        # A recipe without a target is also judged at the baselines', so that all can be compared
        # at equal recall.
        target=spec.recipe.target_ed_recall or TARGET,
        data=job.data,
        emit=emit,
        rule=spec.recipe.rule,
        moved=job.rules_from is not None,
        inputs=short_digest({"experiment": spec.model_dump(mode="json"), "folders": folders}),
    )
    score_sets(scorer, job.sets, job.rules_from, job.judged_from)
    return {}


def run_untuned(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run an UntunedScoringJob, without an adapter: a fresh one would add exactly nothing."""
    job = UntunedScoringJob.model_validate(args)
    # This job runs before the first training, and is slow wherever that will be.
    report_device(emit)
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(job.variant, backend().compute_path)
    scorer = Scorer(
        name=UNTUNED,
        adapted=Adapted(stack, (), max(stack.depth - job.training.num_layers, 0), 0),
        template=load_template(job.variant, job.prompt),
        prefixes=_prefixes(job.home, job.variant),
        scoring=job.scoring,
        max_tokens=job.training.max_tokens,
        dropout=0.0,
        seed=0,
        target=TARGET,
        data=job.data,
        emit=emit,
    )
    score_sets(scorer, {"test": job.scores})
    score_sets(scorer, job.sets, rules_from=job.scores)
    return {}


def run_valid(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a ValidScoringJob; returns {"value": the ED recall}."""
    job = ValidScoringJob.model_validate(args)
    spec = job.experiment
    adapted = _load_adapted(job.variant, spec, job.adapter)
    template = load_template(job.variant, spec.prompt)
    loaded = load_set(job.data, "valid", template, spec.training.max_tokens)
    prefixes = _prefixes(job.home, job.variant)
    prefix = open_prefix(adapted.stack, loaded.cases, adapted.boundary, prefixes, emit)
    scores = score_cases(adapted, prefix)
    if not np.isfinite(scores.probabilities).all():
        raise Diverged(f"{spec.cell_id}: scores on valid are not finite.")

    labels = [record["label"] for record in loaded.records]
    return {"value": recall_at_over_triage(scores.probabilities, labels, job.over_triage)}


def _load_adapted(variant: Path, spec: ExperimentSpec, adapter: Path) -> Adapted:
    """A variant with the adapter in the file `adapter`."""
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(variant, backend().compute_path)
    adapted = add_lora(stack, spec.recipe, spec.training, spec.seed)
    load_weights(adapted, adapter)
    return adapted


def _prefixes(home: Path, variant: Path) -> PrefixStore:
    return PrefixStore(home, Manifest.read(variant).digest)


PATH = "dequantised_f32"
TOKENS_AT_ONCE = 1024
LOGIT_BYTES = 256 << 20  # logits of a case's positions that are held at once: Gemma's of 256


def run_fidelity(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a FidelityJob. Returns `figures` (precision -> distribution -> figures) and `set_cases`."""
    job = FidelityJob.model_validate(args)
    mx.set_cache_limit(CACHE_BYTES)
    template = load_template(job.reference, job.prompt)
    test = load_set(job.data, "test", template, job.training.max_tokens)
    case_numbers = sample_of(test, job.cases)

    def predict(folder: Path, trained_blocks: int) -> Predicted:
        stack = load_variant(folder, PATH)
        # From the frozen prefix that recipes share, where they compute in float32 too; no prefix is
        # stored for a sample alone.
        shared = trained_blocks > 0 and backend().compute_path == PATH
        boundary = max(stack.depth - trained_blocks, 0) if shared else 0
        store = PrefixStore(job.home, Manifest.read(folder).digest)
        prefix = open_prefix(stack, test.cases, boundary, store, emit)
        adapted = Adapted(stack, (), boundary, 0)
        # Of each case the logits of one position, which are a gigabyte of a thousand of Gemma's:
        # on the disk, and without a name, so that nothing is left of them when the step is killed.
        with TemporaryFile(dir=job.home) as rows:
            return _predict(folder.name, adapted, prefix, case_numbers, rows, emit)

    reference = predict(job.reference, 0)
    figures = {
        precision: fidelity_figures(reference, predict(folder, job.training.num_layers))
        for precision, folder in job.variants.items()
    }
    return {"figures": figures, "set_cases": len(test.records)}


def _predict(
    name: str,
    adapted: Adapted,
    prefix: Prefix,
    case_numbers: list[int],
    logit_rows: IO[bytes],
    emit: Emit,
) -> Predicted:
    """A model's predictions on these cases, their logits in the file `logit_rows`; TriageError if these
    are not finite.
    """
    stack = adapted.stack
    cases = prefix.cases
    leading = cases.leading
    past = leading_past(adapted, prefix)
    position = {number: i for i, number in enumerate(case_numbers)}
    vocabulary = stack.model.args.vocab_size
    most = max(1, LOGIT_BYTES // (4 * vocabulary))
    label_logp = np.empty((len(case_numbers), len(LABELS)), np.float32)
    of_cases = np.zeros((len(case_numbers), 2))
    text_nll = 0.0
    predicted_cases = 0

    for numbers in sorted_batches(cases, TOKENS_AT_ONCE, case_numbers):
        batch = make_batch(cases, numbers)
        rows = batch.rows[:: cases.per_case]  # a case's rows differ in the completion alone
        hidden = prefix.hidden(rows, batch.length)
        hidden = run_blocks(stack, hidden, prefix.boundary, stack.depth, past)
        nll = mx.array(0.0)
        for i, row in enumerate(rows):
            at = position[numbers[i]]
            losses = []
            # In parts of nearly equal size: a product of a few rows is rounded otherwise.
            count = row.first + 1 - leading
            at_once = -(-count // -(-count // most))
            for start in range(leading, row.first + 1, at_once):
                stop = min(start + at_once, row.first + 1)
                logits = project(stack, hidden[i, start - leading : stop - leading])
                # Of the last position the label follows.
                following = mx.array(row.inputs[start + 1 : min(stop, row.first) + 1], mx.int32)
                known = len(following)
                at_token = mx.take_along_axis(logits[:known], following[:, None], axis=1)[:, 0]
                losses.append(mx.logsumexp(logits, axis=1)[:known] - at_token)
                # Block by block: one is done before the logits of the next are made.
                mx.eval(losses[-1], logits)

            of_case = mx.concatenate(losses).sum()
            nll = nll + of_case
            of_cases[at] = float(np.array(of_case)), row.first - leading
            of_label = np.array(logits[-1])
            if not np.isfinite(of_label).all():
                raise TriageError(
                    f"{name} gives logits that are not finite, so its fidelity cannot be measured."
                )
            logit_rows.seek(at * of_label.nbytes)
            logit_rows.write(of_label.data)
            if cases.per_case == 1:
                label_logp[at] = of_label[list(cases.label_tokens)]

        text_nll += float(np.array(nll))
        if cases.per_case > 1:  # from the labels' full length
            terms = label_terms(adapted, prefix, batch, past)
            label_logp[[position[number] for number in numbers]] = np.array(terms.label_logp)
        predicted_cases += len(numbers)
        emit(ProgressReport(f"fidelity of {name}", predicted_cases, len(case_numbers)))

    mx.clear_cache()
    logit_rows.flush()
    shape = (len(case_numbers), vocabulary)
    mapped = np.memmap(logit_rows, np.float32, "r", shape=shape)
    return Predicted(mapped, label_logp, text_nll, int(of_cases[:, 1].sum()), of_cases)
