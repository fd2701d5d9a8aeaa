"""A model folder as stock mlx-lm runs it."""

import mlx.core as mx
from mlx_lm import load


def completed(folder: str, text: str, tokens: int) -> str:
    model, tokenizer = load(folder)
    model.set_dtype(mx.float32)
    ids = tokenizer.encode(text)
    start = len(ids)
    for _ in range(tokens):
        ids.append(int(mx.argmax(model(mx.array([ids]))[0, -1]).item()))
    return tokenizer.decode(ids[start:])
