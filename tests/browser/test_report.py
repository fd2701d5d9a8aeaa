"""The report in a headless Chromium without a network: nothing is fetched, nothing complains, every chart is seen.

uv run pytest -n 0 -m nightly tests/browser/test_report.py      (pictures go to TRIAGE_SCREENSHOTS, if it is set)

It needs a font of Arial's widths, e.g. Debian's fonts-liberation: Vega lays charts out for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.devtools import CHROMIUM, browser
from tests.place import Place
from tests.synthetic_study import SyntheticStudy
from warehouse.load import load_all

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]
CHARTS = """
[...document.querySelectorAll('svg')].map(chart => {
    const box = chart.getBoundingClientRect();
    const marks = [...chart.querySelectorAll('path, line, rect, text')].filter(m => m.getBoundingClientRect().width > 0);
    return {left: box.left, right: box.right, width: box.width, height: box.height, marks: marks.length,
            ink: getComputedStyle(chart.querySelector('text')).fill};
})
"""
# Text that stands outside its chart, by more than a browser's font differs from Vega's.
OUTSIDE = """
[...document.querySelectorAll('svg')].flatMap(chart => {
    const box = chart.getBoundingClientRect();
    return [...chart.querySelectorAll('text')].filter(text => {
        const own = text.getBoundingClientRect();
        return own.left < box.left - 4 || own.right > box.right + 4;
    }).map(text => chart.querySelector('title').textContent.slice(0, 40) + ' | ' + text.textContent);
})
"""
# axe reads the whole page whatever part it is to judge, so each section is shown to it alone.
SECTIONS = """
globalThis.main = document.querySelector('main');
globalThis.sections = [...main.children];
for (const one of document.querySelectorAll('details')) one.open = true;
"""
FAULTS = """
axe.run({resultTypes: ['violations'], preload: false, RULES}).then(result => result.violations
    .filter(one => ['serious', 'critical'].includes(one.impact))
    .map(one => [one.impact, one.id, one.nodes[0].html.slice(0, 120)]))
"""
COLOURS = "runOnly: {type: 'rule', values: ['color-contrast', 'link-in-text-block']}"  # all that the dark changes
FOCUSED = "document.activeElement.className + ' ' + document.activeElement.tagName + ' ' + document.activeElement.hash"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    if report_path := os.environ.get("TRIAGE_REPORT"):
        return Path(report_path)

    place = Place(tmp_path_factory.mktemp("report") / "place")
    place.home.mkdir(parents=True)
    SyntheticStudy(8, 150).land(place.home / "landing")
    load_all(place.home / "landing", place.warehouse)
    assert place.run("report").returncode == 0

    return place.home / "reports" / "synthetic.html"


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.show(1440)
        opened.open(report)
        yield opened


def keep(name: str, source: Path) -> None:
    if folder := os.environ.get("TRIAGE_SCREENSHOTS"):
        shutil.copy(source, Path(folder) / name)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 800, 1440])
def test_every_chart_is_seen_at_every_width(page, width, dark, tmp_path):
    page.show(width, dark=dark)
    charts = page.run(CHARTS)
    assert len(charts) > 20
    assert [
        one for one in charts if one["left"] < 0 or one["right"] > width or one["width"] < 150 or one["height"] < 60
    ] == []
    assert min(one["marks"] for one in charts) > 5
    assert {one["ink"] for one in charts} == {"rgb(236, 236, 236)" if dark else "rgb(26, 26, 26)"}
    assert page.run("document.documentElement.scrollWidth") <= width, "only tables scroll, each in its own box"
    assert page.run(OUTSIDE) == []
    page.picture(tmp_path / "page.png")
    keep(f"report-{width}-{'dark' if dark else 'light'}.png", tmp_path / "page.png")


def test_it_is_light_on_paper(page, tmp_path):
    page.show(800, dark=True, media="print")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.pdf(tmp_path / "report.pdf")
    keep("report.pdf", tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n") > 3


def test_the_keyboard_reaches_the_report_its_sections_and_its_tables(page):
    page.show(1440)
    for key in ("keyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=key, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert page.run(FOCUSED) == "skip A #main"
    boxes = page.run("[...document.querySelectorAll('.scroll')].every(box => box.tabIndex === 0 && box.ariaLabel)")
    assert boxes is True


@pytest.mark.timeout(3600)  # a report of 60 experiments took 13 minutes in the light on a busy machine
def test_axe_finds_no_serious_fault(page, tmp_path):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm, which brings axe-core, is not here")

    fetched = subprocess.run([npm, "pack", "axe-core@4", "--silent"], cwd=tmp_path, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip("the registry of npm cannot be reached")

    (packed,) = tmp_path.glob("axe-core-*.tgz")
    shutil.unpack_archive(packed, tmp_path)
    page.run((tmp_path / "package" / "axe.min.js").read_text(encoding="utf-8") + "; undefined")
    page.run(SECTIONS)

    matches = []
    for dark, rules in ((False, ""), (True, COLOURS)):
        page.show(1440, dark=dark)
        for number in range(page.run("sections.length")):
            page.run(f"main.replaceChildren(sections[{number}])")
            matches += page.run(FAULTS.replace("RULES", rules))

    page.run("main.replaceChildren(...sections)")
    assert matches == []


def test_nothing_was_fetched_and_nothing_complained(page, report):
    assert set(page.requests) <= {report.as_uri(), "data:,"} and page.requests
    assert page.complaints == []
