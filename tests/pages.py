"""Reads a page that mlp-ci made: whole, loading nothing, with nothing in it that a name could have slipped in."""

from __future__ import annotations

import html.parser

VOID = {"meta", "br", "img", "link", "input"}


class Reader(html.parser.HTMLParser):
    """Checks that every tag is closed in order, and collects what would be loaded, the words and the attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.classes: list[str] = []
        self.handlers: list[str] = []
        self.labels: list[str] = []
        self.headings: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [str(v) for k, v in attrs if k in ("src", "href", "data", "action")]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]
        named = dict(attrs)
        self.classes.append(str(named.get("class") or ""))
        if named.get("role") == "img":
            self.labels.append(str(named.get("aria-label") or ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += " ".join(data.split()) + " "
        if self.open[-1:] in (["h1"], ["h2"]):
            self.headings.append(data.strip())


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader
