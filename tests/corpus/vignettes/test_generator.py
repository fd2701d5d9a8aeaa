"""The embedded vignettes: labels follow from facts, sets do not leak, the same seed gives the same bytes; contrast cases and
the second adversarial set, and what teaches and what tests share no words; what only train has, the further problems, and the
evaluation sets about the problems of train and about problems that no other set has."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from tasks.corpus.case import Case, from_json, normal_text, to_json
from tasks.corpus.check import check_data
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.near_copies import near_duplicates
from tasks.corpus.prepare import CARD, ingredients_of, prepare_dataset
from tasks.corpus.reading.sources import locate
from tasks.corpus.splits import check_sets
from tasks.corpus.vignettes import adversarial, generator
from tasks.corpus.vignettes.adversarial import adversarial_records
from tasks.corpus.vignettes.contrast.cases import KINDS, contrast_records
from tasks.corpus.vignettes.generator import (
    GENERATOR_VERSION,
    SIZES,
    Record,
    assign_sets,
    embedded_records,
    further_records,
    planned_labels,
)
from tasks.corpus.vignettes.knowledge_base import (
    ClinicalFact,
    ClinicalProblem,
    contexts,
    further_problems,
    general,
    problem_named,
    problems,
    read_bank,
    registered_problems,
    teaching_bank,
    tone,
)
from tasks.corpus.vignettes.label_rules import CHILD_VITALS, WORSE_LATER, Facts, Vitals, decide
from tasks.corpus.vignettes.reader_check import (
    OF_CONTRAST,
    ReaderCheck,
    checks_of,
    describe_all_checks,
    describe_check,
    reader_checks,
)
from tasks.corpus.vignettes.render import Style
from tasks.corpus.vignettes.sets import (
    EVALUATION_SIZES,
    FAMILIAR_VERSION,
    REGISTERED_VERSION,
    derive_again,
    evaluation_records,
    records_of,
    sets_of,
)
from tasks.corpus.vignettes.speech import american, conjugate, contract, lived_days
from tasks.grids.grid import GRIDS, load_grid
from tasks.runtime.errors import BadInput
from tasks.spec import FAMILIAR, LABELS, REGISTERED, Data, EvaluationSet, digest_of

SECOND = "test_adversarial_2"
SHARES = (0.27, 0.38, 0.35)
PROBLEMS = {"train": 100, "valid": 20, "calibration": 40, "test": 60}


@cache
def registered(cases: int | None = None) -> tuple[Record, ...]:
    return tuple(evaluation_records(EvaluationSet(name=REGISTERED, source="embedded", cases=cases), Data(), []))


@pytest.fixture(scope="module")
def everyone() -> tuple[Record, ...]:
    return (*embedded_records(), *adversarial_records(), *further_records(1500, SHARES), *registered())


def test_the_label_of_every_case_is_derived_again_from_facts_that_agree_with_each_other(everyone):
    shown_fevers = 0
    painless = []
    for record in everyone:
        facts = record.facts
        problem = problem_named(facts.problem)
        assert decide(facts, problem) == record.verdict
        assert record.verdict.label == record.case.label and record.verdict.source
        assert not set(facts.denied) & {*facts.red, *facts.amber}
        assert not set(facts.contexts) & set(facts.absent_contexts)
        assert facts.days <= facts.age * 365 + 2, "nobody has been ill for longer than alive"
        painless += [facts.severity] if problem.painless else []
        for fact in present(record):
            if fact.temp and facts.vitals.temp:
                shown_fevers += 1
                assert fact.temp[0] <= facts.vitals.temp <= fact.temp[1]

    assert shown_fevers >= 20
    assert {*painless} == {None, "mild", "moderate"}
    assert [lived_days(age) for age in (0.05, 0.2, 0.25, 1.5, 2, 40.9)] == [14, 70, 3 * 30.4, 18 * 30.4, 730, 14600]


def present(record: Record) -> list[ClinicalFact]:
    facts = record.facts
    return [problem_named(facts.problem).fact(name) for name in (*facts.red, *facts.amber, *facts.mild)]


# Marks of a template, and the names of labels, which no text may hold.
ODD = re.compile(r"[\[\]{}]| {2}|\b(ED|GP|A&E|HOME|emergency department|triage)\b|\bI (is|has|does|feels)\b")


def test_every_set_has_its_size_its_problems_and_its_labels_and_shares_no_text():
    assert SIZES == {"train": 3000, "valid": 600, "calibration": 1200, "test": 1500}
    for name, cases in sets_of(Data()).items():
        counts = Counter(case.label for case in cases)
        assert len({normal_text(case.text) for case in cases}) == len(cases)
        assert [case.text for case in cases if ODD.search(case.text)] == []
        assert len(cases) == SIZES[name] and len({case.group for case in cases}) >= PROBLEMS[name]
        assert counts["ED"] >= 0.27 * len(cases) and counts["GP"] > counts["HOME"] > 0.34 * len(cases)

    check_sets(sets_of(Data()))
    assert near_duplicates(sets_of(Data()), threshold=0.4) == []
    hard = adversarial_records()
    assert len(hard) == 300 and min(Counter(r.case.label for r in hard).values()) >= 95


def test_every_fact_of_a_case_is_told_in_its_text_and_so_is_every_denial(everyone):
    checked = 0
    for record in everyone:
        facts = record.facts
        fact_of = problem_named(record.facts.problem).fact
        if record.case.subgroup["voice"] == "terse":  # typing mistakes
            continue

        for fact in present(record):
            assert _tells(record, (fact.note, *fact.say)), (record.case.case_id, fact.note)
        for fact in map(fact_of, facts.denied):
            assert _tells(record, fact.deny) or _denied_by_name(record, fact.note), (record.case.case_id, fact.note)
        checked += len(facts.denied)

    assert checked > 3000


def _tells(record: Record, wordings: tuple[str, ...]) -> bool:
    person = "I" if record.case.subgroup["voice"] == "patient" else record.facts.sex
    text = plain(record.case.text)
    return any(words in text for wording in wordings for words in _forms(wording, person))


@cache  # of a few hundred wordings, which every case is searched for
def _forms(wording: str, person: str) -> tuple[str, str]:
    """A wording as this person's text may hold it, in British and in American spelling."""
    clause = conjugate(wording, person)
    swapped = american(f"no {clause}").removeprefix("no ")  # "no fit" is no seizure
    return plain(clause), plain(swapped)


