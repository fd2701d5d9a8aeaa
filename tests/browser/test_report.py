"""The report in a headless Chromium without a network: nothing is fetched, nothing complains, every chart is seen.

uv run pytest -n 0 -m nightly tests/browser/test_report.py      (TRIAGE_REPORT may name another report than a made-up one)

It needs a font of Arial's widths, e.g. Debian's fonts-liberation: Vega lays charts out for it.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.browser.study import CHROMIUM, FLAGS, until
from tests.place import Place
from tests.synthetic_study import SyntheticStudy
from warehouse.load import load_all

SECONDS = 400
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
OPEN = "for (const one of document.querySelectorAll('details.section')) one.open = true;"
# The bottom of what is to be seen first, and whether the menu is beside it.
FIRST = """
[document.querySelector('.answer'), document.querySelector('.first svg'), document.querySelector('.first table')]
    .map(one => one.getBoundingClientRect().top)
"""
FOCUSED = "document.activeElement.className + ' ' + document.activeElement.tagName + ' ' + document.activeElement.hash"


class Page:
    """A tab. `requests` are the addresses that it asked for, `complaints` what its console says."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = False

        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable")

        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.send("Network.emulateNetworkConditions", **offline)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command and its result; events that come in between are noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def open(self, path: Path) -> None:
        self._loaded = False
        self.send("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._next()

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def show(self, width: int, dark: bool = False, media: str = "") -> None:
        """The size of the window, and how the page is to look."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=SECONDS))
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params))

        return message


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
def page(report, tmp_path_factory) -> Iterator[Page]:
    """The report in a browser of its own, without a network."""
    profile = tmp_path_factory.mktemp("profile")
    command = [CHROMIUM, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    try:
        file = profile / "DevToolsActivePort"
        text = until(lambda: file.is_file() and file.read_text(), SECONDS, lambda: "the browser does not start")
        port = text.splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS) as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None, open_timeout=SECONDS, proxy=None) as socket:
            opened = Page(socket)
            opened.show(1440)
            opened.open(report)
            yield opened
    finally:
        process.terminate()
        process.wait(timeout=SECONDS)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 800, 1440])
def test_every_chart_is_seen_at_every_width(page, width, dark):
    page.show(width, dark=dark)
    page.run(OPEN)
    charts = page.run(CHARTS)
    assert len(charts) > 20
    assert [one for one in charts if one["left"] < 0 or one["right"] > width] == []
    assert [one for one in charts if one["width"] < 150 or one["height"] < 60] == []
    assert min(one["marks"] for one in charts) > 5
    assert {one["ink"] for one in charts} == {"rgb(236, 236, 236)" if dark else "rgb(26, 26, 26)"}
    assert page.run("document.documentElement.scrollWidth") <= width, "only tables scroll, each in its own box"
    assert page.run(OUTSIDE) == []


@pytest.mark.parametrize(("width", "menu"), [(390, "none"), (1440, "block")])
def test_the_answer_its_picture_and_its_table_are_seen_first_with_the_menu_at_the_side(page, report, width, menu):
    page.show(width)
    page.open(report)
    assert max(page.run(FIRST)) < 900, "on the first screen"
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == menu
    assert page.run("[...document.querySelectorAll('details.section')].some(one => one.open)") is False
    page.run("location.hash = '#gates'")
    opened = "[...document.querySelectorAll('details.section')].filter(one => one.open).length"
    assert until(lambda: page.run(opened), SECONDS, lambda: "a link opens no section") == 1


def test_it_is_light_on_paper(page):
    page.show(800, dark=True, media="print")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    pdf = base64.b64decode(page.send("Page.printToPDF", printBackground=True)["data"])
    assert pdf.count(b"/Type /Page\n") > 3


def test_the_keyboard_reaches_the_report_its_sections_and_its_tables(page, report):
    page.show(1440)
    page.open(report)
    for key in ("keyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=key, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert page.run(FOCUSED) == "skip A #main"
    boxes = page.run("[...document.querySelectorAll('.scroll')].every(box => box.tabIndex === 0 && box.ariaLabel)")
    assert boxes is True


def test_nothing_was_fetched_and_nothing_complained(page, report):
    assert set(page.requests) <= {report.as_uri(), "data:,"} and page.requests
    assert page.complaints == []
