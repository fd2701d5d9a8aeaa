"""Data folders: what is in them, when they are reused, and what is refused before anything is written."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.corpus import prepare
from tasks.corpus.case import SETS, Case, from_json, to_json
from tasks.corpus.check import check_data
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import ingredients_of, prepare_dataset
from tasks.corpus.reading.sources import locate
from tasks.corpus.vignettes.sets import FACTS, derive_again
from tasks.runtime.errors import BadInput
from tasks.runtime.files import file_digest
from tasks.runtime.store import read_manifest
from tasks.spec import LABELS, Data, EvaluationSet

FEW: dict[Any, int] = {"train": 30, "valid": 9, "calibration": 9, "test": 9}


def write(path: Path, start: int, count: int, group: str = "") -> Path:
    path.parent.mkdir(exist_ok=True)
    cases = [
        Case(f"c{i}", f"text {i}", LABELS[i % 3], f"{group}{i // 6}" if group else None)
        for i in range(start, start + count)
    ]
    path.write_text("".join(to_json(case) + "\n" for case in cases))
    return path


def lines(folder: Path, name: str) -> list[Case]:
    return [from_json(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_file_that_changes_while_it_is_read_is_not_stored_under_its_earlier_content(tmp_path, monkeypatch):
    source = write(tmp_path / "mine.jsonl", 0, 120)
    earlier = source.read_bytes()
    read = prepare.limited_sets

    def saved_meanwhile(*args):
        write(source, 1000, 120)
        return read(*args)

    with monkeypatch.context() as during:
        during.setattr(prepare, "limited_sets", saved_meanwhile)
        with pytest.raises(BadInput, match=r"mine\.jsonl changed while it was read; run the same command again\."):
            prepare_dataset(Data(source=str(source)), tmp_path / "home")

    assert not list((tmp_path / "home" / "data").glob("*"))
    source.write_bytes(earlier)
    folder = prepare_dataset(Data(source=str(source)), tmp_path / "home")
    assert "text 1000" not in (folder / "train.jsonl").read_text()


def test_the_embedded_set_within_limits_is_whole_and_reused(tmp_path):
    limits: dict[Any, int] = {"train": 320, "valid": 60, "calibration": 120, "test": 200}
    data = Data(train_cases=400, calibration_cases=200, test_cases=300, limits=limits)
    folder = prepare_dataset(data, tmp_path)
    manifest = DatasetManifest.read(folder, deep=True)
    assert manifest.has_groups and manifest.is_embedded and manifest.seed == data.seed

    for name in SETS:
        cases = lines(folder, name)
        described = manifest.sets[name]
        assert len(cases) == described.cases == data.limits[name]  # type: ignore[index]
        assert manifest.digest_of(name) == file_digest(folder / f"{name}.jsonl")
        assert {label: sum(c.label == label for c in cases) for label in LABELS} == described.labels
        assert described.labels["ED"] >= 0.25 * len(cases) and described.groups > 3

    train_file = folder / "train.jsonl"
    write_time = train_file.stat().st_mtime_ns
    assert folder.parent.stat().st_mode & 0o777 == 0o700, "nobody else may enter"
    folder.parent.chmod(0o755)  # as an earlier version left it
    assert prepare_dataset(data, tmp_path) == folder and train_file.stat().st_mtime_ns == write_time
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert prepare.dataset_folder(data.model_copy(update={"seed": 1}), tmp_path) != folder


def test_the_facts_beside_the_sets_give_every_label_again_and_no_training_reads_them(tmp_path):
    folder = prepare_dataset(Data(train_cases=100, calibration_cases=100, test_cases=100, limits=FEW), tmp_path)
    assert derive_again(folder) == (57, [])
    files = (read_manifest(folder) or {})["files"]
    assert files[FACTS]["sha256"] == file_digest(folder / FACTS)
    assert not any("label" in json.loads(line) for line in (folder / FACTS).read_text().splitlines())
    first = lines(folder, "train")[0]
    other = "GP" if first.label != "GP" else "HOME"
    rest = (folder / "train.jsonl").read_text().split("\n", 1)[1]
    (folder / "train.jsonl").write_text(to_json(replace(first, label=other)) + "\n" + rest)  # type: ignore[arg-type]
    assert derive_again(folder) == (57, [f"train, case {first.case_id}"])
    stored = (folder / FACTS).read_text().splitlines()
    (folder / FACTS).write_text("\n".join(stored[2:]) + "\n")
    assert len(derive_again(folder)[1]) == 2

    source = Path(prepare.__file__).parents[1]
    naming = re.compile(r"facts\.jsonl|\b(FACTS|derive_again)\b")
    naming_it = {p.relative_to(source).as_posix() for p in source.rglob("*.py") if naming.search(p.read_text())}
    assert naming_it == {f"corpus/{name}.py" for name in ("check", "vignettes/sets", "prepare")}


def test_a_file_is_split_and_a_changed_file_gives_another_folder(tmp_path, monkeypatch):
    source = write(tmp_path / "My cases.jsonl", 0, 120, group="g")
    data = Data(source=str(source))
    folder = prepare_dataset(data, tmp_path)
    assert folder.name.startswith("my-cases-")
    assert sum(len(lines(folder, name)) for name in SETS) == 120

    def folders() -> list[str]:
        chosen = [(Data(), ()), (data, ()), (Data(), (EvaluationSet(name="clinic", source=str(source)),))]
        return [prepare.dataset_folder(own, tmp_path, sets).name for own, sets in chosen]

    before = folders()
    with monkeypatch.context() as other:  # how copies are found is part of every digest but that of embedded cases
        other.setattr(prepare, "COPIES_VERSION", 1)
        assert [a == b for a, b in zip(before, folders(), strict=True)] == [True, False, False]

    source.write_text(source.read_text() + json.dumps({"text": "one more", "label": "ED", "group": "new"}) + "\n")
    assert prepare_dataset(data, tmp_path) != folder


def test_a_folder_keeps_its_sets_and_missing_ones_come_from_train(tmp_path):
    source = write(tmp_path / "given" / "train.jsonl", 0, 180, group="a").parent
    write(source / "test.jsonl", 500, 30, group="b")
    folder = prepare_dataset(Data(source=str(source)), tmp_path)
    assert {c.case_id for c in lines(folder, "test")} == {f"c{i}" for i in range(500, 530)}
    groups = [{c.group for c in lines(folder, name)} for name in ("train", "valid", "calibration")]
    assert all(groups) and sum(len(g) for g in groups) == 30
    (source / "valid.csv").write_text("text,label\nv1,ED\nv2,GP\nv3,HOME\n")
    assert [c.text for c in lines(prepare_dataset(Data(source=str(source)), tmp_path), "valid")] == ["v1", "v2", "v3"]


def test_shares_of_the_sets_are_a_setting_and_embedded_cases_do_not_use_it(tmp_path):
    source = write(tmp_path / "given" / "train.jsonl", 0, 200).parent
    write(source / "test.jsonl", 500, 30)
    shares = {"train": 0.72, "valid": 0.08, "calibration": 0.1, "test": 0.1}
    folder = prepare_dataset(Data(source=str(source), set_shares=shares), tmp_path)
    sizes = [len(lines(folder, name)) for name in SETS]
    assert sizes == pytest.approx([160, 18, 22, 30], abs=2)  # 0.8, 0.089, 0.111 of 200, label by label

    table = write(tmp_path / "table.jsonl", 0, 200)
    folder = prepare_dataset(Data(source=str(table), set_shares=shares), tmp_path)
    assert [len(lines(folder, name)) for name in SETS] == pytest.approx([144, 16, 20, 20], abs=4)
    assert "train 72%, valid 8%, calibration 10%, test 10%" in (folder / "card.md").read_text()

    assert ingredients_of(locate(Data(set_shares=shares))) == ingredients_of(locate(Data()))
    with pytest.raises(ValueError, match="shares must add up to 1, not 1.1"):
        Data.model_validate({"set_shares": shares | {"test": 0.2}})


def long_text(start: int, words: int = 40) -> str:
    return " ".join(f"w{n}" for n in range(start, start + words))


def planted_copies(folder: Path) -> Path:
    """Four given sets of ten cases each, with copies across them; each file's first line is a sound case."""
    folder.mkdir()
    copies = {
        "train": {"a": long_text(100), "b": long_text(200), "e": long_text(500)},
        "valid": {"b": long_text(200) + " now", "d": long_text(400), "e": long_text(504)},
        "calibration": {"b": long_text(200) + " please", "c": long_text(300)},
        "test": {
            "a": long_text(100) + " thanks",
            "c": long_text(300),
            "d": "oh " + long_text(400),
            "e": long_text(508),
        },
    }
    for n, (name, texts) in enumerate(copies.items()):
        sound = {str(i): long_text(10_000 * (n + 1) + 100 * i) for i in range(10)}
        cases = [Case(f"{name}-{key}", text, LABELS[i % 3]) for i, (key, text) in enumerate((sound | texts).items())]
        (folder / f"{name}.jsonl").write_text("".join(to_json(case) + "\n" for case in cases))
    return folder