def _denied_by_name(record: Record, note: str) -> bool:
    """Whether a sentence names the noun phrase after a word that denies it."""
    swapped = plain(american(f"no {note}").removeprefix("no "))
    sentences = [plain(sentence) for sentence in re.split(r"\.(?:\s|$)", record.case.text)]
    return any(
        re.search(rf"\b(no|nil|denies|none|not present|asked about)\b.*\b{re.escape(words)}\b", sentence)
        for sentence in sentences
        for words in (plain(note), swapped)
    )


@cache
def plain(text: str) -> str:
    """Without capitals, marks and the spoken short forms."""
    return re.sub(r"[^a-z0-9]+", " ", contract(text).lower().replace("'", "")).strip()


def test_a_bag_of_words_finds_neither_chance_nor_the_answer():
    sets = sets_of(Data())
    bag = make_pipeline(TfidfVectorizer(sublinear_tf=True), LinearSVC())
    bag.fit([case.text for case in sets["train"]], [case.label for case in sets["train"]])

    def macro_f1(cases: Sequence[Case]) -> float:
        predicted = bag.predict([case.text for case in cases])
        return float(f1_score([case.label for case in cases], predicted, average="macro"))

    on_test = macro_f1(sets["test"])
    on_hard = macro_f1([record.case for record in adversarial_records()])
    assert 0.55 <= on_test <= 0.80 and 0.40 <= on_hard <= on_test - 0.10
    readme = Path(__file__).resolve().parents[3] / "tasks" / "corpus" / "vignettes" / "README.md"
    text = " ".join(readme.read_text(encoding="utf-8").split())
    figures = re.search(r"macro-F1 (0\.\d{3}) on `test` and (0\.\d{3}) on `test_adversarial`", text)
    assert figures and [float(figure) for figure in figures.groups()] == pytest.approx([on_test, on_hard], abs=0.005)
    assert f"agreed with {reader_checks()[0].counts[1]} of 100 cases" in text


