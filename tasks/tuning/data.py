"""A prepared set of cases, encoded for one variant, and its batches: few shapes, little padding, no
case dropped.

The order of training batches, and how often each label is drawn, depend on (seed, epoch) alone.
No MLX: the parent process reads budgets by constants of this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from tasks.corpus.prompts import Encoded, Template, encode, load_prompt, make_template
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Emit, StepWarning
from tasks.runtime.files import file_digest, read_lines
from tasks.spec import PromptChoice, Sampling, short_digest

Key = tuple[int, ...]  # of a dropout mask: seed, update or pass, and a place
# The place of the leading tokens in a dropout key: no case of a batch has it.
LEADING = (1 << 31) - 1
# Padded tokens of one forward pass without gradients.
TOKENS_AT_ONCE = backend().tokens_at_once
# Batches' worth of cases that are sorted by length together: enough to fill buckets, well mixed.
WINDOW = 16
# Sequences are padded to a multiple of this. A compiled step has a graph per length.
LENGTH_STEP = 32 if backend().on_gpu else 8


@dataclass(frozen=True)
class Row:
    """One sequence: a prompt and one label's completion; `number`: its place among the set's rows.

    `inputs`: all tokens but the last; `targets`: the completion, scored from position `first` on.
    """

    number: int
    is_truth: bool
    inputs: tuple[int, ...]
    first: int
    targets: tuple[int, ...]
    label_length: int


@dataclass(frozen=True)
class EncodedCases:
    """An encoded set of cases.

    `per_case`: 1, or 3 if labels have several tokens and each must be run. `leading`: how many first
    tokens all rows have in common (the instruction). `label_tokens`: first token of each label.
    `set_digest`: SHA-256 of the file of a prepared set.
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
        """Digest of the tokens of all rows."""
        return short_digest({"rows": [row.inputs for row in self.rows]})

    @property
    def leading_tokens(self) -> tuple[int, ...]:
        """The first tokens that all rows have in common."""
        return self.rows[0].inputs[: self.leading]

    def scored_tokens(self, case_numbers: Sequence[int]) -> int:
        """Completion tokens of the true labels of some cases."""
        return sum(len(row.targets) for row in self.rows_of(case_numbers) if row.is_truth)

    def rows_of(self, case_numbers: Sequence[int]) -> list[Row]:
        """The rows of some cases, in their order."""
        return [
            self.rows[number * self.per_case + k]
            for number in case_numbers
            for k in range(self.per_case)
        ]


@dataclass(frozen=True)
class Batch:
    """Arrays of some cases: B cases, N = B x per_case rows, R scored positions, T input tokens.

    `leading_key`, `case_keys`: of the dropout masks of the leading tokens and of each row, or None.
    """

    cases: tuple[int, ...]
    rows: tuple[Row, ...]
    length: int  # T: padded number of input tokens
    first: np.ndarray  # (N,) first scored position
    targets: np.ndarray  # (N, R) token ids, 0 where unused
    scored: np.ndarray  # (N, R) 1.0 where a target counts
    is_label: np.ndarray  # (N, R) 1.0 where the target is part of the label
    truth: np.ndarray  # (N,) 1.0 for the row of the true label
    labels: np.ndarray  # (B,) index into LABELS
    leading_key: Key | None = None
    case_keys: tuple[Key, ...] | None = None


@dataclass(frozen=True)
class EffectiveBatch:
    """The cases of an update in parts, each computed at once; how many cases, and scored tokens."""

    parts: tuple[Batch, ...]
    cases: int
    tokens: int


