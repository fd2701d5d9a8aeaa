"""The benchmarks outside the package: their arithmetic, and a small run of each."""

from __future__ import annotations

import re
from importlib import import_module

import pandas as pd
import pytest

from tests.bench.common import run
from tests.bench.corpus import difference, figures, verdict
from tests.place import Place, one_sentence

# Arguments of a small run, and what a figure of its table looks like.
SMALL = {
    "training": ("--model tiny-llama --layers 2 --length 40 --repeats 1", r"\de-0\d"),
    "dropout": (
        "--model tiny-llama --layers 2 --cases 6 --passes 30 --scored 20 --seconds 1",
        r"generate_stock .* │ 6 ",
    ),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", SMALL)
def test_a_small_run_prints_its_figures_and_leaves_nothing(name, tmp_path):
    arguments, figure = SMALL[name]
    place = Place(tmp_path / "place", ("-m", f"tests.bench.{name}"), is_new=True)
    result = place.run(*arguments.split(), COLUMNS="200")
    assert result.returncode == 0, result.stderr
    assert re.search(figure, result.stdout), result.stdout
    assert not (place.home / "bench").exists() or not list((place.home / "bench").iterdir())


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("dropout", ["--model", "tiny-lama"], "Unknown base model 'tiny-lama'"),
        ("corpus", ["smoke"], "no warehouse yet"),
    ],
)
def test_a_mistake_is_a_sentence(name, arguments, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        run(getattr(import_module(f"tests.bench.{name}"), name))
    sentence = capsys.readouterr().err
    assert ended.value.code == 2 and words in sentence and one_sentence(" ".join(sentence.split()) + "\n")


def decided(*wrong: int) -> pd.DataFrame:
    """Decisions on 120 cases in groups of three, of which some ED cases are called GP."""
    labels = ["ED", "GP", "HOME"] * 40
    groups = [f"g{i // 3}" for i in range(120)]
    decisions = ["GP" if i in wrong else label for i, label in enumerate(labels)]
    return pd.DataFrame({"case_group": groups, "label": labels, "decision": decisions})


def test_a_model_is_above_the_linear_one_by_the_difference_of_their_figures():
    row = figures("test", "model", decided(), decided(*range(0, 120, 12)))
    # Baseline: 30 of 40 ED found, none in vain: F2 = 5 x 1 x 0.75 / (4 x 1 + 0.75) = 0.789.
    low, high = map(float, re.findall(r"[-+][\d.]+", row["ed_f2, difference"])[1:])
    assert row["ed_f2"] == "1.000" and row["ed_f2, difference"].startswith("+0.211")
    assert 0 < low < 0.211 < high <= 1 and row["earns its place?"] == "yes, by 0.05"
    assert difference("macro_f1", decided(0), decided())[0] < 0
    sure, unsure, below, unknown = (0.06, 0.02, 0.08), (0.06, -0.01, 0.11), (0.01, -0.02, 0.04), (0.06, None, None)
    assert verdict([sure, sure], 0.05) == "yes, by 0.05"
    assert verdict([sure, unsure], 0.05) == verdict([sure, unknown], 0.05) == "cannot conclude"
    assert verdict([sure, (0.04, 0.02, 0.08)], 0.05) == "cannot conclude"
    assert verdict([sure, below], 0.05) == "no, not by 0.05"
