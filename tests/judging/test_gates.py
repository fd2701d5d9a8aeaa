from types import SimpleNamespace

import pytest

from tasks.judging import gates as module
from tasks.judging.intervals import CLUSTERED, EXACT


def judge_gates(*args, **options):
    """The gates, with their columns as attributes, and the verdict."""
    gates, verdict = module.judge_gates(*args, **options)
    return [SimpleNamespace(**gate) for gate in gates], verdict


def emergencies(n, misses, others=100, alarms=0):
    """Labels and decisions: n emergencies with some misses, other cases with some false alarms."""
    decisions = ["GP"] * misses + ["ED"] * (n - misses) + ["ED"] * alarms + ["GP"] * (others - alarms)
    return ["ED"] * n + ["GP"] * others, decisions


def states(*args, **options):
    gates, verdict = judge_gates(*args, **options)
    return {gate.gate: gate.state for gate in gates} | {"verdict": verdict}


@pytest.mark.parametrize(("misses", "n"), [(0, 72), (1, 110), (9, 338)])
@pytest.mark.parametrize("grouped", [False, True])
def test_enough_emergencies_pass_and_one_fewer_is_provisional(misses, n, grouped):
    groups = [f"g{i}" for i in range(n + 100)] if grouped else None
    assert set(states(*emergencies(n, misses), groups).values()) == {"PASS", "passes_gates"}
    fewer = states(*emergencies(n - 1, misses), groups and groups[:-1])
    assert fewer["ed_recall"] == fewer["ed_false_negative_rate"] == "PROVISIONAL"
    assert fewer["ed_f2"] == "PASS" and fewer["verdict"] == "provisional"


@pytest.mark.parametrize(
    ("cases", "recall", "f2", "verdict"),
    [
        (emergencies(36, 0), "PROVISIONAL", "PASS", "provisional"),
        (emergencies(20, 1), "PROVISIONAL", "PROVISIONAL", "provisional"),
        (emergencies(100, 6), "FAIL", "PASS", "unsafe"),
        ((["ED"] * 338 + ["GP"] * 1500, ["ED"] * 1838), "PASS", "FAIL", "unsafe"),
        (emergencies(110, 0, others=400, alarms=50), "PASS", "PROVISIONAL", "provisional"),
    ],
    ids=["36 of 36", "at the gate", "below it", "always ED", "many alarms"],
)
def test_the_states_of_the_gates_and_the_verdict_that_they_give(cases, recall, f2, verdict):
    outcome = states(*cases)
    assert outcome["ed_recall"] == outcome["ed_false_negative_rate"] == recall
    assert (outcome["ed_f2"], outcome["verdict"]) == (f2, verdict)


def test_misses_that_cluster_in_one_condition_or_few_conditions_take_the_pass_away():
    """9 misses of 338 pass when independent; when they are one condition of twelve they could as well have been more."""
    labels, decisions = emergencies(338, 9)
    clustered = ["missed" if i < 9 else f"g{i % 11}" for i in range(338)] + [f"o{i % 20}" for i in range(100)]
    gate = judge_gates(labels, decisions, clustered)[0][0]
    assert gate.state == "PROVISIONAL" and gate.method == CLUSTERED and gate.bound < 0.95

    groups = [f"g{i % 9}" for i in range(300)] + [f"o{i}" for i in range(100)]
    gates, verdict = judge_gates(*emergencies(300, 0), groups)
    assert verdict == "provisional" and {g.state for g in gates} == {"PROVISIONAL"}
    assert "9 groups are too few" in gates[0].note and "9 groups are too few" in gates[1].note


def test_without_an_emergency_and_among_emergencies_alone_gates_are_not_available_and_nothing_passes():
    gates, verdict = judge_gates(["GP", "HOME"], ["GP", "HOME"])
    assert verdict == judge_gates([], [])[1] == "unsafe"
    assert all((g.state, g.value, g.bound, g.n) == ("NOT AVAILABLE", None, None, 0) for g in gates)
    gates, verdict = judge_gates(["ED"] * 80, ["ED"] * 80)
    assert [gate.state for gate in gates] == ["PASS", "NOT AVAILABLE", "PASS"] and verdict == "unsafe"
    assert gates[1].note == "not available: emergencies only in this set" and gates[1].value is None


def test_gates_carry_counts_bound_method_and_what_they_assume():
    recall, f2, fnr = judge_gates(*emergencies(110, 1))[0]
    assert (recall.successes, recall.n, recall.method, recall.note) == (109, 110, EXACT, "assumes independent cases")
    assert recall.bound == pytest.approx(0.9503888, abs=1e-6) and recall.threshold == 0.95
    assert (fnr.successes, fnr.n, fnr.value, fnr.threshold) == (1, 110, 1 / 110, 0.05)
    assert fnr.bound == pytest.approx(1 - recall.bound) and fnr.note.startswith("1 - ed_recall: the same evidence")
    assert f2.successes is None and f2.n == 210 and "assumes independent cases" in f2.note
    of_80, of_60 = (judge_gates(*emergencies(80, 0, others, alarms))[0][1] for others, alarms in ((40, 40), (60, 0)))
    assert of_80.state == "PASS" and "always-ED has 0.909" in of_80.note and "always-ED" not in str(of_60.note)
