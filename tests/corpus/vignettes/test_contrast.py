"""Contrast cases and the second adversarial set: labels follow from facts, and what teaches and what tests share no words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.corpus.near_copies import near_duplicates
from tasks.corpus.prepare import CARD, Source, prepare_dataset
from tasks.corpus.vignettes.adversarial import adversarial_records
from tasks.corpus.vignettes.contrast import cases as contrast
from tasks.corpus.vignettes.contrast.bank import Bank, read_bank, reworded, teaching_bank
from tasks.corpus.vignettes.contrast.cases import KINDS, contrast_records
from tasks.corpus.vignettes.generator import Record, assign_sets, embedded_records, further_records
from tasks.corpus.vignettes.knowledge_base import ClinicalProblem, general, problems, tone
from tasks.corpus.vignettes.label_rules import decide
from tasks.corpus.vignettes.reader_check import OF_CONTRAST, agreement, checks_of, reader_checks, texts_digest
from tasks.corpus.vignettes.render import Style
from tasks.corpus.vignettes.sets import records_of, sets_of
from tasks.corpus.vignettes.stored_facts import Derivation, derive_again
from tasks.corpus.vignettes.voices import contract
from tasks.grids.grid import load_grid
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Data, EvaluationSet

SHARES = (0.27, 0.38, 0.35)


@pytest.fixture(scope="module")
def taught() -> tuple[Record, ...]:
    return contrast_records("train", 750, SHARES)


@pytest.fixture(scope="module")
def everyone(taught: tuple[Record, ...]) -> tuple[Record, ...]:
    return (*taught, *contrast_records("valid", 200, SHARES))


def pairs(records: tuple[Record, ...]) -> Iterator[tuple[Record, Record]]:
    """The two cases of each pair: the alarm stands, and it is taken back."""
    by_name = {record.case.case_id: record for record in records}
    for name, record in by_name.items():
        if name.endswith("a"):
            yield record, by_name[f"{name[:-1]}b"]


def test_every_label_is_derived_again_by_the_rules_of_all_cases(everyone: tuple[Record, ...]) -> None:
    for record in everyone:
        assert decide(record.facts, problems()[record.facts.problem]) == record.verdict
        assert record.verdict.label == record.case.label


def test_an_alarm_that_is_no_longer_taken_back_makes_the_case_an_emergency(everyone: tuple[Record, ...]) -> None:
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


def test_the_frame_of_a_pair_is_the_same_and_says_nothing_about_the_label(everyone: tuple[Record, ...]) -> None:
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


def test_every_kind_has_every_label_and_meets_many_problems(taught: tuple[Record, ...]) -> None:
    counts = Counter((r.case.subgroup["kind"], r.case.label) for r in taught)
    assert set(counts) == {(kind, label) for kind in KINDS for label in LABELS} and min(counts.values()) >= 35
    many = defaultdict(set)
    for record in taught:
        many[record.facts.problem].add(record.case.subgroup["kind"])
    assert set(many) == {problem.id for problem in of_set("train")}
    assert min(len(kinds) for kinds in many.values()) >= 4


def test_what_is_denied_or_elsewhere_is_told_so(everyone: tuple[Record, ...]) -> None:
    counts = Counter()
    for record in everyone:
        facts = record.facts
        kind = record.case.subgroup["kind"]
        assert not {*facts.denied, *facts.elsewhere} & {*facts.red, *facts.amber, *facts.mild}
        counts[kind] += bool(facts.denied if kind == "negated" else facts.elsewhere)
        counts["both"] += bool({*facts.denied} & {*facts.elsewhere})

    assert counts["negated"] >= 0.9 * sum(r.case.subgroup["kind"] == "negated" for r in everyone)
    assert counts["elsewhere"] >= 0.8 * sum(r.case.subgroup["kind"] == "elsewhere" for r in everyone)
    assert counts["both"] == counts["figurative"] == counts["frightened"] == counts["understated"] == 0


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", contract(text).lower().replace("'", "")).strip()


def entries(value: object) -> Iterator[str]:
    """Every wording in a bank."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from entries(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from entries(part)


def runs(wordings: Iterator[str]) -> dict[tuple[str, ...], str]:
    """Each run of four words, and the wording that it is from; a shorter wording is one run."""
    matches = {}
    for wording in wordings:
        words = plain(re.sub(r"\{\w+\}", " ", wording)).split()
        for start in range(max(1, len(words) - 3)):
            matches[tuple(words[start : start + 4])] = wording
    return matches


def bank_words(bank: Bank) -> Iterator[str]:
    return entries(bank.model_dump())


def adversarial_words() -> Iterator[str]:
    """Everything in the banks of the adversarial sets: tones, lists, flags, and the problems of test."""
    yield from bank_words(read_bank("adversarial_2"))
    yield from first_adversarial_words()
    yield from facts_of_test()


