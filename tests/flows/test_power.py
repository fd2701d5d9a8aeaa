"""What a plan says about its verdicts is what simulated studies show, and comes from the trainings that were measured."""

import re

import duckdb
import numpy as np
import pytest

from flows import power
from flows.plan import planned_cases
from flows.power import Measured, PlannedCases, chance, enough, expected, power_lines, print_power, published
from flows.selection import Narrowing, select
from tasks.runtime.home import home
from tasks.spec import Primary
from tests.place import ROOT, shown
from tests.warehouse.rows import land_pair
from warehouse.comparison.cells import judged_cases
from warehouse.comparison.crossed import NOT_WORSE, WITHIN, crossed, verdict_on
from warehouse.load import load_all
from warehouse.query import query_rows

TUNED = (0.00011, 0.00019, 0.00356)
MARGIN = 0.02


def simulated(components, seeds: int, groups: int, figures: int, studies: int = 1_500) -> list:
    """The crossed intervals, by a level that is divided among `figures`, of studies of normal trainings, groups and
    cells, without a true difference."""
    rng = np.random.default_rng(7)
    trainings = rng.normal(0, components[0] ** 0.5, (studies, seeds, 1))
    units = rng.normal(0, components[1] ** 0.5, (studies, 1, groups))
    cells = trainings + units + rng.normal(0, components[2] ** 0.5, (studies, seeds, groups))
    values = cells.mean(axis=2)
    influences = (cells - values[..., None]) / groups
    level = 1 - 0.05 / figures
    return [crossed(*study).interval(level) for study in zip(values, influences, strict=True)]


@pytest.mark.parametrize(
    ("seeds", "groups", "components", "figures"),
    [
        (3, 20, TUNED, 1),
        (5, 63, (0.0, 0.00356, 0.00019), 3),
        (10, 20, (0.00003, 0.0004, 0.00238), 1),
        (1, 63, (0.0, 0.0002, 0.0036), 1),  # of the trained models themselves
    ],
)
def test_the_chance_of_a_verdict_is_that_of_simulated_studies(seeds, groups, components, figures):
    intervals = simulated(components, seeds, groups, figures)
    for difference in (0.0, -MARGIN):
        verdicts = [verdict_on("accuracy", low + difference, high + difference, MARGIN) for low, high in intervals]
        share = sum(map(verdicts.count, (NOT_WORSE, WITHIN))) / len(verdicts)
        assert chance(components, seeds, groups, MARGIN, difference, figures) == pytest.approx(share, abs=0.03)


def test_components_follow_the_cases_that_a_group_has():
    """Cases of one group that correlate, as is assumed, in what groups and what trainings with groups add."""
    rng = np.random.default_rng(3)

    def components(cases: int) -> np.ndarray:
        def mean(variance: float, *shape: int) -> np.ndarray:
            common = rng.normal(0, (variance * power.CLUSTERING) ** 0.5, shape)
            return common + rng.normal(0, (variance * (1 - power.CLUSTERING) / cases) ** 0.5, shape)

        cells = rng.normal(0, 0.01, (40, 1)) + mean(0.05, 4_000) + mean(0.15, 40, 4_000)
        values = cells.mean(axis=1)
        return np.array(crossed(values, (cells - values[:, None]) / cells.shape[1]).components)

    row = Measured("m", "r", 60 * 4_000, 4_000, tuple(components(60)))
    for cases in (1, 10):
        assert np.array(row.at(cases))[1:] == pytest.approx(components(cases)[1:], rel=0.15)
    assert row.at(1)[0] == row.components[0]
    without_groups = Measured("m", "r", 900, None, row.at(1))
    assert without_groups.at(60) == pytest.approx(row.components), "a case without a group is a group of one"


def test_sizes_that_a_plan_names_have_the_power_that_it_names():
    for seeds, units, components in ((3, 63, TUNED), (1, 63, TUNED), (5, 20, (0.0, 0.004, 0.001))):
        more_seeds, more_units = enough(components, seeds, units, MARGIN)
        assert more_seeds is None or chance(components, more_seeds, units, MARGIN) == pytest.approx(0.8, abs=0.06)
        assert more_units is None or chance(components, seeds, more_units, MARGIN) == pytest.approx(0.8, abs=0.06)
        assert more_seeds or more_units
    assert enough(TUNED, 9, 63, MARGIN) == (9, 63), "what is planned suffices"
    seeds, units = enough((0.0, 0.0, 0.001), 1, 120, MARGIN)
    assert seeds > 1 and units is None, "one seed does not tell how trainings differ"
    assert enough((0.0005, 0.004, 0.004), 3, 20, MARGIN) == (None, None), "neither alone suffices"


