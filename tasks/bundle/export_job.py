"""The part of an export that needs a tokenizer or a model, as a child process runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.gguf import permute_weights, translate_weight_names
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import dequantize_model, load_model, save_config, save_model
from tokenizers import Tokenizer

from tasks.bundle.bundle import Bundle, BundledModel, ExportAgreement
from tasks.bundle.decide import rule_labels
from tasks.corpus.prompts import Template, encode
from tasks.corpus.vignettes.generator import SIZES, embedded_records
from tasks.judging.point_metrics import Floats
from tasks.models.gguf_file import (
    CONTROL,
    NORMAL,
    USER_DEFINED,
    hf_tensors,
    open_gguf,
    write_tokenizer,
)
from tasks.models.manifest import VariantManifest
from tasks.models.sizes import ModelShape, stored_sizes
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Emit
from tasks.runtime.store import seal, verify
from tasks.scoring.arguments import sample_numbers
from tasks.spec import LABELS
from tasks.tuning.activations import Prefix
from tasks.tuning.data import load_template, make_cases
from tasks.tuning.lora import Adapted, add_lora, load_variant, load_weights
from tasks.tuning.model import Stack
from tasks.tuning.step import score_cases

GGUF_FILE = "model.gguf"
ADAPTER = "adapters.safetensors"
COMPUTE_PATH = "dequantised_f32"
CASES = 60
# Twenty times what rounding to float16 changes, and well below the width of any interval.
LARGEST_DIFFERENCE = 0.01
ARCHITECTURE = "llama"


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Write into `folder` what needs a tokenizer or a model: the fused model, and a GGUF file of it
    where `gguf` is true, or the adapter where `base` tells what it belongs to; and prompt.json.

    `args`: the BundledModel `model`, and those. Fused weights and a GGUF file are compared with the
    trained model in float32, on embedded cases of `valid`: those it was trained on may be
    patients'. Returns an ExportAgreement for each, by its name.
    """
    model = BundledModel.model_validate(args["model"])
    bundle = model.bundle
    target = Path(args["folder"])
    template = load_template(model.weights, bundle.prompt)
    assert model.adapter is not None, "an experiment has an adapter"
    if args["base"] is not None:
        write_adapter(model.adapter.parent, args["base"], target)
        write_prompt(template, bundle.training.max_tokens, target)
        return {}

    config = json.loads((model.weights / "config.json").read_text(encoding="utf-8"))
    if args["gguf"] and config["model_type"] != ARCHITECTURE:
        raise BadInput(
            f"mlx-lm writes no GGUF file of the architecture {config['model_type']}, which "
            "Gemma has; export it without --gguf."
        )

    # The other sets, whose cases take seconds to write, are empty.
    records = embedded_records(sizes=dict.fromkeys(SIZES, 0) | {"valid": SIZES["valid"]})
    valid = [record.case for record in records]
    sample = sample_numbers([case.case_id for case in valid], [case.label for case in valid], CASES)
    cases = [valid[number] for number in sample]
    encoded = [
        encode(template, case.case_id, case.text, case.label, bundle.training.max_tokens)
        for case in cases
    ]

    def probabilities(adapted: Adapted) -> Floats:
        prefix = Prefix(adapted.stack, make_cases(template, encoded))
        return score_cases(adapted, prefix).probabilities

    adapted = add_lora(
        load_variant(model.weights, COMPUTE_PATH), bundle.recipe, bundle.training, bundle.seed
    )
    load_weights(adapted, model.adapter)
    trained_p = probabilities(adapted)

    write_fused(model.weights, model.adapter.parent, target, bundle.model_id)
    write_prompt(template, bundle.training.max_tokens, target)  # no part of the sealed model
    stack = load_variant(target, COMPUTE_PATH)
    fused = Adapted(stack, (), stack.depth, 0)  # its weights hold everything that it learned
    name = "The fused weights"
    agreements = {name: _agreement(bundle, trained_p, probabilities(fused), name)}
    if args["gguf"]:
        path = target / GGUF_FILE
        write_gguf(stack, target, path, [case.text for case in cases])
        # The same model, with the weights that the file holds.
        weights = [(name, mx.array(values)) for name, values in hf_tensors(open_gguf(path))]
        stack.model.load_weights(weights, strict=True)
        mx.eval(stack.model.parameters())
        name = "model.gguf (float16)"
        agreements[name] = _agreement(bundle, trained_p, probabilities(fused), name)

    return {name: agreement.model_dump(mode="json") for name, agreement in agreements.items()}


def write_adapter(training: Path, base: dict[str, Any], folder: Path) -> None:
    """Write the adapter of a training with what it belongs to: the entries `config` of `base` in
    adapter_config.json, as PEFT names them where it has a name, and the digests `metadata` in the
    tensors' file. Stock mlx-lm passes over both.
    """
    tensors: dict[str, mx.array] = mx.load(str(training / ADAPTER))  # type: ignore[assignment]
    mx.save_safetensors(str(folder / ADAPTER), tensors, {"format": "mlx"} | base["metadata"])
    config = json.loads((training / "adapter_config.json").read_text(encoding="utf-8"))
    content = json.dumps(config | base["config"], indent=1)
    (folder / "adapter_config.json").write_text(f"{content}\n", encoding="utf-8")


