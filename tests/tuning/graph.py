"""The graph of a step of 30 small blocks, as many as SmolLM2-135M has: 4 bits, bfloat16, the prefix stored as zeros."""

import io
import re
from collections import Counter

import mlx.core as mx
import numpy as np
from mlx_lm.models import llama
from mlx_lm.utils import quantize_model

from tasks.spec import Training
from tasks.tuning.activations import Prefix
from tasks.tuning.compiled import CompiledUpdates
from tasks.tuning.lora import add_lora
from tasks.tuning.loss import make_objective
from tasks.tuning.model import take_apart
from tasks.tuning.updates import make_optimizer
from tests.tuning import tiny
from tests.tuning.test_trainer import experiment

SMALLER = {"hidden_size": 192, "intermediate_size": 64, "num_attention_heads": 3, "num_key_value_heads": 1,
           "vocab_size": tiny.VOCABULARY}  # fmt: skip


def node_names(arrays):
    """How often each operation is in the graph of some arrays."""
    graph = io.StringIO()
    mx.export_to_dot(graph, *arrays)
    return Counter(re.findall(r'label ="([A-Za-z ]+)[^"]*", shape=rectangle', graph.getvalue()))


def adapted_blocks(trained, some, recipe):
    """(the model with LoRA on its last blocks, its stored prefix)."""
    sizes = {"num_hidden_layers": 30, "head_dim": 64, "rms_norm_eps": 1e-5}
    model = llama.Model(llama.ModelArgs(model_type="llama", tie_word_embeddings=True, **sizes, **SMALLER))
    model.set_dtype(mx.bfloat16)
    model, _ = quantize_model(model, {}, 64, 4)
    mx.eval(model.parameters())
    adapted = add_lora(take_apart(model), recipe, Training(num_layers=trained), seed=1)

    starts = np.cumsum([0, *(len(row.inputs) - some.leading for row in some.rows)])
    sizes = (some.leading, int(starts[-1]))
    leading, own_values = (np.zeros((size, adapted.stack.hidden_size), np.uint16) for size in sizes)
    return adapted, Prefix(adapted.stack, some, adapted.boundary, leading, own_values, starts)


def compiled_updates(adapted, prefix, recipe):
    """Compiled updates of four cases, with clipping."""
    model = adapted.stack.model
    optimizer = make_optimizer(experiment(recipe))
    optimizer.init(model.trainable_parameters())
    mx.eval(model.parameters(), optimizer.state)
    return CompiledUpdates(adapted, prefix, make_objective(recipe, prefix.cases.labels), optimizer, 1.0)


def norms_and_rotations_are_one_operation(patch):
    """As on a GPU, where each is one kernel forwards and one backwards, that nothing is fused with."""
    patch.setattr(mx.fast, "rms_norm", lambda x, *args: mx.cumsum(x, axis=-1))
    patch.setattr(mx.fast, "rope", lambda x, *args, **named: mx.cumsum(x, axis=-1))
