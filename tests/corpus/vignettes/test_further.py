"""What only train has, the further problems, apart from everything that a model is judged on; and the evaluation sets about
the problems of train, in texts that no other set has, and about problems that no other set has."""

import json
import re
from collections import Counter, defaultdict

import pytest
from pydantic import ValidationError

from tasks.corpus.case import Case, from_json, normal_text, to_json
from tasks.corpus.check import check_data
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.near_copies import near_duplicates
from tasks.corpus.prepare import CARD, ingredients_of, prepare_dataset
from tasks.corpus.reading.sources import locate
from tasks.corpus.vignettes.adversarial import NAME, adversarial_records
from tasks.corpus.vignettes.contrast.cases import KINDS
from tasks.corpus.vignettes.generator import embedded_records, further_records, planned_labels
from tasks.corpus.vignettes.knowledge_base import further_problems, problems, registered_problems
from tasks.corpus.vignettes.sets import (
    EVALUATION_SIZES,
    FAMILIAR_VERSION,
    REGISTERED_VERSION,
    derive_again,
    evaluation_records,
    records_of,
    sets_of,
)
from tasks.grids.grid import GRIDS, load_grid
from tasks.runtime.errors import BadInput
from tasks.spec import FAMILIAR, LABELS, REGISTERED, Data, EvaluationSet, digest_of
from tests.corpus.vignettes.test_generator import SHARES

SET = EvaluationSet(name=FAMILIAR, source="embedded")
SMALL = Data(limits={"train": 48, "valid": 12, "calibration": 24, "test": 24})
WITH_FURTHER = Data(train_cases=1500, further_share=0.5, contrast_share=0.2)


def test_the_share_is_of_train_alone_and_contrast_cases_keep_theirs():
    assert records_of(Data(further_share=0.0)) is embedded_records()
    usual = sets_of(Data())
    more = sets_of(WITH_FURTHER)
    in_train = Counter(case.case_id.rpartition("-")[0] for case in more["train"])
    assert in_train == {"train": 600, "train-further": 600, "train-contrast": 300}
    assert more["valid"][:600] == usual["valid"] and len(more["valid"]) == 750
    assert all(more[name] == usual[name] for name in ("calibration", "test"))
    assert len({case.text for case in more["train"]}) == 1500

    labels = defaultdict(set)
    for record in further_records(1500, SHARES):
        labels[record.facts.problem].add(record.case.label)
    assert set(labels) == set(further_problems()) and not set(labels) & set(problems())
    assert [problem for problem, case_labels in labels.items() if case_labels != set(LABELS)] == []


@pytest.mark.nightly  # only other wordings could fail it, and those change the digests of the cases
def test_no_case_is_nearly_one_that_a_model_is_judged_on():
    judged = {name: cases for name, cases in sets_of(Data()).items() if name != "train"}
    for name in (NAME, "test_adversarial_2"):
        judged[name] = [record.case for record in adversarial_records(42, name)]
    further = [record.case for record in further_records(1500, SHARES)]
    assert near_duplicates(judged | {"further": further}, threshold=0.4) == near_duplicates(judged, threshold=0.4)


@pytest.mark.parametrize(
    ("share", "inputs"), [("further_share", {"further_problems"}), ("contrast_share", {"contrast", "contrast_words"})]
)
def test_a_share_of_nothing_changes_no_digest_and_a_share_does(share, inputs):
    usual, none, some = (ingredients_of(locate(Data(**of))) for of in ({}, {share: 0}, {share: 0.1}))
    assert usual == none and set(some["inputs"]) - set(usual["inputs"]) == inputs
    assert share not in Data().model_dump() and Data(**{share: 0.1}).model_dump()[share] == 0.1


