"""A million rows go through the check in little memory. Nightly: it takes a minute; time is reported, never judged."""

import json
import random
import subprocess
import sys

import pytest

from tests.corpus.test_check import STORY

ROWS = 1_000_000
CODE = """
import resource, sys
from tasks.corpus.check import check_data
from tasks.spec import Data
report = check_data(Data(source=sys.argv[1]), (), {})
usage = resource.getrusage(resource.RUSAGE_SELF)
print(report.sets[0].rows, usage.ru_maxrss, usage.ru_utime)
"""


@pytest.mark.nightly
def test_a_million_rows_are_checked_within_two_gigabytes(tmp_path):
    rng = random.Random(1)
    words = STORY.split()

    path = tmp_path / "million.jsonl"
    with path.open("w") as handle:
        for i in range(ROWS):
            text = f"{i} {' '.join(rng.choices(words, k=30))}"
            handle.write(json.dumps({"id": i, "text": text, "label": rng.choice(("ED", "GP", "HOME"))}) + "\n")

    result = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, check=True)
    rows, peak, seconds = result.stdout.split()
    print(f"{rows} rows, {int(peak) / 2**20:.2f} GiB, {float(seconds):.0f} s of processor time")
    assert int(rows) == ROWS and int(peak) < (2 << 20) * (1 if sys.platform == "linux" else 1024)
