"""Tiny quantised models of both architectures, tiny cases, and stock mlx-lm's loss as the oracle."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, llama
from mlx_lm.tuner.trainer import default_loss
from mlx_lm.utils import dequantize_model

from tasks.corpus.prompts import Encoded, Template
from tasks.models.convert import quantised
from tasks.precisions import Precision, of_bits
from tasks.runtime.events import TrainingReport
from tasks.spec import BaseModelSpec, Data, ExperimentSpec, RandomSource, Recipe, Scoring, Training
from tasks.tuning.activations import Prefix
from tasks.tuning.data import EncodedCases, effective_batch, make_batch, make_cases
from tasks.tuning.job import TrainingRun
from tasks.tuning.lora import Adapted, add_lora
from tasks.tuning.loss import make_objective
from tasks.tuning.memory import MemoryChoice
from tasks.tuning.model import take_apart
from tasks.tuning.step import update_gradients
from tests.test_spec import COSTS as COST

VOCABULARY = 128
WEIGHTS = {"ED": 5.0, "GP": 2.0, "HOME": 1.0}
SINGLE = Template(None, None, False, ((5, 2, 3), (6, 2, 3), (7, 2, 3)), (1, 1, 1))
MULTI = Template(None, None, False, ((5, 9, 2), (5, 8, 2), (7, 2)), (2, 2, 1))
TRAINING = Training(num_layers=2)


def recipe(**changes) -> Recipe:
    values = {
        "name": "tiny", "kind": "standard", "learning_rate": 1e-3, "batch_size": 4, "rank": 4, "scale": 5.0,
        "dropout": 0.0, "iterations": 6,
    }  # fmt: skip
    return Recipe(**(values | changes))


def safety(**changes) -> Recipe:
    return recipe(
        **({"kind": "safety", "cost_matrix": COST, "class_weights": WEIGHTS, "target_ed_recall": 0.9} | changes)
    )


def base_model(architecture: str, seed: int = 0) -> tuple[nn.Module, dict]:
    """Four blocks, hidden size 64; gemma3's window (16) is shorter than the prompts below."""
    mx.random.seed(seed)
    common = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128, "num_attention_heads": 2,
              "rms_norm_eps": 1e-5, "vocab_size": VOCABULARY, "num_key_value_heads": 1, "head_dim": 64}  # fmt: skip
    if architecture == "llama":
        model = llama.Model(llama.ModelArgs(model_type="llama", tie_word_embeddings=True, **common))
    else:
        args = gemma3_text.ModelArgs(model_type="gemma3_text", sliding_window=16, sliding_window_pattern=3, **common)
        model = gemma3_text.Model(args)
        model.tie_word_embeddings = True
        model.pop("lm_head")

    model.eval()
    return model, {}


class Float32Embedding(nn.QuantizedEmbedding):
    """Stock's embedding, whose rows come in float32 in every mode: stock reads those of the mx and nv modes in bfloat16,
    exactly, and gemma3 would round their product with its factor to bfloat16 even in a float32 model."""

    def __call__(self, x):
        return super().__call__(x).astype(mx.float32)


def adapted(
    architecture: str, precision: int | Precision, dense: bool, a_recipe: Recipe | None = None, training=TRAINING
) -> Adapted:
    """A quantised tiny model with LoRA whose `lora_b` is random, so that every gradient is non-zero."""
    model, config = base_model(architecture)
    precision = of_bits(precision) if isinstance(precision, int) else precision
    if precision.is_quantised:
        model, _ = quantised(model, config, precision, precision.group_size_in(64))
        if precision.mode != "affine":
            model.model.embed_tokens.__class__ = Float32Embedding

    model.set_dtype(mx.float32)
    if dense:
        model = dequantize_model(model)
        model.set_dtype(mx.float32)

    adapted = add_lora(take_apart(model, cpu_kernels=dense), a_recipe or recipe(), training, seed=1)
    randomise(adapted)
    return adapted


def randomise(adapted: Adapted) -> None:
    """Fill the LoRA tensors with fixed random values (lora_b starts at zero, where half the gradients vanish)."""
    weights = sorted(tree_flatten(adapted.stack.model.trainable_parameters()))
    values = [(k, 0.05 * mx.random.normal(v.shape, key=mx.random.key(i))) for i, (k, v) in enumerate(weights)]
    adapted.stack.model.load_weights(values, strict=False)
    mx.eval(adapted.stack.model.parameters())


