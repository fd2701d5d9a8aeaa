"""What the blocks of a model know of the labels before any training, by depth: which blocks a recipe should train.

    uv run python -m tests.tuning.programs.depth_probe VARIANT DATA [CASES]

A logistic regression reads the label from the mean activation of a case's own tokens after so many blocks: fitted on CASES
cases of `train` (1,500), its cross-entropy and macro-F1 on `valid`. A training sees what comes out of the last frozen block.
VARIANT: a folder of TRIAGE_HOME/models; DATA: one of TRIAGE_HOME/data, whose default prompt is used.
"""

import sys
from pathlib import Path

from tasks.runtime.device import load_blas, measure
from tasks.runtime.memory import keep_freed_memory

load_blas()  # before MLX

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from sklearn.linear_model import LogisticRegressionCV  # noqa: E402
from sklearn.metrics import f1_score, log_loss  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from tasks.spec import PromptChoice  # noqa: E402
from tasks.tuning.cpu import side_by_side  # noqa: E402
from tasks.tuning.data import filled_groups, load_set, load_template, padded_tokens  # noqa: E402
from tasks.tuning.lora import load_variant  # noqa: E402
from tasks.tuning.model import SharedPast, embed, run_blocks  # noqa: E402

CASES = 1500
STEP = 2  # blocks between two rows
TOKENS_AT_ONCE = 512
STRENGTHS = (1e-4, 1e-3, 1e-2)  # of the regularisation, chosen by cross-validation on train


def mean_activations(stack, cases, chosen, depths):
    """(n, depths, D): means over the tokens of the text; the instruction and the answer are left out."""
    past = [SharedPast() for _ in range(stack.depth)]
    leading = run_blocks(stack, embed(stack, mx.array([cases.leading_tokens])), 0, stack.depth, past)
    mx.eval(leading, [block.arrays() for block in past])
    rows = [cases.rows[number * cases.per_case] for number in chosen]
    own_values = [row.inputs[cases.leading : row.first + 1] for row in rows]

    def means_of(numbers):
        lengths = mx.array([len(own_values[number]) for number in numbers])[:, None]
        width = int(lengths.max())
        hidden = embed(stack, mx.array(padded_tokens([own_values[number] for number in numbers], width)))
        is_text = (mx.arange(width)[None] < lengths)[:, :, None]

        means = []
        result = 0
        for depth in depths:
            hidden = run_blocks(stack, hidden, result, depth, past)
            means.append((hidden * is_text).sum(axis=1) / lengths)
            result = depth

        return mx.stack(means, axis=1)

    order = sorted(range(len(own_values)), key=lambda number: len(own_values[number]))
    groups = filled_groups(order, [len(own_values[number]) for number in order], TOKENS_AT_ONCE)
    outcome = np.zeros((len(own_values), len(depths), stack.hidden_size), np.float32)

    for numbers, means in side_by_side(groups, means_of):
        outcome[numbers] = np.array(means)
    return outcome


def main(variant, data, count=CASES):
    keep_freed_memory()  # as a training does
    stack = load_variant(variant, measure().compute_path)
    depths = range(0, stack.depth + 1, STEP)
    template = load_template(variant, PromptChoice())

    sets = {}
    for name in ("train", "valid"):
        cases = load_set(data, name, template, 2048).cases
        chosen = np.random.default_rng(42).permutation(len(cases.encoded))[: count if name == "train" else None]
        sets[name] = mean_activations(stack, cases, chosen, depths), cases.labels[chosen]

    (learned, labels) = sets["train"]
    (held_out, truth) = sets["valid"]
    print(f"{len(labels)} cases of train, {len(truth)} of valid\nblocks  cross-entropy  macro-F1")

    for i, depth in enumerate(depths):
        regression = LogisticRegressionCV(
            Cs=STRENGTHS, l1_ratios=(0,), scoring="neg_log_loss", cv=5, max_iter=500, use_legacy_attributes=False
        )
        model = make_pipeline(StandardScaler(), regression)
        chances = model.fit(learned[:, i], labels).predict_proba(held_out[:, i])
        score = f1_score(truth, chances.argmax(axis=1), average="macro")
        print(f"{depth:6}  {log_loss(truth, chances):13.3f}  {score:8.3f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
