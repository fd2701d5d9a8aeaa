"""The report in a headless Chromium without a network: nothing is fetched, nothing complains, every chart is seen.

uv run pytest -n 0 -m nightly tests/browser/test_report.py      (TRIAGE_REPORT may name another report than a made-up one)

It needs a font of Arial's widths, e.g. Debian's fonts-liberation: Vega lays charts out for it.
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.browser.study import CHROMIUM, FLAGS
from tests.place import Place
from tests.synthetic_study import SyntheticStudy
from warehouse.load import load_all

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]
# What is seen first, then every section opened. Text that stands outside its chart does so by more than a browser's font
# differs from Vega's.
MEASURE = """
<script>
addEventListener('load', () => {
    const all = words => [...document.querySelectorAll(words)];
    const seen = {
        first: all('.answer, .first svg, .first table').map(one => one.getBoundingClientRect().top),
        open: all('details.section').filter(one => one.open).length,
        menu: getComputedStyle(document.querySelector('nav')).display,
    };
    for (const one of all('details.section')) one.open = true;
    seen.charts = all('svg').map(chart => {
        const box = chart.getBoundingClientRect();
        const marks = [...chart.querySelectorAll('path, line, rect, text')];
        const outside = [...chart.querySelectorAll('text')].map(text => text.getBoundingClientRect())
            .filter(text => text.left < box.left - 4 || text.right > box.right + 4);
        return {left: box.left, right: box.right, width: box.width, height: box.height, outside: outside.length,
                marks: marks.filter(mark => mark.getBoundingClientRect().width > 0).length,
                ink: getComputedStyle(chart.querySelector('text')).fill};
    });
    seen.width = innerWidth;
    seen.scrolled = document.documentElement.scrollWidth;
    seen.fetched = performance.getEntriesByType('resource').map(one => one.name);
    parent.postMessage(JSON.stringify(seen), '*');
});
</script>
"""
# A window is at least 500 pixels wide, a frame as narrow as a phone.
FRAME = """
<!doctype html>
<script>addEventListener('message', event => { document.title = event.data; });</script>
<body style="margin: 0"><iframe src="report.html" style="border: 0; width: WIDTHpx; height: 900px"></iframe></body>
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    if report_path := os.environ.get("TRIAGE_REPORT"):
        return Path(report_path).read_text(encoding="utf-8")

    place = Place(tmp_path_factory.mktemp("report") / "place")
    place.home.mkdir(parents=True)
    SyntheticStudy(8, 150).land(place.home / "landing")
    load_all(place.home / "landing", place.warehouse)
    assert place.run("report").returncode == 0
    return (place.home / "reports" / "synthetic.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "menu"), [(390, "none"), (1440, "block")])
def test_the_answer_is_seen_first_every_chart_is_seen_and_nothing_is_fetched(width, menu, dark, report, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    open_to_scripts = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", report)
    measured = open_to_scripts.replace("</body>", f"{MEASURE}</body>")
    (tmp_path / "report.html").write_text(measured, encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [CHROMIUM, *FLAGS, scheme, "--window-size=1600,900", f"--user-data-dir={tmp_path / 'profile'}",
               "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", page.as_uri()]  # fmt: skip
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=400)
    seen = json.loads(html.unescape(re.search("<title>(.*?)</title>", dumped.stdout, re.DOTALL)[1]))

    assert max(seen["first"]) < 900 and seen["open"] == 0 and seen["menu"] == menu
    charts = seen["charts"]
    assert len(charts) > 20 and sum(one["outside"] for one in charts) == 0
    assert [one for one in charts if one["left"] < 0 or one["right"] > seen["width"]] == []
    assert [one for one in charts if one["width"] < 150 or one["height"] < 60 or one["marks"] <= 5] == []
    assert {one["ink"] for one in charts} == {"rgb(236, 236, 236)" if dark else "rgb(26, 26, 26)"}
    assert seen["scrolled"] <= seen["width"], "only tables scroll, each in its own box"
    assert seen["fetched"] == [] and "CONSOLE" not in dumped.stderr
