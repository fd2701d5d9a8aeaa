"""Conversion of a source folder to MLX in bfloat16, and from there to quantised variants, as child
processes run it.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, model_validator

from tasks.models.gguf_file import hf_config, hf_tensors, open_gguf, write_tokenizer
from tasks.models.manifest import (
    ModelManifest,
    SourceManifest,
    VariantManifest,
    base_folder,
    variant_folder,
)
from tasks.models.sizes import stored_sizes
from tasks.models.sources.folder_source import TOKENIZER_FILES
from tasks.models.sources.random_source import random_tensor
from tasks.precisions import BF16, BUILT_IN, Precision, with_precision_for_bits
from tasks.runtime import store
from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.runtime.events import Emit
from tasks.runtime.files import file_digest
from tasks.runtime.locks import BUILD_SECONDS, locked
from tasks.runtime.store import Manifest
from tasks.spec import digest_of

if TYPE_CHECKING:
    import mlx.nn as nn

COPIED_FILES = (*TOKENIZER_FILES, "generation_config.json")


class QuantizeJob(BaseModel):
    """Arguments of `run_quantize`: a source folder, the home in which to build, a precision, and the
    `training.group_size` of the grid, which bfloat16, the base model itself, does not use.

    `bits` may be given instead of a precision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    root: Path
    precision: Precision = BUILT_IN[BF16]
    group_size: int = 0

    @model_validator(mode="before")
    @classmethod
    def _bits_name_a_precision(cls, values: Any) -> Any:
        return with_precision_for_bits(values)


def run_quantize(args: dict[str, Any], emit: Emit | None = None) -> dict[str, Any]:
    """Build the MLX folder of a source at a precision (`args`: QuantizeJob); returns "folder" and
    its manifest. Converts the source first where that is not done yet.
    """
    job = QuantizeJob.model_validate(args)
    base = base_folder(job.source, job.root)
    write_model = partial(write_base, job.source)

    def build(target: Path) -> dict[str, Any]:
        # By the digests of its files: a damaged base is made again before it is quantised.
        with locked(base, BUILD_SECONDS):
            store.build_folder(base, write_model)
        return write_variant(base, target, job.precision, job.group_size)

    folder = variant_folder(job.source, job.root, job.precision, job.group_size)
    with locked(folder, BUILD_SECONDS):
        store.build_folder(folder, build if job.precision.is_quantised else write_model)

    manifest = VariantManifest.read(folder)
    return {"folder": str(folder), **manifest.model_dump(mode="json", exclude_unset=True)}


def write_base(source: Path, target: Path) -> dict[str, Any]:
    """Write the MLX folder of a source into `target`; returns the entries of its manifest.

    A damaged source loses its manifest.
    """
    import mlx.core as mx
    from mlx_lm.utils import load_config, save_config, save_model

    try:
        manifest = SourceManifest.read(source, deep=True)
    except BrokenFolder as error:
        (source / store.MANIFEST).unlink(missing_ok=True)  # so that it no longer counts as complete
        raise BrokenFolder(
            f"{str(error).rstrip('.')}; it is fetched again when you rerun the command."
        ) from error

    with mx.stream(mx.cpu):  # each weight is read and rounded once: nothing for an accelerator
        staged = _stage(source, manifest, target / "staged")
        model = _load_model(staged, manifest)
        model.set_dtype(mx.bfloat16)
        save_model(target, model)

    config = load_config(staged)
    config["torch_dtype"] = "bfloat16"
    save_config(config, target / "config.json")
    _copy_tokenizer(staged, target)
    shutil.rmtree(target / "staged", ignore_errors=True)

    return _manifest_entries(target, manifest, manifest.digest, BUILT_IN[BF16], None)


def _stage(source: Path, manifest: SourceManifest, staged: Path) -> Path:
    """A folder in the Hugging Face layout: the source, or one decoded from GGUF into `staged`."""
    if manifest.format != "gguf":
        return source

    import mlx.core as mx

    file = open_gguf(source / "model.gguf", manifest.weights_source)
    staged.mkdir()
    (staged / "config.json").write_text(json.dumps(hf_config(file)), encoding="utf-8")
    write_tokenizer(file, staged)

    weights = {}
    for name, values in hf_tensors(file):
        weights[name] = mx.array(values).astype(mx.bfloat16)
        # At once: until then the float32 values are held too.
        mx.eval(weights[name])

    mx.save_safetensors(str(staged / "model.safetensors"), weights, metadata={"format": "mlx"})

    return staged


