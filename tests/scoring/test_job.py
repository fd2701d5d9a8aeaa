"""Training and scoring as their child processes run them, on tiny models: stock agrees, dropout is alive."""

import errno
import itertools
import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model

from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.prompts import DEFAULT, load_prompt, make_template
from tasks.experiment import land
from tasks.grids.grid import known_models, load_grid
from tasks.identity import scores_of
from tasks.judging import scores_folder
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.judging.fidelity import fidelity_figures
from tasks.landing import land_failure
from tasks.models.convert import run_quantize
from tasks.models.manifest import base_folder
from tasks.models.sources.fetch import fetch_base
from tasks.runtime import children
from tasks.runtime.backend import backend
from tasks.runtime.children import forked_steps, run_step
from tasks.runtime.errors import BadInput, Diverged, TriageError
from tasks.runtime.events import Device, Event, ProgressReport, StepWarning
from tasks.runtime.store import SEAL, kept_passes, read_manifest, seal, verify
from tasks.scoring import job, mc_dropout, scorer
from tasks.scoring.arguments import sample_numbers
from tasks.scoring.scorer import greedy_answers
from tasks.spec import LABELS, ExperimentSpec, evaluation_id, experiments
from tasks.tuning.activations import Prefix
from tasks.tuning.data import load_set, load_template
from tasks.tuning.lora import KeyedDropout, add_lora, load_variant, load_weights
from tasks.tuning.model import project
from tasks.tuning.rows import settings_digest
from tasks.tuning.step import score_cases
from tests.forked import new_fork_server
from tests.scoring.trained import in_stock, is_chat, lines, quiet, rows_of, score, train_and_score
from tests.tolerances import near
from warehouse.query import query

# Of packed bfloat16 on the CPU from stock in float32. Measured: 4e-3 (probabilities), 2e-4 and 2e-3 of a loss.
PROBABILITIES = 1e-2
LOSSES = 1e-3
LOSS_OF_A_CASE = 5e-3
LOGITS = 0.05
CASES = 12  # of test
FEW = {"passes": 2, "generated_cases": 0}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Both architectures trained under the smoke grid's two recipes, and scored with five dropout passes."""
    patch = pytest.MonkeyPatch()
    home = tmp_path_factory.mktemp("study")
    patch.setenv("TRIAGE_HOME", str(home))
    limits = f"data.limits={{ train = 12, valid = 6, calibration = 24, test = {CASES} }}"
    few = ["scoring.passes=5", "scoring.generated_cases=3", "recipe.iterations=3"]
    grid = load_grid("smoke", ["bits=[4]", limits, *few])
    data = prepare_dataset(grid.data, home)
    yield {
        (spec.model.name, spec.recipe.name): (spec, *train_and_score(spec, data, home))
        for spec in experiments(grid, known_models(grid))
        if spec.recipe.name in ("baseline", "balanced_safe")
    }
    patch.undo()


def seal_again(folder: Path) -> None:
    manifest = read_manifest(folder)
    seal(folder, {key: value for key, value in manifest.items() if key not in SEAL}, list(manifest["files"]))


BOTH = pytest.mark.parametrize("model", ["tiny-llama", "tiny-gemma3"])


@BOTH
def test_the_adapter_loads_in_stock_mlx_lm_and_gives_the_same_label_probabilities(model, study):
    _, args, scores = study[model, "balanced_safe"]
    stock, tokenizer = in_stock(args)
    chat = is_chat(args)
    template = make_template(tokenizer, load_prompt(), chat)
    texts = {r["case_id"]: r["text"] for r in lines(Path(args["data"]) / "test.jsonl")}

    for scored in lines(scores / "test.jsonl")[:8]:
        prompt = load_prompt()
        text = texts[scored["case_id"]]
        if chat:
            tokens = tokenizer.apply_chat_template(prompt.messages(text), add_generation_prompt=True)
        else:
            tokens = tokenizer.encode(prompt.plain_text(text))

        row = stock(mx.array([tokens]))[0, -1]
        logits = np.array([row[template.completions[k][0]].item() for k in range(3)], float)
        p = np.exp(logits - logits.max())
        expected = p / p.sum()
        own_result = [scored["p"][label] for label in LABELS]
        assert own_result == pytest.approx(expected.tolist(), abs=near(1e-4, PROBABILITIES))


