"""Dropout passes and scoring, timed: ours from the stored prefix, against full-logit passes over
all layers, and generation.

Each engine runs in its own process, on the same cases, all but one with our BLAS. Passes and
scoring are timed for about the requested number of seconds, generation once for each case; the rest
of the task is scaled, and the figures say so. Engines:
    ours            `dropout_passes` from a prefix that is already stored
    full            each pass a batched forward of mlx-lm's own model, all layers and full logits, LoRA dropout on
    generate        mlx-lm's greedy generation of 16 tokens, one case after the other, dropout on
    generate_stock  the same as mlx-lm is installed: the wheel's own BLAS, packed weights with float32 scales and norms
                    (glibc keeps freed memory here too, which an installation does not ask it to: it is a little faster)
    score_ours      `score_cases` of a sample of a set from its stored prefix
    score_full      the same cases by batched forwards with full logits
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.bench.jobs import DropoutJob
from tasks.bench.setting import start_adapter
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend
from tasks.runtime.device import measure
from tasks.runtime.events import Emit
from tasks.scoring.arguments import sample_numbers
from tasks.scoring.mc_dropout import PASS_KEY, dropout_passes
from tasks.spec import PromptChoice, Recipe, Training
from tasks.tuning.batches import (
    TOKENS_AT_ONCE,
    EncodedCases,
    make_batch,
    make_cases,
    padded_tokens,
    sorted_batches,
)
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.lora import Adapted, add_lora
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.prefix_store import PrefixStore, open_prefix
from tasks.tuning.scores import score_cases
from tasks.tuning.sets import LoadedSet, load_set, load_template
from tasks.tuning.variant import load_variant

Figures = dict[str, Any]  # of one engine, as JSON
SEED = 0
GENERATED_TOKENS = 16
# The dropout engines' cases are those of the set whose prompts are nearest to this length.
CASE_TOKENS = 100
# Passes or repeats, however long they take.
LEAST = {"ours": 20, "full": 6, "score": 2}
# Values of one forward's full logits: 1 GiB.
LOGITS_AT_ONCE = 1 << 28
RECIPE = Recipe(
    name="bench",
    kind="standard",
    learning_rate=1e-5,
    batch_size=4,
    rank=8,
    scale=20,
    dropout=0.1,
    iterations=1,
)


@dataclass(frozen=True)
class Workbench:
    """What each engine needs: the job, the adapted model, and its cases."""

    job: DropoutJob
    adapted: Adapted
    cases: EncodedCases
    emit: Emit

    def stored_prefix(self) -> Prefix:
        """The set's frozen prefix, stored before anything is timed, as it is for every recipe but
        the first.
        """
        store = PrefixStore(self.job.folder, VariantManifest.read(self.job.variant).digest)
        adapted = self.adapted
        return open_prefix(adapted.stack, self.cases, adapted.boundary, store, self.emit)


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measure one engine; `args` are the fields of DropoutJob.

    Returns `seconds` (of each pass, generation or repeat), `cases`, `tokens` (mean, least and most
    of a prompt), device; and of the dropout engines `probabilities` (passes, cases, 3).
    """
    job = DropoutJob.model_validate(args)
    device = measure()
    mx.set_cache_limit(CACHE_BYTES)
    training = Training(num_layers=job.layers)
    adapted = _load(job, training)

    template = load_template(job.variant, PromptChoice())
    test = load_set(job.data, "test", template, training.max_tokens)
    numbers = select_cases(test, job)
    cases = make_cases(template, [test.cases.encoded[number] for number in numbers])
    figures = ENGINES[job.engine](Workbench(job, adapted, cases, emit))

    lengths = [len(case.prompt) for case in cases.encoded]
    tokens = {"mean": float(np.mean(lengths)), "least": min(lengths), "most": max(lengths)}
    return figures | {"cases": len(numbers), "tokens": tokens, "device": device.as_dict()}


def _load(job: DropoutJob, training: Training) -> Adapted:
    """The adapted variant as the engine computes with it."""
    as_installed = job.engine == "generate_stock"
    stack = load_variant(job.variant, "packed" if as_installed else backend().compute_path)
    adapted = add_lora(stack, RECIPE, training, SEED)
    if as_installed:
        # bfloat16 is slower still on CPU.
        adapted.stack.model.set_dtype(mx.float32)

    start_adapter(adapted.stack.model)
    return adapted


