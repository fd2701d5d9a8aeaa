"""A page as the tests read it: its elements with their attributes and texts, and whether every tag is closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br"}
MAY_STAY_OPEN = {"th", "td"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


class ReadPage(HTMLParser):
    """`elements` in the order in which they begin; an element's text includes that of those inside it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()
        assert self._open == [], [one.tag for one in self._open]

    def all(self, tag: str) -> list[Element]:
        return [one for one in self.elements if one.tag == tag]

    def tables(self) -> dict[str, list[list[str]]]:
        """The cells of every table that has a caption, by caption; the first row is the head."""
        tables: dict[str, list[list[str]]] = {}
        rows: list[list[str]] = []
        for one in self.elements:
            if one.tag == "table":
                rows = []
            elif one.tag == "caption":
                tables[one.text] = rows
            elif one.tag == "tr":
                rows.append([])
            elif one.tag in ("th", "td"):
                rows[-1].append(one.text)

        return tables

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._open and self._open[-1].tag in MAY_STAY_OPEN and tag in (*MAY_STAY_OPEN, "tr"):
            self._open.pop()

        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag == "br":
            self.handle_data(" ")
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        while self._open[-1].tag != tag and self._open[-1].tag in MAY_STAY_OPEN:
            self._open.pop()
        assert self._open[-1].tag == tag, (tag, [one.tag for one in self._open], self.getpos())
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.texts.append(data)