def in_seeds(seed: int) -> tuple[list, list]:
    """Cases of 20 groups, as two models decide them that differ by chance."""
    rng = np.random.default_rng(seed)
    truth = ["ED", "GP", "HOME", "GP"] * 10
    sides = [[label if rng.random() < 0.7 else "HOME" for label in truth] for _ in range(2)]
    return tuple([(label, side, side) for label, side in zip(truth, decided, strict=True)] for decided in sides)


def test_components_are_those_of_trainings_in_the_warehouse_before_those_of_the_published_study(tmp_path):
    published_source = "tuned and tuned_safe in the published study"
    assert expected("smol", "r1", "accuracy", 66.0)[1] == published_source and not home().exists()
    assert expected("smollm2-135m", "tuned", "accuracy", 66.0)[1] == "tuned in the published study"

    for seed in (42, 43):
        land_pair(tmp_path, *in_seeds(seed), groups=True, name=f"-s{seed}", seed=seed)
        random = {"base_model": "random", "random_weights": True, "groups": True}
        land_pair(tmp_path, *in_seeds(seed), name=f"-random-s{seed}", seed=seed, **random)
    land_pair(tmp_path, *in_seeds(44), groups=True, name="-one", recipe="one seed")
    load_all(tmp_path)
    rows = query_rows(power.MEASURED, {"metric": "accuracy", "rule": "argmax"}).rows
    (row,) = [Measured(*row) for row in rows]
    assert (row.base_model, row.recipe, row.cases, row.groups) == ("smol", "r1", 40, 20)
    found, source = expected("smol", "r1", "accuracy", 2.0)
    assert source == "r1 in your warehouse" and found == pytest.approx(row.components) and found[2] > 0
    assert expected("other", "r1", "accuracy", 2.0)[1] == published_source, "these do not learn"


def test_without_rows_of_its_own_a_recipe_gets_the_median_of_those_whose_models_learn(monkeypatch):
    rows = [
        Measured("m", f"r{i}", 630, 63, (0.001 * i, 0.002 * i, 0.003 * i), learns)
        for i, learns in enumerate((None, True, True, True, False))
    ]
    monkeypatch.setattr(power, "published", lambda _: rows)
    components, source = expected("m", "new", "accuracy", 10.0)
    assert components == pytest.approx((0.002, 0.004, 0.006)) and source.startswith("r1 and r2 and r3 in ")
    components, _ = expected("m", "r4", "accuracy", 10.0)
    assert components == pytest.approx((0.004, 0.008, 0.012)), "its own, whatever they learn"


@pytest.mark.nightly
def test_the_published_components_are_those_of_the_published_rows():
    with duckdb.connect() as con:
        for table in ("experiment", "evaluation", "prediction"):
            parquet = ROOT / "warehouse" / "published" / "study" / "landing" / f"{table}.parquet"
            con.execute(f"CREATE VIEW {table} AS FROM '{parquet}'")
        for recipe, components in power.PUBLISHED.items():
            ids = con.execute(
                "SELECT evaluation_id FROM evaluation JOIN experiment USING (training_id) WHERE recipe = ? AND "
                "evaluation_set = 'test' AND recipe_kind IN ('standard', 'safety') ORDER BY bits, seed",
                [recipe],
            ).fetchall()
            judged = judged_cases(con, [id for (id,) in ids])
            for row in published("accuracy"):
                assert len(ids) == 6 and (row.cases, row.groups) == (len(judged.truth), judged.units)
            for figure, expected_components in components.items():
                of = judged.cells(power.COMMON_RULES[figure]).measured(figure)
                found = crossed(of.values[:3] - of.values[3:], of.influences[:3] - of.influences[3:])
                assert found.components == pytest.approx(expected_components, abs=6e-7)


def lines(seeds: int, cases: int, groups: int | None, emergencies: tuple[int, int | None]) -> str:
    claim = Primary(base_model="smollm2-135m", recipe="tuned", seeds=tuple(range(seeds)))
    return "\n".join(power_lines(claim, PlannedCases(cases, groups), PlannedCases(*emergencies)))


