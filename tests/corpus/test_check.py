"""`triage data check`: what it finds, where it says it is, and with which exit code."""

import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from typer.testing import CliRunner

from flows.cli import data as data_check
from flows.cli.main import app, main
from tasks.corpus import check as check_module
from tasks.corpus.card import best_bound
from tasks.corpus.case import SETS
from tasks.corpus.check import CorpusReport, check_data
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.prompts import load_prompt
from tasks.grids.grid import GRIDS, known_models
from tasks.judging.intervals import clopper_pearson
from tasks.models.convert import run_quantize
from tasks.models.sources.fetch import fetch_base
from tasks.models.sources.random_source import write_tiny_tokenizer
from tasks.runtime.errors import BadInput, Finding
from tasks.spec import LABELS, Data, EvaluationSet

STORY = "my knee has been sore since I fell on the stairs three days ago and it creaks when I bend it"


def rows(count: int, start: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"c{i}", "text": f"story {i} of a kind with {i * 7} words", "label": LABELS[i % 3], **more}
        for i in range(start, start + count)
    ]


def write(path: Path, entries: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def folder(tmp_path: Path, **sets: list[dict[str, Any]]) -> Path:
    tmp_path.mkdir(exist_ok=True)
    for name, entries in sets.items():
        write(tmp_path / f"{name}.jsonl", entries)
    return tmp_path


def finding_of(report: CorpusReport, name: str) -> Finding:
    return next(finding for finding in report.findings if finding.name == name)


def certified(report: CorpusReport, name: str) -> str:
    return finding_of(report, f"ED recall that {name} can certify").detail


def check(path: Path, **settings: Any) -> CorpusReport:
    return check_data(Data(source=str(path), **settings), (), {})


def check_with(path: Path, outside: list[dict[str, Any]]) -> CorpusReport:
    clinic = EvaluationSet(name="clinic", source=str(write(path.parent / "outside.jsonl", outside)))
    return check_data(Data(source=str(path)), (clinic,), {})


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["data", *arguments])


def test_a_sound_table_passes_with_its_numbers(tmp_path):
    report = check(write(tmp_path / "a.jsonl", [row | {"group": f"g{i // 30}"} for i, row in enumerate(rows(300))]))
    (line,) = report.sets
    groups = [f"g{i}" for i in range(10)]
    assert (line.name, line.rows, line.labels, line.groups, line.words) == ("all", 300, [100, 100, 100], groups, 8)
    assert not report.errors and report.lengths[0].unit == "words" and report.lengths[0].longest == 8


@pytest.mark.parametrize("table", [rows(3), rows(300, group="g"), [*rows(60, group="g"), *rows(9, 99)]])
@pytest.mark.parametrize("has_test_file", [True, False])
def test_what_is_too_small_for_our_split_fails_as_when_the_data_is_made(table, has_test_file, tmp_path):
    source = write(tmp_path / "a.jsonl", table)
    if has_test_file:
        source = folder(tmp_path / "given", train=table, test=rows(30, 1000))

    sentence = ""
    try:
        prepare_dataset(Data(source=str(source)), tmp_path / "home")
    except BadInput as error:
        sentence = str(error)

    assert bool(sentence) == (len(table) in (3, 300))
    split = finding_of(check(source), "our split")
    assert split.level == ("error" if sentence else "ok") and split.remedy + "." * bool(sentence) == sentence


def test_repeats_contradictions_and_repeated_ids_are_separate_findings_with_their_places(tmp_path):
    entries = [*rows(30), {"text": "STORY 0  of a kind with 0 words", "label": "ED"}]
    report = check(write(tmp_path / "a.jsonl", entries))
    repeated = finding_of(report, "repeated rows")
    assert not report.errors and repeated.level == "warning"
    assert "a.jsonl, line 1 and" in repeated.remedy and "line 31" in repeated.remedy

    entries += [{"text": entries[1]["text"], "label": "ED"}, {"id": "c2", "text": "another", "label": "ED"}]
    report = check(write(tmp_path / "a.jsonl", entries))
    assert report.errors
    assert "line 2 and" in finding_of(report, "same text, other label").remedy
    assert "line 3 and" in finding_of(report, "same id, other text").remedy
    assert not any("kind" in finding.remedy for finding in report.findings), "no patient's words in a report"


def test_what_crosses_given_sets_fails_and_the_list_places_each_pair_without_a_word_of_a_case(tmp_path):
    # enough for our split
    other_groups = [row for n, group in enumerate("ade") for row in rows(10, 10 * n, group=group)]
    train = [*other_groups, {"text": STORY, "label": "GP", "group": "b"}]
    assert not check(folder(tmp_path, train=train, test=rows(30, 100, group="t"))).errors
    near = {"text": STORY + " now", "label": "GP", "group": "c"}
    source = folder(tmp_path, train=train, test=[*rows(30, 100, group="a"), near, train[3]])
    report = check(source)
    assert finding_of(report, "same text in two sets").level == "error"
    assert finding_of(report, "groups that cross sets").detail == "1 of 5"
    copies = finding_of(report, "nearly the same text across sets")
    assert copies.level == "error" and "train.jsonl, line 31 and" in copies.remedy

    result = run("check", str(source), "--list")
    assert "Groups of train (4): a, b, d, e\n" in result.stdout and "Groups of test (2): a, c\n" in result.stdout
    assert "Pairs of the same text, or nearly it (2):\n" in result.stdout
    assert f"{source / 'train.jsonl'}, line 31  and  {source / 'test.jsonl'}, line 31\n" in result.stdout
    assert "knee" not in result.stdout and result.exit_code == 1
    table = write(tmp_path / "a.jsonl", [*rows(60, group="Condition 3"), *rows(60, 100, group="condition  3")])
    assert check(table).sets[0].groups == ["Condition 3"], "a group written in two ways is one"


def test_a_text_of_test_in_an_evaluation_set_is_scored_in_both_and_an_id_may_name_other_cases(tmp_path):
    source = folder(tmp_path / "cases", train=rows(60), test=rows(30, 102))
    report = check_with(source, [*rows(9, 200), rows(1, 102)[0] | {"label": "GP"}])
    twice = finding_of(report, "same text in two scored sets")
    assert twice.level == "warning" and "outside.jsonl, line 10" in twice.remedy
    assert not report.errors and finding_of(report, "repeated rows").detail == "0"
    clinic = EvaluationSet(name="clinic", source=str(tmp_path / "outside.jsonl"))
    dataset = prepare_dataset(Data(source=str(source)), tmp_path / "home", (clinic,))
    assert [len((dataset / f"{name}.jsonl").read_text().splitlines()) for name in ("test", "clinic")] == [30, 10]

    path = write(tmp_path / "a.jsonl", rows(60))
    outside = [row | {"id": f"c{i}"} for i, row in enumerate(rows(9, 100))]
    assert not check_with(path, outside).errors
    twice = check_with(path, [*outside, {"id": "c0", "text": "another story", "label": "ED"}])
    assert finding_of(twice, "same id, other text").level == "error"


@pytest.mark.parametrize(
    ("name", "lacks", "means"),
    [
        ("train", "ED", "train needs every label"),
        ("calibration", "ED", "without ED no threshold can be chosen, so safety recipes cannot be judged"),
        ("calibration", "GP", "without every label the rule of least expected cost is not available"),
        ("test", "ED", "without ED there is no ED recall, so no gate can pass"),
        ("clinic", "HOME", "its figures say nothing of such cases"),
    ],
)
def test_the_consequence_of_a_missing_label_is_that_of_the_set(name, lacks, means, tmp_path):
    sets = {of: rows(60, 100 * n) for n, of in enumerate((*SETS, "clinic"))}
    sets[name] = [row for row in sets[name] if row["label"] != lacks]
    outside = sets.pop("clinic")
    report = check_with(folder(tmp_path / "given", **sets), outside)
    (finding,) = (one for one in report.findings if one.name.startswith("labels of"))
    assert finding.name == f"labels of {name}" and finding.remedy == means and (report.errors > 0) == (name == "train")


