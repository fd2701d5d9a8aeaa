"""Dropout passes and scoring, timed: ours from the stored prefix, against full-logit passes over all layers, and generation.

Each engine runs in a process of its own, on the same cases, with our BLAS but for one. Passes and scoring are timed for about
as many seconds as they are given, generation once for each case; what is left undone is scaled, and the figures say so.
Engines:
    ours            `dropout_passes` from a prefix that was stored before
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.bench.setting import start_adapter
from tasks.runtime.device import compute_path, measure
from tasks.runtime.events import Emit
from tasks.runtime.store import verify
from tasks.scoring.mc_dropout import PASS_KEY, dropout_passes
from tasks.scoring.sample import sample_numbers
from tasks.spec import Recipe, Training
from tasks.tuning.batches import TOKENS_AT_ONCE, Cases, make_batch, make_cases, sorted_batches
from tasks.tuning.engine import score_cases
from tasks.tuning.frozen_prefix import Prefix, open_prefix
from tasks.tuning.lora import Adapted, add_lora, load_variant
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.sets import LoadedSet, load_set, load_template

SEED = 0
GENERATED_TOKENS = 16
CASE_TOKENS = (
    100  # the dropout engines' cases are those of the set whose prompts are nearest to this
)
LEAST = {"ours": 20, "full": 6, "score": 2}  # passes or repeats, however long they take
LOGITS_AT_ONCE = 1 << 28  # values of one forward's full logits: 1 GiB


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measure one engine. `args`: engine, variant, data, folder, layers, passes, cases (of the dropout engines), scored
    (cases of the scoring engines), repeats, seconds (about how long to measure).

    Returns `seconds` (of each pass, generation or repeat), `cases`, `tokens` (mean, least and most of a prompt), device;
    and of the dropout engines `probabilities` (passes, cases, 3).
    """
    device = measure()
    mx.set_cache_limit(CACHE_BYTES)
    variant, training = Path(args["variant"]), Training(num_layers=args["layers"])
    recipe = Recipe(
        name="bench",
        kind="standard",
        learning_rate=1e-5,
        batch_size=4,
        rank=8,
        scale=20,
        dropout=0.1,
        iterations=1,
    )
    stock = args["engine"] == "generate_stock"
    adapted = add_lora(
        load_variant(variant, "packed" if stock else compute_path()), recipe, training, SEED
    )
    if stock:
        adapted.stack.model.set_dtype(mx.float32)  # bfloat16 is slower still on CPU
    start_adapter(adapted.stack.model)
    test = load_set(Path(args["data"]), "test", load_template(variant), training.max_tokens)
    chosen = chosen_cases(test, args)
    cases = make_cases(load_template(variant), [test.cases.encoded[i] for i in chosen])
    folder, digest = Path(args["folder"]), verify(variant, deep=False)["digest"]
    found = ENGINES[args["engine"]](
        adapted, cases, args, lambda: _stored(adapted, cases, folder, digest, emit)
    )
    lengths = [len(case.prompt) for case in cases.encoded]
    tokens = {"mean": float(np.mean(lengths)), "least": min(lengths), "most": max(lengths)}
    return found | {"cases": len(chosen), "tokens": tokens, "device": asdict(device)}


def chosen_cases(test: LoadedSet, args: dict[str, Any]) -> list[int]:
    """Places in the set: of a stratified sample for the scoring engines, of the prompts nearest to CASE_TOKENS for others."""
    ids = [r["case_id"] for r in test.records]
    if args["engine"].startswith("score"):
        return sample_numbers(ids, [r["label"] for r in test.records], int(args["scored"]))
    lengths = [len(case.prompt) for case in test.cases.encoded]
    nearest = sorted(range(len(ids)), key=lambda i: (abs(lengths[i] - CASE_TOKENS), ids[i]))
    return sorted(nearest[: int(args["cases"])])