def _load_model(folder: Path, manifest: SourceManifest) -> nn.Module:
    """The model with the weights of its folder, or with random ones of the source's seed.

    Raises BadInput with the names of tensors that are missing or unknown.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.utils import load_model

    if manifest.seed is None:
        try:
            return load_model(folder, lazy=True)[0]
        except ValueError as error:
            raise BadInput(
                f"The weights do not fit their config.json: {' '.join(str(error).split())}"
            ) from error

    # Not strict, since the folder has a config and no weights.
    model = load_model(folder, lazy=True, strict=False)[0]
    gemma = model.model_type == "gemma3_text"
    if gemma and "lm_head" in model:
        model.sanitize({})  # ties the head to the embedding, as loading weights without a head does

    weights: list[tuple[str, mx.array]] = []
    parameters: Any = tree_flatten(model.parameters())
    for name, value in parameters:
        values = random_tensor(name, value.shape, manifest.seed, gemma)
        tensor = mx.array(values).astype(mx.bfloat16)
        mx.eval(tensor)
        weights.append((name, tensor))

    model.update(tree_unflatten(weights))
    return model


def write_variant(
    base: Path, target: Path, precision: Precision, training_group_size: int
) -> dict[str, Any]:
    """Write the quantised variant of an MLX folder; returns the entries of its manifest."""
    import mlx.core as mx
    from mlx_lm.utils import load_model, save_config, save_model

    group_size = precision.group_size_in(training_group_size)
    assert group_size is not None
    with mx.stream(mx.cpu):  # the same bits on every machine, for all backends that train on them
        model, config = load_model(base, lazy=True)
        for name, module in model.named_modules():
            # mlx-lm would silently leave it unquantised.
            if hasattr(module, "to_quantized") and module.weight.shape[-1] % group_size:
                raise BadInput(
                    f"{name} has rows of {module.weight.shape[-1]} values, "
                    f"which a group size of {group_size} does not divide."
                )
        model, config = quantised(model, config, precision, group_size)
        save_model(target, model)

    save_config(config, target / "config.json")
    _copy_tokenizer(base, target)

    manifest = VariantManifest.read(base)
    return _manifest_entries(target, manifest, manifest.source_digest, precision, group_size)


def quantised(
    model: nn.Module, config: dict[str, Any], precision: Precision, group_size: int
) -> tuple[nn.Module, dict[str, Any]]:
    """A model's matrices at a precision, by mlx-lm, and the config.json that says so."""
    from mlx_lm.convert import mixed_quant_predicate_builder
    from mlx_lm.utils import quantize_model

    predicate = None
    if precision.mixture is not None:
        predicate = mixed_quant_predicate_builder(precision.mixture, model, group_size)
    return quantize_model(
        model, config, group_size, precision.bits, mode=precision.mode, quant_predicate=predicate
    )


def _copy_tokenizer(origin: Path, target: Path) -> None:
    """Copy the tokenizer's files, and name the class that reads tokenizer.json exactly."""
    for name in COPIED_FILES:
        if (origin / name).is_file():
            shutil.copyfile(origin / name, target / name)

    path = target / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # Named classes (GPT2Tokenizer) rebuild the pre-tokenizer from habit and lose the single digits
    # of tokenizer.json.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(
        json.dumps(config, indent=1, ensure_ascii=False, sort_keys=True), encoding="utf-8"
    )


def _manifest_entries(
    folder: Path,
    origin: ModelManifest,
    source_digest: str,
    precision: Precision,
    group_size: int | None,
) -> dict[str, Any]:
    """The entries of VariantManifest, from the origin and from the files of the folder."""
    of_origin = ModelManifest.model_fields.keys() - Manifest.model_fields.keys()
    tokenizer = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    has_template = (folder / "chat_template.jinja").is_file()
    if not has_template:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        has_template = bool(config.get("chat_template"))
    return {
        # Only models with terms of use have the key `terms`.
        **origin.model_dump(mode="json", include=of_origin, exclude_unset=True),
        "file_digest": origin.file_digest,
        "source_digest": source_digest,
        "bits": precision.bits,
        "group_size": group_size,
        "precision": precision.name,
        **stored_sizes(folder, group_size).manifest_entries(),
        "prompt": "chat" if has_template else "plain",
        "tokenizer_digest": digest_of({path.name: file_digest(path) for path in tokenizer}),
        "versions": {name: metadata.version(name) for name in ("mlx", "mlx-lm")},
    }