def test_copies_in_given_sets_are_refused_all_at_once_or_leave_train_first_and_never_test(tmp_path):
    source = planted_copies(tmp_path / "given")
    sentence = refused(Data(source=str(source)), tmp_path)
    # Three of b, one of a, c and d each, and e twice, whose ends are no copies of each other.
    assert "is in two sets (8): test.jsonl, line 12 and calibration.jsonl, line 12 (100%); " in sentence
    assert "valid.jsonl, line 13 and train.jsonl, line 13 (80%)" in sentence and "w1" not in sentence
    command = "`triage sweep GRID --set data.near_copies=drop`"
    assert f'write near_copies = "drop" under [data] (for one sweep: {command})' in sentence
    assert check_data(Data(source=str(source)), (), {}).errors == 2

    data = Data(source=str(source), near_copies="drop")
    folder = prepare_dataset(data, tmp_path)
    copies = {name: [case.case_id[-1] for case in lines(folder, name)[10:]] for name in SETS}
    assert copies == {"train": ["e"], "valid": ["b"], "calibration": [], "test": ["a", "c", "d", "e"]}
    assert "a set that keeps it: train 2, calibration 2, valid 2." in (folder / prepare.CARD).read_text()
    report = check_data(data, (), {})
    leaving = next(one for one in report.findings if one.name == "copies that leave")
    assert not report.errors and leaving.detail == "train 2, calibration 2, valid 2"


