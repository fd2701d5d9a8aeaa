"""Training and scoring as their child processes run them, on tiny models: stock agrees, dropout is alive."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load

from tasks.corpus.encode import make_template
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.prompts import load_prompt
from tasks.grid import known_models, load_grid
from tasks.identity import evaluation_of, scores_folder, training_of
from tasks.models.convert import run_quantize
from tasks.models.sources import fetch_base
from tasks.runtime.errors import TriageError
from tasks.runtime.store import verify
from tasks.scoring import job, mc_dropout
from tasks.scoring.rows import evaluation_rows
from tasks.spec import LABELS, experiments
from tasks.tuning import job as training_job


def quiet(event):
    pass


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Both architectures trained under the smoke grid's two recipes, and scored with 20 dropout passes."""
    patch = pytest.MonkeyPatch()
    home = tmp_path_factory.mktemp("study")
    patch.setenv("TRIAGE_HOME", str(home))
    grid = load_grid("smoke", ["bits=[4]", "scoring.passes=20", "scoring.generated_cases=3", "recipe.iterations=3"])
    data = prepare_dataset(grid.data, home)
    done = {}
    for spec in experiments(grid, known_models(grid)):
        source = fetch_base(spec.model, home)
        variant = run_quantize({"source": str(source), "root": str(home), "bits": 4, "group_size": 64})["folder"]
        training = training_of(spec, variant, data)
        args = {"experiment": spec.model_dump(mode="json"), "training_id": training, "variant": variant, "data": str(data),
                "home": str(home), "folder": str(home / "experiments" / training)}  # fmt: skip
        training_job.run(args, quiet)
        scores = scores_folder(spec, training, data)
        job.run(args | {"scores": str(scores)}, quiet)
        done[spec.model.name, spec.recipe.name] = (spec, args, scores)
    yield done
    patch.undo()


def lines(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gemma3"])
def test_the_adapter_loads_in_stock_mlx_lm_and_gives_the_same_label_probabilities(study, model):
    _, args, scores = study[model, "balanced_safe"]
    stock, tokenizer = load(args["variant"], adapter_path=args["folder"])
    stock.set_dtype(mx.float32)
    stock.eval()
    chat = verify(Path(args["variant"]), deep=False)["prompt"] == "chat"
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
        ours = [scored["p"][label] for label in LABELS]
        assert ours == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gemma3"])
def test_twenty_passes_give_twenty_distinct_probability_vectors(study, model):
    _, _, scores = study[model, "balanced_safe"]
    passes = np.load(scores / "passes.npy", allow_pickle=False)
    assert passes.shape == (20, 6, 3)
    for case in range(passes.shape[1]):
        assert len(np.unique(passes[:, case], axis=0)) == 20
    assert passes.sum(axis=2) == pytest.approx(1)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gemma3"])
def test_dropout_zero_says_not_available_and_gives_no_entropy(study, model):
    spec, args, scores = study[model, "baseline"]
    rows = evaluation_rows(spec, args["training_id"], scores.name, scores, verify(Path(args["data"])))
    assert rows["evaluation"][0]["mc_status"] == "not available"
    assert "dropout 0" in rows["evaluation"][0]["mc_reason"]
    assert rows["mc_dropout"] == []


def test_dead_dropout_is_refused_not_reported_as_certainty(study, monkeypatch, tmp_path):
    """The earlier attempt's defect: evaluation mode left dropout off, and every vote was unanimous."""
    from tasks.tuning.lora import KeyedDropout

    spec, args, _ = study["tiny-llama", "balanced_safe"]
    monkeypatch.setattr(KeyedDropout, "__call__", lambda self, x: x)
    with pytest.raises(TriageError, match="dropout was not active"):
        job.run(args | {"scores": str(tmp_path / "dead")}, quiet)
    assert not (tmp_path / "dead").exists()
    assert spec.seed != mc_dropout.PASS_KEY


def test_rows_hold_no_patient_text_and_their_figures_follow_from_the_scores(study):
    spec, args, scores = study["tiny-llama", "balanced_safe"]
    rows = evaluation_rows(spec, args["training_id"], scores.name, scores, verify(Path(args["data"])))
    text = json.dumps(rows, default=str)
    assert not any(r["text"] in text for r in lines(Path(args["data"]) / "test.jsonl"))
    predictions = rows["prediction"]
    assert scores.name == evaluation_of(spec, args["training_id"], args["data"])
    hits = np.mean([p["argmax"] == p["label"] for p in predictions])
    accuracy = rows["evaluation"][0]["accuracy"]
    assert accuracy == pytest.approx(hits)
    assert all(max(LABELS, key=lambda c: p[f"p_{c.lower()}"]) == p["argmax"] for p in predictions)
