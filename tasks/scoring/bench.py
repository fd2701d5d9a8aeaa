"""Dropout passes and scoring, timed: ours from the stored prefix, against full-logit passes over all layers, and generation.

Each engine runs in a process of its own, on the same cases, with our BLAS. Engines:
    ours          `dropout_passes` from a prefix that was stored before
    full          each pass a batched forward of mlx-lm's own model, all layers and full logits, LoRA dropout on
    generate      mlx-lm's greedy generation of 16 tokens, one case after the other, dropout on
    score_ours    `score_cases` of a whole set from its stored prefix
    score_full    the same set by batched forwards with full logits
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.runtime.device import compute_path, measure
from tasks.runtime.store import verify
from tasks.scoring.mc_dropout import PASS_KEY, dropout_passes
from tasks.scoring.sample import sample_numbers
from tasks.spec import Recipe, Training
from tasks.tuning.batches import TOKENS_AT_ONCE, Cases, make_batch, make_cases, sorted_batches
from tasks.tuning.bench_setting import start_adapter
from tasks.tuning.engine import score_cases
from tasks.tuning.frozen_prefix import Prefix, open_prefix
from tasks.tuning.job import CACHE_BYTES
from tasks.tuning.lora import Adapted, add_lora, load_variant
from tasks.tuning.sets import load_set, load_template

Emit = Callable[[dict[str, Any]], None]
SEED = 0
GENERATED_TOKENS = 16
LOGITS_AT_ONCE = 1 << 28  # values of one forward's full logits: 1 GiB


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measure one engine. `args`: engine, variant, data, folder, layers, passes, cases (of the dropout engines), repeats.

    Returns `seconds` (of each pass, generation or repeat), `cases`, `tokens` (mean length), device; and of the dropout
    engines `mean` and `sd` (cases, 3) over passes.
    """
    device = measure()
    mx.set_cache_limit(CACHE_BYTES)
    variant, training = Path(args["variant"]), Training(num_layers=args["layers"])
    recipe = Recipe(
        name="bench", kind="standard", learning_rate=1e-5, batch_size=4, rank=8, scale=20, dropout=0.1, iterations=1
    )
    adapted = add_lora(load_variant(variant, compute_path()), recipe, training, SEED)
    start_adapter(adapted.stack.model)
    test = load_set(Path(args["data"]), "test", load_template(variant), training.max_tokens)
    whole = args["engine"].startswith("score")
    size = len(test.records) if whole else int(args["cases"])
    chosen = sample_numbers([r["case_id"] for r in test.records], [r["label"] for r in test.records], size)
    cases = make_cases(load_template(variant), [test.cases.encoded[i] for i in chosen])
    folder, digest = Path(args["folder"]), verify(variant, deep=False)["digest"]
    found = ENGINES[args["engine"]](adapted, cases, args, lambda: _stored(adapted, cases, folder, digest, emit))
    tokens = float(np.mean([len(case.prompt) for case in cases.encoded]))
    return found | {"cases": len(chosen), "tokens": tokens, "device": asdict(device)}


def _stored(adapted: Adapted, cases: Cases, folder: Path, digest: str, emit: Emit) -> Prefix:
    """The set's frozen prefix, stored before anything is timed: every recipe after the first finds it there."""
    return open_prefix(adapted.stack, cases, adapted.boundary, folder, digest, emit)


def _ours(adapted: Adapted, cases: Cases, args: dict[str, Any], stored: Callable[[], Prefix]) -> dict[str, Any]:
    prefix, everything = stored(), range(len(cases.encoded))
    times: list[float] = []
    dropout_passes(adapted, prefix, cases, everything, 2, SEED + 1, lambda event: None)  # warm-up
    times.append(time.perf_counter())
    passes = dropout_passes(
        adapted, prefix, cases, everything, args["passes"], SEED, lambda event: times.append(time.perf_counter())
    )
    return _summed_up(np.diff(times).tolist(), passes)


def _full(adapted: Adapted, cases: Cases, args: dict[str, Any], stored: Callable[[], Prefix]) -> dict[str, Any]:
    seconds, passes = [], []
    for number in range(-1, args["passes"]):  # the first is a warm-up
        start = time.perf_counter()
        logp = _forward_all(adapted, cases, (PASS_KEY, SEED + 2, number + 1))
        seconds.append(time.perf_counter() - start)
        passes.append(np.exp(logp) / np.exp(logp).sum(axis=1, keepdims=True))
    return _summed_up(seconds[1:], np.stack(passes[1:]))


def _forward_all(adapted: Adapted, cases: Cases, key: tuple[int, ...] | None) -> np.ndarray:
    """log P of each label's first token up to a constant, (cases, 3), from full logits of every position."""
    out = np.zeros((len(cases.encoded), 3))
    vocabulary = adapted.stack.model.args.vocab_size
    for some in sorted_batches(cases, min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // vocabulary)):
        batch = make_batch(cases, some)
        adapted.set_dropout([(*key, row.number) for row in batch.rows] if key else None)
        tokens = np.zeros((len(batch.rows), batch.length), np.int32)
        for i, row in enumerate(batch.rows):
            tokens[i, : len(row.inputs)] = row.inputs
        logits = adapted.stack.model(mx.array(tokens)).astype(mx.float32)
        mx.eval(logits)
        picked = np.array(logits[mx.arange(len(batch.rows)), mx.array(batch.first)])[:: cases.per_case]
        picked = picked[:, list(cases.label_tokens)].astype(np.float64)
        out[list(some)] = picked - picked.max(axis=1, keepdims=True)
    adapted.set_dropout(None)
    return out


def _generate(adapted: Adapted, cases: Cases, args: dict[str, Any], stored: Callable[[], Prefix]) -> dict[str, Any]:
    from mlx_lm.generate import generate_step

    seconds = []
    for number, case in enumerate(cases.encoded):
        adapted.set_dropout([(PASS_KEY, SEED + 3, number)])
        start = time.perf_counter()
        steps = generate_step(mx.array(case.prompt), adapted.stack.model, max_tokens=GENERATED_TOKENS)
        made = sum(1 for _ in steps)
        seconds.append(time.perf_counter() - start)
        assert made == GENERATED_TOKENS
    return {"seconds": seconds}


def _score_ours(adapted: Adapted, cases: Cases, args: dict[str, Any], stored: Callable[[], Prefix]) -> dict[str, Any]:
    prefix = stored()
    return {"seconds": [_timed(lambda: score_cases(adapted, prefix, cases)) for _ in range(args["repeats"])]}


def _score_full(adapted: Adapted, cases: Cases, args: dict[str, Any], stored: Callable[[], Prefix]) -> dict[str, Any]:
    return {"seconds": [_timed(lambda: _forward_all(adapted, cases, None)) for _ in range(args["repeats"])]}


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _summed_up(seconds: list[float], passes: np.ndarray) -> dict[str, Any]:
    return {"seconds": seconds, "mean": passes.mean(axis=0).tolist(), "sd": passes.std(axis=0, ddof=1).tolist()}


ENGINES: dict[str, Callable[..., dict[str, Any]]] = {
    "ours": _ours, "full": _full, "generate": _generate, "score_ours": _score_ours, "score_full": _score_full,
}  # fmt: skip