def test_the_check_passes_where_copies_leave_with_their_id_group_or_label_and_fails_where_one_of_these_stays(tmp_path):
    source = planted_copies(tmp_path / "given")
    data = Data(source=str(source), near_copies="drop")

    def add(name: str, *case: str) -> None:
        with (source / f"{name}.jsonl").open("a") as file:
            file.write(to_json(Case(*case)) + "\n")

    add("train", "same", long_text(700), "ED", "group")
    add("test", "same", long_text(700) + " now", "GP", "group")
    sentence = refused(Data(source=str(source)), tmp_path)
    assert "two sets (9): test.jsonl" in sentence and "same group" in sentence and "same id" not in sentence
    assert not check_data(data, (), {}).errors and lines(prepare_dataset(data, tmp_path / "home"), "test")
    add("train", "other", long_text(900), "ED", "group")
    assert "The same group is in two sets (1): test.jsonl, line 15 and train.jsonl, line 15" in refused(data, tmp_path)
    (split,) = (one for one in check_data(data, (), {}).findings if one.level == "error")
    assert split.name == "the sets without copies" and "line 15 and train.jsonl, line 15" in split.remedy


def test_what_copies_leave_is_split_and_copies_of_an_evaluation_set_leave_the_learned_sets_alone(tmp_path):
    source = planted_copies(tmp_path / "given")
    for name in ("valid", "calibration"):
        (source / f"{name}.jsonl").unlink()
    outside = tmp_path / "clinic.jsonl"
    outside.write_text(
        to_json(Case("x", long_text(200) + " soon", "ED")) + "\n" + to_json(Case("y", long_text(300), "GP"))
    )
    clinic = EvaluationSet(name="clinic", source=str(outside))
    data = Data(source=str(source), near_copies="drop")
    folder = prepare_dataset(data, tmp_path, (clinic,))
    cases = [case.case_id for name in SETS[:3] for case in lines(folder, name)]
    assert sorted(cases) == sorted(["train-e", *(f"train-{i}" for i in range(10))])
    assert len(lines(folder, "test")) == 14 and len(lines(folder, "clinic")) == 2
    assert "it: train 2." in (folder / prepare.CARD).read_text()

    table = tmp_path / "table.jsonl"
    rows = [to_json(Case(f"c{i}", long_text(100 * i), LABELS[i % 3])) + "\n" for i in range(60)]
    for seed in (0, 1, 2):  # the seed decides which of the copies go to test, where they stay
        table.write_text("".join(rows))
        outside.write_text("".join(to_json(Case(f"x{i}", long_text(100 * i) + " now", "GP")) + "\n" for i in range(12)))
        folder = prepare_dataset(Data(source=str(table), seed=seed, near_copies="drop"), tmp_path, (clinic,))
        assert {case.case_id for name in SETS[:3] for case in lines(folder, name)}.isdisjoint(
            f"c{i}" for i in range(12)
        )
        assert len(lines(folder, "test")) == 12 and sum(len(lines(folder, name)) for name in SETS) < 60