def make_cases(
    template: Template, encoded: Sequence[Encoded], stock_mask: bool = False
) -> EncodedCases:
    """Lay out the rows of a set.

    `stock_mask` also scores one padding token (id 0) after each completion, as mlx-lm's default_loss
    does, the oracle of tests and benchmarks.
    """
    per_case = 1 if template.single_token else len(template.completions)
    rows: list[Row] = []
    for case in encoded:
        for candidate in [case.label] if per_case == 1 else range(per_case):
            completion = template.completions[candidate] + ((0,) if stock_mask else ())
            rows.append(
                Row(
                    number=len(rows),
                    is_truth=candidate == case.label,
                    inputs=case.prompt + completion[:-1],
                    # The output at a prompt's last token predicts the first one of the completion.
                    first=len(case.prompt) - 1,
                    targets=completion,
                    label_length=template.label_lengths[candidate],
                )
            )

    # What the first and the last prompt in order have in common, all have.
    prompts = [case.prompt for case in encoded]
    pairs = zip(min(prompts), max(prompts), strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    # The output at a prompt's last token is scored, so that one is its own.
    leading = min(common, min(map(len, prompts)) - 1)
    label_tokens = tuple(completion[0] for completion in template.completions)
    return EncodedCases(tuple(encoded), tuple(rows), per_case, leading, label_tokens)


def make_batch(
    cases: EncodedCases, case_numbers: Sequence[int], length: int | None = None
) -> Batch:
    """The arrays of some cases, padded on the right to a common length."""
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


def effective_batch(
    cases: EncodedCases,
    case_numbers: Sequence[int],
    micro_batch: int,
    key: tuple[int, int] | None,
) -> EffectiveBatch:
    """An effective batch in parts of `micro_batch` cases, padded to one length.

    `key`: (seed, update) of its dropout masks, or None. The leading tokens have one mask per update,
    and a case's depends on its place in the effective batch.
    """
    length = padded_length(cases.rows_of(case_numbers))
    parts = []
    for start in range(0, len(case_numbers), micro_batch):
        batch = make_batch(cases, case_numbers[start : start + micro_batch], length)
        if key is not None:
            places = (start + i // cases.per_case for i in range(len(batch.rows)))
            case_keys = tuple((*key, place) for place in places)
            batch = replace(batch, leading_key=(*key, LEADING), case_keys=case_keys)
        parts.append(batch)

    return EffectiveBatch(tuple(parts), len(case_numbers), cases.scored_tokens(case_numbers))


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
    """The effective batches of one epoch, as lists of case numbers, the tail batch included."""
    generator = np.random.default_rng([seed, epoch])
    drawn: int | np.ndarray = len(cases.encoded)
    if sampling != "natural":
        drawn = drawn_cases(cases.labels, sampling, seed, epoch)
    order = generator.permutation(drawn).tolist()

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
    """All cases, or some, in batches of similar length of at most `token_budget` padded tokens."""
    candidates = range(len(cases.encoded)) if case_numbers is None else case_numbers
    order = _by_length(cases, candidates)
    sizes = [padded_length(cases.rows_of([number])) * cases.per_case for number in order]
    return filled_groups(order, sizes, token_budget)


def _by_length(cases: EncodedCases, case_numbers: Sequence[int]) -> list[int]:
    """Case numbers from the shortest prompt to the longest."""
    return sorted(case_numbers, key=lambda number: (len(cases.encoded[number].prompt), number))


def filled_groups(order: Sequence[int], sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Neighbours of `order` in groups whose largest size times their number is at most `budget`.

    `sizes`: of `order`'s entries, ascending; an entry beyond the budget is alone.
    """
    groups: list[list[int]] = []
    for entry, size in zip(order, sizes, strict=True):
        if groups and size * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups


def padding_share(cases: EncodedCases, batches: Sequence[Sequence[int]]) -> float:
    """Share of padding among the positions that some batches compute case by case, without the
    common leading tokens.
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


# A label's share of the draws is its share in `train` to this power.
POWERS: dict[Sampling, float] = {"natural": 1.0, "square_root": 0.5, "balanced": 0.0}
# Keeps the orders of a label's cases apart from those of an epoch.
LABEL_KEY = 7_919


def drawn_counts(counts: np.ndarray, sampling: Sampling) -> np.ndarray:
    """(labels,): how often each label is drawn in an epoch, which has as many draws as cases."""
    if sampling == "natural":
        return counts

    has_cases = counts > 0
    weights = np.where(has_cases, counts.astype(float) ** POWERS[sampling], 0.0)
    exact = counts.sum() * weights / weights.sum()
    draws = np.floor(exact).astype(np.int64)
    # What rounding leaves goes to the largest remainders, ties to the first label.
    largest_first = np.argsort(draws - exact, kind="stable")
    draws[largest_first[: counts.sum() - draws.sum()]] += 1

    return draws


def drawn_cases(labels: np.ndarray, sampling: Sampling, seed: int, epoch: int) -> np.ndarray:
    """Case numbers of an epoch, label by label.

    A label's cases are drawn in turn, in a new order each time around, and an epoch continues where
    the one before it ended.
    """
    drawn = []
    for label, count in enumerate(drawn_counts(np.bincount(labels), sampling).tolist()):
        if count == 0:
            continue

        cases = np.flatnonzero(labels == label)
        first, begin = divmod(epoch * count, len(cases))
        last = ((epoch + 1) * count - 1) // len(cases)
        generators = (
            np.random.default_rng([seed, LABEL_KEY, label, turn]) for turn in range(first, last + 1)
        )
        rounds = [generator.permutation(cases) for generator in generators]
        drawn.append(np.concatenate(rounds)[begin : begin + count])

    return np.concatenate(drawn)


@dataclass(frozen=True)
class LoadedSet:
    """A set and the lines of its file; `shortened`: how many cases lose the middle of their text."""

    cases: EncodedCases
    records: tuple[dict[str, Any], ...]
    shortened: int


def load_template(variant: Path, prompt: PromptChoice) -> Template:
    """The tokenizer of a variant folder with a prompt."""
    # Slow to import, and needed in child processes only.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(variant), trust_remote_code=False)
    chat = VariantManifest.read(variant).has_chat_template
    return make_template(tokenizer, load_prompt(prompt), chat)


def load_set(data: Path, name: str, template: Template, max_tokens: int) -> LoadedSet:
    """Encode a set (`train`, `valid`, ...) of a prepared dataset folder."""
    file = data / f"{name}.jsonl"
    records = read_lines(file)
    encoded = [
        encode(template, record["case_id"], record["text"], record["label"], max_tokens)
        for record in records
    ]
    shortened = sum(case.shortened for case in encoded)
    cases = replace(make_cases(template, encoded), set_digest=file_digest(file))
    return LoadedSet(cases, tuple(records), shortened)


def warn_of_shortened(name: str, loaded: LoadedSet, limit: int, emit: Emit) -> None:
    """Warn of cases that lose the middle of their text; raises BadInput if all of them would."""
    total = len(loaded.cases.encoded)
    if loaded.shortened == total:
        raise BadInput(
            f"Every case of {name} is longer than training.max_tokens = {limit} and would lose the "
            "middle of its text; raise training.max_tokens."
        )

    if loaded.shortened:
        emit(
            StepWarning(
                f"{loaded.shortened} of {total} cases of {name} are longer than "
                f"training.max_tokens = {limit}: the middle of their text is left out."
            )
        )