def test_the_certifiable_recall_is_that_of_the_test_set_within_its_limit(tmp_path, monkeypatch):
    assert all(best_bound(n) == pytest.approx(clopper_pearson(n, n)[0], rel=1e-12) for n in (1, 36, 405))
    given = folder(tmp_path / "given", train=rows(30), test=rows(300, 1000))
    assert certified(check(given), "test") == "at best 0.963 (100 ED cases)"
    limited = check(given, limits={"test": 30, "train": 9})
    assert certified(limited, "test (limited to 30)") == "at best 0.691 (10 ED cases)"

    table = write(tmp_path / "all.jsonl", rows(300))
    assert "(20 ED cases)" in certified(check(table), "our test set")
    assert "(4 ED cases)" in certified(check(table, limits={"test": 12}), "our test set (limited to 12)")
    assert "(20 ED cases)" in certified(check(table, limits={"test": 99}), "our test set")
    # Cases of an evaluation set are not split with the table.
    assert certified(check_with(table, rows(300, 1000)), "our test set") == certified(check(table), "our test set")

    monkeypatch.setattr(check_module, "MOST_SPLIT", 100)  # a large table: its cases are not kept
    report = check(table)
    assert "(20 ED cases)" in certified(report, "our test set (about)")
    untried = finding_of(report, "our split")
    assert (untried.detail, untried.level) == ("not tried", "warning") and "triage data card" in untried.remedy


def test_repeated_rows_certify_nothing(tmp_path):
    cases = rows(120, 1000)
    emergencies = [row for row in cases if row["label"] == "ED"]
    repeats = [row | {"id": f"again-{row['id']}"} for row in emergencies[:32]]
    report = check(folder(tmp_path / "given", train=rows(30), test=cases + repeats))
    assert certified(report, "test") == "at best 0.911 (40 ED cases)"
    assert finding_of(report, "ED recall that test can certify").level == "warning"
    assert report.sets[-1].labels == [72, 40, 40]

    further = check_with(write(tmp_path / "a.jsonl", rows(60)), cases + repeats)
    table = check(write(tmp_path / "b.jsonl", cases + repeats))
    assert certified(further, "clinic") == certified(report, "test")
    assert certified(table, "all rows as an evaluation set") == certified(report, "test")
    assert certified(table, "our test set").endswith("(8 ED cases)")


def test_lengths_in_tokens_are_those_of_an_even_sample_and_of_the_longest_text(tmp_path, monkeypatch):
    monkeypatch.setattr(check_module, "SAMPLE", 40)
    write_tiny_tokenizer(tmp_path, chat=True)
    path = tmp_path / "tokenizer.json"
    entries = [*rows(60), {"text": STORY, "label": "GP"}, {"text": STORY.replace(" ", " a "), "label": "GP"}]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    counts = [len(tokenizer.encode(entry["text"], add_special_tokens=False)) for entry in entries]
    median, high = np.quantile(counts[::2], (0.5, 0.95))
    table = Data(source=str(write(tmp_path / "a.jsonl", entries)))
    lines = check_data(table, (), {"tiny": path}).lengths
    assert lines == [check_module.Lengths("tiny tokens", median, high, max(counts), 31)]
    assert len(set(counts)) > 3 and counts[-1] not in counts[::2]

    padding = Tokenizer.from_file(str(path))
    padding.enable_padding(length=64)
    padding.enable_truncation(4)
    padding.save(str(path))
    assert check_data(table, (), {"tiny": path}).lengths == lines


def test_texts_that_are_cut_are_counted_in_words_or_in_tokens_with_the_instruction(tmp_path, monkeypatch):
    entries = [*rows(30), *({"text": " ".join(["so"] * count), "label": "GP"} for count in (90, 100, 99))]
    table = Data(source=str(write(tmp_path / "a.jsonl", entries)))
    prompt = load_prompt()
    room = 98 + len(prompt.instruction.split())
    cut = finding_of(check_data(table, (), {}, prompt, room), "texts that are cut")
    assert (cut.level, cut.detail) == ("warning", "at least 2 of 33, in words") and f"is {room}" in cut.remedy
    assert not any(one.name == "texts that are cut" for one in check_data(table, (), {}, prompt, room + 2).findings)
    with monkeypatch.context() as patch:
        patch.setattr(check_module, "SAMPLE", 20)  # every other text, and so not the longest
        assert finding_of(check_data(table, (), {}, prompt, room + 1), "texts that are cut").detail.startswith(
            "at least 1 of 17"
        )
    write_tiny_tokenizer(tmp_path, chat=True)
    tokens = finding_of(
        check_data(table, (), {"tiny": tmp_path / "tokenizer.json"}, prompt, room), "texts that are cut"
    )
    assert tokens.detail.endswith("of 33, in tiny tokens") and int(tokens.detail.split()[2]) >= 2


