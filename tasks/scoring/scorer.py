"""A model to score, and the scores folders that it fills (`tasks/judging/scores_folder.py`)."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, trim_prompt_cache

from tasks.corpus.case import exact_digest
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import Template
from tasks.judging.decision_rules import RECORD, record_rules
from tasks.judging.scores_folder import (
    ANSWERS_FILE,
    CALIBRATION_FILE,
    JUDGED_FILE,
    NOT_AVAILABLE,
    PASSES_FILE,
    PASSES_IDS_FILE,
    ScoredCase,
    probability_table,
    read_answer,
    read_cases,
    write_lines,
)
from tasks.runtime.errors import BadInput, Diverged, TriageError
from tasks.runtime.events import Emit, Kept, ProgressReport
from tasks.runtime.files import write_atomic
from tasks.runtime.store import build_folder, kept_passes, verify
from tasks.scoring.arguments import SampleSize, sample_numbers
from tasks.scoring.mc_dropout import dropout_passes
from tasks.spec import LABELS, Scoring
from tasks.tuning.activations import Prefix, PrefixStore, open_prefix
from tasks.tuning.data import EncodedCases, LoadedSet, load_set, warn_of_shortened
from tasks.tuning.lora import Adapted
from tasks.tuning.model import embed, project, run_blocks
from tasks.tuning.step import score_cases

UNTUNED = "the untuned model"
# Of the manifest of a scores folder, what is of its judged cases.
RECORDED = ("mc_seconds", "mc_status", "shortened_cases", "evaluation_set")
# What NumPy raises for a file that is not whole.
DAMAGED = (OSError, EOFError, ValueError, KeyError, BadZipFile)


@dataclass(frozen=True)
class Scorer:
    """A model to score on sets of a dataset, and how. `target`: the ED recall of its recipe; `rule`:
    its primary rule.

    `name`: of the model, in errors; `moved`: whether its adapter was trained at another precision;
    `inputs`: a digest of what decides its dropout passes.
    """

    name: str
    adapted: Adapted
    template: Template
    prefixes: PrefixStore
    scoring: Scoring
    max_tokens: int
    dropout: float
    seed: int
    target: float
    data: Path
    emit: Emit
    rule: str = "argmax"
    moved: bool = False
    inputs: str = ""


def score_sets(
    scorer: Scorer,
    sets: Mapping[str, Path],
    rules_from: Path | None = None,
    judged_from: Mapping[str, Path] | None = None,
) -> None:
    """Score sets, each into a sealed folder, by the rules of `rules_from`, else of calibration.

    `judged_from`: as in ScoringJob; `rules_from` is then what the rules were at the adapter's own
    precision or, of further sets, as they were chosen again on test.
    """
    for name, scores in sets.items():
        kept = kept_passes(scores)
        fill = partial(_score_set, scorer, name, rules_from, kept)
        if judged_from:
            fill = partial(_choose_again, scorer, name, rules_from, judged_from[name])
        build_folder(scores, fill)
        shutil.rmtree(kept, ignore_errors=True)


def _score_set(
    scorer: Scorer, name: str, rules_from: Path | None, kept: Path, folder: Path
) -> dict[str, Any]:
    """Fill a scores folder; returns what its manifest records."""
    start = time.perf_counter()
    if rules_from is None:
        # Chosen and written down before the first test case is scored.
        _choose_rules(scorer, folder)
    else:
        # With the calibration scores that they were chosen on.
        for file in (CALIBRATION_FILE, RECORD):
            shutil.copyfile(rules_from / file, folder / file)

    # An audit of the warehouse compares this with the time at which the rules were chosen.
    began = datetime.now(UTC)
    loaded, prefix = _score(scorer, name, folder / JUDGED_FILE)
    score_seconds = time.perf_counter() - start
    mc_status = f"{NOT_AVAILABLE}dropout passes run on the test set only"
    mc_seconds = 0.0
    if name == "test":
        mc_status, mc_seconds = _write_passes(scorer, loaded, prefix, kept / scorer.inputs, folder)
        _write_answers(scorer, loaded, folder)

    record = {
        "score_seconds": score_seconds,
        "mc_seconds": mc_seconds,
        "mc_status": mc_status,
        "test_scored_at": began.isoformat(),
        "shortened_cases": loaded.shortened,
    }
    return record if name == "test" else {"evaluation_set": name, **record}


def _choose_rules(scorer: Scorer, folder: Path, own: Path | None = None) -> None:
    """Score calibration, and write down the rules that are chosen on it. `own`: the scores folder of a
    moved adapter at its own precision. Raises BadInput where they cannot be chosen again.
    """
    _score(scorer, "calibration", folder / CALIBRATION_FILE)
    calibration = read_cases(folder / CALIBRATION_FILE)
    try:
        rules = record_rules(
            probability_table(calibration),
            [case.label for case in calibration],
            DatasetManifest.read(scorer.data).digest_of("calibration"),
            target=scorer.target,
            costs=scorer.scoring.cost_matrix,
            own_p=None if own is None else probability_table(read_cases(own / CALIBRATION_FILE)),
            primary=scorer.rule,
        )
    except BadInput as error:
        raise BadInput(
            f"{scorer.name}: the rules of the moved adapter cannot be chosen again, since {error}; "
            "add some, or leave out scoring.move_adapters."
        ) from error
    write_atomic(folder / RECORD, rules.to_json())


def _choose_again(
    scorer: Scorer, name: str, rules_from: Path | None, judged: Path, folder: Path
) -> dict[str, Any]:
    """Fill a scores folder with the judged cases of another, to be decided by rules that are chosen
    again; returns what its manifest records.
    """
    assert rules_from is not None
    start = time.perf_counter()
    if name == "test":
        _choose_rules(scorer, folder, own=rules_from)
    else:
        for file in (CALIBRATION_FILE, RECORD):
            shutil.copyfile(rules_from / file, folder / file)

    # Only now is a judged case looked at.
    began = datetime.now(UTC)
    manifest = verify(judged, deep=True)
    for file in (JUDGED_FILE, PASSES_FILE, PASSES_IDS_FILE, ANSWERS_FILE):
        if (judged / file).is_file():
            shutil.copyfile(judged / file, folder / file)

    record = {key: manifest[key] for key in RECORDED if key in manifest}
    seconds = time.perf_counter() - start
    return record | {"score_seconds": seconds, "test_scored_at": began.isoformat()}


def _score(scorer: Scorer, name: str, path: Path) -> tuple[LoadedSet, Prefix]:
    """Score one set into `path`. Raises Diverged if a score is NaN or infinite: sealed, it would fail
    every later run.
    """
    loaded = load_set(scorer.data, name, scorer.template, scorer.max_tokens)
    warn_of_shortened(name, loaded, scorer.max_tokens, scorer.emit)
    adapted = scorer.adapted
    prefix = open_prefix(
        adapted.stack, loaded.cases, adapted.boundary, scorer.prefixes, scorer.emit
    )

    scores = score_cases(adapted, prefix)
    columns = [scores.label_loss, scores.other_loss, *scores.label_logp.T]
    finite = np.isfinite(np.stack(columns)).all(axis=0)
    if not finite.all():
        remedy = "train it again with a lower learning rate or scale"
        if scorer.name == UNTUNED:
            remedy = (
                "its weights are damaged: delete its folder in models/ and run the command again"
            )
        raise Diverged(
            f"{scorer.name}: {int((~finite).sum())} of {len(finite)} cases of {name} have scores "
            f"that are NaN or infinite, so nothing is stored; {remedy}."
        )

    probabilities = scores.probabilities.tolist()
    scored = []
    for i, record in enumerate(loaded.records):
        truth = next(row for row in loaded.cases.rows_of([i]) if row.is_truth)
        scored.append(
            ScoredCase(
                case_id=record["case_id"],
                label=record["label"],
                group=record.get("group"),
                subgroup=record.get("subgroup") or {},
                case_digest=exact_digest(record["text"]),
                p=dict(zip(LABELS, probabilities[i], strict=True)),
                label_loss=float(scores.label_loss[i]),
                other_loss=float(scores.other_loss[i]),
                tokens=len(truth.targets),
            )
        )
    write_lines(path, scored)
    scorer.emit(ProgressReport(f"scored {name}", len(loaded.records), len(loaded.records)))

    return loaded, prefix


def _write_passes(
    scorer: Scorer, test: LoadedSet, prefix: Prefix, kept: Path, folder: Path
) -> tuple[str, float]:
    """Run the dropout passes, if there are any; returns `mc_status` and `mc_seconds` of the record.

    Each is kept in `kept` as it ends, so that a process that follows a killed one goes on there.
    """
    if scorer.name == UNTUNED:
        return f"{NOT_AVAILABLE}the model is untuned, so every pass would be the same", 0.0
    if scorer.dropout == 0:
        return f"{NOT_AVAILABLE}the recipe has dropout 0, so every pass would be the same", 0.0
    if scorer.moved and not scorer.scoring.moved_passes:
        reason = "scoring.moved_passes is false, so that moved adapters have none"
        return f"{NOT_AVAILABLE}{reason}", 0.0

    start = time.perf_counter()
    sample = sample_of(test, scorer.scoring.mc_cases)
    count = scorer.scoring.passes
    finished = {}
    earlier = 0.0  # seconds that the processes before this one took
    for path in kept.glob("*.npz"):
        with contextlib.suppress(*DAMAGED), np.load(path, allow_pickle=False) as arrays:
            finished[int(path.stem)] = arrays["log_p"], arrays["p"]
            earlier = max(earlier, float(arrays["seconds"]))

    def keep(number: int, log_p: np.ndarray, p: np.ndarray) -> None:
        archive = io.BytesIO()
        np.savez(archive, log_p=log_p, p=p, seconds=earlier + time.perf_counter() - start)
        write_atomic(kept / f"{number}.npz", archive.getvalue())
        scorer.emit(Kept())

    try:
        passes = dropout_passes(
            scorer.adapted, prefix, sample, count, scorer.seed, scorer.emit, finished, keep
        )
    except TriageError:
        # Passes that were refused once all had ended must not be taken up again by the next run.
        if len(list(kept.glob("*.npz"))) == count:
            shutil.rmtree(kept)
        raise
    np.save(folder / PASSES_FILE, passes, allow_pickle=False)
    case_ids = [test.records[number]["case_id"] for number in sample]
    (folder / PASSES_IDS_FILE).write_text(json.dumps(case_ids))

    return "available", earlier + time.perf_counter() - start


def _write_answers(scorer: Scorer, test: LoadedSet, folder: Path) -> None:
    """Let the model write answers to a sample of cases, and store how they read: the text may repeat
    the patient's words.
    """
    if scorer.scoring.generated_cases == 0:
        return

    template = scorer.template
    sample = sample_of(test, scorer.scoring.generated_cases)
    generated = greedy_answers(scorer.adapted, test.cases, sample, template, scorer.emit)
    answers = []
    for number, tokens in zip(sample, generated, strict=True):
        text = template.tokenizer.decode(tokens, skip_special_tokens=True)
        case_id = test.records[number]["case_id"]
        answers.append(read_answer(case_id, text, template.prompt.words))
    write_lines(folder / ANSWERS_FILE, answers)


def sample_of(test: LoadedSet, size: SampleSize) -> list[int]:
    """Numbers of the cases of a fixed sample, stratified by label."""
    case_ids = [record["case_id"] for record in test.records]
    return sample_numbers(case_ids, [record["label"] for record in test.records], size)


# A label and the end of the turn are two or three; an answer that is longer still is no label.
MAX_TOKENS = 8


def greedy_answers(
    adapted: Adapted,
    cases: EncodedCases,
    case_numbers: Sequence[int],
    template: Template,
    emit: Emit,
) -> list[list[int]]:
    """The most probable tokens after the prompt of each of these cases, without dropout, up to the end
    of the turn: at most MAX_TOKENS, or as many as the longest right answer has.
    """
    stack = adapted.stack
    limit = max(MAX_TOKENS, *map(len, template.completions))
    adapted.set_dropout(None)
    # The tokenizer's end, and what follows a label in a completion.
    ends = {template.tokenizer.eos_token_id}
    for completion, length in zip(template.completions, template.label_lengths, strict=True):
        if length < len(completion):
            ends.add(completion[length])
    # Not mlx-lm's rotating caches, which cannot be trimmed once full: windows are in the masks here.
    past = [KVCache() for _ in range(stack.depth)]

    def next_token(tokens: Sequence[int]) -> int:
        hidden = run_blocks(stack, embed(stack, mx.array([tokens])), 0, stack.depth, past)
        return int(np.array(project(stack, hidden[:, -1])).argmax())

    # For its keys and values alone: the token that would follow is not used.
    next_token(cases.leading_tokens)

    answers = []
    for count, number in enumerate(case_numbers, 1):
        answer: list[int] = []
        following = cases.encoded[number].prompt[cases.leading :]
        while len(answer) < limit and (token := next_token(following)) not in ends:
            answer.append(token)
            following = (token,)
        answers.append(answer)
        trim_prompt_cache(past, past[0].offset - cases.leading)
        emit(ProgressReport("generated answers", count, len(case_numbers)))

    return answers
