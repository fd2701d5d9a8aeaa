"""Run in a process of its own: load a model folder with stock mlx-lm and continue a text greedily, in float32."""

import json
import sys

from tasks.runtime.device import load_blas

load_blas()

import mlx.core as mx  # noqa: E402  (the BLAS comes first)
from mlx_lm import load  # noqa: E402


def complete(folder: str, text: str, tokens: int) -> str:
    model, tokenizer = load(folder)
    model.set_dtype(mx.float32)
    ids = tokenizer.encode(text)
    start = len(ids)
    for _ in range(tokens):
        ids.append(int(mx.argmax(model(mx.array([ids]))[0, -1]).item()))
    return tokenizer.decode(ids[start:])


if __name__ == "__main__":
    print(json.dumps(complete(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
