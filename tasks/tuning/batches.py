"""Encoded cases as sequences, and sequences as batches: few shapes, little padding, no case dropped.

The order of training batches depends on (seed, epoch) alone, so evaluation cadence, resuming and the micro-batch
change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.corpus.encode import Encoded, Template
from tasks.runtime.device import backend

# Padded tokens of one forward pass where no gradient is kept. On a CPU the fewest with which products run at full speed:
# what lies between two products then stays in the cache.
TOKENS_AT_ONCE = 4096 if backend() == "metal" else 512
WINDOW = 16  # batches' worth of cases that are sorted by length together: enough to fill buckets, still well mixed
LENGTH_STEP = 8  # sequences are padded to a multiple of this


@dataclass(frozen=True)
class Row:
    """One sequence: a prompt and one label's completion.

    `inputs` are all tokens but the last; `targets` is the completion, scored from position `first` of the inputs.
    """

    number: int  # its place among the set's rows
    candidate: int
    is_truth: bool
    inputs: tuple[int, ...]
    first: int
    targets: tuple[int, ...]
    label_length: int


@dataclass(frozen=True)
class Cases:
    """An encoded set of cases. `per_case` is 1, or 3 where labels have several tokens and each must be run."""

    encoded: tuple[Encoded, ...]
    rows: tuple[Row, ...]
    per_case: int
    leading: int  # number of first tokens that all rows have in common: the instruction
    label_tokens: tuple[int, ...]  # first token of each label, used where per_case is 1

    @property
    def labels(self) -> np.ndarray:
        return np.array([case.label for case in self.encoded], np.int32)

    def rows_of(self, cases: Sequence[int]) -> list[Row]:
        return [self.rows[c * self.per_case + k] for c in cases for k in range(self.per_case)]


@dataclass(frozen=True)
class Batch:
    """Arrays of some cases: N rows = cases x per_case, R scored positions."""

    cases: tuple[int, ...]
    rows: tuple[Row, ...]
    length: int  # T: padded number of input tokens
    first: np.ndarray  # (N,) first scored position
    targets: np.ndarray  # (N, R) token ids, 0 where unused
    scored: np.ndarray  # (N, R) 1.0 where a target counts
    is_label: np.ndarray  # (N, R) 1.0 where the target is part of the label
    truth: np.ndarray  # (N,) 1.0 for the row of the true label
    labels: np.ndarray  # (B,) index into LABELS


def make_cases(template: Template, encoded: Sequence[Encoded], stock_mask: bool = False) -> Cases:
    """Lay out the rows of a set.

    `stock_mask` also scores one padding token (id 0) after each completion, as mlx-lm's default_loss does: the oracle
    of the tests and benchmarks, never used for a study.
    """
    per_case = 1 if template.single_token else len(template.completions)
    rows: list[Row] = []
    for case in encoded:
        for candidate in [case.label] if per_case == 1 else range(per_case):
            completion = template.completions[candidate] + ((0,) if stock_mask else ())
            rows.append(
                Row(
                    len(rows), candidate, candidate == case.label, case.prompt + completion[:-1], len(case.prompt) - 1,
                    completion, template.label_lengths[candidate],
                )
            )  # fmt: skip
    return Cases(
        tuple(encoded),
        tuple(rows),
        per_case,
        _leading(encoded),
        tuple(c[0] for c in template.completions),
    )


def make_batch(cases: Cases, chosen: Sequence[int], length: int | None = None) -> Batch:
    """The arrays of the chosen cases, padded on the right to a common length (B cases give N = B x per_case rows)."""
    rows = cases.rows_of(chosen)
    width = max(len(row.targets) for row in rows)
    targets, scored, is_label = (
        np.zeros((len(rows), width), t) for t in (np.int32, np.float32, np.float32)
    )
    for i, row in enumerate(rows):
        targets[i, : len(row.targets)] = row.targets
        scored[i, : len(row.targets)] = 1
        is_label[i, : row.label_length] = 1
    return Batch(
        tuple(chosen), tuple(rows), length or _padded(rows), np.array([row.first for row in rows], np.int32), targets,
        scored, is_label, np.array([row.is_truth for row in rows], np.float32), cases.labels[list(chosen)],
    )  # fmt: skip


def epoch_batches(cases: Cases, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The effective batches of one epoch, as lists of case numbers; every case once, the tail batch included."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(cases.encoded))
    span = batch_size * WINDOW
    batches: list[list[int]] = []
    for start in range(0, len(order), span):
        window = sorted(
            order[start : start + span].tolist(), key=lambda c: (len(cases.encoded[c].prompt), c)
        )
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def training_batches(cases: Cases, batch_size: int, seed: int, start: int) -> Iterator[list[int]]:
    """Effective batches from update number `start` on, without end."""
    per_epoch = -(-len(cases.encoded) // batch_size)
    epoch, skip = divmod(start, per_epoch)
    while True:
        yield from epoch_batches(cases, batch_size, seed, epoch)[skip:]
        epoch, skip = epoch + 1, 0


def sorted_batches(
    cases: Cases, token_budget: int, chosen: Sequence[int] | None = None
) -> list[list[int]]:
    """All cases, or the `chosen`, in batches of similar length of at most `token_budget` padded tokens, to evaluate."""
    among = range(len(cases.encoded)) if chosen is None else chosen
    order = sorted(among, key=lambda c: (len(cases.encoded[c].prompt), c))
    return filled_groups(
        order, [_padded(cases.rows_of([c])) * cases.per_case for c in order], token_budget
    )


def filled_groups(order: Sequence[int], sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Neighbours of `order` in groups whose largest size times their number is at most `budget`; a larger one is alone.

    `sizes` are those of `order`'s entries, ascending.
    """
    groups: list[list[int]] = []
    for entry, size in zip(order, sizes, strict=True):
        if groups and size * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups


def padding_share(cases: Cases, batches: Sequence[Sequence[int]]) -> float:
    """Share of padded positions among all that some batches compute case by case.

    The common leading tokens are no part of either: they are computed once for all cases.
    """
    real = total = 0
    for chosen in batches:
        rows = cases.rows_of(chosen)
        real += sum(len(row.inputs) - cases.leading for row in rows)
        total += (_padded(rows) - cases.leading) * len(rows)
    return 1 - real / total if total else 0.0


def _padded(rows: Sequence[Row]) -> int:
    longest = max(len(row.inputs) for row in rows)
    return -(-longest // LENGTH_STEP) * LENGTH_STEP


def _leading(encoded: Sequence[Encoded]) -> int:
    """Length of the longest common beginning of all prompts, short of any prompt's last token."""
    first, last = min(case.prompt for case in encoded), max(case.prompt for case in encoded)
    limit = min(len(case.prompt) for case in encoded) - 1
    common = 0
    while common < limit and first[common] == last[common]:
        common += 1
    return common