def test_more_pairs_than_are_shown_are_counted_and_the_setting_adds_nothing_to_a_digest_at_its_default(tmp_path):
    source = tmp_path / "given"
    source.mkdir()
    for name, more in (("train", ""), ("test", " now")):
        cases = [Case(f"{name}-{i}", long_text(100 * i) + more, LABELS[i % 3]) for i in range(30)]
        (source / f"{name}.jsonl").write_text("".join(to_json(case) + "\n" for case in cases))
    sentence = refused(Data(source=str(source)), tmp_path)
    assert "(30): " in sentence and sentence.count("test.jsonl, line") == 20 and " and 10 more; " in sentence

    choices: list[dict[str, Any]] = [{}, {"near_copies": "refuse"}, {"near_copies": "drop"}]
    of = [ingredients_of(locate(Data(source=str(source), **more))) for more in choices]
    assert of[0] == of[1] != of[2] and "near_copies" not in of[0]["columns"]


def refused(data: Data, root: Path) -> str:
    with pytest.raises(BadInput) as caught:
        prepare_dataset(data, root)
    assert not (root / "data").exists() or list((root / "data").iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("7,sore  KNEE,GP\n", "is labelled GP, but {}, line 2 has the same text as ED; correct"),
        ("7,Sore knee,ED\n", "has the same text as {}, line 2; delete"),
        ("1,cold,GP\n", "has the id of {}, line 2; give"),
        ("", "holds no cases"),
    ],
)
def test_what_two_parts_of_a_set_must_not_share_is_refused_by_file_and_line(second, message, tmp_path):
    source = tmp_path / "given"
    source.mkdir()
    first, other = (source / f"train-0000{n}-of-00002.csv" for n in (0, 1))
    for path, rows in ((first, "1,sore knee,ED\n2,cough,HOME\n"), (other, second)):
        path.write_text("id,text,label\n" + rows)
    (source / "test.csv").write_text("text,label\nt1,ED\nt2,GP\nt3,HOME\n")
    sentence = f"{other}, line 2: {message.format(first)}" if second else f"{other} {message}"
    assert sentence in refused(Data(source=str(source)), tmp_path)
    assert not second or check_data(Data(source=str(source)), (), {}).errors


def test_leaks_and_missing_labels_are_refused_and_leave_nothing_behind(tmp_path):
    source = write(tmp_path / "given" / "train.jsonl", 0, 60).parent

    def refusal() -> str:
        return refused(Data(source=str(source)), tmp_path)

    write(source / "valid.jsonl", 60, 6)
    assert "only some tables that are named like sets" in refusal()
    (source / "valid.jsonl").unlink()
    write(source / "test.jsonl", 57, 6)
    assert "is in two sets (3): test.jsonl, line 1 and train.jsonl, line 58 (100%); test.jsonl, line 2 and" in refusal()
    write(source / "test.jsonl", 90, 6)
    (source / "train.jsonl").write_text("".join(to_json(Case(f"c{i}", f"t{i}", "GP")) + "\n" for i in range(30)))
    assert "train has no case labelled ED, and the other sets have 2; add some" in refusal()
    write(source / "test.jsonl", 90, 6, group="g")
    assert "give more groups so that each" in refusal()
    (source / "test.csv").write_text("text,label\na,ED\n")
    assert "keep one file of each set" in refusal()
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\nhello,ED\n")
    assert "no cases are left for valid; give more cases" in refused(Data(source=str(bad)), tmp_path)