def stock_losses(args, name, as_chat=None):
    """Stock's loss of each completion token of each case of a set, under the variant's own template or the other one."""
    stock, tokenizer = in_stock(args)
    prompt = load_prompt()

    def rendered(record):
        if is_chat(args) if as_chat is None else as_chat:
            sentence = prompt.messages(record["text"])
            answer = {"role": "assistant", "content": record["label"]}
            return (list(tokenizer.apply_chat_template(sentence, add_generation_prompt=True)),
                    list(tokenizer.apply_chat_template([*sentence, answer])))  # fmt: skip
        start = tokenizer.encode(prompt.plain_text(record["text"]))
        return start, start + tokenizer.encode(f" {record['label']}{prompt.plain_end}", add_special_tokens=False)

    losses_by_case = []
    for record in lines(Path(args["data"]) / f"{name}.jsonl"):
        start, whole = rendered(record)
        logits = stock(mx.array([whole[:-1]]))[0]
        losses = nn.losses.cross_entropy(logits[len(start) - 1 :], mx.array(whole[len(start) :]))
        losses_by_case.append(np.array(losses.tolist()))

    return losses_by_case


@BOTH
def test_the_validation_loss_of_a_training_is_stocks_over_the_conversation_as_its_template_writes_it(study, model):
    """The standard recipe: a safety recipe's value holds class weights and costs, which stock's loss does not."""
    _, args, _ = study[model, "baseline"]
    curve = json.loads((Path(args["folder"]) / "training.json").read_text())["curve"]
    best = min(point["loss"] for point in curve if point["split"] == "valid")
    assert best == pytest.approx(np.concatenate(stock_losses(args, "valid")).mean(), rel=near(1e-4, LOSSES))
    if is_chat(args):
        assert abs(np.concatenate(stock_losses(args, "valid", as_chat=False)).mean() - best) > 0.01


def test_the_loss_of_test_and_of_each_case_are_stocks_and_without_dropout_there_is_no_entropy(study):
    spec, args, scores = study["tiny-llama", "baseline"]
    rows = rows_of(spec, args, scores)
    stock = stock_losses(args, "test")
    loss = np.concatenate(stock).mean()
    assert rows["evaluation"][0]["loss"] == pytest.approx(loss, rel=near(1e-4, LOSSES))
    assert rows["evaluation"][0]["perplexity"] == pytest.approx(np.exp(loss), rel=near(1e-3, 10 * LOSSES))
    by_case = [own_values.mean() for own_values in stock]
    assert [r["nll"] for r in rows["prediction"]] == pytest.approx(by_case, rel=near(1e-4, LOSS_OF_A_CASE))
    assert rows["evaluation"][0]["mc_status"] == "not available" and rows["mc_dropout"] == []
    assert "dropout 0" in rows["evaluation"][0]["mc_reason"]

    # A recipe without a target is read at that of the baselines too, to be compared at equal recall.
    assert spec.recipe.target_ed_recall is None and spec.recipe.rule == "argmax"
    (rule,) = (r for r in rows["decision_rule"] if r["rule"] == "target_recall")
    assert rule["target"] == 0.95 and rule["threshold"] > 0
    assert all(r["target_recall"] for r in rows["prediction"]) and rows["evaluation"][0]["primary_rule"] == "argmax"


def test_an_adapter_that_gives_nan_seals_no_scores_and_is_named_with_its_count(study, tmp_path):
    """Sealed, the NaN would stop each later run when it lands, and no run would score again."""
    spec, args, _ = study["tiny-llama", "balanced_safe"]
    folder = shutil.copytree(args["folder"], tmp_path / "poisoned", ignore=shutil.ignore_patterns("scores"))
    weights = mx.load(str(folder / "adapters.safetensors"))
    mx.eval(weights)
    name = next(iter(weights))
    weights[name] = weights[name] * float("nan")
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    seal(folder, {}, list(read_manifest(folder)["files"]))

    sentence = f"^{spec.cell_id}: 24 of 24 cases of calibration have scores that are NaN or infinite, .*; train it"
    with pytest.raises(Diverged, match=sentence):
        score(args | {"folder": str(folder)}, tmp_path / "scores")

    assert not (tmp_path / "scores").exists()