def test_the_cases_are_those_of_the_versions_that_their_data_sets_name():
    """Other cases are another version: raise GENERATOR_VERSION, CONTRAST_VERSION or ADVERSARIAL_VERSION with these."""
    parts = sets_of(Data())
    for name in ("test_adversarial", "test_adversarial_2"):
        parts[name] = [record.case for record in adversarial_records(42, name)]
    parts["train-contrast"] = [record.case for record in contrast_records("train", 750, SHARES)]
    parts["valid-contrast"] = [record.case for record in contrast_records("valid", 200, SHARES)]
    parts["train-further"] = [record.case for record in further_records(3000, SHARES)]
    assert {name: digest_of(list(map(to_json, cases)))[:16] for name, cases in parts.items()} == {
        "train": "d02a639ff28f4e5e",
        "valid": "871cdd8052758373",
        "calibration": "db7b50fdaa58ebd5",
        "test": "9a85be06e3e57788",
        "test_adversarial": "767331ee4f5c3f44",
        "test_adversarial_2": "822f57f172d3b218",
        "train-contrast": "774e346b030cdbba",
        "valid-contrast": "6060d3f872dcf6c6",
        "train-further": "cce1dc9b9e12aa2b",
    }
    few = dict.fromkeys(SIZES, 9)
    assert GENERATOR_VERSION == 8 and embedded_records(1, sizes=few) != embedded_records(sizes=few)


BASE = {
    "headache": Facts("headache", age=30, sex="f", mild=("screen",), days=2),
    "bump": Facts("head_injury", age=70, sex="m", mild=("lump",), days=0.2),
    "fever": Facts("fever_child", age=0.2, sex="f", mild=("cold_signs",), days=1),
    "cough": Facts("cough", age=66, sex="f", mild=("tickle",), days=1, trend="worse"),
    "cry": Facts("baby_crying", age=0.2, sex="f", mild=("evening",), days=2),
    "jab": Facts("post_vaccine", age=0.2, sex="f", amber=("fever_third",), days=4),
    "boil": Facts("boil", age=40, sex="f", days=2),
    "mood": Facts("low_mood", age=40, sex="f", days=3, trend="worse"),
    "cold": Facts("common_cold", age=40, sex="f", days=3, trend="worse"),
    "child": Facts(
        "cough", age=2, sex="m", mild=("tickle",), days=2,
        vitals=Vitals(temp=37.0, hr=110, rr=34, spo2=98, sbp=110, dbp=70),
    ),
}  # fmt: skip
WARM = {"vitals": Vitals(temp=38.0, hr=140, rr=40, spo2=98)}
HOT = {"vitals": Vitals(temp=38.0, hr=80, rr=16, spo2=98, sbp=120, dbp=80)}
TREATED = {"contexts": ("immunosuppressed",)}


