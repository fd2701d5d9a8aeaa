"""`triage clean`: what no result refers to and nobody has used for long goes, and nothing else."""

import math
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from flows.cli.clean import seconds_of
from tasks.removable import last_used, names_of
from tasks.runtime.errors import BadInput
from tasks.runtime.locks import locked
from tasks.runtime.store import build_folder, bytes_below
from tests.place import Place, refusal

NOTHING_OF_RESULTS = "clean", "--unreferenced"
DAY = 86400.0


@pytest.fixture
def swept(smoke, tmp_path) -> Place:
    """A copy of a home with eight landed experiments, last used 40 days ago."""
    place = smoke[0].copy(tmp_path / "copy")
    then = time.time() - 40 * DAY
    for path in (place.home, *place.home.rglob("*")):
        os.utime(path, (then, then))
    return place


def folders(place: Place) -> set[str]:
    kinds = ("models", "sources", "experiments", "baselines", "moved", "data", "prefixes")
    return {str(path.relative_to(place.home)) for kind in kinds for path in place.home.glob(f"{kind}/[!.]*/")}


def test_what_results_refer_to_stays_unless_it_is_a_prefix_also_where_only_landing_folders_tell(swept):
    before = folders(swept)
    for _ in ("with the warehouse", "without"):
        result = swept.ask(*NOTHING_OF_RESULTS, "--yes")
        assert result.returncode == 0 and "has been unused for 30d." in result.stdout, result.stdout
        swept.warehouse.unlink(missing_ok=True)

    assert folders(swept) == before and any(name.startswith("prefixes/") for name in before)
    assert swept.ask("clean", "--yes").returncode == 0
    assert {name.split("/")[0] for name in before - folders(swept)} == {"prefixes"}


def test_a_forgotten_studys_folders_go_once_they_are_old_and_what_landed_stays(swept):
    assert swept.ask("warehouse", "forget", "smoke", "--yes").returncode == 0
    used = sorted((swept.home / "models").glob("[!.]*-4bit-*/"))[0]
    os.utime(used)  # as a step does
    before = folders(swept)
    landed = sorted(swept.home.glob("landing/*"))

    result = swept.ask(*NOTHING_OF_RESULTS)
    assert folders(swept) == before and "Nothing was removed" in result.stdout
    for place in ("models", "sources", "experiments", "baselines", "data"):
        assert re.search(rf"^ *{place} ", result.stdout, re.MULTILINE), result.stdout
    size = sum(path.stat().st_size for path in (swept.home / "data").rglob("*") if path.is_file())
    assert f"{size:,}" in result.stdout

    assert swept.ask(*NOTHING_OF_RESULTS, "--yes").returncode == 0
    assert folders(swept) == {str(used.relative_to(swept.home))}
    assert sorted(swept.home.glob("landing/*")) == landed and not list(swept.home.rglob(".forgotten-*"))
    assert "Nothing unneeded in" in swept.ask(*NOTHING_OF_RESULTS, "--yes").stdout


def test_nothing_goes_while_a_sweep_runs_and_a_dry_run_says_what_would(swept):
    shutil.rmtree(swept.home / "landing")
    swept.warehouse.unlink()
    before = folders(swept)
    with locked(next(swept.home.glob("experiments/[!.]*/"))):
        assert "Another process is working" in refusal(swept.ask(*NOTHING_OF_RESULTS, "--yes"))
        assert re.search("^ *experiments ", swept.ask(*NOTHING_OF_RESULTS).stdout, re.MULTILINE)
    assert folders(swept) == before


def test_what_a_sweep_removes_while_a_home_is_measured_is_left_out(tmp_path, monkeypatch):
    lstat = Path.lstat
    for name in ("left", "removed"):
        (tmp_path / name).write_bytes(b"four")

    def lstat_after_removal(path):
        if path.name == "removed":
            path.unlink()
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", lstat_after_removal)
    assert bytes_below(tmp_path) == 4
    assert last_used(tmp_path) < math.inf and last_used(tmp_path / "gone") == math.inf


def test_a_landing_folder_that_cannot_be_read_is_a_sentence_and_nothing_goes(swept):
    file = next(swept.home.glob("landing/*/experiment.parquet"))
    file.write_bytes(b"damaged")
    before = folders(swept)
    assert str(file) in refusal(swept.ask("clean", "--yes"))
    assert folders(swept) == before


def test_scores_are_needed_as_long_as_their_model():
    training = "m-4bit-r-s42-aaaaaaaaaaaa"
    for folder in ("valid/{}-v0123456789ab", "moved/{}-e0123456789ab", "experiments/{}"):
        assert names_of(Path(folder.format(training))) == {training}


def test_a_step_that_finds_a_folder_complete_notes_its_use(tmp_path):
    folder = tmp_path / "made"

    def fill(temporary):
        (temporary / "file").write_bytes(b"content")
        return {}

    build_folder(folder, fill)
    os.utime(folder, (0, 0))
    build_folder(folder, fill)
    assert folder.stat().st_mtime > DAY


def test_times_are_days_or_hours_and_others_are_refused_with_an_example():
    assert (seconds_of("1h"), seconds_of("30d")) == (3600.0, 30 * DAY)
    for older in ("0d", "30", "30m", "-1d", "1.5d", "d"):
        with pytest.raises(BadInput, match="such as 30d or 12h"):
            seconds_of(older)