def select_cases(test: LoadedSet, job: DropoutJob) -> list[int]:
    """Case numbers: a stratified sample for the scoring engines, the prompts nearest to CASE_TOKENS
    for the others.
    """
    ids = [record["case_id"] for record in test.records]
    if job.engine.startswith("score"):
        return sample_numbers(ids, [record["label"] for record in test.records], job.scored)

    lengths = [len(case.prompt) for case in test.cases.encoded]
    nearest = sorted(range(len(ids)), key=lambda i: (abs(lengths[i] - CASE_TOKENS), ids[i]))
    return sorted(nearest[: job.cases])


def _our_figures(bench: Workbench) -> Figures:
    prefix = bench.stored_prefix()
    all_cases = range(len(bench.cases.encoded))
    times: list[float] = []

    def passes(count: int, seed: int) -> np.ndarray:
        times.append(time.perf_counter())
        return dropout_passes(
            bench.adapted,
            prefix,
            all_cases,
            count,
            seed,
            lambda event: times.append(time.perf_counter()),
        )

    # A warm-up, whose second pass says how many there is time for.
    passes(2, SEED + 1)
    affordable = int(bench.job.seconds / (times[-1] - times[-2]))
    times.clear()
    probabilities = passes(min(max(affordable, LEAST["ours"]), bench.job.passes), SEED)

    # `times` begins with the start, and each further entry is the end of a pass.
    return {"seconds": np.diff(times).tolist(), "probabilities": probabilities.tolist()}


def _full(bench: Workbench) -> Figures:
    passes: list[np.ndarray] = []

    def one_pass() -> None:
        key = (PASS_KEY, SEED + 2, len(passes))
        exponentials = np.exp(_forward_all(bench.adapted, bench.cases, key))
        passes.append(exponentials / exponentials.sum(axis=1, keepdims=True))

    # A warm-up, whose probabilities are left out.
    one_pass()
    seconds = _repeated(one_pass, bench.job.passes, LEAST["full"], bench.job.seconds)
    return {"seconds": seconds, "probabilities": np.stack(passes[1:]).tolist()}


def _forward_all(adapted: Adapted, cases: EncodedCases, key: tuple[int, ...] | None) -> np.ndarray:
    """log P of each label's first token up to a constant, (cases, 3), from full logits of every
    position.
    """
    logp = np.zeros((len(cases.encoded), 3))
    vocabulary = adapted.stack.model.args.vocab_size

    token_budget = min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // vocabulary)
    for case_numbers in sorted_batches(cases, token_budget):
        batch = make_batch(cases, case_numbers)
        adapted.set_dropout([(*key, row.number) for row in batch.rows] if key else None)
        tokens = padded_tokens([row.inputs for row in batch.rows], batch.length)
        logits = adapted.stack.model(mx.array(tokens)).astype(mx.float32)
        mx.eval(logits)

        at_label = np.array(logits[mx.arange(len(batch.rows)), mx.array(batch.first)])
        # One row per case: its rows differ in the completion alone.
        labels = at_label[:: cases.per_case][:, list(cases.label_tokens)].astype(np.float64)
        logp[list(case_numbers)] = labels - labels.max(axis=1, keepdims=True)

    adapted.set_dropout(None)
    return logp


def _generate(bench: Workbench) -> Figures:
    from mlx_lm.generate import generate_step

    seconds = []
    for number, case in enumerate(bench.cases.encoded):
        bench.adapted.set_dropout([(PASS_KEY, SEED + 3, number)])
        start = time.perf_counter()
        steps = generate_step(
            mx.array(case.prompt), bench.adapted.stack.model, max_tokens=GENERATED_TOKENS
        )
        count = sum(1 for _ in steps)
        seconds.append(time.perf_counter() - start)
        assert count == GENERATED_TOKENS

    return {"seconds": seconds}


def _score_ours(bench: Workbench) -> Figures:
    prefix = bench.stored_prefix()
    return _scorings(lambda: score_cases(bench.adapted, prefix), bench.job)


def _score_full(bench: Workbench) -> Figures:
    return _scorings(lambda: _forward_all(bench.adapted, bench.cases, None), bench.job)


def _scorings(work: Callable[[], object], job: DropoutJob) -> Figures:
    return {"seconds": _repeated(work, job.repeats, LEAST["score"], job.seconds)}


def _repeated(work: Callable[[], object], most: int, least: int, seconds: float) -> list[float]:
    """Seconds of each repeat: `most` of them, or fewer once `seconds` have passed, but at least
    `least`.
    """
    times: list[float] = []
    while len(times) < most and (len(times) < least or sum(times) < seconds):
        times.append(_timed(work))
    return times


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


ENGINES: dict[str, Callable[[Workbench], Figures]] = {
    "ours": _our_figures,
    "full": _full,
    "generate": _generate,
    "generate_stock": _generate,
    "score_ours": _score_ours,
    "score_full": _score_full,
}
