"""A grid's own prompt, from training to scores: examples are shared tokens, and answers count to their full length."""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.prompts import load_prompt
from tasks.grids.grid import known_models, load_grid
from tasks.spec import LABELS, ExperimentSpec, PromptChoice, experiments
from tasks.tuning.data import load_set, load_template
from tests.scoring.trained import in_stock, train_and_score

WORDS = {"ED": "emergency", "GP": "doctor", "HOME": "home"}
SETTINGS = [
    "bits=[4]", "prompt.version=2", "prompt.answers={ ED = 'emergency', GP = 'doctor', HOME = 'home' }",
    "training.max_tokens=1024", "training.evaluate_every=2", "scoring.passes=2", "scoring.generated_cases=0",
    "recipe.iterations=2", "data.limits={ train = 6, valid = 3, calibration = 6, test = 6 }",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    home = tmp_path_factory.mktemp("prompt")
    patch.setenv("TRIAGE_HOME", str(home))
    grid = load_grid("smoke", SETTINGS)
    data = prepare_dataset(grid.data, home)
    spec = next(
        spec
        for spec in experiments(grid, known_models(grid))
        if (spec.model.name, spec.recipe.name) == ("tiny-llama", "balanced_safe")
    )
    yield spec, *train_and_score(spec, data, home)
    patch.undo()


def test_the_examples_are_among_the_tokens_that_all_cases_share(trained):
    spec, args, _ = trained
    template = load_template(Path(args["variant"]), spec.prompt)
    cases = load_set(Path(args["data"]), "test", template, spec.training.max_tokens).cases
    shared = template.tokenizer.decode(list(cases.leading_tokens))
    prompt = load_prompt(spec.prompt)
    assert prompt.instruction in shared and cases.per_case == len(LABELS)
    assert all(example.text in shared for example in prompt.examples)
    assert all(shared.count(word) > 1 for word in WORDS.values()), "in the instruction and in an example"
    last = shared.rindex(prompt.examples[-1].text) + len(prompt.examples[-1].text)
    assert prompt.answer(prompt.examples[-1].label) in shared[last:]


def test_probabilities_are_those_of_the_whole_answers_in_stock_mlx_lm(trained):
    spec, args, scores = trained
    stock, _ = in_stock(args)
    template = load_template(Path(args["variant"]), spec.prompt)
    cases = load_set(Path(args["data"]), "test", template, spec.training.max_tokens).cases
    scored = [json.loads(line) for line in (scores / "test.jsonl").read_text().splitlines()]
    assert max(template.label_lengths) > 1

    for number, entry in enumerate(scored[:4]):
        prompt = cases.encoded[number].prompt
        logp = []
        for completion, length in zip(template.completions, template.label_lengths, strict=True):
            tokens = mx.array([*prompt, *completion[:length]])
            losses = nn.losses.cross_entropy(stock(tokens[None, :-1])[0], tokens[1:])
            logp.append(-losses[len(prompt) - 1 :].sum().item())
        expected = np.exp(np.array(logp) - max(logp))
        assert [entry["p"][label] for label in LABELS] == pytest.approx(expected / expected.sum(), abs=1e-4)

    training = json.loads((Path(args["folder"]) / "training.json").read_text())
    assert ExperimentSpec.model_validate(training["spec"]) == spec
    assert training["prompt"] == json.loads(json.dumps(load_prompt(spec.prompt).as_dict()))
    assert training["prompt"]["answers"] == WORDS
    assert "prompt" not in spec.model_copy(update={"prompt": PromptChoice()}).model_dump()