def cases(
    count: int = 8, template: Template = SINGLE, stock_mask: bool = False, seed: int = 0, shared: int = 6
) -> EncodedCases:
    """Random prompts of 20 to 45 tokens that begin with the same `shared` tokens; labels in turn."""
    rng = np.random.default_rng(seed)
    leading = tuple(range(20, 20 + shared))
    encoded = [
        Encoded(f"case-{i}", i % 3, leading + tuple(rng.integers(10, VOCABULARY, rng.integers(14, 40)).tolist()), False)
        for i in range(count)
    ]
    return make_cases(template, encoded, stock_mask)


def no_store(adapted: Adapted, some: EncodedCases) -> Prefix:
    return Prefix(adapted.stack, some)


def gradients(adapted: Adapted, some: EncodedCases, a_recipe=None, chosen=None, micro=None, key=None, prefix=None):
    """(loss, parts, LoRA gradients by name) of an effective batch: all cases at once and no store, unless told."""
    chosen = range(len(some.encoded)) if chosen is None else chosen
    objective = make_objective(a_recipe or recipe(), some.labels)
    prefix = prefix or no_store(adapted, some)
    batch = effective_batch(some, chosen, micro or len(chosen), key)
    loss, parts, tree = update_gradients(adapted, prefix, batch, objective)
    return loss.item(), parts.tolist(), flat(tree)


MODEL = BaseModelSpec(name="tiny", licence="none", sources=(RandomSource(kind="random", shape="tiny-llama"),))


def experiment(a_recipe: Recipe, **training) -> ExperimentSpec:
    values = {"num_layers": 2, "report_every": 2, "evaluate_every": 2} | training
    return ExperimentSpec(
        model=MODEL, bits=4, recipe=a_recipe, seed=42, training=Training(**values), data=Data(), scoring=Scoring()
    )


def train(a_recipe, folder, some, valid=None, emit=lambda e: None, choice=None, model=None, **training) -> TrainingRun:
    """A training that has ended: of a llama on dense weights if no model is given, validated on its own cases unless
    there are others."""
    model = model or adapted("llama", 4, True, a_recipe)
    sets = no_store(model, some), no_store(model, valid or some)
    choice = choice or MemoryChoice(a_recipe.batch_size)
    training_run = TrainingRun(model, experiment(a_recipe, **training), *sets, folder, emit, choice)
    training_run.run()
    return training_run


def same_bits(one: dict, other: dict) -> bool:
    assert one.keys() == other.keys()
    return all((np.array(one[name]) == np.array(other[name])).all() for name in one)


class Killed(Exception):
    pass


def die_at(update: int):

    def emit(event):
        if isinstance(event, TrainingReport) and event.iteration == update:
            raise Killed

    return emit


@dataclass
class Oracle:
    loss: float
    gradients: dict[str, np.ndarray]


def stock(adapted: Adapted, some: EncodedCases, chosen: list[int]) -> Oracle:
    """Loss and LoRA gradients of mlx_lm.tuner.trainer.default_loss on the same cases."""
    batch = make_batch(some, chosen)
    longest = max(len(row.inputs) for row in batch.rows) + 1
    tokens = np.zeros((len(batch.rows), longest), np.int32)
    lengths = np.zeros((len(batch.rows), 2), np.int32)

    for i, row in enumerate(batch.rows):
        tokens[i, : len(row.inputs)] = row.inputs
        lengths[i] = (row.first + 1, len(row.inputs))

    (loss, _), gradients = nn.value_and_grad(
        adapted.stack.model, lambda m: default_loss(m, mx.array(tokens), mx.array(lengths))
    )(adapted.stack.model)
    return Oracle(float(loss.item()), flat(gradients))


def flat(gradients) -> dict[str, np.ndarray]:
    return {k: np.array(v) for k, v in tree_flatten(gradients)}


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Over all tensors: largest absolute difference divided by the tensor's largest value."""
    assert a.keys() == b.keys()
    return max(float(np.abs(a[k] - b[k]).max() / np.abs(b[k]).max()) for k in a)