@pytest.mark.parametrize(
    ("base", "change", "label", "rule"),
    [
        ("headache", {}, "HOME", "no_flag"),
        ("headache", {"red": ("thunderclap",)}, "ED", "red:thunderclap"),
        ("headache", {"amber": ("morning_worse",)}, "GP", "amber:morning_worse"),
        ("headache", {"amber": ("morning_worse",), "trend": "better", "severity": "mild"}, "GP", "amber:morning_worse"),
        ("headache", {"red": ("meningism",), "amber": ("morning_worse",), "trend": "better"}, "ED", "red:meningism"),
        ("headache", {"vitals": Vitals(temp=37.0, hr=90, rr=16, spo2=88, sbp=120, dbp=80)}, "ED", "vital:spo2"),
        ("headache", {"vitals": Vitals(temp=37.0, hr=90, rr=9, spo2=98, sbp=120, dbp=80)}, "HOME", "no_flag"),
        ("headache", {"age": 61}, "GP", "age"),
        ("headache", {"days": 21}, "GP", "longer_than_natural_course"),
        ("headache", {"days": 21, "trend": "better"}, "HOME", "no_flag"),
        ("headache", {"severity": "severe"}, "GP", "severe_despite_self_care"),
        ("headache", {"trend": "worse"}, "GP", "getting_worse"),
        ("bump", {}, "HOME", "no_flag"),
        ("bump", {"contexts": ("anticoagulant",)}, "ED", "context:anticoagulant"),
        ("fever", {}, "ED", "fever_under_3_months"),
        ("fever", {"age": 2}, "HOME", "no_flag"),
        ("cough", {}, "GP", "worse_in_later_life"),
        ("cough", {"age": 64}, "HOME", "no_flag"),
        ("cry", {}, "HOME", "no_flag"),
        ("cry", WARM, "ED", "vital:temp"),
        ("cry", WARM | {"age": 0.3}, "HOME", "no_flag"),
        ("jab", {}, "ED", "fever_under_3_months"),
        ("jab", {"age": 0.3}, "GP", "amber:fever_third"),
        ("boil", {"amber": ("large",)}, "GP", "amber:large"),
        ("boil", {"amber": ("large",)} | TREATED, "ED", "fever_immunosuppressed"),
        ("boil", HOT, "HOME", "no_flag"),
        ("boil", HOT | TREATED, "ED", "fever_immunosuppressed"),
        ("boil", TREATED | {"vitals": replace(HOT["vitals"], temp=37.9)}, "GP", "context:immunosuppressed"),
        ("boil", TREATED | {"vitals": replace(HOT["vitals"], spo2=88)}, "ED", "vital:spo2"),
        ("child", {}, "HOME", "no_flag"),
        ("child", {"age": 40}, "ED", "vital:rr"),
        ("child", {"vitals": Vitals(temp=37.0, hr=110, rr=9, spo2=98, sbp=110, dbp=70)}, "ED", "vital:rr"),
        ("mood", {}, "GP", "getting_worse"),
        ("cold", {}, "HOME", "no_flag"),
    ],
)
def test_a_label_follows_from_the_facts(base, change, label, rule):
    facts = replace(BASE[base], **change)
    verdict = decide(facts, problems()[facts.problem])
    assert (verdict.label, verdict.rule) == (label, rule)
    guidance = {
        "vital:temp": CHILD_VITALS, "worse_in_later_life": WORSE_LATER, "fever_immunosuppressed": "NICE CG151",
    }  # fmt: skip
    assert verdict.source == guidance.get(rule, verdict.source)


def test_no_child_stays_at_home_with_a_vital_sign_that_is_amber(everyone):
    """NICE NG143: heart and breathing rates by age, saturation, and a temperature of 39 or more at 3 to 6 months."""
    small = [r.facts for r in everyone if r.case.label == "HOME" and r.facts.age < 5]
    for facts in small:
        age = facts.age
        vitals = facts.vitals
        if vitals.hr is None or vitals.rr is None or vitals.spo2 is None or vitals.temp is None:
            continue
        assert vitals.hr <= (160 if age < 1 else 150 if age < 2 else 140)
        assert vitals.rr <= (50 if age < 1 else 40) and vitals.spo2 > 95
        assert vitals.temp < 39 or age >= 0.5

    for low, high in ((0.25, 1), (1, 2), (2, 5)):
        assert len([f for f in small if low <= f.age < high and f.vitals.hr]) >= 10


def test_the_knowledge_names_only_known_contexts_and_every_problem_its_guidance():
    assert all(fact.source and fact.deny for fact in (*general().red.values(), *general().amber.values()))
    for problem in (*problems().values(), *further_problems().values(), *registered_problems().values()):
        assert {*problem.ed_if, *problem.gp_if, *problem.always} <= set(contexts())
        assert problem.source and problem.days[0] < problem.days[1] < problem.days[2]


@pytest.mark.parametrize(
    ("module", "arguments"), [(generator, (7, (0.27, 0.38, 0.35), (100, 100, 100, 100))), (adversarial, (42,))]
)
def test_a_text_that_can_only_be_repeated_is_an_error(module, arguments, monkeypatch):
    embedded_records(42)
    monkeypatch.setattr(generator, "render", lambda *_: "always the same")
    with pytest.raises(RuntimeError, match=r"^Case \d+ of \S+ \(.*\) repeats the text of .* in all of 50 tries; give"):
        module._records.__wrapped__(*arguments)


@pytest.fixture(scope="module")
def contrasts() -> tuple[Record, ...]:
    return (*contrast_records("train", 750, SHARES), *contrast_records("valid", 200, SHARES))


def pairs(records: tuple[Record, ...]) -> Iterator[tuple[Record, Record]]:
    by_name = {record.case.case_id: record for record in records}
    for name, record in by_name.items():
        if name.endswith("a"):
            yield record, by_name[f"{name[:-1]}b"]


