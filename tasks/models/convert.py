"""Source folder -> MLX folder in bfloat16 -> quantised variants, with mlx-lm's own functions.

The names of the folders follow from the source's digest, so the parent can ask whether one is there without importing
MLX. The `run_*` functions do the work and belong into a child process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.models import layout
from tasks.models.gguf_tokenizer import write_tokenizer
from tasks.models.gguf_weights import hf_config, hf_tensors, open_gguf
from tasks.models.shapes import random_tensor
from tasks.models.stored_sizes import stored_sizes
from tasks.runtime import store
from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.runtime.events import Emit
from tasks.spec import short_digest

CONVERT_VERSION = 1
_FROM_SOURCE = ("licence", "weights_source", "source", "original_precision", "random_weights")


def base_folder(source: Path, root: Path) -> Path:
    """Where the MLX folder of a fetched source is or will be: `models/<base>-base-<digest12>`."""
    manifest = store.verify(source, deep=False)
    digest = short_digest({"source": manifest["digest"], "seed": manifest.get("seed"), "convert": CONVERT_VERSION,
                           "mlx_lm": metadata.version("mlx-lm")})  # fmt: skip
    return root / "models" / f"{manifest['base_model']}-base-{digest}"


def variant_folder(source: Path, root: Path, bits: int, group_size: int) -> Path:
    """Where a quantised variant is or will be: `models/<base>-<bits>bit-<digest12>`."""
    name, _, base = base_folder(source, root).name.rpartition("-base-")
    return (
        root
        / "models"
        / f"{name}-{bits}bit-{short_digest({'base': base, 'bits': bits, 'group_size': group_size})}"
    )


def run_convert(args: dict[str, Any], emit: Emit | None = None) -> dict[str, Any]:
    """{"source", "root"} (folders) -> the manifest of the MLX folder, without its file list, and "folder"."""
    source, root = Path(args["source"]), Path(args["root"])
    return _make(base_folder(source, root), lambda target: _convert(source, target))


def run_quantize(args: dict[str, Any], emit: Emit | None = None) -> dict[str, Any]:
    """{"source", "root", "bits", "group_size"} -> the same for a variant. Converts first if that is not done yet."""
    source, root = Path(args["source"]), Path(args["root"])
    bits, group_size = int(args["bits"]), int(args["group_size"])

    def build(target: Path) -> dict[str, Any]:
        base = base_folder(source, root)
        _make(base, lambda place: _convert(source, place), trusted=False)
        return _quantize(base, target, bits, group_size)

    return _make(variant_folder(source, root, bits, group_size), build)


def essentials(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete model folder, without its file list, and "folder"; None if it is not complete."""
    manifest = store.complete(folder)
    if manifest is None:
        return None
    return {"folder": str(folder), **{k: v for k, v in manifest.items() if k != "files"}}


def has_random_weights(folder: Path) -> bool:
    """Whether a model folder holds random weights; False where it is not complete."""
    return bool((essentials(folder) or {}).get("random_weights"))


def _make(
    folder: Path, build: Callable[[Path], dict[str, Any]], trusted: bool = True
) -> dict[str, Any]:
    """Build a folder unless it is complete; `trusted=False` compares its digests first, and rebuilds it if they differ."""
    found = essentials(folder)
    if found is None or not trusted:
        with store.locked(folder):
            store.build_folder(folder, build)
        found = essentials(folder)
        assert found is not None
    return found


def _convert(source: Path, target: Path) -> dict[str, Any]:
    import mlx.core as mx
    from mlx_lm.utils import load_config, load_model, save_config, save_model

    manifest = _whole(source)
    with mx.stream(mx.cpu):  # decoding is read once and rounded once: nothing for an accelerator
        staged = _stage(source, manifest, target / "staged")
        if manifest["format"] == "random":
            model, _ = load_model(staged, lazy=True, strict=False)
            _draw_weights(model, manifest["seed"])
        else:
            model = _load_whole(staged)
        model.set_dtype(mx.bfloat16)
        save_model(target, model)
    config = load_config(staged)
    config["torch_dtype"] = "bfloat16"
    save_config(config, target / "config.json")
    _copy_tokenizer(staged, target)
    shutil.rmtree(target / "staged", ignore_errors=True)
    return _describe(
        target, manifest, {"bits": None, "group_size": None, "source_digest": manifest["digest"]}
    )