def test_shortened_cases_are_warned_of_and_counted_and_a_window_that_fits_none_is_refused(study, tmp_path):
    spec, args, _ = study["tiny-llama", "baseline"]
    template = load_template(Path(args["variant"]), DEFAULT)

    def scored(window):
        events: list[Event] = []
        shorter = spec.model_copy(update={
            "training": spec.training.model_copy(update={"max_tokens": window}),
            "scoring": spec.scoring.model_copy(update={"generated_cases": 0}),
        })  # fmt: skip
        folder = tmp_path / str(window)
        score(args | {"experiment": shorter.model_dump(mode="json")}, folder, events.append)

        return folder, [event.message for event in events if isinstance(event, StepWarning)]

    whole = load_set(Path(args["data"]), "test", template, 2048)
    lengths = sorted(len(case.prompt) for case in whole.cases.encoded)
    window = lengths[-3] + max(map(len, template.completions))
    folder, warnings = scored(window)
    lost_cases = sum(length > lengths[-3] for length in lengths)
    assert 0 < lost_cases < 3 and any(
        f"{lost_cases} of {CASES} cases of test are longer" in warning for warning in warnings
    )
    outcome = rows_of(spec, args, folder)["evaluation"]
    assert outcome[0]["shortened_cases"] == lost_cases

    with pytest.raises(BadInput, match="Every case of (calibration|test) is longer"):
        scored(lengths[0] - 1)


def test_dead_dropout_is_refused_not_reported_as_certainty(study, monkeypatch, tmp_path):
    """The earlier attempt's defect: evaluation mode left dropout off, and every vote was unanimous."""
    spec, args, _ = study["tiny-llama", "balanced_safe"]
    few = spec.model_copy(update={"scoring": spec.scoring.model_copy(update=FEW)})
    args = args | {"experiment": few.model_dump(mode="json")}
    with monkeypatch.context() as patch, pytest.raises(TriageError, match="dropout was not active"):
        patch.setattr(KeyedDropout, "__call__", lambda self, x: x)
        score(args, tmp_path / "dead")

    assert not (tmp_path / "dead").exists()
    score(args, tmp_path / "dead")  # none of the refused passes is taken up again
    assert spec.seed != mc_dropout.PASS_KEY


def test_rows_hold_no_patient_text_and_their_figures_follow_from_the_scores(study):
    spec, args, scores = study["tiny-llama", "balanced_safe"]
    rows = rows_of(spec, args, scores)
    text = json.dumps(rows, default=str)
    pieces = {r["text"][begin : begin + 30] for r in lines(Path(args["data"]) / "test.jsonl") for begin in (0, 30)}
    assert not any(form in text for piece in pieces for form in (piece, json.dumps(piece)[1:-1]))
    predictions = rows["prediction"]
    assert scores.name == scores_of(spec, args["training_id"], Path(args["data"]))
    hits = np.mean([p["argmax"] == p["label"] for p in predictions])
    accuracy = rows["evaluation"][0]["accuracy"]
    assert accuracy == pytest.approx(hits)
    assert all(max(LABELS, key=lambda c: p[f"p_{c.lower()}"]) == p["argmax"] for p in predictions)

    # The primary rule is repeated in each dropout pass.
    ed = (np.load(scores / "passes.npy", allow_pickle=False)[:, :, 0] >= rows["evaluation"][0]["threshold"]).mean(
        axis=0
    )
    of_ed = [(share, r) for share, r in zip(ed, rows["mc_dropout"], strict=True) if r["decision_majority"] == "ED"]
    assert [r["decision_confidence"] for _, r in of_ed] == pytest.approx([share for share, _ in of_ed])
    assert len(rows["review_flag"]) == 3 and len(rows["reliability"]) == 9 and len(rows["conformal"]) == 1
    assert {m["metric"] for m in rows["metric"]} >= {"brier", "ece", "ed_ece", "format_compliance"}


