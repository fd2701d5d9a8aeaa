"""Encoded cases as sequences, and sequences as batches: few shapes, little padding, no case
dropped.

The order of training batches depends on (seed, epoch) alone, so evaluation cadence, resuming and
the micro-batch change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tasks.corpus.encode import Encoded, Template
from tasks.runtime.backend import backend
from tasks.spec import Sampling, short_digest
from tasks.tuning.sampling import drawn_cases

# Padded tokens of one forward pass without gradients.
TOKENS_AT_ONCE = backend().tokens_at_once
# Batches' worth of cases that are sorted by length together: enough to fill buckets, still well
# mixed.
WINDOW = 16
# Sequences are padded to a multiple of this. Each length is a graph of its own where steps are
# compiled, so there are fewer of them.
LENGTH_STEP = 32 if backend().on_gpu else 8


@dataclass(frozen=True)
class Row:
    """One sequence: a prompt and one label's completion.

    `number` is its place among the set's rows.

    `inputs` are all tokens but the last; `targets` is the completion, scored from position `first`
    of the inputs.
    """

    number: int
    candidate: int
    is_truth: bool
    inputs: tuple[int, ...]
    first: int
    targets: tuple[int, ...]
    label_length: int


@dataclass(frozen=True)
class EncodedCases:
    """An encoded set of cases.

    `per_case` is 1, or 3 if labels have several tokens and each must be run. `leading`: how many
    first tokens all rows have in common (the instruction). `label_tokens`: first token of each
    label, used if `per_case` is 1. `set_digest`: SHA-256 of the file of a prepared set; empty for
    other cases.
    """

    encoded: tuple[Encoded, ...]
    rows: tuple[Row, ...]
    per_case: int
    leading: int
    label_tokens: tuple[int, ...]
    set_digest: str = ""

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) index into LABELS of each case."""
        return np.array([case.label for case in self.encoded], np.int32)

    @cached_property
    def rows_digest(self) -> str:
        """Digest of the tokens of all rows, which takes a while to compute."""
        return short_digest({"rows": [row.inputs for row in self.rows]})

    @property
    def leading_tokens(self) -> tuple[int, ...]:
        """The first tokens that all rows have in common."""
        return self.rows[0].inputs[: self.leading]

    def rows_of(self, case_numbers: Sequence[int]) -> list[Row]:
        """The rows of some cases, in their order."""
        return [
            self.rows[number * self.per_case + k]
            for number in case_numbers
            for k in range(self.per_case)
        ]


@dataclass(frozen=True)
class Batch:
    """Arrays of some cases: B cases, N = B x per_case rows, R scored positions, T input tokens."""

    cases: tuple[int, ...]
    rows: tuple[Row, ...]
    length: int  # T: padded number of input tokens
    first: np.ndarray  # (N,) first scored position
    targets: np.ndarray  # (N, R) token ids, 0 where unused
    scored: np.ndarray  # (N, R) 1.0 where a target counts
    is_label: np.ndarray  # (N, R) 1.0 where the target is part of the label
    truth: np.ndarray  # (N,) 1.0 for the row of the true label
    labels: np.ndarray  # (B,) index into LABELS


def make_cases(
    template: Template, encoded: Sequence[Encoded], stock_mask: bool = False
) -> EncodedCases:
    """Lay out the rows of a set.

    `stock_mask` also scores one padding token (id 0) after each completion, as mlx-lm's
    default_loss does: the oracle of the tests and benchmarks, never used in a study.
    """
    per_case = 1 if template.single_token else len(template.completions)
    rows: list[Row] = []
    for case in encoded:
        for candidate in [case.label] if per_case == 1 else range(per_case):
            completion = template.completions[candidate] + ((0,) if stock_mask else ())
            rows.append(_row(len(rows), case, candidate, completion, template))

    label_tokens = tuple(completion[0] for completion in template.completions)
    return EncodedCases(
        tuple(encoded), tuple(rows), per_case, _common_tokens(encoded), label_tokens
    )


def _row(
    number: int, case: Encoded, candidate: int, completion: tuple[int, ...], template: Template
) -> Row:
    return Row(
        number=number,
        candidate=candidate,
        is_truth=candidate == case.label,
        inputs=case.prompt + completion[:-1],
        # The output at a prompt's last token predicts the first token of the completion.
        first=len(case.prompt) - 1,
        targets=completion,
        label_length=template.label_lengths[candidate],
    )


def _common_tokens(encoded: Sequence[Encoded]) -> int:
    """Length of the longest common beginning of all prompts, short of any prompt's last token."""
    prompts = [case.prompt for case in encoded]
    # What the first and the last prompt in order have in common, all prompts have.
    first = min(prompts)
    last = max(prompts)
    # The output at a prompt's last token is scored, so that token must be the case's own.
    limit = min(len(prompt) for prompt in prompts) - 1

    common = 0
    while common < limit and first[common] == last[common]:
        common += 1
    return common


