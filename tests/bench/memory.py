"""Memory of one training step on the quantised weights of each variant, as Metal holds them, exact on
any machine and slow off a Mac: `uv run python -m tests.bench.memory`.
"""

from __future__ import annotations

import shutil
from typing import Annotated, Any

import mlx.core as mx
import typer

from flows.cli.terminal import console
from tasks.bench.setting import Setting
from tasks.models.manifest import VariantManifest
from tasks.runtime.children import run_child
from tasks.runtime.events import Emit
from tasks.runtime.home import home
from tasks.runtime.memory import peak_resident_bytes
from tasks.tuning.activation_store import PrefixStore, open_prefix
from tasks.tuning.gradients import update_gradients
from tasks.tuning.lora import add_lora, load_variant
from tasks.tuning.loss import make_objective
from tests.bench.common import blocks_of, name_of, print_rows, run, variant_of

MODELS = ("smollm2-135m", "smollm2-360m", "gemma-3-270m")


def memory(
    model: Annotated[list[str] | None, typer.Option(help="only this base model")] = None,
    batch: Annotated[int, typer.Option(min=1, help="cases of the step")] = 1,
    length: Annotated[int, typer.Option(min=16, help="tokens of a case")] = 64,
    layers: Annotated[int, typer.Option(min=1, help="trained blocks")] = 16,
) -> None:
    """Measure the peak memory of a training step at 4 and at 8 bits."""
    rows = []
    for name in model or MODELS:
        for bits in (4, 8):
            variant = variant_of(name, bits)
            blocks_of(variant, layers)
            folder = home() / "bench" / "memory"
            args = {
                "engine": "memory",
                "variant": str(variant),
                "folder": str(folder),
                "batch": batch,
                "length": length,
                "layers": layers,
                "repeats": 1,
            }
            with console.status(f"One step of {name} {bits}bit; minutes where there is no GPU ..."):
                megabytes = run_child("tests.bench.memory:step", args, folder)

            shutil.rmtree(folder, ignore_errors=True)
            figures = {title: f"{size:.1f}" for title, size in megabytes.items()}
            rows.append({"variant": name_of(name, bits, variant), **figures})

    title = f"A step of {batch} x {length} tokens, LoRA on {layers} blocks: MB"
    print_rows(title, rows)


def step(args: dict[str, Any], emit: Emit) -> dict[str, float]:
    """In a child: one packed step (`args`: the fields of Setting) over a stored prefix, with the
    optimizer's update. Returns megabytes.
    """
    setting = Setting.model_validate(args)
    manifest = VariantManifest.read(setting.variant)
    stack = load_variant(setting.variant, "packed")
    adapted = add_lora(stack, setting.recipe, setting.training, seed=0)
    loaded = mx.get_active_memory()
    store = PrefixStore(setting.folder, manifest.digest)
    prefix = open_prefix(stack, setting.cases, adapted.boundary, store)

    optimizer = setting.optimizer()
    optimizer.init(stack.model.trainable_parameters())
    mx.eval(optimizer.state)
    mx.clear_cache()
    mx.reset_peak_memory()

    objective = make_objective(setting.recipe, prefix.cases.labels)
    numbers = range(setting.batch)
    _, _, gradients = update_gradients(adapted, prefix, numbers, objective, setting.batch, None)
    mx.eval(gradients)
    optimizer.update(stack.model, gradients)
    mx.eval(stack.model.trainable_parameters(), optimizer.state)

    peak = mx.get_peak_memory()
    sizes = {
        "stored": manifest.stored_bytes,
        "loaded": loaded,
        "peak of a step": peak,
        "over weights": peak - loaded,
        "MLX cache": mx.get_cache_memory(),
        "process peak": peak_resident_bytes(),
    }
    return {title: size / 1e6 for title, size in sizes.items()}


if __name__ == "__main__":
    run(memory)