def test_the_untuned_model_scores_as_a_fresh_adapter_does_and_through_the_same_prefix(study, tmp_path, monkeypatch):
    """lora_b is zero before the first update, so that an untrained adapter adds exactly nothing."""
    spec, args, scores = study["tiny-llama", "baseline"]
    stored = sorted(p.name for p in (Path(args["home"]) / "prefixes").iterdir())
    settings = {"scoring": spec.scoring.model_dump(mode="json"), "training": spec.training.model_dump(mode="json")}
    folders = {key: args[key] for key in ("variant", "data", "home")}
    monkeypatch.setattr("tasks.runtime.device.SLOW_GFLOPS", 1e9)  # no machine is fast enough
    events = []
    job.run_untuned(folders | settings | {"scores": str(tmp_path / "untuned"), "sets": {}}, events.append)
    first = [Device] if backend().on_gpu else [StepWarning, Device]
    assert [type(event) for event in events][: len(first)] == first, "reported before anything is computed"
    assert sorted(p.name for p in (Path(args["home"]) / "prefixes").iterdir()) == stored, "no prefix of its own"
    stack = load_variant(Path(args["variant"]), backend().compute_path)
    fresh = add_lora(stack, spec.recipe, spec.training, spec.seed)
    template = load_template(Path(args["variant"]), DEFAULT)
    loaded = load_set(Path(args["data"]), "test", template, spec.training.max_tokens)
    expected = score_cases(fresh, Prefix(stack, loaded.cases)).probabilities
    why = verify(tmp_path / "untuned")["mc_status"]
    assert why == "not available: the model is untuned, so every pass would be the same"
    own_result = [[r["p"][label] for label in LABELS] for r in lines(tmp_path / "untuned" / "test.jsonl")]
    assert np.array(own_result) == pytest.approx(expected, abs=1e-5)
    trained = [[r["p"][label] for label in LABELS] for r in lines(scores / "test.jsonl")]
    assert np.abs(np.array(trained) - expected).max() > 1e-3


def test_a_larger_dropout_sample_repeats_the_figures_of_a_smaller_one(study, tmp_path):
    spec, args, scores = study["tiny-llama", "balanced_safe"]
    larger = spec.model_copy(
        update={"scoring": spec.scoring.model_copy(update={"mc_cases": "all", "passes": 3, "generated_cases": 0})}
    )
    score(args | {"experiment": larger.model_dump(mode="json")}, tmp_path / "all")
    few, many = (json.loads((folder / "passes.json").read_text()) for folder in (scores, tmp_path / "all"))
    small, large = (np.load(folder / "passes.npy", allow_pickle=False) for folder in (scores, tmp_path / "all"))
    assert len(many) == CASES and set(few) < set(many)
    assert large[:, [many.index(c) for c in few]] == pytest.approx(small[:3], abs=1e-5)


def dropout_reports(events: list[Event]) -> list[int]:
    return [one.done for one in events if isinstance(one, ProgressReport) and one.what == "dropout passes"]


def test_a_scoring_killed_again_and_again_runs_each_dropout_pass_once_and_ends_with_the_same_bits(study, tmp_path):
    spec, args, scores = study["tiny-llama", "balanced_safe"]
    few = spec.model_copy(update={"scoring": spec.scoring.model_copy(update={"passes": 5, "generated_cases": 0})})
    folder = tmp_path / scores.name
    sent = {key: args[key] for key in ("variant", "data", "home")}
    sent |= {"experiment": few.model_dump(mode="json"), "adapter": args["folder"], "sets": {"test": str(folder)}}
    events: list[Event] = []
    with new_fork_server(), forked_steps("tasks.scoring.job"):
        run_step("tests.runtime.programs.steps:score_and_die", sent, tmp_path / "log", events.append)
    restarts = [one for one in events if isinstance(one, StepWarning) and one.message.endswith("started again.")]
    assert len(restarts) == 4 > children.LOSSES and dropout_reports(events) == [1, 2, 3, 4, 5]
    passes, expected = (np.load(one / "passes.npy", allow_pickle=False) for one in (folder, scores))
    assert (passes == expected[:5]).all()
    for file in ("passes.json", "test.jsonl", "calibration.jsonl"):
        assert (folder / file).read_bytes() == (scores / file).read_bytes()
    assert not kept_passes(folder).exists()


