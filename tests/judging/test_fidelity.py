import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from tasks.judging.fidelity import Predicted, divergences, fidelity_figures


def predicted(logits, label_logp=None, nll=100.0):
    return Predicted(logits, logits[:, :3] if label_logp is None else label_logp, nll, 50)


def test_every_divergence_equals_scipys():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 5, (50, 300))
    b = rng.normal(0, 5, (50, 300))
    assert divergences(a, b) == pytest.approx(entropy(softmax(a, axis=1), softmax(b, axis=1), axis=1), rel=1e-9)


def test_the_tail_is_seen_where_the_median_is_calm():
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(1000, 40))
    other = reference.copy()
    other[:3] = -other[:3] * 4
    figures = fidelity_figures(predicted(reference), predicted(other, nll=110.0))
    vocabulary = figures["vocabulary"]
    kl = divergences(reference, other)
    assert vocabulary["kl_median"] == pytest.approx(0, abs=1e-9) and vocabulary["kl_max"] == pytest.approx(kl.max())
    assert vocabulary["kl_p999"] == pytest.approx(np.percentile(kl, 99.9)) and vocabulary["kl_p999"] > 1
    assert vocabulary["same_top1"] == pytest.approx(0.997)
    assert vocabulary["perplexity_ratio"] == pytest.approx(np.exp(0.2))


@pytest.mark.parametrize(("cases", "missing"), [(99, ["kl_p99", "kl_p999"]), (100, ["kl_p999"]), (1000, [])])
def test_a_percentile_beyond_which_no_case_lies_is_not_read_off_between_two_others(cases, missing):
    logits = np.random.default_rng(3).normal(size=(cases, 40))
    figures = fidelity_figures(predicted(logits), predicted(-logits))["labels"]
    assert [name for name in ("kl_p95", "kl_p99", "kl_p999") if figures[name] is None] == missing
    assert cases > 99 or figures["note"] == "no percentile 99 % and 99.9 % of 99 cases"


def test_a_model_against_itself_differs_in_nothing_and_without_a_token_of_the_messages_there_is_no_perplexity():
    logits = np.random.default_rng(1).normal(size=(20, 40)).astype(np.float32)
    for figures in fidelity_figures(predicted(logits), predicted(logits + 3)).values():  # a shift changes no softmax
        assert figures["kl_max"] == pytest.approx(0, abs=1e-6) and figures["same_top1"] == 1
        assert figures["perplexity_ratio"] == 1 and "perplexity" not in figures["note"]

    one = Predicted(np.array([[1.0, 0.0, 0.5]]), np.array([[1.0, 0.0, 0.5]]), 0.0, 0)
    for figures in fidelity_figures(one, one).values():
        assert figures["perplexity"] is figures["reference_perplexity"] is figures["perplexity_ratio"] is None
        assert "single case" in figures["note"] and figures["kl_max"] == 0


def test_standard_errors_are_those_of_a_bootstrap_over_the_cases():
    rng = np.random.default_rng(5)
    count = 400
    logits = rng.normal(size=(count, 40))
    other = logits + rng.normal(0, 0.8, size=logits.shape)
    tokens = rng.integers(5, 60, count).astype(float)
    before = tokens * 2 + rng.normal(0, 3, count)
    after = before + 0.1 * tokens + rng.normal(0, 2, count)

    def of(values, nll):
        return Predicted(values, values[:, :3], nll.sum(), int(tokens.sum()), np.stack([nll, tokens], axis=1))

    figures = fidelity_figures(of(logits, before), of(other, after))["vocabulary"]
    drawn = rng.integers(0, count, (1000, count))
    kl = divergences(logits, other)
    same = np.argmax(logits, axis=1) == np.argmax(other, axis=1)
    ratio = np.exp((after - before)[drawn].sum(axis=1) / tokens[drawn].sum(axis=1))
    for name, resampled in (("kl_mean", kl[drawn].mean(axis=1)), ("same_top1", same[drawn].mean(axis=1)),
                            ("perplexity_ratio", ratio)):  # fmt: skip
        assert figures[f"{name}_se"] == pytest.approx(resampled.std(), rel=0.1), name

    one = fidelity_figures(of(logits, before), of(logits, before))["labels"]
    assert (one["kl_mean_se"], one["same_top1_se"], one["perplexity_ratio_se"]) == (0, 0, 0)
