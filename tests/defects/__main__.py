"""What the tests catch: `python -m tests.defects planted` and `python -m tests.defects drawn --seed 7`.

Planted defects are those of `planted.toml`; drawn ones change one operator, constant or condition of
the code that a study's figures come from, at places that the seed chooses. Each is made in a copy of
this checkout, where its tests run until one fails. Ends with 1 where a planted defect is missed.
"""

import argparse
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.defects.drawn import changes_of

ROOT = Path(__file__).parents[2]
PLANTED = Path(__file__).with_name("planted.toml")
# The tests of a drawn defect, by its folder; those that name its module run first.
TESTS = {
    "tasks/tuning": ["tests/tuning", "tests/scoring"],
    "tasks/judging": ["tests/judging", "tests/scoring", "tests/bundle", "tests/warehouse"],
    "tasks/scoring": ["tests/scoring"],
    "tasks/corpus": ["tests/corpus", "tests/scoring", "tests/test_frozen_ids.py"],
    "warehouse": ["tests/warehouse", "tests/flows/report"],
}
SECONDS = 900  # a test that waits for ever has noticed the defect


@dataclass(frozen=True)
class Defect:
    """A file of the checkout with a defect, and the tests that may catch it."""

    name: str
    path: str
    text: str
    tests: list[str]


def planted(root: Path = ROOT) -> list[Defect]:
    """The defects of `planted.toml`; ValueError where the text to replace is not there once."""
    defects = []
    for entry in tomllib.loads(PLANTED.read_text())["defect"]:
        source = (root / entry["file"]).read_text()
        if source.count(entry["old"]) != 1:
            raise ValueError(f"{entry['name']}: {entry['file']} does not hold its text once")
        text = source.replace(entry["old"], entry["new"])
        defects.append(Defect(entry["name"], entry["file"], text, entry["tests"]))
    return defects


def drawn(seed: int, count: int) -> list[Defect]:
    """Defects at `count` places of all that can be changed."""
    changes = [
        (folder, path, change)
        for folder in TESTS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for change in changes_of(path.read_text())
    ]
    defects = []
    for folder, path, change in random.Random(seed).sample(changes, count):
        module = path.stem
        files = [file for place in TESTS[folder] for file in _test_files(ROOT / place)]
        files.sort(key=lambda file: module not in file.read_text())
        name = f"{path.relative_to(ROOT)}:{change.line}: {change.old} -> {change.new}"
        tests = [str(file.relative_to(ROOT)) for file in files]
        defects.append(Defect(name, str(path.relative_to(ROOT)), change.text, tests))
    return defects


def _test_files(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(place.rglob("test_*.py"))


def is_caught(copy: Path, defect: Defect, number: int) -> bool:
    """Whether a test fails in a copy of the checkout with the defect."""
    path = copy / defect.path
    sound = path.read_text()
    tests = [test for test in defect.tests if (copy / test.partition("::")[0]).exists()]
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]
    try:
        _write(path, defect.text, 2 * number)
        environment = os.environ | {"PYTHONPATH": str(copy), "MKL_NUM_THREADS": "1"}
        ended = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=SECONDS)
        return ended.returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        _write(path, sound, 2 * number + 1)


def _write(path: Path, text: str, number: int) -> None:
    path.write_text(text)
    # Compiled files are told apart by the second of the source, and defects follow each other fast.
    moment = path.stat().st_mtime + number
    os.utime(path, (moment, moment))


def check(defects: list[Defect], root: Path, jobs: int) -> list[Defect]:
    """The defects that no test catches in copies of the checkout `root`; prints each as it ends."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    copies: queue.Queue[Path] = queue.Queue()
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for job in range(jobs):
            for name in filter(None, tracked.stdout.decode().split("\0")):
                target = Path(folder, str(job), name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, target)
            copies.put(Path(folder, str(job)))

        def run(number: int) -> None:
            copy = copies.get()
            caught = is_caught(copy, defects[number], number)
            copies.put(copy)
            print("caught" if caught else "MISSED", defects[number].name, flush=True)
            if not caught:
                missed.append(defects[number])

        with ThreadPoolExecutor(jobs) as threads:
            list(threads.map(run, range(len(defects))))
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=("planted", "drawn"))
    parser.add_argument("--name", help="only defects whose name holds this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout, whose tests run")
    args = parser.parse_args()

    is_planted = args.kind == "planted"
    defects = planted(args.root) if is_planted else drawn(args.seed, args.count)
    defects = [defect for defect in defects if (args.name or "") in defect.name]
    missed = check(defects, args.root, args.jobs)
    print(f"{len(defects) - len(missed)} of {len(defects)} defects are caught.")
    return int(is_planted and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