def test_a_pass_that_is_kept_counts_only_if_it_is_whole_and_of_the_same_inputs(study, tmp_path, monkeypatch):
    spec, args, scores = study["tiny-llama", "balanced_safe"]
    few = spec.model_copy(update={"scoring": spec.scoring.model_copy(update={"passes": 3, "generated_cases": 0})})
    writes = itertools.count()

    def fsync(number: int) -> None:
        if next(writes) == 3:  # the rules and two passes were written
            raise OSError(errno.ENOSPC, "No space left on device")

    def scored(folder: str, one: ExperimentSpec) -> list[int]:
        events: list[Event] = []
        score(args | {"experiment": one.model_dump(mode="json")}, tmp_path / folder, events.append)
        return dropout_reports(events)

    with monkeypatch.context() as patch, pytest.raises(BadInput, match=r"^The disk is full: .*2\.npz"):
        patch.setattr(os, "fsync", fsync)
        scored("full", few)
    shutil.copytree(kept_passes(tmp_path / "full"), kept_passes(tmp_path / "other"))
    first, _ = sorted(kept_passes(tmp_path / "full").rglob("*.npz"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)

    expected = np.load(scores / "passes.npy", allow_pickle=False)[:3]
    assert scored("full", few) == [1, 3], "the second alone is whole"
    assert (np.load(tmp_path / "full" / "passes.npy", allow_pickle=False) == expected).all()
    assert scored("other", few.model_copy(update={"seed": spec.seed + 1})) == [1, 2, 3]
    other = np.load(tmp_path / "other" / "passes.npy", allow_pickle=False)
    assert (np.abs(other - expected).max(axis=2) > 0).all()


@BOTH
def test_greedy_answers_equal_stock_generation_and_their_text_is_not_stored(study, model, monkeypatch):
    spec, args, scores = study[model, "balanced_safe"]
    stock, _ = in_stock(args)
    stack = load_variant(Path(args["variant"]), backend().compute_path)
    adapted = add_lora(stack, spec.recipe, spec.training, spec.seed)
    load_weights(adapted, Path(args["folder"]) / "adapters.safetensors")
    template = load_template(Path(args["variant"]), DEFAULT)
    loaded = load_set(Path(args["data"]), "test", template, spec.training.max_tokens)
    monkeypatch.setattr(scorer, "MAX_TOKENS", 4)

    answers = greedy_answers(adapted, loaded.cases, [0, 5, 9], template, quiet)
    ends = {template.tokenizer.eos_token_id, template.completions[0][template.label_lengths[0]]}
    for tokens, case in zip(answers, (0, 5, 9), strict=True):
        prompt = list(loaded.cases.encoded[case].prompt)
        logits = np.array(stock(mx.array([prompt + tokens]))[0, len(prompt) - 1 :])
        followed_by = [[token] for token in tokens] + [list(ends)]
        below = [row.max() - row[some].max() for row, some in zip(logits, followed_by, strict=True)]
        assert max(below[:4]) <= near(1e-4, LOGITS), "each token is stock's most probable one, or as good as"
        if backend().compute_dtype == "float32":
            steps = generate_step(mx.array(prompt), stock, max_tokens=4)
            assert tokens == list(itertools.takewhile(lambda token: token not in ends, (token for token, _ in steps)))

    kept_lines = lines(scores / "answers.jsonl")
    assert len(kept_lines) == 3 and all(set(line) == {"case_id", "exact", "label"} for line in kept_lines)


def base_of(spec, args):
    return base_folder(fetch_base(spec.model, Path(args["home"])), Path(args["home"]))


def at_8_bits(spec, args):
    source = fetch_base(spec.model, Path(args["home"]))
    return run_quantize({"source": str(source), "root": args["home"], "bits": 8, "group_size": 64})["folder"]


def fidelity(spec, args, base, variants, **values):
    common = {"reference": str(base), "cases": 10, "data": args["data"], "home": args["home"], "variants": variants}
    return job.run_fidelity(common | {"training": spec.training.model_dump(mode="json")} | values, quiet)


@pytest.fixture(scope="module")
def measured(study):
    """The fidelity of both quantised models, and of the unquantised one to itself."""
    spec, args, _ = study["tiny-llama", "baseline"]
    base = base_of(spec, args)
    return fidelity(spec, args, base, {"4": args["variant"], "8": at_8_bits(spec, args), "0": str(base)})


def test_fidelity_is_measured_against_the_unquantised_model_and_8_bits_are_closer_than_4(study, measured):
    spec, args, _ = study["tiny-llama", "baseline"]
    base = base_of(spec, args)
    figures = {bits: measured["figures"][bits]["vocabulary"] for bits in measured["figures"]}
    assert measured["set_cases"] == CASES and figures["4"]["cases"] == 10
    assert figures["4"]["kl_mean"] > 10 * figures["8"]["kl_mean"] > 0
    assert figures["0"]["kl_max"] < 1e-9 and figures["0"]["perplexity_ratio"] == pytest.approx(1, abs=1e-5)
    model, _ = load_model(base)
    model.set_dtype(mx.float32)
    loaded = load_set(Path(args["data"]), "test", load_template(base, DEFAULT), spec.training.max_tokens)

    case_numbers = sample_numbers([r["case_id"] for r in loaded.records], [r["label"] for r in loaded.records], 10)
    nll = 0.0
    count = 0
    for case in case_numbers:
        tokens = mx.array(loaded.cases.encoded[case].prompt)
        losses = nn.losses.cross_entropy(model(tokens[None, :-1])[0], tokens[1:])[loaded.cases.leading :]
        nll = nll + losses.sum().item()
        count = count + losses.size

    assert figures["4"]["text_tokens"] == count
    assert figures["4"]["reference_perplexity"] == pytest.approx(np.exp(nll / count), rel=1e-4)


def test_fidelity_holds_neither_the_logits_of_the_sample_nor_those_of_a_long_case(study, measured, monkeypatch):
    spec, args, _ = study["tiny-llama", "baseline"]
    base = base_of(spec, args)
    whole = measured["figures"]["4"]
    before = {path.name for path in Path(args["home"]).iterdir()}
    positions, kinds = [], []

    def watched(stack, hidden):
        positions.append(len(hidden))
        return project(stack, hidden)

    def figures_of(*models):
        kinds.extend(type(one.logits) for one in models)
        return fidelity_figures(*models)

    monkeypatch.setattr(job, "project", watched)
    monkeypatch.setattr(job, "fidelity_figures", figures_of)
    monkeypatch.setattr(job, "LOGIT_BYTES", 16 * 4 * json.loads((base / "config.json").read_text())["vocab_size"])
    in_blocks = fidelity(spec, args, base, {"4": args["variant"]})["figures"]["4"]
    assert 4 < min(positions) < 16 and max(positions) <= 16 and kinds == [np.memmap] * 2
    assert all(in_blocks[name] == pytest.approx(whole[name], rel=1e-4) for name in ("vocabulary", "labels"))
    assert {path.name for path in Path(args["home"]).iterdir()} == before


def test_fidelity_of_a_set_with_one_case_has_no_perplexity_and_nan_is_refused(study, tmp_path):
    spec, args, _ = study["tiny-llama", "baseline"]
    data = shutil.copytree(args["data"], tmp_path / "data")
    (data / "test.jsonl").write_text((data / "test.jsonl").read_text().splitlines(keepends=True)[0])
    base = base_of(spec, args)
    here = {"data": str(data), "home": str(tmp_path)}
    measured = fidelity(spec, args, base, {"4": args["variant"]}, **here)
    vocabulary = measured["figures"]["4"]["vocabulary"]
    assert measured["set_cases"] == vocabulary["cases"] == 1
    assert vocabulary["kl_mean"] > 0 and vocabulary["perplexity"] is None

    damaged = shutil.copytree(args["variant"], tmp_path / "damaged")
    weights = mx.load(str(damaged / "model.safetensors"))
    mx.eval(weights)
    name = next(key for key in weights if key.endswith("norm.weight"))
    mx.save_safetensors(str(damaged / "model.safetensors"), weights | {name: weights[name] * float("nan")})
    seal_again(damaged)
    with pytest.raises(TriageError, match="logits that are not finite"):
        fidelity(spec, args, base, {"4": str(damaged)}, **here)


def test_the_settings_digest_covers_what_has_no_column_and_neither_bits_nor_seed_nor_memory(study):
    spec, args, _ = study["tiny-llama", "balanced_safe"]
    dataset = DatasetManifest.read(Path(args["data"]))

    def digest(training=None, recipe=None, **values):
        parts = {"training": spec.training.model_copy(update=training), "recipe": spec.recipe.model_copy(update=recipe)}
        return settings_digest(spec.model_copy(update=parts | values), dataset)

    same = [digest(), digest(seed=7), digest(bits=8), digest({"memory": "9GB"}), digest(recipe={"name": "other"})]
    assert {*same, digest(recipe={"target_ed_recall": 0.8, "primary_rule": "min_cost"})} == {digest()}
    of_training = {"decay": "cosine", "max_gradient_norm": 0.5, "patience": 9, "max_tokens": 64, "warmup_ratio": 0.3,
                   "weight_decay": 0.5, "evaluate_every": 7, "target_modules": ("self_attn.q_proj",)}  # fmt: skip
    changed = [digest({key: value}) for key, value in of_training.items()]
    changed += [digest(recipe={"class_weights": {"ED": 9, "GP": 1, "HOME": 1}}), digest(recipe={"cost_matrix": None})]
    assert len({digest(), *changed}) == 11


def test_the_rules_are_written_before_the_first_test_case_is_scored(study, monkeypatch, tmp_path):
    spec, args, scores = study["tiny-llama", "balanced_safe"]
    few = spec.model_copy(update={"scoring": spec.scoring.model_copy(update=FEW)})
    written: list[bool] = []

    def watched(adapted, prefix):
        written.append(any(tmp_path.glob(".tmp-*/rules.json")))
        return score_cases(adapted, prefix)

    monkeypatch.setattr(scorer, "score_cases", watched)
    score(args | {"experiment": few.model_dump(mode="json")}, tmp_path / "scores")
    assert written == [False, True]
    assert "rules.json" in verify(tmp_path / "scores")["files"]
    rows = rows_of(spec, args, scores)["decision_rule"]
    assert [r["rule"] for r in rows] == ["argmax", "target_recall", "min_cost"]
    assert all(datetime.fromisoformat(r["chosen_at"]) <= datetime.fromisoformat(r["test_scored_at"]) for r in rows)
    assert {r["calibration_digest"] for r in rows} == {verify(Path(args["data"]))["sets"]["calibration"]["digest"]}


def test_the_rules_that_decide_are_the_stored_ones(study, tmp_path):
    """If the rules were chosen again, another record would change nothing."""
    spec, args, scores = study["tiny-llama", "balanced_safe"]
    before = rows_of(spec, args, scores)
    other = shutil.copytree(scores, tmp_path / scores.name)
    record = json.loads((other / "rules.json").read_text())
    calibration = [r for r in lines(other / "calibration.jsonl") if r["label"] == "ED"]
    chosen = record["rules"]["target_recall"]["threshold"]
    below = [r["p"]["ED"] < chosen["value"] for r in calibration]
    assert (sum(below), chosen["n_ed"]) == (chosen["misses"], len(below)), "chosen on the calibration cases"
    chosen["value"] = 2.0
    (other / "rules.json").write_text(json.dumps(record))
    seal_again(other)
    after = rows_of(spec, args, other)
    assert before["evaluation"][0]["threshold"] < 1
    assert after["evaluation"][0]["threshold"] == 2
    assert "ED" not in {p["decision"] for p in after["prediction"]}


def test_an_evaluation_that_fails_leaves_the_landed_training_and_its_other_evaluations(study, tmp_path, monkeypatch):
    """Overwritten as failed, the training would take every evaluation that it has out of all comparisons."""
    spec, args, scores = study["tiny-llama", "balanced_safe"]
    monkeypatch.setenv("TRIAGE_HOME", args["home"])
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "triage.duckdb"))
    ids = args["training_id"], scores.name, Path(args["variant"]), Path(args["data"])
    land.fn(spec, *ids)
    land_failure(spec, Path(args["variant"]), Path(args["data"]), RuntimeError("the disk was full"))
    kept_rows = query("SELECT status, error, evaluation_id FROM experiment JOIN evaluation USING (training_id)")
    assert kept_rows.error.isna().all()
    assert kept_rows[["status", "evaluation_id"]].values.tolist() == [["completed", evaluation_id(scores.name)]]
    (Path(args["home"]) / "landing" / args["training_id"]).rename(tmp_path / "gone")
    land_failure(spec, Path(args["variant"]), Path(args["data"]), RuntimeError("the first evaluation failed"))
    assert query("SELECT status FROM experiment").status.tolist() == ["failed"], "nothing had landed: it is told"
    land.fn(spec, *ids)
    assert query("SELECT status FROM experiment").status.tolist() == ["completed"], "it is there after all"