def facts_of_test() -> Iterator[str]:
    for problem in of_set("test"):
        yield from (problem.note, *problem.complaint)
        for fact in (*problem.red.values(), *problem.amber.values(), *problem.mild.values()):
            yield from (fact.note, *fact.say, *fact.deny)


def first_adversarial_words() -> Iterator[str]:
    """What `test_adversarial` has around the facts of its problems."""
    yield from entries(tone())
    yield from (Style("patient", "british", "plain").list_form,)
    for fact in general().red.values():
        yield from (fact.note, *fact.say, *fact.deny)


def of_set(name: str) -> list[ClinicalProblem]:
    return [problems()[problem] for problem, its_set in assign_sets().items() if its_set == name]


def test_no_run_of_four_words_of_the_teaching_bank_stands_in_a_bank_of_the_adversarial_sets() -> None:
    teaching = runs(bank_words(read_bank("teaching")))
    adversarial = runs(adversarial_words())
    assert {run: (teaching[run], adversarial[run]) for run in {*teaching} & {*adversarial}} == {}
    train, valid = (runs(bank_words(teaching_bank(learner))) for learner in ("train", "valid"))
    assert {run: (train[run], valid[run]) for run in {*train} & {*valid}} == {}


@pytest.mark.nightly  # all pairs of texts
def test_no_problem_and_no_near_copy_is_shared_with_what_is_tested(everyone: tuple[Record, ...]) -> None:
    set_of_problem = assign_sets()
    assert {(r.set, set_of_problem[r.facts.problem]) for r in everyone} == {("train", "train"), ("valid", "valid")}

    sets = {name: [r.case for r in everyone if r.set == name] for name in ("train", "valid")}
    tested = {"test": sets_of(Data())["test"], "adversarial": [r.case for r in (*adversarial_records(), *second())]}
    for name, cases in sets.items():
        assert near_duplicates({name: cases} | tested, threshold=0.4) == near_duplicates(tested, threshold=0.4)

    learned = {name: cases for name, cases in sets_of(Data()).items() if name != "test"}
    assert near_duplicates(learned | {"second": [r.case for r in second()]}, threshold=0.4) == []
    same_problems = tested | {
        "adversarial": [r.case for r in adversarial_records()],
        "second": [r.case for r in second()],
    }
    assert near_duplicates(same_problems, threshold=0.5) == []


def test_the_teaching_bank_can_be_listed_and_has_a_fourth_for_valid() -> None:
    bank = read_bank("teaching")
    assert set(bank.flag) == set(general().red)
    for learner, share in (("train", 3), ("valid", 1)):
        part = teaching_bank(learner)
        for name, words in bank.flag.items():
            assert len(part.flag[name].say) == share * len(words.say) / 4
        for key, wordings in bank.frame.model_dump().items():
            assert len(getattr(part.frame, key)) == share * len(wordings) / 4, key

    every = [*bank_words(bank)]
    assert len({*map(plain, every)}) == len(every)
    nouns = [general().red[n].model_copy(update={"note": w}) for n, words in bank.flag.items() for w in words.note]
    assert [fact.note for fact in nouns if not fact.listable] == []


def test_the_share_is_of_train_and_valid_and_the_other_cases_stay() -> None:
    assert records_of(Data()) is embedded_records()
    usual = sets_of(Data())
    more = sets_of(Data(train_cases=1000, contrast_share=0.25))
    added = {name: [case for case in cases if "kind" in case.subgroup] for name, cases in more.items()}
    assert {name: (len(more[name]), len(added[name])) for name in more} == {
        "train": (1000, 250), "valid": (800, 200), "calibration": (1200, 0), "test": (1500, 0),
    }  # fmt: skip
    assert more["valid"][:600] == usual["valid"]
    assert all(more[name] == usual[name] for name in ("calibration", "test"))
    assert len({case.text for case in more["train"]}) == 1000
    tilted = contrast_records("train", 60, (0.5, 0.25, 0.25))
    assert Counter(record.case.label for record in tilted) == {"ED": 30, "GP": 15, "HOME": 15}


def test_the_same_seed_gives_the_same_contrast_cases_and_another_seed_others() -> None:
    again = contrast_records.__wrapped__("valid", 60, SHARES, 42)
    assert again == contrast_records("valid", 60, SHARES) == contrast_records("valid", 200, SHARES)[:0] + again
    assert contrast_records("valid", 60, SHARES, 7) != again


def test_a_share_of_nothing_changes_no_digest_and_a_share_does() -> None:
    usual, none, some = (
        Source.of(data).ingredients for data in (Data(), Data(contrast_share=0), Data(contrast_share=0.1))
    )
    assert usual == none and usual["inputs"].keys() < some["inputs"].keys() and "contrast_words" in some["inputs"]
    assert (
        "contrast_share" not in Data().model_dump() and Data(contrast_share=0.1).model_dump()["contrast_share"] == 0.1
    )


