"""The scoring step as a child process runs it: a trained adapter (or none) and a dataset in, one sealed folder out."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.corpus.case import exact_digest
from tasks.judging.choose_rules import RECORD, record_rules
from tasks.judging.scores_folder import (
    ScoredCase,
    WrittenAnswer,
    read_cases,
    set_scores,
    write_lines,
)
from tasks.judging.written_answers import read_answer
from tasks.runtime.device import compute_path
from tasks.runtime.errors import Diverged
from tasks.runtime.events import Emit, ProgressReport
from tasks.runtime.probe import report_device
from tasks.runtime.store import build_folder, verify, write_atomic
from tasks.scoring.baselines import TARGET
from tasks.scoring.generate import greedy_answers
from tasks.scoring.mc_dropout import dropout_passes
from tasks.scoring.sample import sample_numbers
from tasks.spec import LABELS, ExperimentSpec, Scoring, Training
from tasks.tuning.engine import Scores, score_cases
from tasks.tuning.frozen_prefix import Prefix, open_prefix
from tasks.tuning.lora import Adapted, add_lora, load_variant, load_weights
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.sets import LoadedSet, load_set, load_template, warn_of_shortened

UNTUNED = "the untuned model"
TIMES = ("score_seconds", "mc_seconds", "mc_status")


@dataclass(frozen=True)
class Work:
    """An adapted variant, its `name`, and what to do with it. `dropout`, `seed`, `target` (ED recall): those of the recipe."""

    name: str
    adapted: Adapted
    scoring: Scoring
    max_tokens: int
    dropout: float
    seed: int
    target: float | None
    template: Any
    digest: str
    data: Path
    home: Path
    emit: Emit

    @property
    def remedy(self) -> str:
        """What to do about a model that computes no numbers."""
        if self.name == UNTUNED:
            return "its weights are damaged: delete its folder in models/ and run the command again"
        return "train it again with a lower learning rate or scale"


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Score calibration, choose the rules on it, score test, then the dropout passes; returns timings.

    `args`: experiment (JSON), variant, data, home, folder (the trained adapter), scores (folder to make), and for an
    adapter on other weights `chosen`, the scores folder whose rules serve here too.
    The scores folder holds calibration.jsonl, rules.json and test.jsonl (no patient text), answers.jsonl (what was
    generated, read but not kept) and passes.npy (T, N, 3) + passes.json.
    """
    spec = ExperimentSpec.model_validate(args["experiment"])
    work = _trained(spec, args, emit)
    chosen = Path(args["chosen"]) if "chosen" in args else None
    manifest = build_folder(Path(args["scores"]), lambda out: _score_all(work, out, chosen))
    return {key: manifest[key] for key in TIMES}