def test_a_moved_adapter_is_judged_by_its_own_rules_and_by_those_chosen_again(study, tmp_path, monkeypatch):
    """A threshold chosen on the other weights makes up for the shift that the first arm is there to show."""
    spec, args, scores = study["tiny-llama", "balanced_safe"]
    few = spec.model_copy(update={"scoring": spec.scoring.model_copy(update=FEW)})
    other = args | {"variant": at_8_bits(spec, args), "experiment": few.model_dump(mode="json")}
    score(other, tmp_path / "moved", rules_from=str(scores))
    score(other, tmp_path / "anew")
    kept_texts, chosen = ((tmp_path / name / "rules.json").read_text() for name in ("moved", "anew"))
    assert kept_texts == (scores / "rules.json").read_text() != chosen
    assert lines(tmp_path / "moved" / "test.jsonl") == lines(tmp_path / "anew" / "test.jsonl"), "scored alike"
    (own_values,), (arm,) = (rows_of(spec, args, folder)["evaluation"] for folder in (scores, tmp_path / "moved"))
    assert own_values["threshold"] == arm["threshold"]

    said = []
    kept = tmp_path / "moved"
    score(other, tmp_path / "again", said.append, rules_from=str(scores), judged_from={"test": str(kept)})
    progress = {event.what for event in said if isinstance(event, ProgressReport)}
    assert {what for what in progress if what.startswith("scored")} == {"scored calibration"}
    for file in ("test.jsonl", "passes.npy", "passes.json"):
        assert (tmp_path / "again" / file).read_bytes() == (kept / file).read_bytes()
    assert lines(tmp_path / "again" / "calibration.jsonl") == lines(tmp_path / "anew" / "calibration.jsonl")
    rules, anew = (json.loads((tmp_path / name / "rules.json").read_text())["rules"] for name in ("again", "anew"))
    assert rules["target_recall"] == anew["target_recall"] != json.loads(kept_texts)["rules"]["target_recall"]
    assert rules["argmax"]["scaling"] is not None is anew["argmax"]["scaling"]

    # A further set has the same rules, and no model runs for it.
    further = {"sets": {"few": str(tmp_path / "few")}, "judged_from": {"few": str(kept)}}
    score(other, tmp_path / "again", quiet, rules_from=str(tmp_path / "again"), **further)
    assert (tmp_path / "few" / "rules.json").read_bytes() == (tmp_path / "again" / "rules.json").read_bytes()

    dataset = DatasetManifest.read(Path(args["data"]))
    rows = {
        name: evaluation_rows(spec, tmp_path / name, dataset, is_moved=name == "moved") for name in ("again", "moved")
    }
    assert rows["moved"]["calibration_prediction"] == [] and len(rows["again"]["calibration_prediction"]) == 24
    of_ed = [case["p_ed"] for case in rows["again"]["calibration_prediction"] if case["label"] == "ED"]
    assert rows["again"]["evaluation"][0]["threshold"] in of_ed
    disclaimed = ["no guarantee here" in (rows[name]["conformal"][0]["note"] or "") for name in ("moved", "again")]
    assert disclaimed == [True, False]

    cases = scores_folder.read_cases
    monkeypatch.setattr(scorer, "read_cases", lambda path: [case for case in cases(path) if case.label != "ED"])
    with pytest.raises(BadInput, match="moved adapter cannot be chosen again, since calibration has no ED case"):
        score(other, tmp_path / "none", quiet, rules_from=str(scores), judged_from={"test": str(kept)})
    assert not (tmp_path / "none").exists(), "the rules that it had are not taken in their place"
