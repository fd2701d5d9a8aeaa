"""The examples in a prompt: no set may hold one."""

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
from tasks.grids.grid import GRIDS
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.spec import Data, EvaluationSet, PromptChoice
from tests.corpus.test_check import folder, rows

WITH_EXAMPLES = PromptChoice(version=2)
EXAMPLES = {example.label: example.text for example in load_prompt(WITH_EXAMPLES).examples}


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """Writes a grid on four small given sets, of which one ends with an extra text; returns its path."""
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(console, "width", 1000)  # a sentence stays on one line, however long its path

    def write(extra: str, where: str = "valid") -> Path:
        sets = {name: rows(30, 100 * n) for n, name in enumerate(SETS)}
        sets[where].append({"id": "extra", "text": extra, "label": "GP"})
        folder(tmp_path / "cases", **sets)
        smoke = (GRIDS / "smoke.toml").read_text()
        own = '[data]\nsource = "cases"\n\n[prompt]\nversion = 2\n\n'
        path = tmp_path / "mine.toml"
        path.write_text(smoke[: smoke.index("[data]")] + own + smoke[smoke.index("[scoring]") :])
        return path

    return write


@pytest.mark.parametrize(
    ("where", "changed"),
    [("train", str), ("valid", str.upper), ("calibration", str), ("test", lambda text: f"Please help. {text}")],
)
def test_a_set_that_holds_an_example_or_nearly_is_refused_before_anything_runs(where, changed, grid):
    selection = select(str(grid(changed(EXAMPLES["HOME"]), where)))
    of_example = "is the text, or nearly the text, of the example HOME in prompt 2"
    with pytest.raises(
        BadInput, match=rf"^Case extra in {where} {of_example} .*; leave the case out, or set"
    ) as caught:
        check(selection)
    assert EXAMPLES["HOME"] not in str(caught.value)
    check_examples(prepare_dataset(selection.grid.data, home()), [PromptChoice()])


def test_the_data_check_finds_an_example(grid):
    fails = CliRunner().invoke(app, ["data", "check", str(grid(EXAMPLES["ED"]))], env={"COLUMNS": "200"})
    assert fails.exit_code == 1 and "examples of the prompt" in fails.stdout
    assert "valid.jsonl, line 31 is the ED one (100%)" in fails.stdout
    passes = CliRunner().invoke(app, ["data", "check", str(grid("a story"))], env={"COLUMNS": "200"})
    assert passes.exit_code == 0


def test_no_embedded_set_holds_an_example(tmp_path):
    adversarial = EvaluationSet(name="test_adversarial", source="embedded")
    check_examples(prepare_dataset(Data(), tmp_path, (adversarial,)), [WITH_EXAMPLES])