def test_the_card_counts_further_and_contrast_cases_and_every_label_is_derived_again(tmp_path):
    limits = {"valid": 60, "calibration": 9, "test": 9}
    folder = prepare_dataset(WITH_FURTHER.model_copy(update={"limits": limits}), tmp_path)
    assert derive_again(folder) == (1578, [])
    further, contrast = (folder / CARD).read_text(encoding="utf-8").split("## Further problems")[1].split("## Contrast")
    train = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    about = len({case["group"] for case in train} & set(further_problems()))
    assert re.search(rf"600 cases of `train` \(.*\) are about {about} further", " ".join(further.split()))
    rows = re.findall(r"^\| (train|valid) \| (\w+) \| (\d+) \|", contrast, re.MULTILINE)
    assert [kind for _, kind, _ in rows] == [*KINDS, *KINDS]
    assert sum(int(count) for name, _, count in rows if name == "train") == 300


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"further_share": 0.95}, "further_share"),
        ({"contrast_share": -0.1}, "contrast_share"),
        ({"further_share": 0.5, "seed": 43}, "further_share needs data.seed = 42"),
        ({"further_share": 0.2, "source": "a.csv"}, "further_share: for source = 'embedded' only"),
        ({"contrast_share": 0.2, "source": "a.csv"}, "contrast_share: for source = 'embedded' only"),
    ],
)
def test_shares_out_of_range_or_of_other_cases_are_refused(settings, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Data(**settings)


def familiar(data: Data) -> list[Case]:
    return [record.case for record in evaluation_records(SET, data, sets_of(data)["train"])]


@pytest.mark.parametrize(("data", "digest"), [(Data(), "3ea801cca025fb8a"), (WITH_FURTHER, "cd6a279ee5fe75b4")])
def test_its_cases_are_new_and_of_all_the_problems_that_train_has(data, digest):
    sets = sets_of(data)
    cases = familiar(data)
    assert len(cases) == EVALUATION_SIZES[FAMILIAR] == 1200 == len({normal_text(case.text) for case in cases})
    assert {case.group for case in cases} == {case.group for case in sets["train"]}
    others = {normal_text(case.text) for of_set in sets.values() for case in of_set}
    assert not others & {normal_text(case.text) for case in cases}
    assert near_duplicates({"train": sets["train"], FAMILIAR: cases}, threshold=0.6) == []
    counts = Counter(case.label for case in cases)
    assert [counts[label] for label in LABELS] == [324, 456, 420], "the shares of test"
    # Other cases are another version: raise FAMILIAR_VERSION or GENERATOR_VERSION with these.
    assert digest_of(list(map(to_json, cases)))[:16] == digest and FAMILIAR_VERSION == 1


def test_a_data_set_holds_it_beside_sets_that_stay_as_they_are(tmp_path):
    few = SET.model_copy(update={"cases": 150})
    plain = DatasetManifest.read(prepare_dataset(SMALL, tmp_path))
    folder = prepare_dataset(SMALL, tmp_path, (few,))
    sets = DatasetManifest.read(folder).sets
    assert {name: sets[name] for name in plain.sets} == plain.sets and sets[FAMILIAR].external
    cases = {name: list(map(from_json, (folder / f"{name}.jsonl").read_text().splitlines())) for name in sets}
    assert {case.group for case in cases[FAMILIAR]} == {case.group for case in cases["train"]}, "what is left of train"
    assert derive_again(folder) == (sum(map(len, cases.values())), [])
    assert f"150 new cases about {sets['train'].groups} problems that `train` has" in (folder / CARD).read_text()
    report = check_data(SMALL, (few,), {})
    assert not report.errors and {line.name for line in report.sets} == set(sets)


def test_it_is_refused_beside_cases_of_ones_own_and_a_grid_file_leaves_it_out_there(tmp_path):
    text = (GRIDS / "tuned.toml").read_text(encoding="utf-8")
    for name, size in (("plain", ""), ("sized", "\ncases = 2000")):
        (tmp_path / f"{name}.toml").write_text(text.replace(f'name = "{FAMILIAR}"', f'name = "{FAMILIAR}"{size}'))
        own = load_grid(str(tmp_path / f"{name}.toml"), ["data.source=my_cases.csv"])
        assert [entry.name for entry in own.evaluation_sets] == ["test_adversarial", "test_adversarial_2"]
    beside = f'evaluation_set=[{{name="{FAMILIAR}",source="embedded"}}]'
    with pytest.raises(BadInput, match="test_familiar is about the problems of the embedded train; leave"):
        load_grid("smoke", ["data.source=cases.csv", beside])


def registered(data: Data, cases: int | None = None) -> list[Case]:
    of = EvaluationSet(name=REGISTERED, source="embedded", cases=cases)
    return [record.case for record in evaluation_records(of, data, [])]


def test_the_registered_set_is_of_its_own_problems_whatever_is_learned():
    cases = registered(Data())
    labels = defaultdict(set)
    for case in cases:
        labels[case.group].add(case.label)
    assert labels == {name: set(LABELS) for name in registered_problems()}, "every problem has every label"
    assert not set(registered_problems()) & {*problems(), *further_problems()}
    counts = Counter(case.label for case in cases)
    assert [counts[label] for label in LABELS] == [1080, 1520, 1400], "the shares of test"
    assert len({normal_text(case.text) for case in cases}) == len(cases) == EVALUATION_SIZES[REGISTERED]
    assert registered(Data(), 150) == registered(WITH_FURTHER, 150)
    # Other cases are another version: raise REGISTERED_VERSION or GENERATOR_VERSION with these.
    assert digest_of(list(map(to_json, cases)))[:16] == "261604e58ed5fde0" and REGISTERED_VERSION == 1


def test_the_registered_cases_take_the_place_of_test_and_change_nothing_that_is_learned(tmp_path):
    limits = {name: limit for name, limit in SMALL.limits.items() if name != "test"}
    data = Data(limits=limits, test_problems=REGISTERED, test_cases=150)
    sets, usual = sets_of(data), sets_of(SMALL)
    assert sets.pop("test") == registered(Data(), 150) and usual.pop("test")
    assert sets == usual
    planned = planned_labels("test", 42, None, data.sizes, data.test_problems)
    assert planned == [(case.group, case.label) for case in registered(Data(), 150)]

    folder = prepare_dataset(data, tmp_path)
    groups = DatasetManifest.read(folder).sets["test"].groups
    assert derive_again(folder) == (234, []) and f"150 new cases about {groups} problems" in (folder / CARD).read_text()
    assert not check_data(data, (), {}).errors
    with pytest.raises(ValidationError, match="test_problems: for source = 'embedded' only"):
        Data(source="own.csv", test_problems=REGISTERED)


@pytest.mark.nightly  # all pairs of texts
def test_no_registered_case_is_nearly_one_of_another_set():
    others = sets_of(Data(train_cases=3000, further_share=0.6)) | {FAMILIAR: familiar(WITH_FURTHER)}
    for name in (NAME, "test_adversarial_2"):
        others[name] = [record.case for record in adversarial_records(42, name)]
    assert near_duplicates(others | {REGISTERED: registered(Data())}, threshold=0.4) == near_duplicates(
        others, threshold=0.4
    )


def test_the_number_of_cases_is_a_setting_of_the_sets_that_are_drawn_alone(tmp_path):
    assert len(registered(Data(), 150)) == 150 and "cases" not in SET.model_dump()
    sets = [EvaluationSet(name=name, source="embedded", cases=150) for name in (FAMILIAR, REGISTERED)]
    folder = prepare_dataset(SMALL, tmp_path, sets)
    entries = DatasetManifest.read(folder).sets
    assert {entries[one.name].cases for one in sets} == {150}
    assert derive_again(folder) == (408, [])
    sentence = f"150 new cases about {entries[REGISTERED].groups} problems that no other set has"
    assert sentence in (folder / CARD).read_text()
    with pytest.raises(ValidationError, match="cases: for the embedded test_familiar and test_registered only; clinic"):
        EvaluationSet(name="clinic", source="clinic.csv", cases=150)