def _stored(adapted: Adapted, cases: Cases, folder: Path, digest: str, emit: Emit) -> Prefix:
    """The set's frozen prefix, stored before anything is timed: every recipe after the first finds it there."""
    return open_prefix(adapted.stack, cases, adapted.boundary, folder, digest, emit)


def _ours(
    adapted: Adapted, cases: Cases, args: dict[str, Any], stored: Callable[[], Prefix]
) -> dict[str, Any]:
    prefix, everything = stored(), range(len(cases.encoded))
    times: list[float] = []

    def passes(count: int, seed: int) -> np.ndarray:
        times.append(time.perf_counter())
        return dropout_passes(
            adapted,
            prefix,
            everything,
            count,
            seed,
            lambda event: times.append(time.perf_counter()),
        )

    passes(2, SEED + 1)  # warm-up; its second pass says how many there is time for
    affordable = int(args["seconds"] / (times[-1] - times[-2]))
    times.clear()
    made = passes(min(max(affordable, LEAST["ours"]), args["passes"]), SEED)
    return {"seconds": np.diff(times).tolist(), "probabilities": made.tolist()}


def _full(
    adapted: Adapted, cases: Cases, args: dict[str, Any], stored: Callable[[], Prefix]
) -> dict[str, Any]:
    passes: list[np.ndarray] = []

    def one_pass() -> None:
        logp = _forward_all(adapted, cases, (PASS_KEY, SEED + 2, len(passes)))
        passes.append(np.exp(logp) / np.exp(logp).sum(axis=1, keepdims=True))

    one_pass()  # warm-up
    seconds = _repeated(one_pass, args["passes"], LEAST["full"], args["seconds"])
    return {"seconds": seconds, "probabilities": np.stack(passes[1:]).tolist()}


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
        picked = np.array(logits[mx.arange(len(batch.rows)), mx.array(batch.first)])[
            :: cases.per_case
        ]
        picked = picked[:, list(cases.label_tokens)].astype(np.float64)
        out[list(some)] = picked - picked.max(axis=1, keepdims=True)
    adapted.set_dropout(None)
    return out


def _generate(
    adapted: Adapted, cases: Cases, args: dict[str, Any], stored: Callable[[], Prefix]
) -> dict[str, Any]:
    from mlx_lm.generate import generate_step

    seconds = []
    for number, case in enumerate(cases.encoded):
        adapted.set_dropout([(PASS_KEY, SEED + 3, number)])
        start = time.perf_counter()
        steps = generate_step(
            mx.array(case.prompt), adapted.stack.model, max_tokens=GENERATED_TOKENS
        )
        made = sum(1 for _ in steps)
        seconds.append(time.perf_counter() - start)
        assert made == GENERATED_TOKENS
    return {"seconds": seconds}


def _score_ours(
    adapted: Adapted, cases: Cases, args: dict[str, Any], stored: Callable[[], Prefix]
) -> dict[str, Any]:
    prefix = stored()
    return _scorings(lambda: score_cases(adapted, prefix), args)


def _score_full(
    adapted: Adapted, cases: Cases, args: dict[str, Any], stored: Callable[[], Prefix]
) -> dict[str, Any]:
    return _scorings(lambda: _forward_all(adapted, cases, None), args)


def _scorings(work: Callable[[], Any], args: dict[str, Any]) -> dict[str, Any]:
    return {"seconds": _repeated(work, args["repeats"], LEAST["score"], args["seconds"])}


def _repeated(work: Callable[[], Any], most: int, least: int, seconds: float) -> list[float]:
    """Seconds of each repeat: `most` of them, or fewer where `seconds` are over, but no fewer than `least`."""
    times: list[float] = []
    while len(times) < most and (len(times) < least or sum(times) < seconds):
        times.append(_timed(work))
    return times


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


ENGINES: dict[str, Callable[..., dict[str, Any]]] = {
    "ours": _ours, "full": _full, "generate": _generate,
    "generate_stock": _generate, "score_ours": _score_ours, "score_full": _score_full,
}  # fmt: skip
