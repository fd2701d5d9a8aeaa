"""Fuses an adapter into the weights that it was trained on, as mlx-lm does, in float32.

Only the matrices that have an adapter change: they are unpacked and stay so, since what was learned
is smaller than a step of the quantisation (README.md has the figures). All others keep their bits.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model, save_config, save_model

from tasks.models.manifest import VariantManifest
from tasks.models.stored_sizes import stored_sizes
from tasks.runtime.store import seal, verify
from tasks.tuning.variant import unpacked


def write_fused(weights: Path, adapter: Path, target: Path, model_id: str) -> None:
    """Write a model folder with the adapter in its weights.

    `weights`: the model folder; `adapter`: the folder with the adapter and its config. Stock mlx-lm
    loads the result: what has no scales is not quantised.
    """
    target.mkdir(parents=True)
    with mx.stream(mx.cpu):  # each weight is written once: the same bits on every machine
        model, config = load_model(weights, lazy=True)
        model = load_adapters(model, str(adapter))
        fused = [
            (name, _fused(module))
            for name, module in model.named_modules()
            if isinstance(module, LoRALinear)
        ]
        model.update_modules(tree_unflatten(fused))
        save_model(target, model)

    save_config(config, target / "config.json")
    for name in verify(weights, deep=False)["files"]:
        if not (name.startswith("model") or (target / name).exists()):
            shutil.copyfile(weights / name, target / name)

    seal(target, _manifest_entries(weights, target, model_id))


def _fused(module: LoRALinear) -> nn.Linear:
    linear = module.linear
    # With float32 scales unpacking is exact.
    linear.set_dtype(mx.float32)
    if isinstance(linear, nn.QuantizedLinear):
        linear = unpacked(linear)
        linear.set_dtype(mx.float32)  # modes with scales of a byte are unpacked to bfloat16
    module.linear = linear
    return module.fuse()


def _manifest_entries(weights: Path, target: Path, model_id: str) -> dict[str, Any]:
    manifest = VariantManifest.read(weights)
    entries = manifest.model_dump(mode="json", exclude={"digest"}, exclude_unset=True)
    sizes = stored_sizes(target, manifest.group_size).manifest_entries()
    return entries | sizes | {"fused": model_id}
