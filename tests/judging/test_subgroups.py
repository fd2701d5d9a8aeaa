import numpy as np
import pytest

from tasks.judging.metrics import metric_table
from tasks.judging.point_metrics import METRICS
from tasks.judging.subgroups import subgroup_metrics, subgroup_rows
from tasks.spec import LABELS
from tests.warehouse.rows import COSTS


def metrics_in(subgroups, labels, decisions, *args):
    """Metrics by subgroup and name."""
    metrics_by_subgroup = subgroup_metrics(subgroup_rows(subgroups), labels, decisions, *args)
    return {(*key, metric.name): metric for key, metrics in metrics_by_subgroup.items() for metric in metrics}


def test_a_subgroup_has_every_metric_of_its_own_cases_with_interval_and_count():
    voices = ["nurse", "patient"] * 60
    labels = ["ED", "ED", "GP", "HOME"] * 30
    decisions = ["ED" if i % 8 else "GP" for i in range(120)]
    metrics = metrics_in([{"voice": v} for v in voices], labels, decisions, None, COSTS)

    for voice in ("nurse", "patient"):
        rows = [i for i, v in enumerate(voices) if v == voice]
        alone = metric_table([labels[i] for i in rows], [decisions[i] for i in rows], None, COSTS)
        assert [metric.name for metric in alone] == list(METRICS)

        for metric in alone:
            own_value = metrics["voice", voice, metric.name]
            counts = {f"{label.lower()}_": [labels[i] for i in rows].count(label) for label in LABELS}
            few = any(metric.name.startswith(label) and count < 10 for label, count in counts.items())
            assert own_value.value == (None if few else metric.value)
            if not few and metric.method.startswith("exact"):
                assert own_value == metric
            elif not few and metric.low is not None:
                assert (own_value.low, own_value.high) == pytest.approx((metric.low, metric.high), rel=0.1, abs=0.08)

    assert metrics["voice", "nurse", "ed_recall"].value == 0.5 and metrics["voice", "patient", "ed_recall"].value == 1.0
    assert metrics["voice", "nurse", "ed_recall"].n == 30


def test_all_subgroups_have_the_intervals_of_their_own_groups():
    """By hand: whole groups are drawn, and each subgroup takes its cases of them."""
    rng = np.random.default_rng(1)
    groups = [f"g{i % 40}" for i in range(400)]
    labels = [str(x) for x in rng.choice(["ED", "GP"], 400)]
    decisions = [x if rng.random() < 0.5 + (i % 40) / 100 else "HOME" for i, x in enumerate(labels)]
    subgroups = [{"age": "child" if rng.random() < 0.4 else "adult"} for _ in range(400)]
    metrics = metrics_in(subgroups, labels, decisions, groups)["age", "child", "accuracy"]
    child = np.array([s["age"] == "child" for s in subgroups])
    hit = np.array(labels) == np.array(decisions)
    unit = np.array([i % 40 for i in range(400)])
    hits, cases = (np.bincount(unit, weights=x, minlength=40) for x in (child & hit, child))
    drawn = rng.integers(40, size=(4000, 40))
    by_hand = np.quantile(hits[drawn].sum(axis=1) / cases[drawn].sum(axis=1), [0.025, 0.975])
    assert (metrics.clustered_low, metrics.clustered_high) == pytest.approx(tuple(by_hand), abs=0.01)


def test_a_good_average_does_not_hide_a_group_that_is_failed():
    spelling = [{"spelling": "british"}] * 90 + [{"spelling": "american"}] * 10
    decisions = ["ED"] * 90 + ["GP"] * 10
    metrics = metrics_in(spelling, ["ED"] * 100, decisions)["spelling", "american", "ed_recall"]
    assert metrics.value == 0.0 and metrics.high < 0.5


def test_few_cases_are_not_available_with_their_number():
    metrics = metrics_in([{"age_band": "child"}] * 9 + [{}], ["ED"] * 10, ["ED"] * 10)
    recall, accuracy = (metrics["age_band", "child", name] for name in ("ed_recall", "accuracy"))
    assert recall.value is None and recall.n == 9
    assert recall.note == "not available: 9 ED cases of this subgroup are too few (it needs 10)"
    assert accuracy.note == "not available: 9 cases of this subgroup are too few (it needs 10)"
    assert all(metric.value is None and metric.note for metric in metrics.values())
    assert metrics_in([{}], ["ED"], ["ED"]) == {}
