"""The part of an export that needs a tokenizer or a model, as a child process runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.gguf import permute_weights, translate_weight_names
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model, save_config, save_model
from tokenizers import Tokenizer

from tasks.bundle.bundle import Bundle, ExportAgreement, ExportJob, ExportResult
from tasks.bundle.decide import rule_labels
from tasks.bundle.export import write_prompt
from tasks.corpus.case import Case
from tasks.corpus.prompts import Template, encode
from tasks.corpus.vignettes.sets import sets_of
from tasks.judging.point_metrics import Floats
from tasks.models.gguf_file import hf_tensors, open_gguf
from tasks.models.gguf_tokenizer import CONTROL, NORMAL, USER_DEFINED, write_tokenizer
from tasks.models.manifest import VariantManifest
from tasks.models.sizes import stored_sizes
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Emit
from tasks.runtime.store import seal, verify
from tasks.scoring.arguments import sample_numbers
from tasks.spec import Data
from tasks.tuning.activations import Prefix
from tasks.tuning.data import load_template, make_cases
from tasks.tuning.forward import score_cases
from tasks.tuning.lora import Adapted, add_lora, load_variant, load_weights, unpacked
from tasks.tuning.model import Stack

GGUF_FILE = "model.gguf"
FUSED = "model"
FUSED_FOR_GGUF = ".fused"
COMPUTE_PATH = "dequantised_f32"
CASES = 60
# Twenty times what rounding to float16 changes, and well below the width of any interval.
LARGEST_DIFFERENCE = 0.01
ARCHITECTURE = "llama"
TOKENIZER = ("gpt2", "smollm")  # byte-level BPE that splits digits singly
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unk", "pad_token": "pad"}


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run an ExportJob; returns an ExportResult."""
    job = ExportJob.model_validate(args)
    template = load_template(job.weights, job.bundle.prompt)
    write_prompt(template, job.bundle.max_tokens, job.folder)
    if not (job.fuse or job.gguf):
        return ExportResult().model_dump(mode="json")

    if job.gguf:
        config = json.loads((job.weights / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] != ARCHITECTURE:
            raise BadInput(
                f"mlx-lm writes no GGUF file of the architecture {config['model_type']}, which "
                "Gemma has; export it without --gguf."
            )

    return _write_weights(job, template).model_dump(mode="json")


def _write_weights(job: ExportJob, template: Template) -> ExportResult:
    """Write the fused model, and a GGUF file of it, and compare each with the trained model.

    All are computed in float32 on unpacked weights, on the same embedded cases of `valid`, whatever
    cases the model was trained on: those may be patients'.
    """
    bundle = job.bundle
    cases = sampled_cases()
    adapted = add_lora(
        load_variant(job.weights, COMPUTE_PATH), bundle.recipe, bundle.training, bundle.seed
    )
    load_weights(adapted, job.adapter / "adapters.safetensors")
    trained_p = label_probabilities(adapted, template, cases, bundle.max_tokens)

    folder = job.folder / (FUSED if job.fuse else FUSED_FOR_GGUF)
    write_fused(job.weights, job.adapter, folder, bundle.model_id)
    stack = load_variant(folder, COMPUTE_PATH)
    fused = Adapted(stack, (), stack.depth, 0)  # its weights hold everything that it learned
    written_p = label_probabilities(fused, template, cases, bundle.max_tokens)
    of_fused = compared(bundle, trained_p, written_p)
    refuse_beyond_bound(of_fused, "The fused model")

    of_gguf: ExportAgreement | None = None
    if job.gguf:
        path = job.folder / GGUF_FILE
        write_gguf(stack, folder, path, [case.text for case in cases])
        # The same model, with the weights that the file holds.
        weights = [(name, mx.array(values)) for name, values in hf_tensors(open_gguf(path))]
        stack.model.load_weights(weights, strict=True)
        mx.eval(stack.model.parameters())
        written_p = label_probabilities(fused, template, cases, bundle.max_tokens)
        of_gguf = compared(bundle, trained_p, written_p)
        refuse_beyond_bound(of_gguf, "The GGUF file")

    if not job.fuse:
        shutil.rmtree(folder)
    return ExportResult(fused=of_fused if job.fuse else None, gguf=of_gguf)


def sampled_cases() -> list[Case]:
    """The embedded cases of `valid` on which models are compared: the same every time."""
    cases = sets_of(Data())["valid"]
    numbers = sample_numbers(
        [case.case_id for case in cases], [case.label for case in cases], CASES
    )
    return [cases[number] for number in numbers]


def label_probabilities(
    adapted: Adapted, template: Template, cases: Sequence[Case], max_tokens: int
) -> Floats:
    """Probabilities (cases, 3) of the labels, order LABELS."""
    encoded = [encode(template, case.case_id, case.text, case.label, max_tokens) for case in cases]
    prefix = Prefix.embedded(adapted.stack, make_cases(template, encoded))
    return score_cases(adapted, prefix).probabilities


def compared(bundle: Bundle, trained_p: Floats, written_p: Floats) -> ExportAgreement:
    """How the probabilities (cases, 3) of two models, and their decisions, differ."""
    decisions = zip(rule_labels(bundle, trained_p), rule_labels(bundle, written_p), strict=True)
    return ExportAgreement(
        cases=len(trained_p),
        largest=float(abs(trained_p - written_p).max()),
        decided_otherwise=sum(
            trained_label != written_label for trained_label, written_label in decisions
        ),
    )


def refuse_beyond_bound(agreement: ExportAgreement, name: str) -> None:
    """Raise BadInput where a written model differs too much from the trained one."""
    if not agreement.largest <= LARGEST_DIFFERENCE:
        raise BadInput(
            f"{name} is not the model that was trained: on {agreement.cases} cases a probability "
            f"differs by up to {agreement.largest:.3g}, where {LARGEST_DIFFERENCE} is the most, "
            f"and {agreement.differing_decisions}. Export it without that option."
        )


def write_fused(weights: Path, adapter: Path, target: Path, model_id: str) -> None:
    """Write a model folder with the adapter in its weights, as mlx-lm fuses it, in float32.

    Only the matrices that have an adapter change: they are unpacked and stay so, since what was
    learned is smaller than a step of the quantisation (README.md has the figures).
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

    manifest = VariantManifest.read(weights)
    entries = manifest.model_dump(mode="json", exclude={"digest"}, exclude_unset=True)
    sizes = stored_sizes(target, manifest.group_size).manifest_entries()
    seal(target, entries | sizes | {"fused": model_id})


def _fused(module: LoRALinear) -> nn.Linear:
    linear = module.linear
    # With float32 scales unpacking is exact.
    linear.set_dtype(mx.float32)
    if isinstance(linear, nn.QuantizedLinear):
        linear = unpacked(linear)
        linear.set_dtype(mx.float32)  # modes with scales of a byte are unpacked to bfloat16
    module.linear = linear
    return module.fuse()


def write_gguf(stack: Stack, folder: Path, path: Path, texts: list[str]) -> None:
    """Write `path`, in float16 for llama.cpp and the like, from a model of the llama architecture in
    float32 and the config and tokenizer of its folder.

    Names and order of the tensors are mlx-lm's; the rest is written by llama.cpp's own library,
    since mlx-lm's writer calls every tokenizer SentencePiece, with which SmolLM2's words fall apart.
    Raises BadInput unless the tokenizer, read from the file again, splits `texts` as before.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    _add_shape(writer, config)
    _add_tokenizer(writer, folder)

    for name, weight in tree_flatten(stack.model.parameters()):
        writer.add_tensor(translate_weight_names(name), _stored(name, weight, config))

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _refuse_another_tokenizer(folder, path, texts)


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_vocab_size(config["vocab_size"])


def _stored(name: str, weight: mx.array, config: dict[str, Any]) -> np.ndarray[Any, Any]:
    """A weight as the file holds it: matrices in float16, rows of Q and K in llama.cpp's order."""
    heads = config["num_attention_heads"]
    if "self_attn.q_proj" in name:
        weight = permute_weights(weight, heads, heads)
    elif "self_attn.k_proj" in name:
        weight = permute_weights(weight, heads, config.get("num_key_value_heads", heads))
    return np.array(weight.astype(mx.float16 if weight.ndim > 1 else mx.float32))


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokens, types = _tokens(tokenizer, int(config["vocab_size"]))

    kind, pre = TOKENIZER
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = tokenizer["model"].get("merges", [])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])

    for key, name in SPECIAL.items():
        token = settings.get(key)
        if isinstance(token, dict):
            token = token["content"]
        if token in tokens:
            getattr(writer, f"add_{name}_token_id")(tokens.index(token))

    writer.add_add_bos_token(False)
    path = folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.is_file() else settings.get("chat_template")
    if template and isinstance(template, str):
        writer.add_chat_template(template)


def _tokens(tokenizer: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Tokens by number, as many as the embedding has rows, and their types."""
    numbered = {number: token for token, number in tokenizer["model"].get("vocab", {}).items()}
    added_tokens = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
    numbered |= {number: entry["content"] for number, entry in added_tokens.items()}
    tokens = [numbered.get(number, f"<|unused{number}|>") for number in range(size)]

    def kind(number: int) -> int:
        if number not in numbered:
            return CONTROL
        if number not in added_tokens:
            return NORMAL
        return CONTROL if added_tokens[number]["special"] else USER_DEFINED

    return tokens, [kind(number) for number in range(size)]


def _refuse_another_tokenizer(folder: Path, path: Path, texts: list[str]) -> None:
    own_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with TemporaryDirectory() as scratch:
        write_tokenizer(open_gguf(path), Path(scratch))
        read = Tokenizer.from_file(str(Path(scratch) / "tokenizer.json"))

    if any(own_tokenizer.encode(text).ids != read.encode(text).ids for text in texts):
        raise BadInput(
            "The tokenizer of this model cannot be written to GGUF: read again, it splits texts "
            "another way; export it without --gguf."
        )