def _load_whole(folder: Path) -> Any:
    """Load a model whose every tensor must be there and known. Raises BadInput with the names that are not."""
    from mlx_lm.utils import load_model

    try:
        return load_model(folder, lazy=True)[0]
    except ValueError as error:
        raise BadInput(
            f"The weights do not fit their config.json: {' '.join(str(error).split())}"
        ) from error


def _whole(source: Path) -> dict[str, Any]:
    try:
        return store.verify(source)
    except BrokenFolder as error:
        (source / store.MANIFEST).unlink(missing_ok=True)  # so that it no longer counts as there
        raise BrokenFolder(
            f"{str(error).rstrip('.')}; it is fetched anew when you run the command again."
        ) from error


def _stage(source: Path, manifest: dict[str, Any], staged: Path) -> Path:
    """A folder in the Hugging Face layout that mlx-lm can load: the source itself, or one decoded from GGUF."""
    if manifest["format"] != "gguf":
        return source
    import mlx.core as mx

    file = open_gguf(source / "model.gguf", manifest.get("weights_source"))
    staged.mkdir()
    (staged / "config.json").write_text(json.dumps(hf_config(file)), encoding="utf-8")
    write_tokenizer(file, staged)
    weights = {}
    for name, values in hf_tensors(file):
        weights[name] = mx.array(values).astype(mx.bfloat16)
        mx.eval(weights[name])
    mx.save_safetensors(str(staged / "model.safetensors"), weights, metadata={"format": "mlx"})
    return staged


def _draw_weights(model: Any, seed: int) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten

    gemma = model.model_type == "gemma3_text"
    if gemma and "lm_head" in model:
        model.sanitize({})  # ties the head to the embedding, as loading weights without a head does
    drawn: list[tuple[str, Any]] = []
    parameters: Any = tree_flatten(model.parameters())
    for name, value in parameters:
        drawn.append(
            (name, mx.array(random_tensor(name, value.shape, seed, gemma)).astype(mx.bfloat16))
        )
        mx.eval(drawn[-1][1])
    model.update(tree_unflatten(drawn))


def _quantize(base: Path, target: Path, bits: int, group_size: int) -> dict[str, Any]:
    import mlx.core as mx
    from mlx_lm.utils import load_model, quantize_model, save_config, save_model

    with mx.stream(mx.cpu):  # the same bits on every machine, whatever trains on them later
        model, config = load_model(base, lazy=True)
        _refuse_odd_shapes(model, group_size)
        model, config = quantize_model(model, config, group_size, bits)
        save_model(target, model)
    save_config(config, target / "config.json")
    _copy_tokenizer(base, target)
    manifest = store.verify(base, deep=False)
    return _describe(
        target,
        manifest,
        {"bits": bits, "group_size": group_size, "source_digest": manifest["source_digest"]},
    )


def _refuse_odd_shapes(model: Any, group_size: int) -> None:
    """mlx-lm would silently leave such a matrix unquantised, and the variant would not be what its name says."""
    for name, module in model.named_modules():
        if hasattr(module, "to_quantized") and module.weight.shape[-1] % group_size:
            raise BadInput(
                f"{name} has rows of {module.weight.shape[-1]} values, which a group size of {group_size} does not divide."
            )


def _copy_tokenizer(origin: Path, target: Path) -> None:
    for name in _present(origin, (*layout.TOKENIZER_FILES, "generation_config.json")):
        shutil.copyfile(origin / name, target / name)
    path = target / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # Named classes (GPT2Tokenizer) rebuild the pre-tokenizer from habit and lose the single digits of tokenizer.json.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(
        json.dumps(config, indent=1, ensure_ascii=False, sort_keys=True), encoding="utf-8"
    )


def _present(folder: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if (folder / name).is_file()]


def _describe(folder: Path, origin: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "base_model": origin["base_model"],
        **{name: origin[name] for name in _FROM_SOURCE},
        **(
            {"terms": origin["terms"]} if "terms" in origin else {}
        ),  # of use, where the model has some
        "file_digest": origin.get(
            "file_digest"
        ),  # a base model of an earlier version does not know it
        **extra,
        **stored_sizes(folder, extra["bits"]),
        "prompt": layout.prompt_kind(folder),
        "tokenizer_digest": layout.tokenizer_digest(folder),
        "versions": {name: metadata.version(name) for name in ("mlx", "mlx-lm")},
    }
