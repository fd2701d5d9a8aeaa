"""The examples in a prompt: no set may hold one."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.terminal import console
from flows.selection import check, select
from tasks.corpus.case import SETS
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.prompts import load_prompt
from tasks.corpus.splits import check_examples
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.spec import LABELS, Data, EvaluationSet, PromptChoice

WITH_EXAMPLES = PromptChoice(version=2)
EXAMPLES = {example.label: example.text for example in load_prompt(WITH_EXAMPLES).examples}


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """Writes a grid on four small given sets, of which one ends with an extra text; returns its path."""
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(console, "width", 1000)  # a sentence stays on one line, however long its path

    def write(extra: str | None = None, where: str = "valid") -> Path:
        (tmp_path / "cases").mkdir(exist_ok=True)
        for name in SETS:
            texts = [f"story {i} of {name}\u2028is about {i * 7} other things" for i in range(30)]
            rows = [{"id": f"{name}{i}", "text": text, "label": LABELS[i % 3]} for i, text in enumerate(texts)]
            if name == where and extra is not None:
                rows.append({"id": "extra", "text": extra, "label": "GP"})
            (tmp_path / "cases" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

        smoke = (Path(__file__).parents[2] / "deployments/grids/smoke.toml").read_text()
        start = smoke.index("[data]")
        end = smoke.index("[scoring]")
        prompt = '[data]\nsource = "cases"\n\n[prompt]\nversion = 2\n\n'
        (tmp_path / "mine.toml").write_text(smoke[:start] + prompt + smoke[end:])

        return tmp_path / "mine.toml"

    return write


@pytest.mark.parametrize(
    ("where", "changed"),
    [("train", str), ("valid", str.upper), ("calibration", str), ("test", lambda text: f"Please help. {text}")],
)
def test_a_set_that_holds_an_example_or_nearly_is_refused_before_anything_runs(where, changed, grid):
    selection = select(str(grid(changed(EXAMPLES["HOME"]), where)))
    with pytest.raises(BadInput) as caught:
        check(selection)
    sentence = str(caught.value)
    assert sentence.startswith(
        f"Case extra in {where} is the text, or nearly the text, of the example HOME in prompt 2 ("
    )
    assert sentence.endswith("leave the case out, or set prompt.version = 1.") and EXAMPLES["HOME"] not in sentence
    check_examples(prepare_dataset(selection.grid.data, home()), [PromptChoice()])


def test_the_data_check_finds_an_example(grid):
    fails = CliRunner().invoke(app, ["data", "check", str(grid(EXAMPLES["ED"]))], env={"COLUMNS": "200"})
    assert fails.exit_code == 1 and "examples of the prompt" in fails.stdout
    assert "valid.jsonl, line 31 is the ED one (100%)" in fails.stdout
    passes = CliRunner().invoke(app, ["data", "check", str(grid())], env={"COLUMNS": "200"})
    assert passes.exit_code == 0


def test_no_embedded_set_holds_an_example(tmp_path):
    adversarial = EvaluationSet(name="test_adversarial", source="embedded")
    check_examples(prepare_dataset(Data(), tmp_path, (adversarial,)), [WITH_EXAMPLES])