def test_an_alarm_that_is_no_longer_taken_back_makes_the_case_an_emergency(contrasts):
    changed = 0
    for stands, back in pairs(contrasts):
        assert stands.case.label == "ED" != back.case.label and stands.case.group == back.case.group
        for alarm in {*stands.facts.red[:1]} & {*back.facts.denied, *back.facts.elsewhere}:
            present = replace(back.facts, red=(alarm,), denied=(), elsewhere=())
            verdict = decide(present, problems()[back.facts.problem])
            assert (verdict.label, verdict.rule) == ("ED", f"red:{alarm}")
            without = replace(back.facts, denied=(), elsewhere=())
            assert decide(without, problems()[back.facts.problem]) == back.verdict
            changed += 1

    assert changed >= 100


def entries(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        return
    for part in value.values() if isinstance(value, dict) else value:
        yield from entries(part)


def runs(wordings: Iterable[str]) -> dict[tuple[str, ...], str]:
    """Each run of four words, and the wording that it is from; a shorter wording is one run."""
    matches = {}
    for wording in wordings:
        words = plain(re.sub(r"\{\w+\}", " ", wording)).split()
        for start in range(max(1, len(words) - 3)):
            matches[tuple(words[start : start + 4])] = wording
    return matches


def facts_of_test() -> Iterator[str]:
    for problem in of_set("test"):
        yield from (problem.note, *problem.complaint)
        yield from (words for fact in problem.all_facts for words in (fact.note, *fact.say, *fact.deny))


def first_adversarial_words() -> Iterator[str]:
    """What `test_adversarial` has around the facts of its problems."""
    yield from entries(tone())
    yield from (Style("patient", "british", "plain").list_form,)
    yield from (words for fact in general().red.values() for words in (fact.note, *fact.say, *fact.deny))


def of_set(name: str) -> list[ClinicalProblem]:
    return [problems()[problem] for problem, its_set in assign_sets().items() if its_set == name]


def test_no_run_of_four_words_of_the_teaching_bank_stands_in_a_bank_of_the_adversarial_sets():
    teaching = runs(entries(read_bank("teaching").model_dump()))
    adversarial = runs(
        (*entries(read_bank("adversarial_2").model_dump()), *first_adversarial_words(), *facts_of_test())
    )
    assert {run: (teaching[run], adversarial[run]) for run in {*teaching} & {*adversarial}} == {}
    train, valid = (runs(entries(teaching_bank(learner).model_dump())) for learner in ("train", "valid"))
    assert {run: (train[run], valid[run]) for run in {*train} & {*valid}} == {}


@pytest.mark.nightly  # all pairs of texts
def test_no_problem_and_no_near_copy_is_shared_with_what_is_tested(contrasts):
    set_of_problem = assign_sets()
    assert {(r.set, set_of_problem[r.facts.problem]) for r in contrasts} == {("train", "train"), ("valid", "valid")}

    sets = {name: [r.case for r in contrasts if r.set == name] for name in ("train", "valid")}
    first, second = ([r.case for r in adversarial_records(42, name)] for name in ("test_adversarial", SECOND))
    tested = {"test": sets_of(Data())["test"], "adversarial": [*first, *second]}
    for name, cases in sets.items():
        assert near_duplicates({name: cases} | tested, threshold=0.4) == near_duplicates(tested, threshold=0.4)

    learned = {name: cases for name, cases in sets_of(Data()).items() if name != "test"}
    assert near_duplicates(learned | {"second": second}, threshold=0.4) == []
    assert near_duplicates(tested | {"adversarial": first, "second": second}, threshold=0.5) == []


def test_what_the_reader_saw_is_what_is_generated(contrasts):
    others = (*adversarial_records(42, SECOND), *further_records(1500, SHARES), *registered())
    cases = [record.case for record in (*contrasts, *others)]
    labels = {case.case_id: case.label for case in cases}
    checks = reader_checks(OF_CONTRAST)
    assert [check.counts[0] for check in checks] == [100, 100, 40, 40]

    for check in checks:
        assert check.texts == texts_digest(check, cases), "texts were rewritten since they were read"
        assert all(labels[name] == stored for name, (stored, _) in check.answers.items())
        assert {name for name, (stored, read) in check.answers.items() if stored != read} == set(check.remarks)
        read, agreed = check.counts
        assert agreed >= 0.9 * read

    assert [len(checks_of(part)) for part in ("contrast", SECOND, "further", "registered")] == [1, 1, 1, 1]


SET = EvaluationSet(name=FAMILIAR, source="embedded")
SMALL = Data(limits={"train": 48, "valid": 12, "calibration": 24, "test": 24})
FEW = {"calibration_cases": 100, "test_cases": 100}
WITH_FURTHER = Data(train_cases=1500, further_share=0.5, contrast_share=0.2, **FEW)


def test_the_share_is_of_train_alone_and_contrast_cases_keep_theirs():
    assert records_of(Data(further_share=0.0)) is embedded_records()
    usual, more = sets_of(Data(train_cases=600, **FEW)), sets_of(WITH_FURTHER)
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
    for name in ("test_adversarial", SECOND):
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
        *(({f"{kind}_share": 0.2, "source": "a.csv"}, f"{kind}_share: for source = 'embedded' only")
          for kind in ("further", "contrast")),
    ],
)  # fmt: skip
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


