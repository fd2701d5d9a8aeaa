"""Folders are complete and intact, or not there: after exceptions, kills, flipped bytes, races and full disks."""

import errno
import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from pydantic import Field, ValidationError

from tasks.runtime import children, store
from tasks.runtime.children import run_child
from tasks.runtime.errors import BadInput, BrokenFolder, Locked, LostChild, disk_error, is_disk_full
from tasks.runtime.files import file_digest, write_atomic
from tasks.runtime.home import home
from tasks.runtime.locks import lock_of, locked, locked_folder, remove_abandoned, replacing
from tasks.runtime.store import PLACES, Manifest, build_folder, intact_manifest, read_manifest, seal, verify
from tasks.spec import digest_of
from warehouse.connect import warehouse_path

CONTENT = {"a.bin": b"alpha", "sub/b.bin": b"beta" * 10}


def fill(folder: Path) -> dict:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return {"seed": 42, "shape": (1, 2), 7: "number key", "nothing": float("nan")}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_gets_its_manifest_with_digest_and_size_of_each_file_and_is_not_built_again(tmp_path):
    manifest = build_folder(tmp_path / "made", fill)
    assert manifest["files"] == {
        name: {"sha256": file_digest(tmp_path / "made" / name), "size": len(content)}
        for name, content in CONTENT.items()
    }
    assert manifest["seed"] == 42 and manifest["shape"] == [1, 2]
    stored = verify(tmp_path / "made")
    assert json.dumps(stored, sort_keys=True) == json.dumps(manifest, sort_keys=True), "NaN is not equal to itself"
    assert names(tmp_path) == ["made"], "no temporary folder stays"

    one = build_folder(tmp_path / "one", lambda folder: fill(folder) | {"seconds": 1.0})
    assert build_folder(tmp_path / "one", lambda folder: pytest.fail("built again"))["created"] == one["created"]
    other = build_folder(tmp_path / "two", lambda folder: fill(folder) | {"seconds": 2.0})
    assert one["digest"] == other["digest"] and one["check"] != other["check"]


def test_a_kill_in_mid_build_leaves_no_folder_and_the_next_builder_clears_up(tmp_path):
    final = tmp_path / "made"

    before = set(children._running)  # of other tests of this process

    def kill(event):
        (process,) = children._running - before
        os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(LostChild):
        run_child("tests.runtime.programs.steps:build_slowly", {"folder": str(final)}, tmp_path / "log", kill)

    assert intact_manifest(final) is None and not final.exists()
    assert [path.name[:10] for path in tmp_path.iterdir() if path.name != "log"] == [".tmp-made-"]
    assert build_folder(final, fill) and intact_manifest(final, deep=True)


def leftover(final: Path, age: float) -> Path:
    """What a builder of `final` leaves that is killed: half a folder, last touched `age` seconds ago."""
    folder = final.with_name(f".tmp-{final.name}-0123456789ab")
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"half of them")
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def test_what_killed_processes_left_goes_and_what_is_held_young_or_of_another_use_stays(tmp_path):
    scores = tmp_path / "experiments" / "training" / "scores"
    old = [leftover(folder / "made", age=3600) for folder in (tmp_path / "models", tmp_path / "data", scores)]
    young = leftover(tmp_path / "models" / "other", age=0)
    alive = leftover(tmp_path / "sources" / "made", age=3600)
    build_folder(tmp_path / "models" / "tmp-complete", fill)
    locks = [
        lock_of(tmp_path / "logs" / name) for name in ("serve-killed", "serve-held", "train-killed", "serve-young")
    ]

    with locked_folder(alive), locked(tmp_path / "logs" / "serve-held"):
        for lock in locks:
            lock.touch()
        for lock in locks[:3]:
            os.utime(lock, (0, 0))
        remove_abandoned(tmp_path, *PLACES, "logs/.serve-*.lock")

    assert [path.exists() for path in (*old, locks[0])] == [False] * 4
    assert young.exists() and alive.exists() and verify(tmp_path / "models" / "tmp-complete")
    assert all(lock.exists() for lock in locks[1:])
    remove_abandoned(tmp_path / "nowhere", *PLACES)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (OSError(errno.ENOSPC, "No space left on device"), BadInput, "^The disk is full: .*made could not be written;"),
        (None, BrokenFolder, r"was removed while it was filled; run the command again\.$"),
    ],
)
def test_nothing_half_made_stays_whatever_ends_a_build(error, kind, words, tmp_path):
    def build(folder: Path):
        fill(folder)
        if error is not None:
            raise error
        shutil.rmtree(folder)
        return {}

    with pytest.raises(kind, match=words):
        build_folder(tmp_path / "made", build)
    assert names(tmp_path) == []


