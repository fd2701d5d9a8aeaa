"""The evaluation set of familiar problems: those of train, in texts that no other set has."""

from collections import Counter

import pytest

from tasks.corpus.case import Case, from_json, normal_text, to_json
from tasks.corpus.check import check_data
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.near_copies import near_duplicates
from tasks.corpus.prepare import CARD, prepare_dataset
from tasks.corpus.vignettes.sets import EVALUATION_SIZES, FAMILIAR_VERSION, derive_again, evaluation_records, sets_of
from tasks.grids.grid import GRIDS, load_grid
from tasks.runtime.errors import BadInput
from tasks.spec import FAMILIAR, LABELS, Data, EvaluationSet, digest_of

SET = EvaluationSet(name=FAMILIAR, source="embedded")
SMALL = Data(limits={"train": 48, "valid": 12, "calibration": 24, "test": 24})
WITH_FURTHER = Data(train_cases=1500, further_share=0.5, contrast_share=0.2)


def familiar(data: Data) -> list[Case]:
    return [record.case for record in evaluation_records(SET, data, sets_of(data)["train"])]


@pytest.mark.parametrize("data", [Data(), WITH_FURTHER], ids=["standard", "further problems"])
def test_its_cases_are_new_and_of_all_the_problems_that_train_has(data):
    sets = sets_of(data)
    cases = familiar(data)
    assert len(cases) == EVALUATION_SIZES[FAMILIAR] == 1200 == len({normal_text(case.text) for case in cases})
    assert {case.group for case in cases} == {case.group for case in sets["train"]}
    others = {normal_text(case.text) for of_set in sets.values() for case in of_set}
    assert not others & {normal_text(case.text) for case in cases}
    assert near_duplicates({"train": sets["train"], FAMILIAR: cases}, threshold=0.6) == []
    counts = Counter(case.label for case in cases)
    assert [counts[label] for label in LABELS] == [324, 456, 420], "the shares of test"


def test_the_cases_are_those_of_the_version_that_their_data_set_names():
    """Other cases are another version: raise FAMILIAR_VERSION or GENERATOR_VERSION with these."""
    digests = [digest_of(list(map(to_json, familiar(data))))[:16] for data in (Data(), WITH_FURTHER)]
    assert digests == ["3ea801cca025fb8a", "cd6a279ee5fe75b4"] and FAMILIAR_VERSION == 1


def test_a_data_set_holds_it_beside_sets_that_stay_as_they_are(tmp_path):
    plain = DatasetManifest.read(prepare_dataset(SMALL, tmp_path))
    folder = prepare_dataset(SMALL, tmp_path, (SET,))
    sets = DatasetManifest.read(folder).sets
    assert {name: sets[name] for name in plain.sets} == plain.sets and sets[FAMILIAR].external
    cases = {name: list(map(from_json, (folder / f"{name}.jsonl").read_text().splitlines())) for name in sets}
    assert {case.group for case in cases[FAMILIAR]} == {case.group for case in cases["train"]}, "what is left of train"
    derived = derive_again(folder)
    assert derived.agree == derived.cases == sum(map(len, cases.values()))
    assert f"1,200 new cases about {sets['train'].groups} problems that `train` has" in (folder / CARD).read_text()
    report = check_data(SMALL, (SET,), {})
    assert not report.fails and {line.name for line in report.sets} == set(sets)


def test_it_is_refused_beside_cases_of_ones_own_and_a_built_in_grid_leaves_it_out_there(tmp_path):
    assert FAMILIAR in {entry.name for entry in load_grid("tuned").evaluation_sets}
    own = load_grid("tuned", ["data.source=my_cases.csv"])
    assert [entry.name for entry in own.evaluation_sets] == ["test_adversarial", "test_adversarial_2"]
    path = tmp_path / "own.toml"
    smoke = (GRIDS / "smoke.toml").read_text(encoding="utf-8")
    path.write_text(
        smoke.replace('source = "embedded"', 'source = "cases.csv"')
        + f'\n[[evaluation_set]]\nname = "{FAMILIAR}"\nsource = "embedded"\n'
    )
    with pytest.raises(BadInput, match=r"own.toml.*test_familiar is about the problems of the embedded train; leave"):
        load_grid(str(path))