def test_a_data_set_holds_all_embedded_evaluation_sets_beside_sets_that_stay_as_they_are(tmp_path):
    sizes = {"test_adversarial": None, SECOND: None, FAMILIAR: 150, REGISTERED: 150}
    few = tuple(EvaluationSet(name=name, source="embedded", cases=cases) for name, cases in sizes.items())
    assert "cases" not in SET.model_dump()
    plain = DatasetManifest.read(prepare_dataset(SMALL, tmp_path))
    folder = prepare_dataset(SMALL, tmp_path, few)
    sets = DatasetManifest.read(folder).sets
    assert [sets[one.name].cases for one in few] == [300, 1200, 150, 150]
    assert {name: sets[name] for name in plain.sets} == plain.sets and sets[FAMILIAR].external
    cases = {name: list(map(from_json, (folder / f"{name}.jsonl").read_text().splitlines())) for name in sets}
    assert {case.group for case in cases[FAMILIAR]} == {case.group for case in cases["train"]}, "what is left of train"
    assert derive_again(folder) == (sum(map(len, cases.values())), [])
    card = (folder / CARD).read_text()
    assert f"150 new cases about {sets['train'].groups} problems that `train` has" in card
    assert f"150 new cases about {sets[REGISTERED].groups} problems that no other set has" in card
    assert f"## {SECOND}" in card
    report = check_data(SMALL, few, {})
    assert not report.errors and {line.name for line in report.sets} == set(sets)
    with pytest.raises(ValidationError, match="cases: for the embedded test_familiar and test_registered only; clinic"):
        EvaluationSet(name="clinic", source="clinic.csv", cases=150)


def test_it_is_refused_beside_cases_of_ones_own_and_a_grid_file_leaves_it_out_there(tmp_path):
    text = (GRIDS / "tuned.toml").read_text(encoding="utf-8")
    for name, size in (("plain", ""), ("sized", "\ncases = 2000")):
        (tmp_path / f"{name}.toml").write_text(text.replace(f'name = "{FAMILIAR}"', f'name = "{FAMILIAR}"{size}'))
        own = load_grid(str(tmp_path / f"{name}.toml"), ["data.source=my_cases.csv"])
        assert [entry.name for entry in own.evaluation_sets] == ["test_adversarial", "test_adversarial_2"]
    beside = f'evaluation_set=[{{name="{FAMILIAR}",source="embedded"}}]'
    with pytest.raises(BadInput, match="test_familiar is about the problems of the embedded train; leave"):
        load_grid("smoke", ["data.source=cases.csv", beside])


def test_the_registered_set_is_of_its_own_problems_whatever_is_learned():
    cases = [record.case for record in registered()]
    labels = defaultdict(set)
    for case in cases:
        labels[case.group].add(case.label)
    assert labels == {name: set(LABELS) for name in registered_problems()}, "every problem has every label"
    assert not set(registered_problems()) & {*problems(), *further_problems()}
    counts = Counter(case.label for case in cases)
    assert [counts[label] for label in LABELS] == [1080, 1520, 1400], "the shares of test"
    assert len({normal_text(case.text) for case in cases}) == len(cases) == EVALUATION_SIZES[REGISTERED]
    few = EvaluationSet(name=REGISTERED, source="embedded", cases=150)
    assert registered(150) == evaluation_records(few, WITH_FURTHER, sets_of(WITH_FURTHER)["train"])
    # Other cases are another version: raise REGISTERED_VERSION or GENERATOR_VERSION with these.
    assert digest_of(list(map(to_json, cases)))[:16] == "261604e58ed5fde0" and REGISTERED_VERSION == 1