def write_prompt(template: Template, max_tokens: int, folder: Path) -> None:
    """Write prompt.json: what a program needs to ask the model as it was asked in training.

    `answers`: the tokens of each label's word, order LABELS. The prompt is `before`, the text,
    `after`; with a chat template, `messages` before the patient's give the same.
    """
    text = "\x00"  # stands for the patient's text, which holds none
    entries: dict[str, Any] = {
        "labels": list(LABELS),
        "words": [template.prompt.answer(label) for label in LABELS],
        "answers": [
            list(tokens[:length])
            for tokens, length in zip(template.completions, template.label_lengths, strict=True)
        ],
        "max_tokens": max_tokens,
    }
    prompt = template.prompt.plain_text(text)
    if template.chat:
        messages = template.prompt.messages(text)
        entries["messages"] = messages[:-1]
        prompt = template.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
    entries["before"], _, entries["after"] = prompt.partition(text)
    content = json.dumps(entries, indent=1, ensure_ascii=False)
    (folder / "prompt.json").write_text(f"{content}\n", encoding="utf-8")


def _agreement(bundle: Bundle, trained_p: Floats, written_p: Floats, name: str) -> ExportAgreement:
    """How the probabilities (cases, 3) of a written model, and its decisions, differ from those of
    the trained one. Raises BadInput where they differ too much.
    """
    decisions = zip(rule_labels(bundle, trained_p), rule_labels(bundle, written_p), strict=True)
    agreement = ExportAgreement(
        cases=len(trained_p),
        largest=float(abs(trained_p - written_p).max()),
        decided_otherwise=sum(trained != written for trained, written in decisions),
    )
    if not agreement.largest <= LARGEST_DIFFERENCE:
        raise BadInput(
            f"The written model is not the one that was trained. {name}: {agreement}, where "
            f"{LARGEST_DIFFERENCE} is the most. Export it with --adapter, as it was trained."
        )
    return agreement


def write_fused(weights: Path, adapter: Path, target: Path, model_id: str) -> None:
    """Write a model folder with the adapter in its weights, as mlx-lm fuses it, in float32.

    Only the matrices that have an adapter change: they are unpacked and stay so, since what was
    learned is smaller than a step of the quantisation. Stock mlx-lm loads the result: what has no
    scales is not quantised. `adapter`: the folder with the adapter and its config.
    """
    with mx.stream(mx.cpu):  # each weight is written once: the same bits on every machine
        model, config = load_model(weights, lazy=True)
        model = load_adapters(model, str(adapter))
        fused = []
        for name, module in model.named_modules():
            if isinstance(module, LoRALinear):
                # With float32 scales unpacking is exact.
                module.linear.set_dtype(mx.float32)
                dequantize_model(module)
                # Modes with scales of a byte are unpacked to bfloat16.
                module.linear.set_dtype(mx.float32)
                fused.append((name, module.fuse()))
                # What a mixture of widths lists one by one is taken for quantised.
                for key in ("quantization", "quantization_config"):
                    config.get(key, {}).pop(name, None)
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


def write_gguf(stack: Stack, folder: Path, path: Path, texts: list[str]) -> None:
    """Write `path`, in float16 for llama.cpp and the like, from a model of the llama architecture in
    float32 and the config and tokenizer of its folder.

    mlx-lm's own writer is not used: it calls every tokenizer SentencePiece, with which SmolLM2's
    words fall apart. Raises BadInput unless the tokenizer, read again, splits `texts` as before.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = ModelShape.model_validate(config)
    heads = shape.num_attention_heads
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_vocab_size(shape.vocab_size)

    own_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    _add_tokenizer(writer, own_tokenizer, folder, shape.vocab_size)

    for name, weight in tree_flatten(stack.model.parameters()):
        # Rows of Q and K in llama.cpp's order.
        if "self_attn.q_proj" in name:
            weight = permute_weights(weight, heads, heads)
        elif "self_attn.k_proj" in name:
            weight = permute_weights(weight, heads, shape.num_key_value_heads)
        values = np.array(weight.astype(mx.float16 if weight.ndim > 1 else mx.float32))
        writer.add_tensor(translate_weight_names(name), values)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with TemporaryDirectory() as scratch:
        write_tokenizer(open_gguf(path), Path(scratch))
        read = Tokenizer.from_file(str(Path(scratch) / "tokenizer.json"))
    if any(own_tokenizer.encode(text).ids != read.encode(text).ids for text in texts):
        raise BadInput(
            "The tokenizer of this model cannot be written to GGUF: read again, it splits texts "
            "another way; export it without --gguf."
        )


def _add_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: Tokenizer, folder: Path, vocabulary: int
) -> None:
    """Write the tokenizer of a model folder with as many tokens as the embedding has rows."""
    added_tokens = tokenizer.get_added_tokens_decoder()
    tokens: list[str] = []
    types: list[int] = []
    for number in range(vocabulary):
        token = tokenizer.id_to_token(number)
        tokens.append(f"<|unused{number}|>" if token is None else token)
        if number in added_tokens:
            types.append(CONTROL if added_tokens[number].special else USER_DEFINED)
        else:
            types.append(CONTROL if token is None else NORMAL)

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")  # byte-level BPE that splits digits singly
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=vocabulary)
    special.add_special_token["bos"] = False
    special.add_to_gguf(writer, quiet=True)
