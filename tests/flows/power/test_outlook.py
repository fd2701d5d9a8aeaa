"""What a plan tells about verdicts is what studies show that are resampled by group from a stored pair.

That the shares are those of the function which compares finished pairs: tests/warehouse/test_verdicts.py.
"""

import re
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from flows.plan import planned_cases
from flows.power.outlook import POWER, _solve, outlook
from flows.power.printed import print_power
from flows.power.stored_pair import stored_pair
from flows.power.studies import VALUES, Studies, planned_set
from flows.selection import Narrowing, select
from tasks.judging.study_draws import GAIN, Behaviour, PairedCounts, PlannedSet
from tasks.runtime.home import home
from tests.flows.power.stored import counted, decisions, store
from warehouse.comparison.verdicts import VerdictShares, verdict_shares
from warehouse.query import query_rows

WITHIN = 0.05


@pytest.fixture
def few(monkeypatch):
    """Few studies a figure, where a test reads sentences."""
    monkeypatch.setattr("flows.power.studies.STUDIES", 60)
    monkeypatch.setattr("flows.power.outlook.STEPS", 2)


def plan_of(stored: PairedCounts) -> Studies:
    return Studies(Behaviour.of(stored), PlannedSet(stored.by_class.sum(-1), stored.names, True))


def simulated_shares(stored: PairedCounts, metric: str, studies: int) -> VerdictShares:
    """Verdicts of studies resampled by group from the pair, with all the resamples of a finished pair."""
    rows = np.random.default_rng(7).integers(0, len(stored.names), (studies, len(stored.names)))
    return verdict_shares(metric, stored.counts[rows], grouped=True)


def gap(estimate: VerdictShares, shares: VerdictShares) -> float:
    pairs = [
        (getattr(estimate, name), getattr(shares, name)) for name in ("not_inferior", "inferior", "cannot_conclude")
    ]
    return max(abs(one - other) for one, other in pairs)


@pytest.mark.parametrize("metric", VALUES)
@pytest.mark.parametrize("losses", [(0.2,), pytest.param((-0.15, 0.0, 0.15, 0.3, 0.45), marks=pytest.mark.nightly)])
def test_told_shares_are_seen_in_a_thousand_studies_over_a_range_of_true_differences(metric, losses):
    """Stored pairs of a latent ability, which is not how the plan draws; each at its own difference."""
    for loss in losses:
        stored = counted(decisions(loss, seed=round(100 * loss) + 50))
        shares = simulated_shares(stored, metric, 1000)
        assert gap(plan_of(stored).shares(metric, None), shares) <= WITHIN


def lowered(pair, points: float, seed: int):
    """The pair after right decisions at 4 bits, wherever they are, became wrong, until it is so many points lower."""
    truth, four, eight, groups = pair
    rng = np.random.default_rng(seed)
    right = rng.permutation(np.nonzero(four == truth)[0])[: round(points / 100 * len(truth))]
    four = four.copy()
    four[right] = (truth[right] + rng.integers(1, 3, len(right))) % 3
    return truth, four, eight, groups


@pytest.mark.nightly
@pytest.mark.parametrize("points", [1.0, 2.0, 3.0])
def test_told_shares_at_another_difference_than_the_stored_one_are_seen_in_pairs_made_worse_at_random(points):
    pair = decisions(0.0, seed=50)
    worse = counted(lowered(pair, points, seed=1))
    estimated_shares = plan_of(counted(pair)).shares("accuracy", plan_of(worse).measured("accuracy"))
    shares = simulated_shares(worse, "accuracy", 1000)
    assert gap(estimated_shares, shares) <= WITHIN


@pytest.mark.nightly
@pytest.mark.parametrize("metric", ["accuracy", "ed_recall"])
def test_differences_and_sizes_that_a_plan_names_have_the_power_that_it_names(metric):
    studies = plan_of(counted(decisions(0.0, seed=50)))
    one = outlook(metric, studies)
    assert studies.shares(metric, one.not_inferior_from).not_inferior == pytest.approx(POWER, abs=0.02)
    assert studies.shares(metric, one.inferior_from).inferior == pytest.approx(POWER, abs=0.02)
    assert one.not_inferior_from > -0.02 and one.inferior_from < -0.02
    enough = one.enough_cases or one.enough_groups
    factor = enough.cases / studies.planned.total
    larger = studies.planned.with_cases(factor) if one.enough_cases else studies.planned.with_groups(enough.groups)
    assert studies.shares(metric, 0.0, larger).not_inferior == pytest.approx(POWER, abs=0.03)


