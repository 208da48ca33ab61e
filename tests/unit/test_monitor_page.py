"""The HTML report: self-contained, small, safe, and drawn from what the profiles hold."""

from __future__ import annotations

import html.parser
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_ci.data.drift import compare
from mlp_ci.data.profile import Profile, profile_values
from mlp_ci.monitor import page
from mlp_ci.monitor.look import Look
from mlp_ci.monitor.performance import PerformanceLook
from mlp_ci.monitor.verdict import Verdict
from mlp_ci.monitor.windows import Span
from mlp_ci.spec.model import ModelSpec
from mlp_ci.tracking import VersionFact

NOW = datetime(2013, 7, 31, tzinfo=UTC)
VOID = {"meta", "br", "img", "link", "input"}


class Reader(html.parser.HTMLParser):
    """Checks that every tag is closed in order, and collects what would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [str(v) for k, v in attrs if k in ("src", "href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def model() -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "apiVersion": "mlp-ci/v1",
            "name": "toy",
            "team": "growth",
            "train": {"command": "true"},
            "data": {"train": "a.csv", "test": "b.csv", "target": "y", "columns": {"x": {"type": "float"}}},
            "evaluate": {"gates": [{"metric": "roc_auc", "min": 0.5}]},
        }
    )


def verdict(then: dict[str, Any], now: dict[str, Any], **more: Any) -> Verdict:
    reference = Profile(rows=2000, columns={n: profile_values(v) for n, v in then.items()})
    columns = {n: profile_values(v, like=reference.columns[n]) for n, v in now.items()}
    current = Profile(rows=1000, columns=columns)
    spec = model()
    empty: dict[str, Any] = dict.fromkeys(("digest", "evidence", "commit", "train_key"), "")
    look = {"rows": 1000, "versions": {3: 1000}, "absent": (), "unreadable": ()}
    return Verdict(
        model="toy",
        stage="production",
        version=VersionFact(model="toy", number=3, run_id="abc", gate="pass", data={}, created=NOW, **empty),
        span=Span(since=NOW - timedelta(days=30), until=NOW),
        created=NOW,
        look=Look(profile=current, **{**look, **more.pop("look", {})}),
        reference=reference,
        drifts=tuple(compare(reference, current, spec.monitor.drift)),
        alpha=0.01,
        spec=spec,
        **more,
    )


def normal(rows: int, seed: int, shift: float = 0) -> Any:
    return np.random.default_rng(seed).normal(shift, 1, rows)


def test_the_page_says_the_verdict_first_and_loads_nothing() -> None:
    text = page.render(verdict({"x": normal(2000, 1)}, {"x": normal(1000, 2, shift=2)}))
    reader = read(text)
    assert reader.loaded == []
    assert "http" not in text
    assert "url(" not in text
    assert re.search(r"<h1>toy v3 in production: x drifted \(1,000 rows\)</h1>", text)
    assert text.index("<h1>") < text.index("<svg")
    assert "script" not in reader.tags
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_hostile_names_and_values_stay_text() -> None:
    bad = "<script>alert(1)</script>"
    text = page.render(
        verdict(
            {bad: [bad] * 1000 + ["a"] * 1000},
            {bad: ["a"] * 1000},
            look={"absent": (bad,), "unreadable": (Path("/log/<img src=x>"),)},
        )
    )
    assert {"script", "img"} & set(read(text).tags) == set()
    assert "&lt;script&gt;" in text


def test_many_columns_keep_the_page_small_and_all_stay_in_the_table() -> None:
    names = [f"feature_{i}" for i in range(400)]
    text = page.render(
        verdict({n: normal(600, i) for i, n in enumerate(names)}, {n: normal(600, i + 9) for i, n in enumerate(names)})
    )
    read(text)
    assert len(text) < 500_000
    assert text.count("<figure>") == page.MOST_PLOTS
    assert "340 more columns" in text
    assert all(f">{n}</th>" in text for n in names)


def test_an_empty_window_has_a_page() -> None:
    text = page.render(verdict({"x": normal(2000, 1)}, {}, look={"rows": 0, "versions": {}}))
    read(text)
    assert "none came in" in text
    assert "<figure>" not in text


def test_performance_is_on_the_page() -> None:
    look = PerformanceLook(
        metric="roc_auc",
        outcome="alarm",
        rows=900,
        value=0.61,
        low=0.58,
        high=0.64,
        evidence=0.72,
        max_drop=0.03,
    )
    text = page.render(verdict({"x": normal(2000, 1)}, {"x": normal(1000, 2)}, performance=look))
    assert "roc_auc went from 0.720 to 0.610" in text
    assert "0.610 (0.580 – 0.640)" in text


def test_bars_join_what_is_small_and_show_what_is_missing() -> None:
    then = [f"c{i}" for i in range(20) for _ in range(100)]
    drawn = verdict({"s": then}, {"s": [*then[:900], *[None] * 100]})
    plot = page.plot(drawn, drawn.drifts[0])
    labels = [b.label for b in plot.bars]
    assert len(labels) == page.MOST_BARS + 1
    assert labels[-2:] == ["13 more", "missing"]
    assert plot.bars[-2].width is None
    assert sum(b.then for b in plot.bars) == pytest.approx(1)
    assert sum(b.now for b in plot.bars) == pytest.approx(1)


def test_outlines_of_numbers_hold_all_values() -> None:
    drawn = verdict({"x": normal(2000, 1)}, {"x": normal(1000, 2, shift=3)})
    then = drawn.reference.columns["x"]
    low, high = page._range(then, drawn.look.profile.columns["x"])  # type: ignore[arg-type]
    points = [low + (high - low) * i / page.CELLS for i in range(page.CELLS + 1)]
    assert low < -2
    assert high > 5
    assert sum(page._heights(then, points)) == pytest.approx(1, abs=0.02)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (np.ones(2000), np.ones(1000)),
        (np.ones(2000), np.zeros(1000)),
        (np.full(2000, np.nan), np.ones(1000)),
        (np.arange(2000) % 2, np.full(1000, np.inf)),
        (np.arange(2000) % 20, np.arange(1000) % 20 + 5),
        (normal(2000, 1) * 1e300, normal(1000, 1) * 1e300),
        (normal(2000, 1) * 1e-300, normal(1000, 1)),
    ],
)
def test_odd_columns_are_drawn_without_a_fault(then: Any, now: Any) -> None:
    text = page.render(verdict({"x": then}, {"x": now}))
    read(text)
    assert "nan" not in "".join(re.findall(r' d="[^"]*"', text)).lower()
    assert "inf" not in "".join(re.findall(r' d="[^"]*"', text)).lower()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1234.5, "1,234"), (-0.25, "−0.25"), (99, "99"), (12345, "12,345"), (0.00012, "0.00012")],
)
def test_numbers_for_people(value: float, shown: str) -> None:
    assert page.show_number(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0%"), (0.0004, "<0.1%"), (0.051, "5.1%"), (0.33, "33%"), (1, "100%")]
)
def test_shares_for_people(share: float, shown: str) -> None:
    assert page.show_share(share) == shown