def test_three_lines_say_what_is_shown_the_chance_and_what_80_percent_takes():
    shown, chance, takes = lines(3, 4200, 63, (1134, 63)).splitlines()
    assert shown.startswith("smollm2-135m tuned, 3 seeds, 63 groups: can show 3.0 points in accuracy and 4.1 points")
    assert shown.endswith("(half of a 95 % interval; variances of 4bit against 8bit, tuned in the published study).")
    told = re.search(r'the chance to conclude "not worse by 2 points" is (\d+) % in accuracy and (\d+) % in ED', chance)
    assert 33 < int(told[1]) < 43 and 21 < int(told[2]) < 31
    assert re.fullmatch(r"a chance of 80 % takes [5-7] seeds in accuracy, and [89] seeds in ED recall\.", takes)


def test_by_holm_a_chance_is_that_of_its_first_step_and_takes_more_seeds():
    planned = PlannedCases(4000, 116), PlannedCases(1080, 116)
    seeds = []
    for adjust, words in (
        ("none", '2 points" is '),
        ("holm", "2 points\" at Holm's first step (one-sided p below 0.0125) is "),
    ):
        claim = Primary(base_model="smollm2-135m", recipe="tuned", seeds=tuple(range(3)), adjust=adjust)
        _, chances, takes = power_lines(claim, *planned)
        assert words in chances
        seeds.append([int(number) for number in re.findall(r"(\d+) seeds", takes)])
    assert all(one < of for one, of in zip(*seeds, strict=True)) and len(seeds[0]) == 2


def test_one_seed_no_groups_and_too_few_of_them_are_told():
    one_seed = lines(1, 4200, 63, (1134, 63))
    assert "can show 1.5 points in accuracy" in one_seed
    assert "of these trained models alone: chance in training is not known" in one_seed
    without_groups = lines(3, 1500, None, (400, None))
    assert "3 seeds, 1,500 cases: " in without_groups and "group" not in without_groups
    assert "nothing in ED recall (9 groups with emergencies; it takes 10)" in lines(3, 300, 12, (40, 9))
    (nothing,) = lines(3, 9, None, (0, None)).splitlines()
    assert "3 seeds, 9 cases: can show nothing in accuracy (9 cases; it takes 10)" in nothing


def printed(grid: str, *overrides: str, narrowing: Narrowing | None = None) -> str:
    selection = select(grid, list(overrides), narrowing or Narrowing())
    with planned_cases(selection) as folder:
        return " ".join(shown(print_power, selection, folder, width=80).split())


def test_a_plan_is_about_the_primary_claim_else_about_the_recipe_with_the_most_seeds():
    text = printed("study")
    assert "power smollm2-135m tuned, 3 seeds, 63 groups: " in text and text.count("power ") == 3
    assert not home().exists() and printed("study") == text, "a plan writes nothing, and is seeded"
    assert printed("tuned", narrowing=Narrowing(bits=[4])) == "", "nothing is compared"

    claim = 'primary={ recipe = "tuned_safe", base_model = "smollm2-135m", figures = ["ed_auroc"], margin = 0.01 }'
    text = printed("study", claim)
    assert "power smollm2-135m tuned_safe, 3 seeds, " in text and '"not worse by 1 points"' in text
    assert "in ED AUROC" in text and "accuracy" not in text
    other = printed("study", claim, narrowing=Narrowing(recipes=["tuned"]))
    assert "smollm2-135m tuned, " in other, "the claim is not planned"


def test_cases_of_ones_own_are_counted_with_their_groups_or_without(tmp_path):
    rows = [f"words about number {i} of {i * 7919},{('ED', 'GP', 'HOME')[i % 3]},g{i % 40}\n" for i in range(400)]
    (tmp_path / "own.csv").write_text("text,label,group\n" + "".join(rows))
    source = f'source = "{tmp_path / "own.csv"}"'
    assert re.search(r"1 seed, \d+ groups: ", printed("demo", f'data={{ {source}, group_column = "group" }}'))
    demo = printed("demo")
    assert "of these adapters alone" in demo and "chance in training" not in demo, "they are the same on both sides"
    (tmp_path / "own.csv").write_text("text,label,other\n" + "".join(rows))
    assert re.search(r"1 seed, \d+ cases: ", printed("demo", f"data={{ {source} }}"))
