"""`triage report` on a small study: the page is whole and fetches nothing, its rows are the warehouse's, and mistakes are
sentences."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows import compare
from flows.cli import report as command
from flows.report import cases, page
from flows.report.page import (
    has_real_models,
    is_current,
    landed_fingerprint,
    place_of_report,
    refreshed_report,
    report_path,
)
from flows.report.rows import studied
from tasks.corpus.case import exact_digest
from tasks.corpus.manifest import DatasetManifest, SetEntry
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tests.forked import run_forked
from tests.place import Place
from tests.synthetic_study import SyntheticStudy
from tests.warehouse.rows import land_arm, load_pair
from warehouse.connect import writing
from warehouse.load import load_all


@dataclass(frozen=True)
class PrintedReport:
    """`page`: read as XML, so every tag of it is closed."""

    place: Place
    printed: str
    html: str
    page: ElementTree.Element
    charts: dict[str, str]

    def attributes(self, name: str, tag: str = "*") -> list[str]:
        """The values of an attribute, in the order of the page."""
        return [one.attrib[name] for one in self.page.iterfind(f".//{tag}[@{name}]")]


def text(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


@pytest.fixture(scope="module")
def printed_report(tmp_path_factory) -> PrintedReport:
    """The report of a made-up study, with its charts as files."""
    folder = tmp_path_factory.mktemp("report")
    place = Place(folder / "place")
    place.home.mkdir(parents=True)
    SyntheticStudy(2, 60).land(place.home / "landing")
    assert load_all(place.home / "landing", place.warehouse).refused == {}
    result = place.ask("report", "--figures", "charts")
    assert (result.returncode, result.stderr) == (0, "")
    html = (place.home / "reports" / "synthetic.html").read_text()
    charts = {path.stem: path.read_text() for path in (place.folder / "charts").glob("*.svg")}

    return PrintedReport(place, result.stdout, html, ElementTree.fromstring(html), charts)


@pytest.fixture
def local_report(printed_report, monkeypatch) -> PrintedReport:
    """The same, whose home and warehouse are those of this process."""
    printed_report.place.use(monkeypatch)
    return printed_report


def test_the_page_asks_for_nothing_and_runs_nothing(printed_report):
    fetched = [value for name in ("src", "href", "srcset", "data") for value in printed_report.attributes(name)]
    assert {value for value in fetched if not value.startswith("#")} == {"data:,"}
    attributes = {name for one in printed_report.page.iter() for name in one.attrib}
    assert not [name for name in attributes if name.startswith("on") or ":" in name or "}" in name]
    assert printed_report.page.find(".//script") is None
    assert "@import" not in printed_report.html and not re.findall(r"url\((?!#)", printed_report.html)
    assert not re.findall(r"https?://", printed_report.html.replace("http://www.w3.org/2000/svg", ""))


def test_ids_are_unique_links_lead_to_them_and_every_chart_says_what_it_shows_with_figures(printed_report):
    ids = printed_report.attributes("id")
    assert len(ids) == len(set(ids))
    targets = [address[1:] for address in printed_report.attributes("href", "a")]
    targets += re.findall(r"url\(#([^)]+)\)", printed_report.html)
    assert {*targets, *printed_report.attributes("aria-labelledby")} <= set(ids)
    labels = printed_report.attributes("aria-label", "svg")
    assert len(set(labels)) == len(labels) == len(printed_report.charts) >= 15
    assert [label for label in labels if len(label) < 40 or not re.search(r"\d", label)] == []


def test_the_first_screen_is_the_sentence_and_the_table_of_the_command_and_the_rest_is_folded(printed_report):
    compared = json.loads(printed_report.place.ask("compare", "--json").stdout)
    (section,) = printed_report.page.iterfind(".//section[@aria-labelledby='answer-heading']")
    assert text(section.find(".//p[@class='answer']")) == compared["answer"]
    table = [[text(cell) for cell in row] for row in section.iter("tr")]
    assert [row[0] for row in table[1:]] == [row["cell_id"] for row in compared["test_sets"][0]["models"]]
    assert "threshold" in table[0][2] and "argmax" in table[0][4] and all("[" in row[2] for row in table[1:])
    assert text(section.find(".//p[@class='notice']")).startswith("Research software, not a medical device")
    details = printed_report.page.findall(".//details[@class='section']")
    assert len(details) == 18 and not [one for one in details if "open" in one.attrib]
    targets = {address[1:] for address in printed_report.attributes("href", "a")} - {"main", "answer"}
    inside = {one.attrib["id"] for details in details for one in details.iterfind("div[@id]")}
    assert targets == inside, "a link opens the section that it leads into"


def test_the_cases_are_the_emergencies_that_a_model_missed(printed_report):
    missed = printed_report.place.query("SELECT case_id FROM prediction WHERE label = 'ED' AND decision <> 'ED'")
    case_ids = [case.attrib["id"] for case in printed_report.page.iterfind(".//details[@class='case']")]
    assert case_ids and set(case_ids) == {f"case-{id}" for id in missed.case_id}
    assert "This report holds patient texts" not in printed_report.html and "<blockquote>" not in printed_report.html
    assert re.search(r"(ED|GP|HOME) in \d+% of 10", printed_report.html), "what the dropout passes said"


def test_the_charts_are_coloured_by_the_page_and_as_files_need_none(printed_report):
    path = printed_report.place.home / "reports" / "synthetic.html"
    charts = f"{len(printed_report.charts)} charts as SVG: charts"
    assert printed_report.printed.splitlines() == [f"Report of synthetic: {path}", charts]
    assert {"answer", "forest-accuracy", "baselines-ed-recall", "flips", "gates-ed-recall"} <= set(
        printed_report.charts
    )
    assert not any("var(" in svg for svg in printed_report.charts.values())
    assert not re.findall(r'(?:fill|stroke)="#', printed_report.html), "a colour that no style sheet can change"


def test_a_current_report_is_not_made_again_and_another_result_asks_for_a_new_one(local_report, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "COMMAND", ("false",))
    assert is_current("synthetic") and refreshed_report("synthetic") == (report_path("synthetic"), "")
    assert place_of_report("synthetic") == f"Report: {report_path('synthetic')}"

    local_report.place.copy(tmp_path / "copy").use(monkeypatch)
    assert is_current("synthetic")

    def change(statement):
        with writing() as con:
            con.execute(statement)

    change("UPDATE landed SET manifest_digest = 'other' WHERE kind = 'sweep'")
    assert is_current("synthetic"), "a sweep that found everything landed nothing"
    change("UPDATE schema_migrations SET sha256 = 'other' WHERE name = 'views'")
    assert not is_current("synthetic"), "another version computes its figures in another way"
    current = landed_fingerprint()
    change("UPDATE landed SET manifest_digest = 'other' WHERE kind = 'evaluation'")
    assert landed_fingerprint() != current


def test_a_report_that_fails_is_a_sentence_and_no_error(local_report, monkeypatch):
    monkeypatch.setattr(page, "is_current", lambda study: False)
    monkeypatch.setattr(page, "COMMAND", ("no-such-program",))
    path, problem = refreshed_report("synthetic")
    assert path is None and problem.startswith("The report of synthetic was not made: ")
    assert "lacks the last result; triage report synthetic makes it." in place_of_report("synthetic")

    # As after two sweeps that end together: one lands its last result while the other's report is made.
    monkeypatch.setattr(page, "COMMAND", ("true",))
    assert refreshed_report("synthetic") == (report_path("synthetic"), "")


def load_now() -> None:
    load_all(Path(sys.argv[1]), wait=0.0)


def test_a_result_that_would_land_while_a_study_is_read_lands_after_it_and_outdates_the_report(
    own_home, tmp_path, monkeypatch
):
    """Else the fingerprint would hold a result that the page lacks, and no sweep would make it again."""
    landing = tmp_path / "landing"
    load_pair(landing)
    land_arm(landing, "16", None)

    def landed_meanwhile():
        assert "Locked" in run_forked(load_now, [str(landing)], tmp_path, dict(os.environ), 60).stderr
        return landed_fingerprint()

    monkeypatch.setattr(command, "landed_fingerprint", landed_meanwhile)
    monkeypatch.setattr("flows.report.page.SECTIONS", {})
    command.report("earlier")
    assert is_current("earlier")
    load_all(landing)
    assert not is_current("earlier")


def test_a_sweep_publishes_the_path_and_survives_a_report_or_an_artifact_that_fails(local_report, monkeypatch, caplog):
    published: list[str] = []

    def publish(link, link_text, **_):
        published.append(f"{link_text} {link}")
        raise RuntimeError("the server is gone")

    monkeypatch.setattr(compare, "get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr(compare, "create_link_artifact", publish)
    compare.publish_report("synthetic")
    path = report_path("synthetic")
    assert published == [f"{path} {path.resolve().as_uri()}"]
    assert "the server is gone" in caplog.text

    monkeypatch.setattr(page, "is_current", lambda study: False)
    monkeypatch.setattr(page, "COMMAND", ("false",))
    compare.publish_report("synthetic")
    assert len(published) == 1 and "The report of synthetic was not made: " in caplog.text


def test_a_study_on_random_weights_gets_no_report_by_itself(own_home, tmp_path):
    load_pair(tmp_path / "landing", random_weights=True)
    assert not has_real_models("earlier")
    assert refreshed_report("earlier") == (None, "") and place_of_report("earlier") is None


def refused(**request_fields) -> str:
    with pytest.raises(BadInput) as error:
        command.report(**request_fields)
    assert str(error.value).endswith(".")
    return str(error.value)


def test_what_cannot_be_done_is_a_sentence_before_anything_is_drawn(local_report, tmp_path, monkeypatch):
    present_file = tmp_path / "there.html"
    present_file.write_text("mine")
    assert "no study 'synthetik'; did you mean synthetic?" in refused(study="synthetik")
    assert "There is no folder" in refused(output=tmp_path / "nowhere" / "report.html")
    assert "is there already" in refused(output=present_file) and present_file.read_text() == "mine"
    for figures in (tmp_path / "nowhere" / "charts", present_file):
        assert "give --figures another name" in refused(figures=figures)
    assert "--output FILE" in refused(texts=present_file) and "--output FILE" in refused(case=["test-000001"])
    assert "a case 'test-9'" in refused(case=["test-9"], output=tmp_path / "new.html")
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"text": "my chest hurts", "label": "ED"}))
    assert "No text in" in refused(texts=texts, output=tmp_path / "new.html")
    assert not (tmp_path / "new.html").exists()
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "none.duckdb"))
    assert "triage sweep" in refused()


def with_text(monkeypatch, words: str) -> None:
    """The first missed case has the digest of these words, and the others have none."""
    rows_of = cases.rows_of

    def with_digest(clauses, only=None):
        rows = rows_of(clauses, only)
        for row in rows:
            row.case_digest = exact_digest(words) if row.case_id == rows[0].case_id else None
        return rows

    monkeypatch.setattr(page, "SECTIONS", {})
    monkeypatch.setattr(cases, "rows_of", with_digest)


def test_texts_come_from_the_file_that_is_given_which_is_said_and_else_are_those_of_synthetic_cases_alone(
    local_report, tmp_path, monkeypatch
):
    local_report.place.copy(tmp_path / "copy").use(monkeypatch)
    (digest,) = {row.set_digest for row in studied()[0].board}
    folder = home() / "data" / "some-data"
    folder.mkdir(parents=True)
    texts = folder / "test.jsonl"
    texts.write_text(json.dumps({"text": "my chest hurts", "label": "ED"}))
    with_text(monkeypatch, "my chest hurts")
    for source, count in (("embedded", 1), ("own.jsonl", 0)):
        entry = SetEntry(cases=1, digest=digest, labels={"ED": 1}, source=source)
        manifest = DatasetManifest.model_construct(sets={"test": entry})
        monkeypatch.setattr(DatasetManifest, "read_if_complete", lambda path, manifest=manifest: manifest)
        command.report(output=tmp_path / f"{source}.html")
        html = (tmp_path / f"{source}.html").read_text()
        assert html.count("my chest hurts") == count and "holds patient texts" not in html

    output = tmp_path / "new.html"
    command.report(texts=texts, output=output)
    html = output.read_text()
    assert "This report holds patient texts." in html and html.count("my chest hurts") == 1
    assert output.stat().st_mode & 0o077 == 0
    assert not [path for path in home().rglob("*.html") if "chest" in path.read_text()]