def test_the_card_says_what_train_teaches_and_how_often(tmp_path: Path) -> None:
    data = Data.model_validate(
        {"contrast_share": 0.2, "train_cases": 300, "limits": {"valid": 60, "calibration": 9, "test": 9}}
    )
    folder = prepare_dataset(data, tmp_path)
    card = (folder / CARD).read_text()
    assert derive_again(folder) == Derivation(378, 378)
    section = card.split("## Contrast cases")[1]
    assert "`train` teaches what takes an alarm back" in section
    rows = re.findall(r"^\| (train|valid) \| (\w+) \| (\d+) \|", section, re.MULTILINE)
    assert [kind for _, kind, _ in rows] == [*KINDS, *KINDS]
    assert sum(int(count) for name, _, count in rows if name == "train") == 60


@pytest.mark.parametrize("share", [-0.1, 0.6, 1.5])
def test_a_share_out_of_range_is_refused_in_a_sentence(share: float, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('name = "study"\nmodels = ["tiny-llama"]\nbits = [4]\n')
    with pytest.raises(BadInput, match=r"contrast_share.*(0\.5|at least 0|greater than or equal to 0)"):
        load_grid("smoke", (f"data.contrast_share={share}",))


def test_contrast_cases_about_own_data_are_refused() -> None:
    with pytest.raises(ValidationError, match="contrast_share is for source = 'embedded' only"):
        Data(source="a.csv", contrast_share=0.2)


def test_a_flag_that_shares_a_word_with_a_fact_is_not_taken_back(everyone: tuple[Record, ...]) -> None:
    """The alarm of case b is one that its facts leave open: `_deniable` judges the words of the bank."""
    for record in everyone[:300]:
        learner = "train" if record.set == "train" else "valid"
        problem = reworded(problems()[record.facts.problem], teaching_bank(learner), contrast.random.Random(1))
        bare = replace(record.facts, denied=(), elsewhere=())
        assert {*record.facts.elsewhere} <= {*contrast.absent_red_flags(problem, bare)} | {
            *problem.general_facts("red")
        }


SECOND = "test_adversarial_2"


def second() -> tuple[Record, ...]:
    return adversarial_records(42, SECOND)


def test_the_second_adversarial_set_is_balanced_and_of_all_problems_of_test() -> None:
    kinds = Counter((r.case.subgroup["kind"], r.case.label) for r in second())
    assert len(second()) == 1200 and len({r.case.case_id for r in second()}) == 1200
    assert Counter(r.case.label for r in second()) == dict.fromkeys(LABELS, 400)
    assert len(kinds) == 9 and set(kinds.values()) == {133, 134}
    assert {r.case.group for r in second()} == {problem.id for problem in of_set("test")}
    texts = {r.case.text for r in second()}
    assert len(texts) == 1200 and not texts & {r.case.text for r in (*embedded_records(), *adversarial_records())}

    for record in second():
        assert decide(record.facts, problems()[record.facts.problem]) == record.verdict


def test_the_second_set_tells_the_facts_of_its_problems_in_words_of_its_own() -> None:
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


def test_no_list_calls_absent_what_begins_with_an_article(everyone: tuple[Record, ...]) -> None:
    odd = re.compile(r"\b[Nn]o (an?|nothing|no|was|were) ")
    assert [r.case.text for r in (*everyone, *second()) if odd.search(r.case.text)] == []


def test_a_dataset_with_the_second_set_says_so_and_keeps_the_first_one(tmp_path: Path) -> None:
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


def test_another_name_of_an_embedded_set_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match="test_adversarial and test_adversarial_2, not test_adversarial_3"):
        EvaluationSet(name="test_adversarial_3", source="embedded")


def test_what_the_reader_saw_is_what_is_generated(everyone: tuple[Record, ...]) -> None:
    cases = [record.case for record in (*everyone, *second(), *further_records(1500, SHARES))]
    labels = {case.case_id: case.label for case in cases}
    checks = reader_checks(OF_CONTRAST)
    assert [agreement(check).cases for check in checks] == [100, 40, 40]

    for check in checks:
        assert check.texts == texts_digest(check, cases), "texts were rewritten since they were read"
        assert all(labels[name] == stored for name, (stored, _) in check.answers.items())
        assert {name for name, (stored, read) in check.answers.items() if stored != read} == set(check.remarks)
        assert agreement(check).agreed >= 0.9 * agreement(check).cases

    assert [len(checks_of(part)) for part in ("contrast", SECOND, "further")] == [1, 1, 1]