def test_a_place_where_the_power_is_never_reached_is_none():
    """A share that stays, as where two models decide alike in all but a few groups; and one that rises too slowly."""
    assert _solve(lambda place: 0.335, 0.0, lambda quantile: 0.1 * quantile, (-10, 10)) is None
    assert _solve(lambda place: 0.3 + place / 100, 0.0, lambda quantile: 0.1 * quantile, (-10, 10)) is None
    reached = _solve(lambda place: 0.3 + place / 10, 0.0, lambda quantile: quantile, (-10, 10))
    assert reached == pytest.approx(5, abs=0.5)


def test_where_groups_differ_no_number_of_cases_suffices_and_more_groups_do():
    """Half of the groups are decided better at 4 bits and half at 8, so that only groups count."""
    counts = np.zeros((20, 27), dtype=np.int64)
    both_right = np.nonzero(GAIN == 0)[0][0]
    for group in range(20):
        counts[group, both_right] = 90
        counts[group, np.nonzero((1 if group % 2 else -1) == GAIN)[0][0]] = 10

    names = tuple(map(str, range(20)))
    one = outlook("accuracy", plan_of(PairedCounts(counts, names, True)))
    assert one.enough_cases is None and 100 < one.enough_groups.groups < 400
    # Groups of +0.1 and -0.1: a spread of 0.1 / sqrt(groups), which must be 0.02 / 2.8.
    assert one.enough_groups.groups == pytest.approx((0.1 * 2.8 / 0.02) ** 2, rel=0.15)


def test_two_models_that_decide_alike_are_planned_too(few):
    """Their difference has no spread, as that of random weights may have none."""
    counts = np.zeros((12, 27), dtype=np.int64)
    counts[:, np.nonzero(GAIN == 0)[0][0]] = 2
    one = outlook("accuracy", plan_of(PairedCounts(counts, tuple(map(str, range(12))), True)))
    assert one.measured == 0 and one.inferior_from is None


def printed(grid: str, *overrides: str, narrowing: Narrowing | None = None) -> str:
    out = StringIO()
    selection = select(grid, list(overrides), narrowing or Narrowing())
    with planned_cases(selection) as cases:
        print_power(Console(file=out, width=80), selection, cases)
    return " ".join(out.getvalue().split())


def test_without_a_pair_a_plan_says_what_it_assumes(few):
    text = printed("demo")
    assert "400 cases (108 ED), 63 groups" in text
    assert "There is no pair to go by in the warehouse, so it is ASSUMED that exactly one of the two models" in text
    assert re.search(r"not inferior from │ \+\d\.\d points │", text) and "inferior up to │ -" in text
    assert not home().exists(), "a plan writes nothing"
    assert printed("demo") == text, "seeded"
    assert printed("demo", narrowing=Narrowing(bits=[4])) == "", "nothing is compared"


def test_a_plan_goes_by_the_stored_pair_of_its_own_recipe_else_by_another_model(tmp_path, few):
    pair = decisions(0.0, seed=5, groups=20, size=10)
    store(tmp_path / "landing", pair, base_model="smollm2-135m", recipe="quick")
    stored = stored_pair(select("demo").cells)
    assert (stored.recipe, stored.others) == ("quick", 0)
    assert sorted(map(bytes, stored.counts.counts)) == sorted(map(bytes, counted(pair).counts))
    assert "smollm2-135m quick s42 in the warehouse" in printed("demo")
    assert stored_pair(select("paper").cells).recipe == "quick"


