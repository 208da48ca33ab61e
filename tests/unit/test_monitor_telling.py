"""What a look says beside its page: the job summary stays short however many columns there are."""

from __future__ import annotations

from pathlib import Path

from mlp_ci.monitor.comment import comment_text
from mlp_ci.monitor.telling import MOST_FINDINGS, MOST_ROWS, report_of
from mlp_ci.monitor.verdict import Verdict
from mlp_ci.monitor.words import without_repeats
from mlp_ci.report import markdown
from tests.unit.test_monitor_page import normal, verdict


def summary(drawn: Verdict) -> str:
    return markdown(report_of(drawn, Path("page.html"), "", fail_on_drift=False))


def test_segments_of_a_column_that_drifted_everywhere_are_told_with_it() -> None:
    then, now = {"x": normal(2000, 1)}, {"x": normal(1000, 2, 2)}
    drawn = verdict(then, now, segments={"s=a": (then, now), "s=b": (then, now)}, importance={"x": 0.5})
    text = summary(drawn)
    assert "50 % of what moves the model; also where s=a and s=b (drift)" in text
    assert text.count("| x") == 1
    assert "(2 more are in the report)" in text
    assert comment_text(drawn.as_dict(), "").count("| x") == 1


def test_a_segment_that_drifted_alone_has_its_own_row() -> None:
    then = {"x": normal(2000, 1)}
    drawn = verdict(then, {"x": normal(1000, 2)}, segments={"s=a": (then, {"x": normal(600, 3, 2)})})
    assert "| x where s=a | ✗ fail |" in summary(drawn)
    comment = comment_text(drawn.as_dict(), "")
    assert comment.index("| x where s=a | drifted |") < comment.index("| x | stable |")


def test_many_drifted_columns_make_no_long_summary() -> None:
    names = [f"f{i}" for i in range(60)]
    then, now = ({n: normal(600, i, shift) for i, n in enumerate(names)} for shift in (0, 2))
    text = summary(verdict(then, now))
    assert text.count("(drift)") == MOST_FINDINGS + 1
    assert "52 more: " in text
    assert text.count("✗ fail") == MOST_ROWS
    assert len(text) < 5_000


def test_hostile_names_do_not_break_out_of_the_comment() -> None:
    bad = "x|](https://evil.test) <img> @everyone"
    text = comment_text(verdict({bad: normal(2000, 1)}, {bad: normal(1000, 2, 2)}).as_dict(), "https://a.test/r")
    assert "](https://evil" not in text
    assert "<img>" not in text
    assert "@everyone" not in text
    assert text.count("[report](https://a.test/r)") == 1


def test_a_damaged_verdict_still_has_a_comment() -> None:
    assert "no verdict" in comment_text({"columns": "none", "window": None}, "")
    assert "| None |" in comment_text({"columns": [{"psi": "x"}, 3]}, "")


def test_names_of_segments_are_left_out_beside_their_column() -> None:
    assert without_repeats(["a", "a where s=1", "b where s=1", "a"]) == ["a", "b where s=1"]
    assert without_repeats(["a where b", "a where b where s=1"]) == ["a where b"]
