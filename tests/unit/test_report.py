"""What is shown can steer neither a terminal nor a log nor a page, whatever was found."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mlp_ci import report as reports
from mlp_ci.errors import InputError, Problem, SpecError
from mlp_ci.printable import in_one_line, printable
from mlp_ci.report import Finding, Outcome, Report, Table

NASTY = "\x1b[31m`x`|\\|](http://evil.test) <b>@carol\r\n\x9b2J\u202e[bold]#"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
ANY_TEXT = st.text(st.one_of(st.characters(), st.sampled_from("|`\\[]()<>!@#*_~\n\r\x1b&;:/")), max_size=60)


def report(text: str) -> Report:
    return Report(
        command="lint",
        headline=text,
        outcome=Outcome.FAIL,
        findings=[Finding(check=text, outcome=Outcome.FAIL, message=text, subject=text, fix=text, file=text, line=1)],
        tables=[Table(title=text, columns=("column", text), rows=((text, Outcome.PASS), (text, 1.5)))],
        outputs={"name": text},
        links=[(text, text), (text, f"http://good.test/{text}")],
    )


def tokens(markdown: str) -> list[Any]:
    top = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    return [t for token in top for t in (token, *(token.children or []))]


@given(ANY_TEXT)
def test_text_for_people_holds_nothing_that_steers(text: str) -> None:
    stream = io.StringIO()
    reports.print_text(report(text), stream)
    problem = Problem(what=text, file=text, line=1, column=2, excerpt=text, fix=text)
    for error in (InputError(text, why=text, fix=text, file=text), SpecError([problem])):
        reports.print_error(error, stream)
    assert not STEERING.search(stream.getvalue())
    assert "\n" not in in_one_line(text)
    assert printable(printable(text)) == printable(text)


@given(ANY_TEXT)
def test_markdown_keeps_text_in_its_place(text: str) -> None:
    table = Table(title="", columns=("a", "b", "c"), rows=((text, text, "end"),) * 2)
    found = tokens(reports.markdown_table(table))
    cells = [t for t in found if t.type == "td_open"]
    assert len(cells) == 6, "a cell stays one cell"
    kinds = {t.type for t in found}
    assert not kinds & {"link_open", "image", "html_inline", "html_block"}


@pytest.mark.parametrize("text", [NASTY, "``", "`", "a`b", "x\n\n# head", "](javascript:alert(1))"])
def test_a_summary_has_no_link_but_ours(text: str) -> None:
    markdown = reports.markdown(report(text))
    found = tokens(markdown)
    assert not {t.type for t in found} & {"image", "html_inline", "html_block"}
    assert all(t.attrs["href"].startswith("http://good.test/") for t in found if t.type == "link_open")
    assert len([t for t in found if t.type == "heading_open"]) == 1
    assert not STEERING.search(markdown)
    assert not [t for t in found if t.type == "text" and "@carol" in t.content], "nobody is mentioned but in code"


@given(ANY_TEXT)
def test_json_reads_back_and_holds_no_command_of_a_job(text: str) -> None:
    stream = io.StringIO()
    reports.print_json(report(f"##[error]{text}").as_dict(), stream)
    shown = stream.getvalue()
    assert "##[" not in shown
    assert json.loads(shown)["headline"] == f"##[error]{text}"
    shown.encode()
    assert not [line for line in shown.splitlines() if line.lstrip().startswith("::")]


@given(ANY_TEXT)
def test_an_annotation_is_one_line(text: str) -> None:
    stream = io.StringIO()
    reports.annotate_report(report(text), stream)
    assert len(stream.getvalue().split("\n")) == 2
    assert stream.getvalue().startswith("::error ")
    assert not STEERING.search(stream.getvalue())