def test_accuracy_is_planned_by_the_most_probable_label_as_a_finished_pair_is_judged(tmp_path, few):
    truth, four, eight, groups = decisions(0.0, seed=5, groups=20, size=10)
    cautious = np.where(np.arange(len(truth)) % 3 == 0, 0, eight)  # the rule of the 8-bit model sends more to the ED
    pair = (truth, four, cautious, groups)
    store(tmp_path / "landing", pair, (truth, four, eight, groups), base_model="smollm2-135m", recipe="quick")
    ((of_pair,),) = query_rows("SELECT accuracy_diff FROM quantization_comparison").rows
    assert of_pair == pytest.approx(np.mean(four == truth) - np.mean(eight == truth))

    text = printed("demo")
    shown = re.search(r"at the pair's difference │ ([+-]\d+\.\d) points", text)
    assert shown and float(shown[1]) == pytest.approx(100 * of_pair, abs=0.3), "labels are as often as planned"
    assert abs(np.mean(four == truth) - np.mean(cautious == truth) - of_pair) > 0.05, "by the rule it is another"
    assert "by their most probable labels in " in text


def test_untuned_pairs_of_whatever_prompt_give_way_to_trained_ones(tmp_path):
    for seed, recipe, kind in ((1, "zero_shot cot", "baseline"), (2, "r1", "standard")):
        pair = decisions(0.0, seed=seed, groups=12, size=5)
        store(tmp_path / "landing", pair, base_model="other", recipe=recipe, recipe_kind=kind, seed=seed)
    stored = stored_pair(select("demo").cells)
    assert stored is not None and (stored.recipe, stored.others) == ("r1", 0)


def test_random_weights_stand_for_themselves_alone(tmp_path):
    pair = decisions(0.0, seed=5, groups=12, size=5)
    store(tmp_path / "landing", pair, base_model="tiny-llama", recipe="baseline", random_weights=True)
    assert stored_pair(select("demo").cells) is None
    assert stored_pair(select("smoke").cells).random_weights


@pytest.mark.parametrize(
    ("overrides", "groups", "cases"),
    [([], 63, 1500), (["data.test_cases=2500"], 63, 2500), (["data.limits={ test = 200 }"], 63, 200)],
)
def test_the_embedded_test_set_is_counted_without_being_written(overrides, groups, cases):
    planned = planned_set(select("paper", overrides).grid)
    assert (planned.total, planned.groups) == (cases, groups)


CSV = "text,label,group\n" + "".join(
    f"words about number {i} that nobody repeats {i * 7919},{'GP' if i % 3 else 'HOME'},g{i % 40}\n" for i in range(240)
)


def own_grid(folder, text: str, *lines: str) -> str:
    (folder / "cases.csv").write_text(text)
    grid = folder / "own.toml"
    recipe = 'name = "r"\nkind = "standard"\nlearning_rate = 1e-4\nbatch_size = 4\n'
    recipe += "rank = 8\nscale = 2\ndropout = 0\niterations = 10"
    data = "\n".join(["[data]", 'source = "cases.csv"', *lines])
    grid.write_text(f'name = "own"\nmodels = ["smollm2-135m"]\nbits = [4, 8]\n{data}\n[[recipe]]\n{recipe}\n')
    return str(grid)


def test_a_set_without_emergencies_or_with_few_groups_is_told_in_a_sentence(tmp_path, few):
    text = CSV.replace("HOME,g0\n", "ED,g0\n")
    planned = PlannedSet(np.tile([0, 3, 3], (9, 1)), tuple("abcdefghi"), True)
    studies = Studies(Behaviour.of(None), planned)
    assert outlook("ed_recall", studies).obstacle == "no test case is an emergency"
    assert outlook("accuracy", studies).obstacle == "9 groups conclude nothing; it takes at least 10"
    few = Studies(Behaviour.of(None), PlannedSet(np.array([[2, 5, 5]]), ("",), False))
    assert outlook("macro_f1", few).obstacle == "2 cases of the rarest label conclude nothing; it takes at least 10"
    printed_text = printed(own_grid(tmp_path, text, 'group_column = "group"'))
    assert re.search(r"\d+ cases \(\d ED\), \d groups", printed_text)
    assert "verdicts ED recall: " in printed_text and "conclude nothing; it takes at least 10" in printed_text


def test_own_cases_without_groups_are_planned_case_by_case(tmp_path, few):
    text = CSV.replace("HOME", "ED", 60).replace("text,label,group", "text,label,other")
    printed_text = printed(own_grid(tmp_path, text))
    assert "groups" not in printed_text.replace("more groups", "")
    assert re.search(r"enough at no difference │.* [\d,]+ cases ", printed_text)