def test_nobody_else_may_enter_the_parent_of_a_private_folder_new_or_of_before(tmp_path):
    old = os.umask(0o022)
    try:
        final = tmp_path / "home" / "data" / "made"
        for _ in range(2):
            manifest = build_folder(final, fill, private=True)
            assert final.parent.stat().st_mode & 0o777 == 0o700
            assert (tmp_path / "home").stat().st_mode & 0o777 == 0o755, "the rest of a home stays open"
            assert manifest["digest"] == build_folder(tmp_path / "open", fill)["digest"]
    finally:
        os.umask(old)


def test_a_builder_waits_while_another_puts_its_folder_in_place_and_then_takes_that_one(tmp_path):
    final = tmp_path / "made"
    built = Event()

    def build(folder: Path):
        built.set()
        return fill(folder)

    first = build_folder(tmp_path / "aside" / "made", fill)
    with ThreadPoolExecutor(1) as pool, replacing(final):
        second = pool.submit(build_folder, final, build)
        assert built.wait(60)
        with pytest.raises(TimeoutError):
            second.result(0.5)
        (tmp_path / "aside" / "made").rename(final)

    assert second.result()["check"] == first["check"] == verify(final)["check"]
    assert names(tmp_path) == ["aside", "made"]


def test_any_flipped_byte_is_noticed_and_the_folder_is_rebuilt(tmp_path):
    """Every byte of every file, the manifest included; only its line breaks and indents carry nothing."""
    folder = tmp_path / "made"
    build_folder(folder, fill)

    for path in [folder / name for name in (*CONTENT, store.MANIFEST)]:
        whole = path.read_bytes()
        for position, byte in enumerate(whole):
            if path.name == store.MANIFEST and chr(byte).isspace():
                continue
            path.write_bytes(whole[:position] + bytes([byte ^ 1]) + whole[position + 1 :])
            assert intact_manifest(folder, deep=True) is None, f"{path.name}, byte {position}"
        build_folder(folder, fill)
        assert path.name == store.MANIFEST or path.read_bytes() == whole


def test_a_damaged_or_truncated_manifest_means_broken_and_is_rebuilt(tmp_path):
    folder = tmp_path / "made"
    path = folder / store.MANIFEST
    for damage in (b"", b"[]", b"{}", b'{"files": {"a": 1}}', b"\xff\xfe", b"null", 100):
        build_folder(folder, fill)
        path.write_bytes(path.read_bytes()[:damage] if isinstance(damage, int) else damage)
        with pytest.raises(BrokenFolder, match=r"made.*(rebuil|delete)"):
            verify(folder)
    build_folder(folder, fill)
    assert verify(folder)["seed"] == 42


def test_a_missing_file_is_noticed_without_reading_and_a_changed_one_by_reading(tmp_path):
    folder = sealed(tmp_path / "made", size=3)
    (folder / "a.bin").write_bytes(b"ALPHA")
    assert intact_manifest(folder, deep=False) and intact_manifest(folder, deep=True) is None
    assert Sized.read_if_complete(folder) and Sized.read_if_complete(folder, deep=True) is None
    with pytest.raises(BrokenFolder, match=r"a\.bin does not have the digest"):
        Sized.read(folder, deep=True)
    (folder / "a.bin").unlink()
    with pytest.raises(BrokenFolder, match=r"a\.bin is missing"):
        verify(folder, deep=False)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert read_manifest(empty) is None and intact_manifest(empty) is None and Sized.read_if_complete(empty) is None
    for read in (verify, Sized.read):
        with pytest.raises(BrokenFolder, match="never completed"):
            read(empty)


@pytest.mark.parametrize(
    ("code", "kind", "words"), [(errno.EIO, OSError, "input/output"), (errno.ENOSPC, BadInput, "The disk is full")]
)
def test_a_failing_disk_leaves_the_old_file_and_no_half_folder(code, kind, words, tmp_path, monkeypatch):
    write_atomic(tmp_path / "deep" / "file.json", "old")

    def fail(*args):
        raise OSError(code, "input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match=words):
        write_atomic(tmp_path / "deep" / "file.json", "new")
    with pytest.raises(kind, match=words) as raised:
        build_folder(tmp_path / "made", fill)

    assert (tmp_path / "deep" / "file.json").read_text() == "old"
    assert names(tmp_path / "deep") == ["file.json"] and names(tmp_path) == ["deep"]
    if kind is OSError:  # it is its own cause, and is looked at once
        assert raised.value.__cause__ is raised.value, "else this shows nothing"
        assert not is_disk_full(raised.value) and disk_error(raised.value, tmp_path) is raised.value
        wrapped = ValueError("wrapped")
        wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
        assert is_disk_full(wrapped)


def test_a_disk_without_locks_and_a_home_that_is_a_file_are_sentences_at_once(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("not a folder")
    for use in (
        lambda: build_folder(tmp_path / "home" / "data" / "x", fill),
        lambda: write_atomic(tmp_path / "home" / "x", "content"),
        lambda: locked(tmp_path / "home" / "x").__enter__(),
    ):
        with pytest.raises(BadInput, match="choose another TRIAGE_HOME"):
            use()

    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("tasks.runtime.locks.fcntl.flock", refuse)
    sentence = "locks no files .No locks available.; choose a TRIAGE_HOME"
    with pytest.raises(BadInput, match=sentence), locked(tmp_path / "made", wait=60):
        pass


def test_a_lock_is_refused_while_another_process_holds_it_and_free_when_that_dies(tmp_path):
    folder = tmp_path / "experiment"
    refusals = []

    def try_it(event):
        with pytest.raises(Locked, match="Another process is working on .*experiment"), locked(folder):
            pass
        pid, _, sentence = event.message.partition(" ")
        refusals.append(sentence)
        os.kill(int(pid), signal.SIGKILL)

    with pytest.raises(LostChild):
        run_child("tests.runtime.programs.steps:wait", {"folder": str(folder)}, tmp_path / "log", try_it)

    assert refusals == ["has locked it"]
    with locked(folder):
        assert not folder.exists(), "the lock lies beside the folder, which may be replaced"


@pytest.mark.parametrize(("variable", "path"), [("TRIAGE_HOME", home), ("TRIAGE_WAREHOUSE", warehouse_path)])
def test_a_tilde_is_the_users_folder_and_what_cannot_be_a_path_is_one_sentence(variable, path, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIAGE_HOME")
    assert home() == tmp_path / ".triage"
    monkeypatch.setenv(variable, "~/studies/mine")
    assert path() == tmp_path / "studies" / "mine"
    for value, words in (("~no-such-user/x", "is no path"), ("h" * 300, "is no path .File name too long")):
        monkeypatch.setenv(variable, value)
        with pytest.raises(BadInput, match=rf"^{variable}.* {words}.*; choose .*\.$"):
            path()


def test_equal_values_have_equal_digests_and_nan_has_none():
    assert digest_of({"b": 1, "a": [1, 2]}) == digest_of(json.loads('{"a": [1, 2], "b": 1}'))
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_of(float("nan"))


class Sized(Manifest):
    size: int
    parts: dict[str, int] = Field(default_factory=dict)


def sealed(folder: Path, **extra) -> Path:
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"alpha")
    seal(folder, extra)
    return folder


def test_a_manifest_is_read_into_its_class_and_other_keys_are_ignored(tmp_path):
    folder = sealed(tmp_path / "made", size=3, other="kept on disk only")
    manifest = Sized.read(folder, deep=True)
    assert manifest == Sized.read_if_complete(folder) == Sized(digest=verify(folder)["digest"], size=3)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.size = 4
    wrong = sealed(tmp_path / "wrong", size=1, parts={"a": "many"})
    for read in (Sized.read, Sized.read_if_complete):
        with pytest.raises(
            BrokenFolder, match=r"wrong.manifest\.json: parts\.a: Input .*; delete the folder to rebuild"
        ):
            read(wrong)