def make_batch(
    cases: EncodedCases, case_numbers: Sequence[int], length: int | None = None
) -> Batch:
    """The arrays of some cases, padded on the right to a common length (B cases give N = B x
    per_case rows).
    """
    rows = cases.rows_of(case_numbers)
    shape = (len(rows), max(len(row.targets) for row in rows))
    targets = np.zeros(shape, np.int32)
    scored = np.zeros(shape, np.float32)
    is_label = np.zeros(shape, np.float32)

    for i, row in enumerate(rows):
        targets[i, : len(row.targets)] = row.targets
        scored[i, : len(row.targets)] = 1
        is_label[i, : row.label_length] = 1

    return Batch(
        cases=tuple(case_numbers),
        rows=tuple(rows),
        length=length or padded_length(rows),
        first=np.array([row.first for row in rows], np.int32),
        targets=targets,
        scored=scored,
        is_label=is_label,
        truth=np.array([row.is_truth for row in rows], np.float32),
        labels=cases.labels[list(case_numbers)],
    )


def padded_tokens(sequences: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """(N, length) int32: token ids of N sequences, 0 where a sequence has ended."""
    # Padding comes last, where causal attention hides it from every token that is scored.
    tokens = np.zeros((len(sequences), length), np.int32)
    for i, sequence in enumerate(sequences):
        tokens[i, : len(sequence)] = sequence
    return tokens


def epoch_batches(
    cases: EncodedCases, batch_size: int, seed: int, epoch: int, sampling: Sampling = "natural"
) -> list[list[int]]:
    """The effective batches of one epoch, as lists of case numbers, the tail batch included.

    Every case once, unless `sampling` draws labels more evenly (sampling.py).
    """
    generator = np.random.default_rng([seed, epoch])
    if sampling == "natural":
        order = generator.permutation(len(cases.encoded)).tolist()
    else:
        order = generator.permutation(drawn_cases(cases.labels, sampling, seed, epoch)).tolist()

    # A whole number of batches, so that at most one batch of an epoch is short.
    span = batch_size * WINDOW
    batches: list[list[int]] = []
    for start in range(0, len(order), span):
        window = _by_length(cases, order[start : start + span])
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]

    # Each window runs from short cases to long ones; the order of batches must not.
    return [batches[i] for i in generator.permutation(len(batches))]


def training_batches(
    cases: EncodedCases, batch_size: int, seed: int, start: int, sampling: Sampling = "natural"
) -> Iterator[list[int]]:
    """Effective batches from update number `start` on, without end."""
    # The same for every sampling: an epoch has as many draws as there are cases.
    per_epoch = -(-len(cases.encoded) // batch_size)
    epoch, skip = divmod(start, per_epoch)
    while True:
        yield from epoch_batches(cases, batch_size, seed, epoch, sampling)[skip:]
        epoch += 1
        skip = 0


def sorted_batches(
    cases: EncodedCases, token_budget: int, case_numbers: Sequence[int] | None = None
) -> list[list[int]]:
    """All cases, or some, in batches of similar length of at most `token_budget` padded tokens, for
    evaluation.
    """
    candidates = range(len(cases.encoded)) if case_numbers is None else case_numbers
    order = _by_length(cases, candidates)
    sizes = [padded_length(cases.rows_of([number])) * cases.per_case for number in order]
    return filled_groups(order, sizes, token_budget)


def _by_length(cases: EncodedCases, case_numbers: Sequence[int]) -> list[int]:
    """Case numbers from the shortest prompt to the longest."""
    return sorted(case_numbers, key=lambda number: (len(cases.encoded[number].prompt), number))


def filled_groups(order: Sequence[int], sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Neighbours of `order` in groups whose largest size times their number is at most `budget`.

    `sizes` are those of `order`'s entries, ascending; an entry that is larger than the budget is
    alone.
    """
    groups: list[list[int]] = []
    for entry, size in zip(order, sizes, strict=True):
        if groups and size * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups


def padding_share(cases: EncodedCases, batches: Sequence[Sequence[int]]) -> float:
    """Share of padded positions among all that some batches compute case by case.

    The common leading tokens are no part of either: they are computed once for all cases.
    """
    real = 0
    total = 0
    for case_numbers in batches:
        rows = cases.rows_of(case_numbers)
        real += sum(len(row.inputs) - cases.leading for row in rows)
        total += (padded_length(rows) - cases.leading) * len(rows)
    return 1 - real / total if total else 0.0


def padded_length(rows: Sequence[Row]) -> int:
    """The number of input tokens to which these rows are padded."""
    longest = max(len(row.inputs) for row in rows)
    return -(-longest // LENGTH_STEP) * LENGTH_STEP