def test_the_registered_cases_take_the_place_of_test_and_change_nothing_that_is_learned(tmp_path):
    small = Data(train_cases=100, calibration_cases=100, test_cases=150)
    data = small.model_copy(update={"test_problems": REGISTERED})
    sets, usual = sets_of(data), sets_of(small)
    cases = [record.case for record in registered(150)]
    assert sets.pop("test") == cases and usual.pop("test")
    assert sets == usual
    planned = planned_labels("test", 42, None, data.sizes, data.test_problems)
    assert planned == [(case.group, case.label) for case in cases]

    folder = prepare_dataset(data, tmp_path)
    groups = DatasetManifest.read(folder).sets["test"].groups
    assert derive_again(folder) == (100 + 600 + 100 + 150, [])
    assert f"150 new cases about {groups} problems" in (folder / CARD).read_text()
    assert not check_data(data, (), {}).errors
    with pytest.raises(ValidationError, match="test_problems: for source = 'embedded' only"):
        Data(source="own.csv", test_problems=REGISTERED)


@pytest.mark.nightly  # all pairs of texts
def test_no_registered_case_is_nearly_one_of_another_set():
    others = sets_of(Data(train_cases=3000, further_share=0.6)) | {FAMILIAR: familiar(WITH_FURTHER)}
    for name in ("test_adversarial", SECOND):
        others[name] = [record.case for record in adversarial_records(42, name)]
    assert near_duplicates(
        others | {REGISTERED: [record.case for record in registered()]}, threshold=0.4
    ) == near_duplicates(others, threshold=0.4)


def test_the_card_of_the_embedded_cases_lists_sources_and_readers(tmp_path):
    limits = {"train": 30, "valid": 9, "calibration": 9, "test": 9}
    card = (prepare_dataset(Data.model_validate({"limits": limits}), tmp_path) / CARD).read_text()
    sources = card.split("## Sources")[1]
    assert all(name in sources for name in ("NICE NG240", "RCP NEWS2 2017", "NICE CKS sciatica: cauda equina syndrome"))
    assert describe_all_checks() in card and "ontrast" not in card
    assert "ynthetic: for building and comparing, not evidence about patients" in card
    worsening = sum(not problem.worsens_first for problem in problems().values())
    assert f"or at any age in the {worsening} problems" in card
    assert " of 3 ED cases and " in " ".join(card.split()), "of the test set's own"


def test_a_readers_figure_is_counted_from_the_answers_and_says_its_version():
    answers = {"train-0001": ("ED", "ED"), "test-0001": ("GP", "HOME"), "test-0002": ("HOME", "HOME")}
    entry = {"generator": 1, "date": "2026-01-02", "reader": "a nurse", "answers": answers, "remarks": {}}
    check = ReaderCheck.model_validate(entry)
    assert check.counts == (3, 2)
    said = describe_check(check)
    assert "agreed with 2 of 3 sampled cases" in said and f"{GENERATOR_VERSION} has not been read yet" in said

    checks = reader_checks()
    generators = [check.generator for check in checks]
    assert generators == sorted(generators, reverse=True) and generators[0] <= GENERATOR_VERSION
    assert next(check for check in checks if check.generator == 3).counts == (100, 85)
    for check in checks:
        differing = {name for name, (stored, read) in check.answers.items() if stored != read}
        assert not check.answers or differing == set(check.remarks)


def test_the_stored_reader_check_is_of_this_corpus_or_says_that_it_is_not():
    check = reader_checks()[0]
    read, agreed = check.counts
    assert read >= 100
    if check.generator < GENERATOR_VERSION:
        assert "has not been read yet" in describe_check(check)
        return
    assert agreed >= 0.9 * read
    cases = [record.case for record in (*embedded_records(), *adversarial_records())]
    assert check.texts == texts_digest(check, cases), "texts were rewritten since then: raise the generator"
    labels = {case.case_id: case.label for case in cases}
    assert all(labels.get(case_id) == stored for case_id, (stored, _) in check.answers.items())


def texts_digest(check: ReaderCheck, cases: Iterable[Case]) -> str:
    texts = {case.case_id: case.text for case in cases}
    return digest_of({case_id: texts[case_id] for case_id in check.answers})
