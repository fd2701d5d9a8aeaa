"""Contrast cases and the second adversarial set: labels follow from facts, and what teaches and what tests share no words."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tasks.corpus.near_copies import near_duplicates
from tasks.corpus.prepare import CARD, prepare_dataset
from tasks.corpus.vignettes.adversarial import adversarial_records
from tasks.corpus.vignettes.contrast.bank import Bank, read_bank, teaching_bank
from tasks.corpus.vignettes.contrast.cases import contrast_records
from tasks.corpus.vignettes.generator import Record, assign_sets, further_records
from tasks.corpus.vignettes.knowledge_base import ClinicalProblem, general, problems, tone
from tasks.corpus.vignettes.label_rules import decide
from tasks.corpus.vignettes.reader_check import OF_CONTRAST, checks_of, reader_checks
from tasks.corpus.vignettes.render import Style
from tasks.corpus.vignettes.sets import Derivation, derive_again, sets_of
from tasks.spec import Data, EvaluationSet
from tests.corpus.test_card import texts_digest
from tests.corpus.vignettes.test_generator import SHARES, plain


@pytest.fixture(scope="module")
def everyone() -> tuple[Record, ...]:
    return (*contrast_records("train", 750, SHARES), *contrast_records("valid", 200, SHARES))


def pairs(records: tuple[Record, ...]) -> Iterator[tuple[Record, Record]]:
    """The two cases of each pair: the alarm stands, and it is taken back."""
    by_name = {record.case.case_id: record for record in records}
    for name, record in by_name.items():
        if name.endswith("a"):
            yield record, by_name[f"{name[:-1]}b"]


def test_an_alarm_that_is_no_longer_taken_back_makes_the_case_an_emergency(everyone):
    changed = 0
    for stands, back in pairs(everyone):
        assert stands.case.label == "ED" != back.case.label and stands.case.group == back.case.group
        for alarm in {*stands.facts.red[:1]} & {*back.facts.denied, *back.facts.elsewhere}:
            present = replace(back.facts, red=(alarm,), denied=(), elsewhere=())
            verdict = decide(present, problems()[back.facts.problem])
            assert (verdict.label, verdict.rule) == ("ED", f"red:{alarm}")
            without = replace(back.facts, denied=(), elsewhere=())
            assert decide(without, problems()[back.facts.problem]) == back.verdict
            changed += 1

    assert changed >= 100


def test_the_frame_of_a_pair_is_the_same_and_says_nothing_about_the_label(everyone):
    shared: Counter[str] = Counter()
    for stands, back in pairs(everyone):
        kind = stands.case.subgroup["kind"]
        assert kind == back.case.subgroup["kind"]
        bank = teaching_bank("train" if stands.set == "train" else "valid").frame
        words = {"figurative": bank.figures, "frightened": bank.fear, "understated": bank.ease}.get(kind, ())
        frames = [{w for w in words if plain(w) in plain(r.case.text)} for r in (stands, back)]
        typed = "terse" in (stands.case.subgroup["voice"], back.case.subgroup["voice"])
        american = "american" in (stands.case.subgroup["spelling"], back.case.subgroup["spelling"])
        assert typed or american or frames[0] == frames[1]
        shared[kind] += len(frames[0]) >= 2

    assert min(shared[kind] for kind in ("figurative", "frightened", "understated")) >= 15


def entries(value: Any) -> Iterator[str]:
    """Every wording in a bank."""
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


def bank_words(bank: Bank) -> Iterator[str]:
    return entries(bank.model_dump())


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
    teaching = runs(bank_words(read_bank("teaching")))
    adversarial = runs((*bank_words(read_bank("adversarial_2")), *first_adversarial_words(), *facts_of_test()))
    assert {run: (teaching[run], adversarial[run]) for run in {*teaching} & {*adversarial}} == {}
    train, valid = (runs(bank_words(teaching_bank(learner))) for learner in ("train", "valid"))
    assert {run: (train[run], valid[run]) for run in {*train} & {*valid}} == {}


@pytest.mark.nightly  # all pairs of texts
def test_no_problem_and_no_near_copy_is_shared_with_what_is_tested(everyone):
    set_of_problem = assign_sets()
    assert {(r.set, set_of_problem[r.facts.problem]) for r in everyone} == {("train", "train"), ("valid", "valid")}

    sets = {name: [r.case for r in everyone if r.set == name] for name in ("train", "valid")}
    tested = {"test": sets_of(Data())["test"], "adversarial": [r.case for r in (*adversarial_records(), *second())]}
    for name, cases in sets.items():
        assert near_duplicates({name: cases} | tested, threshold=0.4) == near_duplicates(tested, threshold=0.4)

    learned = {name: cases for name, cases in sets_of(Data()).items() if name != "test"}
    assert near_duplicates(learned | {"second": [r.case for r in second()]}, threshold=0.4) == []
    apart = {"adversarial": [r.case for r in adversarial_records()], "second": [r.case for r in second()]}
    assert near_duplicates(tested | apart, threshold=0.5) == []


def test_the_teaching_bank_can_be_listed_and_has_a_fourth_for_valid():
    bank = read_bank("teaching")
    assert set(bank.flag) == set(general().red)
    train, valid = (teaching_bank(learner).frame.model_dump() for learner in ("train", "valid"))
    for key, wordings in bank.frame.model_dump().items():
        assert (len(train[key]), len(valid[key])) == (3 * len(wordings) / 4, len(wordings) / 4), key

    every = [*bank_words(bank)]
    assert len({*map(plain, every)}) == len(every)
    nouns = [general().red[n].model_copy(update={"note": w}) for n, words in bank.flag.items() for w in words.note]
    assert all(fact.listable for fact in nouns)


SECOND = "test_adversarial_2"


def second() -> tuple[Record, ...]:
    return adversarial_records(42, SECOND)


def test_the_second_set_tells_the_facts_of_its_problems_in_words_of_its_own():
    bank = read_bank("adversarial_2")
    assert set(bank.complaint) == set(bank.picture) == {problem.id for problem in of_set("test")}
    for problem in of_set("test"):
        names = {*problem.red, *problem.amber, *problem.mild}
        assert names == set(bank.picture[problem.id]), problem.id

    own_wordings = [*bank_words(bank)]
    known_wordings = {plain(words) for words in (*first_adversarial_words(), *facts_of_test())}
    assert len({*map(plain, own_wordings)}) == len(own_wordings) and not {*map(plain, own_wordings)} & known_wordings
    around = runs(entries([bank.frame.model_dump(), {name: words.model_dump() for name, words in bank.flag.items()}]))
    assert {*around} & {*runs(first_adversarial_words())} == set()
    matching_cases = sum(
        plain(bank.picture[r.facts.problem][name].replace("[", "").replace("]", ""))[:12] in plain(r.case.text)
        for r in second()
        for name in (*r.facts.red, *r.facts.amber, *r.facts.mild)
        if r.case.subgroup["kind"] != "negated" and r.case.subgroup["voice"] == "patient"
    )
    assert matching_cases >= 200


def test_a_dataset_with_the_second_set_says_so_and_keeps_the_first_one(tmp_path):
    data = Data.model_validate({"limits": {"train": 30, "valid": 9, "calibration": 9, "test": 9}})
    sets = [EvaluationSet(name=name, source="embedded") for name in ("test_adversarial", SECOND)]
    first, both = (prepare_dataset(data, tmp_path, sets[:count]) for count in (1, 2))
    assert derive_again(both) == Derivation(1557, 1557)
    assert (first / "test_adversarial.jsonl").read_bytes() == (both / "test_adversarial.jsonl").read_bytes()
    card = (both / CARD).read_text()
    section = card.split(f"## {SECOND}")[1].split("## Evaluation sets")[0]
    rows = re.findall(r"^\| (\w+) \| (\d+) \|.*\| (\d+) \| (\d+) \| (\d+) \|$", section, re.MULTILINE)
    assert sum(int(row[1]) for row in rows) == 1200 and {row[2] for row in rows} == {"63"}
    assert all(int(row[3]) >= 100 for row in rows)
    assert f"## {SECOND}" not in (first / CARD).read_text() and "39 of 40" in section


def test_what_the_reader_saw_is_what_is_generated(everyone):
    cases = [record.case for record in (*everyone, *second(), *further_records(1500, SHARES))]
    labels = {case.case_id: case.label for case in cases}
    checks = reader_checks(OF_CONTRAST)
    assert [check.counts[0] for check in checks] == [100, 40, 40]

    for check in checks:
        assert check.texts == texts_digest(check, cases), "texts were rewritten since they were read"
        assert all(labels[name] == stored for name, (stored, _) in check.answers.items())
        assert {name for name, (stored, read) in check.answers.items() if stored != read} == set(check.remarks)
        read, agreed = check.counts
        assert agreed >= 0.9 * read

    assert [len(checks_of(part)) for part in ("contrast", SECOND, "further")] == [1, 1, 1]