def run_untuned(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Score a variant as it is, zero-shot, from the frozen prefix that its recipes share.

    `args`: scoring, training (JSON), variant, data, home, scores (folder to make), and `sets` as for `run_sets`.
    """
    scoring, training = (
        Scoring.model_validate(args["scoring"]),
        Training.model_validate(args["training"]),
    )
    report_device(emit)  # it runs before the first training, and is slow too where that will be
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(Path(args["variant"]), compute_path())
    untuned = Adapted(
        stack, (), max(stack.depth - training.num_layers, 0), 0
    )  # a fresh adapter adds exactly nothing
    work = _work(args, UNTUNED, untuned, scoring, training, (0.0, 0, TARGET), emit)
    manifest = build_folder(Path(args["scores"]), lambda out: _score_all(work, out))
    for name, scores in args["sets"].items():
        build_folder(Path(scores), partial(_score_set, work, name, Path(args["scores"])))
    return {key: manifest[key] for key in TIMES}


def run_sets(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Score further evaluation sets of a trained experiment, each into a sealed folder of its own; returns their names.

    `args`: as for `run`, with `chosen`, the scores folder of the test set, whose rules serve here too, and `sets`, the
    folder to make by set name. What is evaluated is `test.jsonl` in each folder, whatever its name is.
    """
    spec, folder = ExperimentSpec.model_validate(args["experiment"]), Path(args["folder"])
    work = _trained(spec, args, emit)
    for name, scores in args["sets"].items():
        build_folder(Path(scores), partial(_score_set, work, name, Path(args["chosen"])))
    return {"sets": sorted(args["sets"]), "training": folder.name}


def _score_set(work: Work, name: str, chosen: Path, out: Path) -> dict[str, Any]:
    _keep_rules(chosen, out)
    began, started = datetime.now(UTC), time.perf_counter()
    loaded, _ = _score(work, name, out / "test.jsonl")
    status = "not available: dropout passes run on the test set only"
    seconds = time.perf_counter() - started
    return {
        "evaluation_set": name, "score_seconds": seconds, "mc_seconds": 0.0, "mc_status": status,
        "test_scored_at": began.isoformat(),
        "shortened_cases": loaded.shortened,
    }  # fmt: skip


def _trained(spec: ExperimentSpec, args: dict[str, Any], emit: Emit) -> Work:
    """A variant with the adapter that an experiment trained on it."""
    folder = Path(args["folder"])
    verify(folder, deep=True)
    mx.set_cache_limit(CACHE_BYTES)
    adapted = add_lora(
        load_variant(Path(args["variant"]), compute_path()), spec.recipe, spec.training, spec.seed
    )
    load_weights(adapted, folder / "adapters.safetensors")
    # Without a target of its own a recipe is read at the baselines', beside its primary rule: at equal recall.
    own = spec.recipe.dropout, spec.seed, spec.recipe.target_ed_recall or TARGET
    return _work(args, spec.cell_id, adapted, spec.scoring, spec.training, own, emit)


def _work(
    args: dict[str, Any], name: str, adapted: Adapted, scoring: Scoring, training: Training,
    own: tuple[float, int, float | None], emit: Emit,
) -> Work:  # fmt: skip
    variant = Path(args["variant"])
    return Work(
        name, adapted, scoring, training.max_tokens, *own, load_template(variant),
        verify(variant, deep=False)["digest"], Path(args["data"]), Path(args["home"]), emit,
    )  # fmt: skip


def _score_all(work: Work, out: Path, chosen: Path | None = None) -> dict[str, Any]:
    started = time.perf_counter()
    if chosen is None:
        _score(work, "calibration", out / "calibration.jsonl")
        _choose_rules(work, out)
    else:
        _keep_rules(chosen, out)
    began = datetime.now(UTC)
    loaded, prefix = _score(work, "test", out / "test.jsonl")
    scored = time.perf_counter()
    status = _passes(work, loaded, prefix, out)
    done = time.perf_counter()
    _answers(work, loaded, out)
    return {
        "score_seconds": scored - started, "mc_seconds": done - scored, "mc_status": status,
        "test_scored_at": began.isoformat(),
        "shortened_cases": loaded.shortened,
    }  # fmt: skip


def _keep_rules(chosen: Path, out: Path) -> None:
    """The rules of another scores folder, with the calibration scores that they were chosen on."""
    for kept in ("calibration.jsonl", RECORD):
        shutil.copyfile(chosen / kept, out / kept)


def _choose_rules(work: Work, out: Path) -> None:
    """Write down what the calibration cases decide, before the first test case is scored."""
    digest = verify(work.data, deep=False)["sets"]["calibration"]["digest"]
    cases = set_scores(read_cases(out / "calibration.jsonl"))
    record = record_rules(cases, digest, target=work.target, costs=work.scoring.cost_matrix)
    write_atomic(out / RECORD, record.to_json())


def _score(work: Work, name: str, path: Path) -> tuple[LoadedSet, Prefix]:
    """Score one set into `path`; the set, encoded, and its frozen prefix serve again."""
    loaded = load_set(work.data, name, work.template, work.max_tokens)
    warn_of_shortened(name, loaded, work.max_tokens, work.emit)
    prefix = open_prefix(
        work.adapted.stack, loaded.cases, work.adapted.boundary, work.home, work.digest, work.emit
    )
    scores, count = score_cases(work.adapted, prefix), len(loaded.records)
    _refuse_not_finite(work, name, scores)
    _write_scores(path, loaded, scores)
    work.emit(ProgressReport(f"scored {name}", count, count))
    return loaded, prefix


def _refuse_not_finite(work: Work, name: str, scores: Scores) -> None:
    """Diverged where a score is NaN or infinite: sealed, it would stop every later run without a remedy."""
    parts = [scores.label_loss, scores.other_loss, *scores.label_logp.T]
    finite = np.isfinite(np.stack(parts)).all(axis=0)
    if not finite.all():
        lost = f"{int((~finite).sum())} of {len(finite)} cases of {name} have scores that are NaN or infinite"
        raise Diverged(f"{work.name}: {lost}, so nothing is stored; {work.remedy}.")


def _passes(work: Work, test: LoadedSet, prefix: Prefix, out: Path) -> str:
    if work.dropout == 0:
        why = "the model is untuned" if work.name == UNTUNED else "the recipe has dropout 0"
        return f"not available: {why}, so every pass would be the same"
    chosen = _sample(test, work.scoring.mc_cases)
    passes = dropout_passes(work.adapted, prefix, chosen, work.scoring.passes, work.seed, work.emit)
    np.save(out / "passes.npy", passes, allow_pickle=False)
    (out / "passes.json").write_text(json.dumps([test.records[i]["case_id"] for i in chosen]))
    return "available"


def _sample(test: LoadedSet, size: Any) -> list[int]:
    """Numbers of the cases of a fixed sample, stratified by label."""
    return sample_numbers(
        [r["case_id"] for r in test.records], [r["label"] for r in test.records], size
    )


def _answers(work: Work, test: LoadedSet, out: Path) -> None:
    """What the model writes for a sample. The text itself may repeat the patient's words, so it is not kept."""
    if work.scoring.generated_cases == 0:
        return
    chosen = _sample(test, work.scoring.generated_cases)
    texts = greedy_answers(work.adapted, test.cases, chosen, work.template, work.emit)
    answers = []
    for i, text in zip(chosen, texts, strict=True):
        answer = read_answer(text)
        answers.append(WrittenAnswer(test.records[i]["case_id"], answer.exact, answer.label))
    write_lines(out / "answers.jsonl", answers)


def _write_scores(path: Path, loaded: LoadedSet, scores: Scores) -> None:
    write_lines(path, [_scored_case(i, loaded, scores) for i in range(len(loaded.records))])


def _scored_case(i: int, loaded: LoadedSet, scores: Scores) -> ScoredCase:
    record = loaded.records[i]
    truth = next(row for row in loaded.cases.rows_of([i]) if row.is_truth)
    return ScoredCase(
        case_id=record["case_id"],
        label=record["label"],
        group=record.get("group"),
        subgroup=record.get("subgroup") or {},
        case_digest=exact_digest(record["text"]),
        p=dict(zip(LABELS, scores.probabilities[i].tolist(), strict=True)),
        label_loss=float(scores.label_loss[i]),
        other_loss=float(scores.other_loss[i]),
        tokens=len(truth.targets),
    )
