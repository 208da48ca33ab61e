"""Tables in a narrow terminal: what a row is about stays whole, words are not cut, nothing is left out."""

from __future__ import annotations

import io

import pytest

from mlp_ci.report import Report, Table, print_text

ROWS = (
    (
        "scheduled_departure",
        "timestamp",
        "newest within 45 days",
        "2013-03-31 23:59",
        "the newest flight is from March",
    ),
    ("wind_speed", "float", "0 to 100", "-3 to 57.5", "1,234 of 81,234 values are below the minimum of 0"),
)
TABLE = Table(title="Columns", columns=("column", "type", "rule", "found", "what it means"), rows=ROWS)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_breaks_lines_between_words(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stream = io.StringIO()
    print_text(Report(command="validate", headline="done", tables=[TABLE]), stream)
    shown = stream.getvalue()
    assert "…" not in shown
    words = set(shown.split())
    assert {"scheduled_departure", "wind_speed", "timestamp", "81,234", "minimum", "2013-03-31"} <= words
    for row in ROWS:
        assert set(" ".join(row).split()) <= words, "every word is there, whole"


def test_what_fits_stays_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    table = Table(title="", columns=("what", "value"), rows=(("digest", "sha256:" + "a" * 40), ("seconds", 1.5)))
    print_text(Report(command="train", headline="done", tables=[table]), stream)
    lines = stream.getvalue().splitlines()
    assert any("sha256:" + "a" * 40 in line for line in lines)
    assert max(map(len, lines)) <= 80