def test_the_embedded_sets_of_a_grid_pass_with_their_labels_derived_again():
    result = run("check", str(GRIDS / "paper.toml"))
    assert result.exit_code == 0 and "6600 of 6600" in result.output and "Checks that fail: 0." in result.output


def test_the_command_exits_0_1_or_2_and_measures_in_the_tokens_of_each_stored_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path))
    source = fetch_base(known_models()["tiny-llama"], tmp_path)
    run_quantize({"source": str(source), "root": str(tmp_path), "bits": 4, "group_size": 64})
    result = run("check", str(write(tmp_path / "a.jsonl", rows(30))))
    assert result.exit_code == 0 and "Checks that fail: 0." in result.output and "tiny-llama tokens" in result.output
    contradicting = write(tmp_path / "b.jsonl", [*rows(30), {"text": rows(1)[0]["text"], "label": "GP"}])
    assert run("check", str(contradicting)).exit_code == 1
    bad = write(tmp_path / "c.jsonl", [{"text": "a", "label": "sofa"}])
    monkeypatch.setattr(sys, "argv", ["triage", "data", "check", str(bad)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and f"{bad}, line 1: has an unknown label" in capsys.readouterr().err


def test_columns_and_label_words_can_be_given_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    words = ("now", "later", "home")
    entries = [{"message": f"m {i}", "urgency": words[i % 3], "n": f"n{i}", "why": "because"} for i in range(60)]
    path = str(write(tmp_path / "a.jsonl", entries))
    options = ["--text-column", "message", "--label-column", "urgency", "--label", "now=ED", "--label", "later=GP"]
    options += ["--id-column", "n", "--rationale-column", "why"]
    assert run("check", path, *options).exit_code == 0
    assert "id from `n`" in run("card", path, *options).output
    assert isinstance(run("check", path, "--label", "now=SOON").exception, BadInput)
    assert isinstance(run("check", "x.toml", "--text-column", "a").exception, BadInput)
    for command in ("check", "card"):
        options[-1] = "nothing"
        assert "as rationale_column" in str(run(command, path, *options).exception)


def test_a_card_whose_terminal_is_closed_leaves_no_texts_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    real = data_check.stored_or_temporary

    @contextlib.contextmanager
    def closed_meanwhile(*args):
        with real(*args) as folder:
            assert (folder / "train.jsonl").exists()
            os.kill(os.getpid(), signal.SIGHUP)
            yield folder

    monkeypatch.setattr(data_check, "stored_or_temporary", closed_meanwhile)
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        assert run("card", str(write(tmp_path / "a.jsonl", rows(60)))).exit_code
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not list((tmp_path / "temporary").rglob("*.jsonl")) and not (tmp_path / "home").exists()


def test_groups_with_emergencies_are_counted_for_each_set(tmp_path):
    sets = {}
    for n, (name, groups) in enumerate(zip(SETS, (20, 10, 12, 9), strict=True)):
        sets[name] = [row | {"group": f"{name}{i // 3}"} for i, row in enumerate(rows(3 * groups, 100 * n))]

    sets["calibration"][0]["group"] = None  # a case without a group counts as a group
    outside = [row | {"group": f"c{i // 60}"} for i, row in enumerate(rows(60, 900))]
    report = check_with(folder(tmp_path / "given", **sets), outside)
    finding = finding_of(report, "groups with ED cases")
    assert finding.detail == "train 20, valid 10, calibration 12, test 9, clinic 1"
    assert finding.level == "warning" and "fewer than 10 in test, clinic:" in finding.remedy
    assert [line.ed_groups for line in report.sets] == [20, 10, 12, 9, 1]

    alone = [row | {"group": None if i < 30 else "g"} for i, row in enumerate(rows(60))]
    finding = finding_of(check(write(tmp_path / "alone.jsonl", alone)), "groups with ED cases")
    # Ten emergencies without a group, and one group.
    assert finding.detail == "train 3, valid 2, calibration 2, test 4"
    assert "(--group-column)" in finding_of(check(write(tmp_path / "b.jsonl", rows(60))), "groups").remedy
