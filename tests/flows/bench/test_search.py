"""`triage bench search`: what a search finds and saves against the same trials, each trained to its end."""

import re

import pytest

from tests.place import Place


@pytest.mark.nightly
def test_the_search_is_compared_with_its_trials_trained_to_the_end_and_the_figures_land(tmp_path):
    place = Place(tmp_path / "place")
    result = place.run("bench", "search", "smoke", "--trials", "3", "--model", "tiny-llama")
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    sentence = result.stdout.splitlines()[-1]
    assert re.match(
        r"The search found \d\.\d{4}, the best of all is \d\.\d{4}: .* It took 16 of 24 updates \(67%\)", sentence
    )
    assert sentence.endswith("1 of 1 finished trainings are, byte for byte, those in one go.")
    figures = place.query("SELECT metric, value, n FROM benchmark WHERE name = 'search'").set_index("metric")
    assert set(figures.n) == {3} and figures.value["share_of_updates"] == pytest.approx(2 / 3)
    assert figures.value["behind"] == pytest.approx(figures.value["found"] - figures.value["best"])
    again = place.run("bench", "search", "smoke", "--trials", "3", "--model", "tiny-llama")
    assert again.stdout.splitlines()[-1] == sentence, "nothing is trained or timed again"
