"""Data cards: sources, how own data was read, and a reader's agreement tied to the version of the corpus that was read."""

from collections.abc import Iterable

from tasks.corpus.case import Case
from tasks.corpus.prepare import CARD, prepare_dataset
from tasks.corpus.vignettes.adversarial import adversarial_records
from tasks.corpus.vignettes.generator import GENERATOR_VERSION, embedded_records
from tasks.corpus.vignettes.knowledge_base import problems
from tasks.corpus.vignettes.reader_check import ReaderCheck, describe_all_checks, describe_check, reader_checks
from tasks.spec import Data, digest_of
from tests.corpus.test_check import folder, rows, write


def test_the_card_of_the_embedded_cases_lists_sources_and_readers(tmp_path):
    limits = {"train": 30, "valid": 9, "calibration": 9, "test": 9}
    card = (prepare_dataset(Data.model_validate({"limits": limits}), tmp_path) / CARD).read_text()
    sources = card.split("## Sources")[1]
    assert all(name in sources for name in ("NICE NG240", "RCP NEWS2 2017", "NICE CKS sciatica: cauda equina syndrome"))
    assert describe_all_checks() in card and "ontrast" not in card
    assert "ynthetic: for building and comparing, not evidence about patients" in card
    worsening = sum(not problem.worsens_first for problem in problems().values())
    assert f"or at any age in the {worsening} problems" in card
    emergencies = sum(record.set == "test" and record.case.label == "ED" for record in embedded_records())
    assert f" of {emergencies} ED cases" in " ".join(card.split())


def test_the_card_of_own_data_says_how_it_was_read_and_split(tmp_path):
    stories = [{"message": f"story {i}", "urgency": ("now", "GP", "home")[i % 3], "patient": i // 2} for i in range(90)]
    source = write(tmp_path / "a.jsonl", stories)
    columns = {"text_column": "message", "label_column": "urgency", "group_column": "patient", "labels": {"now": "ED"}}
    card = (prepare_dataset(Data.model_validate({"source": str(source), **columns}), tmp_path) / CARD).read_text()
    assert "text from `message`, label from `urgency`, group from `patient`" in card and "`now` for ED" in card
    assert "One table, split by us into train 60%, valid 10%, calibration 10%, test 20% (seed 42" in card
    given = folder(tmp_path / "given", train=rows(60), test=rows(60, 100))
    card = (prepare_dataset(Data(source=str(given)), tmp_path) / CARD).read_text()
    assert "Given: train, test; valid and calibration split off train by us" in card


def test_a_readers_figure_is_counted_from_the_answers_and_says_its_version():
    answers = {"train-0001": ("ED", "ED"), "test-0001": ("GP", "HOME"), "test-0002": ("HOME", "HOME")}
    entry = {"generator": 1, "date": "2026-01-02", "reader": "a nurse", "answers": answers, "remarks": {}}
    check = ReaderCheck.model_validate(entry)
    assert check.counts == (3, 2)
    for words in (
        "(a nurse) who did not see the labels agreed with 2 of 3 sampled cases of test and train",
        "generator 1, 2026-01-02",
        f"generator {GENERATOR_VERSION} has not been read yet",
    ):
        assert words in describe_check(check)

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
