"""Users' files: what is accepted, and the one-sentence refusal of everything else."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.corpus.case import Case, from_json, text_digest, to_json
from tasks.corpus.check import check_data
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.reading.sources import check_local
from tasks.corpus.reading.tables import read_set
from tasks.runtime.errors import BadInput
from tasks.spec import Data, EvaluationSet
from tests.corpus.test_sources import refusals

GOOD = [{"text": "Chest pain since noon", "label": "ED"}, {"text": "A cold, day two", "label": "home "}]


def jsonl(folder: Path, *rows: Any) -> Path:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def csv(folder: Path, content: str) -> Path:
    path = folder / "a.csv"
    path.write_text(content)
    return path


def refusal(path: Path, data: Data | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        read_set([path], data or Data())
    message = str(caught.value)
    assert str(path) in message and message.endswith(".") and "\n" not in message
    return message


def test_a_case_survives_its_line_of_json():
    case = Case("c1", "Größe 1 – 39 °C\u2028ok", "GP", "fever", {"voice": "parent"})
    assert from_json(to_json(case)) == case
    assert "\n" not in to_json(case)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "excel", "parquet", "tsv"])
def test_the_same_rows_give_the_same_cases_from_every_kind_of_file(kind, tmp_path):
    content = 'text,label\r\nChest pain since noon,ED\r\n"A cold, day two",home \r\n'
    path = jsonl(tmp_path, *GOOD)
    if kind == "parquet":
        path = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_pylist(GOOD), path)
    elif kind == "csv":
        path = csv(tmp_path, content)
    elif kind == "excel":
        path = csv(tmp_path, "\ufeff" + re.sub(",(?=ED|home|label)", ";", content))
    elif kind == "tsv":
        path = csv(tmp_path, re.sub(",(?=ED|home|label)", "\t", content)).rename(tmp_path / "a.tsv")

    cases = read_set([path], Data())
    assert [(c.text, c.label) for c in cases] == [("Chest pain since noon", "ED"), ("A cold, day two", "HOME")]
    assert [c.case_id for c in cases] == [f"text-{text_digest(c.text)}" for c in cases]


def test_columns_labels_groups_and_ids_can_be_named(tmp_path):
    row = {"id": 7, "message": "Sore knee", "urgency": " Emergency", "topic": "knee"}
    data = Data(text_column="message", label_column="urgency", group_column="topic", labels={"emergency": "ED"})
    assert read_set([jsonl(tmp_path, row)], data) == [Case("7", "Sore knee", "ED", "knee")]
    rows = [{"number": 7.0, "id": "not this", **GOOD[0]}, {"number": " b ", **GOOD[1]}]
    assert [case.case_id for case in read_set([jsonl(tmp_path, *rows)], Data(id_column="number"))] == ["7", "b"]


@pytest.mark.parametrize(
    ("value", "read"), [(3, "3"), (7.0, "7"), ("7.0", "7"), (7.5, "7.5"), ("07.0", "07"), ("v7.0", "v7.0")]
)
def test_a_whole_number_is_one_name_however_it_is_written(value, read, tmp_path):
    row = {"id": value, "group": value, "text": "Sore knee", "label": value, "band": value, "why": value}
    data = Data(labels={str(value): "ED"}, subgroup_columns=("band",), rationale_column="why")
    (case,) = read_set([jsonl(tmp_path, row)], data)
    assert (case.group, case.label, case.subgroup) == (read, "ED", {"band": read})
    assert case.case_id == case.rationale == (value if isinstance(value, str) else read)


def test_a_named_group_column_must_be_in_every_row_and_may_be_null(tmp_path):
    rows = [{**GOOD[0], "topic": "heart"}, {**GOOD[1], "topic": None}]
    data = Data(group_column="topic")
    assert [case.group for case in read_set([jsonl(tmp_path, *rows)], data)] == ["heart", None]
    message = refusal(jsonl(tmp_path, rows[0], GOOD[1]), data)
    assert "line 2: has no columns 'topic'" in message
    assert "as group_column (--group-column), or add" in message


def test_subgroups_are_read_from_the_columns_that_are_named(tmp_path):
    path = jsonl(
        tmp_path,
        {**GOOD[0], "age_band": " child ", "clinic": 3, "sex": "f"},
        {**GOOD[1], "age_band": None},
        {"text": "Sore knee", "label": "GP", "age_band": "", "clinic": float("nan")},
    )
    cases = read_set([path], Data(subgroup_columns=("age_band", "clinic")))
    assert [case.subgroup for case in cases] == [{"age_band": "child", "clinic": "3"}, {}, {}]
    assert [case.subgroup for case in read_set([path], Data())] == [{}] * 3
    message = refusal(path, Data(subgroup_columns=("sex", "age")))
    assert "line 1: has no columns 'age'" in message and "as one of subgroup_columns, or add" in message
    for value, words in (("a" * 101, "holds 101 characters"), (["a"], "is list")):
        bad = jsonl(tmp_path, GOOD[0], {**GOOD[1], "note": value})
        assert f"line 2: 'note' {words}" in refusal(bad, Data(subgroup_columns=("note",)))
    for column in ("text", "label", "why", "id", "number"):
        with pytest.raises(ValueError, match=f"subgroup_columns names {column}, and reports show"):
            Data(subgroup_columns=("band", column), rationale_column="why", id_column="number")
    for setting, column in (("id_column", "text"), ("group_column", "why")):
        with pytest.raises(ValueError, match=f"{setting} names {column}, a text that would be stored"):
            Data(rationale_column="why", **{setting: column})
        bad = jsonl(tmp_path, {**GOOD[0], "note": "a"}, {**GOOD[1], "note": "a" * 101})
        assert "'note' holds 101 characters, and may be a text" in refusal(bad, Data(**{setting: "note"}))


@pytest.mark.parametrize("word", ["ED", " Ed "])
def test_a_word_that_is_a_label_cannot_be_another_label(word, tmp_path):
    written = ("ED", "ed", " Ed\n", "GP", "gp")
    path = jsonl(tmp_path, *({"text": f"story {n}", "label": label} for n, label in enumerate(written)))
    assert [case.label for case in read_set([path], Data(labels={word: "ED"}))] == ["ED"] * 3 + ["GP"] * 2
    data = Data(source=str(path), labels={word: "HOME"})
    sentence = rf"^\[data\.labels\] maps the word '{word}' to HOME, which means ED already"
    assert all(re.search(sentence, said) for said in refusals(data, tmp_path / "home"))
    with pytest.raises(BadInput, match=r"maps the word 'now ' to GP, which means ED already"):
        read_set([path], Data(labels={"Now": "ED", "now ": "GP"}))
    with pytest.raises(BadInput, match="^labels of the evaluation set clinic maps"):
        check_local(EvaluationSet(name="clinic", source=str(path), labels={word: "HOME"}))


def test_all_columns_that_a_header_lacks_are_named_in_one_error_with_their_options(tmp_path):
    data = Data(id_column="number", group_column="topic", rationale_column="why", subgroup_columns=("age",))
    columns = r"has no columns 'text', 'label', 'number' and 'topic'; its columns are 'message', 'urgency'; name .* as"
    options = (
        r".*text_column \(--text-column\).*id_column \(--id-column\).*group_column \(--group-column\).*or add those"
    )
    for path in (jsonl(tmp_path, {"message": "a", "urgency": "ED"}), csv(tmp_path, "message,urgency\na,ED\n")):
        assert re.search(columns + options, refusal(path, data))


@pytest.mark.parametrize(
    "word",
    ["sofa", "A&E", "SELF CARE", "level 2", "-1", "Notfallambulanz", "救急", "🚑"],
)
def test_an_unknown_value_that_looks_like_a_label_is_shown_as_toml_can_read_it(word, tmp_path):
    message = refusal(jsonl(tmp_path, {"text": "a", "label": word}))
    line = re.search(r"write in \[data\], .*: (labels = {.*}) ", message)
    assert line is not None and tomllib.loads(line[1]) == {"labels": {word.casefold(): "?"}}


def test_all_rows_that_are_no_cases_are_named_at_once_with_one_line_for_all_unknown_labels(tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    words = ["urgent", "Urgent ", "soon", "", "see chest pain note", "ED", "later"]
    rows = [{"text": f"story {n}", "label": words[n % 7]} for n in range(21)] + [{"text": " ", "label": "ED"}]
    jsonl(folder, *rows).rename(folder / "train.jsonl")
    jsonl(folder, {"text": "story", "label": "now"}, {"text": "b", "label": "ED"}).rename(folder / "test.jsonl")
    data = Data(source=str(folder), labels={"later": "GP"})
    train, *_ = said = [str(folder / f"{name}.jsonl") for name in ("train", "test")]
    for use in (lambda: prepare_dataset(data, tmp_path / "home"), lambda: check_data(data, (), {})):
        with pytest.raises(BadInput) as caught:
            use()
        sentence = str(caught.value)
        assert f"{train}, line 1 (also 2, 3, 8, 9, 10, 15, 16, 17): has an unknown label." in sentence
        assert f"{train}, line 4 (also 11, 18): has no label" in sentence and "line 22: 'text' is empty" in sentence
        assert f"{train}, line 5 (also 12, 19): has an unknown label in 'label', which is not shown" in sentence
        assert "chest" not in sentence and f"{said[1]}, line 1: has an unknown label." in sentence
        assert "with their rows: 'urgent' (6), 'soon' (3), 'now' (1); correct them" in sentence
        line = re.search(r"labels = {.*}", sentence)
        assert line is not None
        assert tomllib.loads(line[0])["labels"] == {"later": "GP", "urgent": "?", "soon": "?", "now": "?"}


def test_words_that_are_too_many_to_be_labels_are_not_shown_since_they_may_be_names(tmp_path):
    rows = [{"text": f"story {n}", "label": f"Miller{chr(97 + n)}"} for n in range(13)]
    assert refusal(jsonl(tmp_path, *rows[:12])).count("miller") == 24
    message = refusal(jsonl(tmp_path, *rows))
    assert "miller" not in message.casefold() and "are 13 words, which are not shown" in message


def test_all_contradictions_of_a_file_are_named_at_once(tmp_path):
    rows = [{"text": f"story {n % 4}", "label": ("ED", "GP")[n // 4]} for n in range(8)]
    message = refusal(jsonl(tmp_path, *rows))
    assert all(
        f"line {n + 4}: is labelled GP, but {tmp_path}/a.jsonl, line {n} has the same" in message for n in range(1, 5)
    )
    assert message.count("correct one of the two rows") == 1


@pytest.mark.parametrize(
    "text",
    ["chest pain", "0123456789", "born 12/03/1958", "j.doe@example.org", "胸が痛いです", "tired\u200b", "x" * 500],
)
def test_a_short_text_in_the_label_column_is_not_repeated_but_its_place_is(text, tmp_path):
    message = refusal(jsonl(tmp_path, GOOD[0], {"text": "ED", "label": text}))
    assert text not in message and "line 2: has an unknown label in 'label', which is not shown" in message
    assert "(--label WORD=ED)" in message and "label_column (--label-column)" in message


def test_ids_that_are_empty_or_repeated_are_refused_with_their_rows_and_repeats_are_kept_once(tmp_path, caplog):
    data = Data(id_column="number")
    for empty in (None, " ", float("nan")):
        path = jsonl(tmp_path, {"number": 1, **GOOD[0]}, {"number": empty, **GOOD[1]})
        assert f"{path}, line 2: 'number' is empty; give each case its own id" in refusal(path, data)
    for second in (0, 1):
        path = jsonl(tmp_path, {"number": 1, **GOOD[0]}, {"number": 1, **GOOD[second]})
        assert f"{path}, line 2: has the id of {path}, line 1; give each case its own id" in refusal(path, data)
        report = check_data(Data(source=str(path), id_column="number"), (), {})
        (finding,) = (one for one in report.findings if one.name == "same id")
        assert finding.level == "error" and f"{path}, line 1 and {path}, line 2" in finding.remedy

    path = jsonl(tmp_path, GOOD[0], {**GOOD[0], "text": "chest  PAIN since noon"})
    assert len(read_set([path], Data())) == 1 and "1 repeated rows were left out" in caplog.text


@pytest.mark.parametrize(
    ("cell", "label", "words"),
    [
        ("Chest pain", "ED", "line 1: holds a label, so that it seems to be a case"),
        ("chest pain", "urgent", "of 10 characters"),
        ("Freitext", "urgent", "'Freitext'"),
        ("Patient message (free text)", "urgent", "'Patient message (free text)'"),
        ("Case no. 12345", "urgent", "of 14 characters"),
        ("message for the doctor: chest pain", "urgent", "of 34 characters"),
        ("9434765919", "urgent", "of 10 characters"),
        ("x" * 41, "urgent", "of 41 characters"),
    ],
)
def test_the_first_case_of_a_csv_without_a_header_is_not_repeated_and_a_name_is_shown(cell, label, words, tmp_path):
    message = refusal(csv(tmp_path, f'"{cell}",{label}\nCold,routine\n'))
    assert (cell in message) == (cell in words)
    assert (words if label == "ED" else f"its columns are {words}, 'urgent'; name") in message


def test_the_id_of_a_repeated_row_that_is_left_out_is_free(tmp_path):
    path = jsonl(tmp_path, {"id": 1, **GOOD[0]}, {"id": 2, **GOOD[0]}, {"id": 2, **GOOD[1]})
    assert [case.case_id for case in read_set([path], Data())] == ["1", "2"]
