"""Dropout passes and scoring, ours against full-logit passes over all layers and generation:
`uv run python -m tests.bench.dropout --model smollm2-135m --layers 16`.

Each engine runs in a process of its own on the same cases, for about the requested seconds; the rest of its task is scaled.
`full` is a forward of mlx-lm's own model with all layers and logits, `generate` mlx-lm's greedy generation with dropout on,
`generate_stock` the same as mlx-lm is installed: the wheel's own BLAS and packed float32 weights.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np
import typer
from mlx_lm.generate import generate_step

from flows.cli.terminal import console
from tasks.bench.selftest.models import RECIPE, start_adapter
from tasks.corpus.prepare import prepare_dataset
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend
from tasks.runtime.children import run_child
from tasks.runtime.events import Emit
from tasks.runtime.home import home
from tasks.scoring.arguments import sample_numbers
from tasks.scoring.mc_dropout import PASS_KEY, dropout_passes
from tasks.spec import Data, PromptChoice, Training
from tasks.tuning.activations import PrefixStore, open_prefix
from tasks.tuning.data import (
    TOKENS_AT_ONCE,
    EncodedCases,
    load_set,
    load_template,
    make_batch,
    make_cases,
    padded_tokens,
    sorted_batches,
)
from tasks.tuning.lora import Adapted, add_lora, load_variant
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.step import score_cases
from tests.bench.common import WHEELS_OWN_BLAS, blocks_of, name_of, print_rows, run, variant_of

ENGINES = ("ours", "full", "generate", "generate_stock", "score_ours", "score_full")
SET_CASES = 1500  # of a whole evaluation set
CASE_TOKENS = 100  # the dropout engines' cases are those whose prompts are nearest to this length
GENERATED_TOKENS = 16
LOGITS_AT_ONCE = 1 << 28  # values of one forward's full logits: 1 GiB
FEWEST = {"ours": 20, "full": 6, "score_ours": 2, "score_full": 2}  # however long they take
SEED = 0
WITH_DROPOUT = RECIPE.model_copy(update={"dropout": 0.1})


def dropout(
    model: Annotated[str, typer.Option(help="base model")] = "smollm2-135m",
    bits: Annotated[int, typer.Option(help="4 or 8")] = 4,
    layers: Annotated[int, typer.Option(min=1, help="trained blocks")] = 16,
    cases: Annotated[int, typer.Option(min=3, help="cases of the dropout passes")] = 20,
    passes: Annotated[int, typer.Option(min=2, help="dropout passes of a case")] = 50,
    scored: Annotated[int, typer.Option(min=20, help="cases whose scoring is timed")] = 60,
    seconds: Annotated[float, typer.Option(help="about as long as an engine is timed")] = 50,
) -> None:
    """Time dropout passes and scoring against full-logit passes and generation."""
    variant = variant_of(model, bits)
    blocks = blocks_of(variant, layers)
    # Only test is used; the other sets are as small as they may be.
    limits = {"train": 3, "valid": 3, "calibration": 3, "test": max(scored, 10 * cases)}
    data = prepare_dataset(Data.model_validate({"limits": limits}), home())
    args = {"variant": str(variant), "data": str(data), "folder": str(home() / "bench" / "dropout"), "layers": layers}
    args |= {"cases": cases, "passes": passes, "scored": scored, "seconds": seconds}
    measured = _measured(args)

    # Seconds of the whole task: its timed pieces, times how many of them it has.
    def pieces(engine: str) -> float:
        if engine.startswith("score"):
            return max(1, SET_CASES / scored)
        return passes * (cases if engine.startswith("generate") else 1)

    whole = {engine: median(times) * pieces(engine) for engine, times in measured.items()}
    rows = []
    for engine, times in measured.items():
        ours = whole["score_ours" if engine.startswith("score") else "ours"]
        rows.append({
            "engine": engine,
            "seconds of the whole task": f"{whole[engine]:.2f}",
            "of timed pieces": str(len(times)),
            "ours is faster": f"{whole[engine] / ours:.1f} x",
        })  # fmt: skip
    print_rows(f"{name_of(model, bits, variant)}, {layers} of {blocks} blocks", rows)


def _measured(args: dict[str, Any]) -> dict[str, list[float]]:
    """Seconds of the timed pieces of each engine."""
    folder = Path(args["folder"])
    measured = {}
    for engine in ENGINES:
        if engine == "generate_stock" and engine not in backend().compared_with:
            continue  # there, as installed is what `generate` is

        environment = WHEELS_OWN_BLAS if engine == "generate_stock" else {}
        with console.status(f"{engine} ..."), patch.dict(os.environ, environment):
            child_args = args | {"engine": engine}
            result = run_child("tests.bench.dropout:measure", child_args, folder / engine)
        measured[engine] = result["seconds"]

    shutil.rmtree(folder, ignore_errors=True)
    return measured


def measure(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """In a child: time one engine. Returns `seconds` of each timed piece."""
    engine = args["engine"]
    mx.set_cache_limit(CACHE_BYTES)
    training = Training(num_layers=args["layers"])
    path = "packed" if engine == "generate_stock" else backend().compute_path
    adapted = add_lora(load_variant(Path(args["variant"]), path), WITH_DROPOUT, training, SEED)
    if engine == "generate_stock":
        adapted.stack.model.set_dtype(mx.float32)  # bfloat16 is slower still on CPU
    start_adapter(adapted.stack.model)

    cases = _cases(args, training)
    if engine.startswith("generate"):
        return {"seconds": _generations(adapted, cases)}

    # Stored before anything is timed, as it is for every recipe but the first.
    store = PrefixStore(Path(args["folder"]), VariantManifest.read(Path(args["variant"])).digest)
    prefix = open_prefix(adapted.stack, cases, adapted.boundary, store, emit)

    passes = itertools.count()
    numbers = range(len(cases.encoded))
    work = {
        "ours": lambda: dropout_passes(adapted, prefix, numbers, 1, SEED + next(passes), lambda event: None),
        "full": lambda: _label_log_p(adapted, cases, (PASS_KEY, SEED + 2, next(passes))),
        "score_ours": lambda: score_cases(adapted, prefix),
        "score_full": lambda: _label_log_p(adapted, cases, None),
    }[engine]
    work()  # to warm up

    most = args["passes"]
    seconds: list[float] = []
    while len(seconds) < most and (len(seconds) < FEWEST[engine] or sum(seconds) < args["seconds"]):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)

    return {"seconds": seconds}


def _cases(args: dict[str, Any], training: Training) -> EncodedCases:
    """A stratified sample of the test set to score, else those of about CASE_TOKENS tokens."""
    template = load_template(Path(args["variant"]), PromptChoice())
    test = load_set(Path(args["data"]), "test", template, training.max_tokens)
    ids = [record["case_id"] for record in test.records]
    if args["engine"].startswith("score"):
        numbers = sample_numbers(ids, [record["label"] for record in test.records], args["scored"])
    else:
        lengths = [len(case.prompt) for case in test.cases.encoded]
        nearest = sorted(range(len(ids)), key=lambda i: (abs(lengths[i] - CASE_TOKENS), ids[i]))
        numbers = sorted(nearest[: args["cases"]])

    return make_cases(template, [test.cases.encoded[number] for number in numbers])


def _label_log_p(adapted: Adapted, cases: EncodedCases, key: tuple[int, ...] | None) -> np.ndarray:
    """log P of each label's first token up to a constant, (cases, 3), from full logits of every
    position; `key`: of the dropout masks.
    """
    log_p = np.zeros((len(cases.encoded), 3))
    model = adapted.stack.model
    token_budget = min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // model.args.vocab_size)
    for numbers in sorted_batches(cases, token_budget):
        batch = make_batch(cases, numbers)
        adapted.set_dropout([(*key, row.number) for row in batch.rows] if key else None)
        tokens = padded_tokens([row.inputs for row in batch.rows], batch.length)
        logits = model(mx.array(tokens)).astype(mx.float32)
        mx.eval(logits)

        at_label = np.array(logits[mx.arange(len(batch.rows)), mx.array(batch.first)])
        # One row per case: its rows differ in the completion alone.
        labels = at_label[:: cases.per_case][:, list(cases.label_tokens)].astype(np.float64)
        log_p[list(numbers)] = labels - labels.max(axis=1, keepdims=True)

    adapted.set_dropout(None)
    return log_p


def _generations(adapted: Adapted, cases: EncodedCases) -> list[float]:
    """Seconds of the generation of each case."""
    seconds = []
    for number, case in enumerate(cases.encoded):
        adapted.set_dropout([(PASS_KEY, SEED + 3, number)])
        start = time.perf_counter()
        prompt = mx.array(case.prompt)
        steps = generate_step(prompt, adapted.stack.model, max_tokens=GENERATED_TOKENS)
        assert len(list(steps)) == GENERATED_TOKENS
        seconds.append(time.perf_counter() - start)

    return seconds


if __name__ == "__main__":
    run(dropout)
