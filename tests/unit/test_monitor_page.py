"""The HTML report: self-contained, small, safe, and drawn from what the profiles hold."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlp_ci.data.drift.calibration import Calibration, Series
from mlp_ci.data.drift.compare import Sample, compare
from mlp_ci.data.drift.reference import Reference
from mlp_ci.data.profiles.groups import groups_of
from mlp_ci.data.profiles.profile import PREDICTION, Profile, profile_values
from mlp_ci.monitor import page, plots, words
from mlp_ci.monitor.estimate import Estimate
from mlp_ci.monitor.look import Look
from mlp_ci.monitor.performance import PerformanceLook
from mlp_ci.monitor.promise import WindowPerformance
from mlp_ci.monitor.verdict import Past, Verdict
from mlp_ci.monitor.windows import Span
from mlp_ci.spec.model import ModelSpec
from mlp_ci.tracking import VersionFact
from tests.pages import read

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2013, 7, 31, tzinfo=UTC)
MONTH = timedelta(days=30)
Columns = dict[str, Any]


def model(**monitor: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "apiVersion": "mlp-ci/v1",
            "name": "toy",
            "team": "growth",
            "train": {"command": "true"},
            "data": {"train": "a.csv", "test": "b.csv", "target": "y", "columns": {"x": {"type": "float"}}},
            "evaluate": {"gates": [{"metric": "roc_auc", "min": 0.5}]},
            "monitor": {"drift": {"persistence": 1}, **monitor},
        }
    )


def profile(columns: Columns, like: Profile | None = None) -> Profile:
    found = {n: profile_values(v, like=like.columns[n] if like else None) for n, v in columns.items()}
    return Profile(rows=max((c.count + c.nulls for c in found.values()), default=0), columns=found)


def verdict(
    then: Columns,
    now: Columns,
    *,
    before: Columns | None = None,
    segments: Mapping[str, tuple[Columns, Columns]] | None = None,
    calibration: Calibration | None = None,
    importance: Mapping[str, float] | None = None,
    spec: ModelSpec | None = None,
    **more: Any,
) -> Verdict:
    """What is said about ``now`` against ``then``; ``before`` is the window before, ``segments`` are then and now."""
    spec = spec or model()
    whole = profile(then)
    parts = {name: profile(a, whole) for name, (a, _) in (segments or {}).items()}
    reference = Reference(profile=whole, segments=parts, calibration=calibration, importance=importance or {})
    current = Sample(
        profile=profile(now, whole), segments={name: profile(b, whole) for name, (_, b) in (segments or {}).items()}
    )
    earlier = [Sample(profile=profile(before, whole))] if before else []
    rows = current.profile.rows
    look = {"rows": rows, "versions": {3: rows}, "absent": (), "unreadable": ()}
    span = Span(since=NOW - MONTH, until=NOW)
    return Verdict(
        model="toy",
        stage="production",
        version=VersionFact(model="toy", number=3, run_id="abc", gate="pass", created=NOW),
        span=span,
        created=NOW,
        look=Look(span=span, profile=current.profile, segments=current.segments, **{**look, **more.pop("look", {})}),
        reference=reference,
        drifts=tuple(compare(reference, current, spec.monitor.drift, earlier=earlier)),
        risk=0.01,
        spec=spec,
        **more,
    )


def past(index: int, outcome: str, psi: float | None, *, missed: bool = False, suspected: tuple[str, ...] = ()) -> Past:
    until = NOW - MONTH * index
    return Past(
        span=Span(since=until - MONTH, until=until),
        rows=1000 if psi is not None else 40,
        outcome=outcome,
        psi={} if psi is None else {"x": psi},
        drifted=("x",) if outcome == "alarm" else (),
        suspected=suspected,
        missed=missed,
    )


def normal(rows: int, seed: int, shift: float = 0) -> Any:
    return np.random.default_rng(seed).normal(shift, 1, rows)


STEADY = {"x": normal(2000, 1)}, {"x": normal(1000, 2)}
MOVED = {"x": normal(2000, 1)}, {"x": normal(1000, 2, shift=2)}


def test_the_page_says_the_verdict_first_and_loads_nothing() -> None:
    text = page.render(verdict(*MOVED))
    reader = read(text)
    assert reader.loaded == []
    assert reader.handlers == []
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert reader.headings[0] == "toy v3 in production: x drifted (1,000 rows)"
    assert text.index("<h1>") < text.index("<svg")
    assert "script" not in reader.tags
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert all(reader.labels)


def test_the_headings_lead_from_what_happened_to_how_it_was_decided() -> None:
    segments = {"origin=JFK": STEADY}
    look = PerformanceLook(metric="roc_auc", outcome="insufficient", rows=3, reason="3 labelled rows, 500 are needed")
    timeline = (past(1, "pass", 0.01), past(0, "alarm", 2.0))
    text = page.render(verdict(*MOVED, segments=segments, performance=look, timeline=timeline))
    assert read(text).headings[1:] == [
        "Window by window",
        "Performance",
        "What probably hurts most first",
        "By segment",
        "Every number",
        "How this was decided",
    ]
    assert "roc_auc is unknown: 3 labelled rows, 500 are needed" in text


HOSTILE = "<script>alert(1)</script>"
BREAKING = "\"><img src=x onerror=alert(1)> ' \u202e{{ 7*7 }}"


def test_hostile_names_and_values_stay_text() -> None:
    values = [HOSTILE] * 1000 + [BREAKING] * 1000
    drawn = verdict(
        {HOSTILE: values, BREAKING: values},
        {HOSTILE: [BREAKING] * 1000, BREAKING: [BREAKING] * 1000},
        segments={f"{BREAKING}={HOSTILE}": ({HOSTILE: values}, {HOSTILE: [BREAKING] * 1000})},
        importance={HOSTILE: 0.5, BREAKING: 0.5},
        look={"absent": (HOSTILE, BREAKING), "unreadable": (BREAKING,)},
        performance=PerformanceLook(metric="m", outcome="insufficient", rows=0, reason=BREAKING, notices=(HOSTILE,)),
        estimate=Estimate(metric="m", outcome="none", rows=0, reason=HOSTILE),
    )
    window = replace(past(0, "alarm", 1.0), psi={HOSTILE: 1.0, BREAKING: 0.2}, drifted=(HOSTILE, BREAKING))
    text = page.render(replace(drawn, timeline=(window,)))
    reader = read(text)
    assert {"script", "img"} & set(reader.tags) == set()
    assert reader.handlers == []
    assert reader.loaded == []
    assert HOSTILE in reader.words
    assert "{{ 7*7 }}" in reader.words
    assert "\u202e" not in text


def test_many_columns_keep_the_page_small_and_all_stay_in_the_table() -> None:
    names = [f"feature_{i}" for i in range(120)]
    then, now = ({n: normal(600, i + o) for i, n in enumerate(names)} for o in (0, 9))
    text = page.render(
        verdict(then, now, segments={f"s={i}": (then, now) for i in range(8)}, importance=dict.fromkeys(names, 1 / 120))
    )
    reader = read(text)
    assert len(text.encode()) < 400_000
    assert reader.tags.count("figure") == page.MOST_PLOTS
    assert "80 more columns" in reader.words
    assert "840 more rows of segments" in reader.words
    assert all(f">{n}</th>" in text for n in names)


def test_an_empty_window_has_a_page() -> None:
    text = page.render(verdict(STEADY[0], {}, look={"rows": 0, "versions": {}}))
    reader = read(text)
    assert "too little data" in reader.words
    assert "none came in" in reader.words
    assert "figure" not in reader.tags


def test_too_few_rows_are_drawn_and_not_judged() -> None:
    reader = read(page.render(verdict(STEADY[0], {"x": normal(40, 2)})))
    assert "40 rows, 500 are needed to decide" in reader.words
    assert not any("bullet" in c and "key" not in c for c in reader.classes)


def test_the_timeline_has_every_window_with_its_outcome() -> None:
    timeline = (
        past(5, "pass", 0.01),
        past(4, "insufficient", None),
        past(3, "alarm", 0.9, missed=True),
        past(2, "alarm", 0.8),
        past(1, "pass", 0.12, suspected=("x",)),
        past(0, "pass", 0.02),
    )
    text = page.render(verdict(*STEADY, timeline=timeline))
    reader = read(text)
    strip = text[text.index('class="cells"') : text.index('class="ends"')]
    assert re.findall(r'class="mark (\w+)"', strip) == ["pass", "insufficient", "missed", "alarm", "suspected", "pass"]
    assert "alarm, and nobody looked then: x drifted" in reader.words
    assert "40 rows: too few rows" in reader.words
    assert "smallest PSI that matters, 0.1" in reader.words
    lines = re.findall(r'<path class="l l0" d="([^"]*)"/><path class="dot', text)
    assert len(lines) == 1
    assert lines[0].count("M") == 2  # broken where a window has too few rows
    assert lines[0].count("L") == 3


def test_one_window_is_a_dot_on_the_timeline() -> None:
    text = page.render(verdict(*MOVED, timeline=(past(0, "alarm", 2.0),)))
    assert "One window of 30d; the log has none before it." in read(text).words
    assert re.search(r'class="dot l0" d="M500\.0 [\d.]+h0"', text)


def test_performance_is_on_the_page() -> None:
    def window(index: int, value: float | None) -> WindowPerformance:
        ends: dict[str, Any] = {
            "since": (NOW - MONTH * (index + 1)).isoformat(),
            "until": (NOW - MONTH * index).isoformat(),
        }
        if value is None:
            return WindowPerformance(**ends, answered=900, rows=9, outcome="insufficient", reason="9 labelled rows")
        low, high = value - 0.02, value + 0.02
        return WindowPerformance(**ends, answered=900, rows=800, outcome="alarm", value=value, low=low, high=high)

    look = PerformanceLook(
        metric="roc_auc",
        outcome="alarm",
        rows=900,
        value=0.61,
        low=0.58,
        high=0.64,
        evidence=0.72,
        max_drop=0.03,
        rule="in 2 windows in a row",
        windows=(window(3, 0.7), window(2, None), window(1, 0.62), window(0, 0.61)),
    )
    text = page.render(verdict(*STEADY, performance=look))
    reader = read(text)
    assert "roc_auc went from 0.720 to 0.610; accepted is a drop of 0.03; seen in 2 windows in a row." in reader.words
    assert "0.580 – 0.640" in reader.words
    assert "0.620 (0.600 to 0.640)" in reader.words
    assert "9 labelled rows" in reader.words
    band = re.findall(r'class="band" d="([^"]*)"', text)
    assert [d.count("Z") for d in band] == [2]
    # The evidence lies above what is accepted, and both above the newest value.
    evidence, accepted = (
        float(re.findall(rf'class="{c}" d="M0 ([\d.]+)H1000', text)[0]) for c in ("floor", "accepted")
    )
    assert evidence < accepted < float(re.findall(r'class="dot l0" d=".*M[\d.]+ ([\d.]+)h0"', text)[0])


@pytest.mark.parametrize(("low", "says"), [(0.60, "against"), (0.68, "against")])
def test_an_estimate_says_its_assumption(low: float, says: str) -> None:
    found = Estimate(metric="roc_auc", outcome="same", rows=900, evidence=0.72, value=0.70, low=low, high=0.75)
    reader = read(page.render(verdict(*STEADY, estimate=found)))
    assert f"Without labels, roc_auc is estimated at 0.700 ({low:.3f} to 0.750), {says} 0.720" in reader.words
    assert "holds if the relation between inputs and target has not changed" in reader.words
    assert f"Estimate 0.700 from {low:.3f} to 0.750; evidence 0.720" in reader.labels
    assert "roc_auc, estimated" in reader.words


def test_what_matters_most_comes_first_with_its_importance() -> None:
    then = {n: normal(2000, i) for i, n in enumerate("abc")}
    now = {"a": normal(1000, 7, 1.0), "b": normal(1000, 8, 0.8), "c": normal(1000, 9)}
    text = page.render(verdict(then, now, importance={"a": 0.1, "b": 0.7, "c": 0.2}))
    shown = re.findall(r'<figcaption><b title="(\w+)"', text)
    assert shown == ["b", "a", "c"]
    assert "times how much of the model rests on it" in text
    assert 'style="width:70.0%"></i></span><b>70 %</b>' in text


def test_a_mark_says_how_far_what_is_usual_and_where_the_limit_is() -> None:
    drawn = verdict(*MOVED)
    (drift,) = drawn.drifts
    mark = page.bullet(drift, page.LONGEST_BAR)
    assert mark is not None
    assert (mark.psi, mark.limit, mark.beyond) == (100, 25, True)
    near = page.bullet(replace(drift, pooled=0.2, limit=0.1, usual=0.05), page.LONGEST_BAR)
    assert near is not None
    assert (near.psi, near.usual, near.limit, near.beyond) == (50, 12.5, 25, False)
    assert any("limit 0.10" in label for label in read(page.render(drawn)).labels)


def test_a_change_in_one_segment_alone_has_its_own_plot() -> None:
    drawn = verdict(*STEADY, segments={"origin=JFK": (STEADY[0], {"x": normal(600, 5, 1)}), "origin=EWR": STEADY})
    text = page.render(drawn)
    assert '<figcaption><b title="x where origin=JFK"' in text
    assert '<figcaption><b title="x where origin=EWR"' not in text
    cells = re.findall(r'<td><span class="(\w+)"', text[text.index('class="map"') :])
    assert cells == ["stable", "drifted", "stable"]


def test_suspected_is_explained_and_is_no_alarm() -> None:
    spec = model(drift={"persistence": 2})
    reader = read(page.render(verdict(*MOVED, before=STEADY[1], spec=spec)))
    assert "no alarm" in reader.words
    assert "2 windows in a row show it" in reader.words
    assert any("chip suspected" in c for c in reader.classes)


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (604_799.0, "The training data was cut into 12 windows of 7d;"),
        (None, "The training data has no time, so it was cut into 12 parts of rows as they come;"),
    ],
)
def test_the_decision_says_what_it_rests_on(seconds: float | None, says: str) -> None:
    then = STEADY[0]["x"]
    whole = profile_values(then)
    groups = groups_of(whole)
    counts = [tuple(groups.count(profile_values(part, like=whole))) for part in np.array_split(then, 12)]
    known = Calibration(seconds=seconds, columns={"x": Series(groups=groups, counts=tuple(counts))})
    words_ = read(page.render(verdict(*STEADY, calibration=known))).words
    assert says in words_
    assert "p ≤ 0.01 after the corrections" in words_
    assert "Below 500 rows in a window nothing is decided" in words_
    assert "one in 30.4 days" in words_


def test_without_windows_of_the_reference_the_page_says_so() -> None:
    assert "rows count as independent of each other" in read(page.render(verdict(*STEADY))).words


def test_predictions_have_their_name() -> None:
    text = page.render(verdict({PREDICTION: normal(2000, 1)}, {PREDICTION: normal(1000, 2, shift=1)}))
    assert '<figcaption><b title="predictions">predictions</b>' in text


def test_bars_join_what_is_small_and_show_what_is_missing() -> None:
    then = [f"c{i}" for i in range(20) for _ in range(100)]
    drawn = verdict({"s": then}, {"s": [*then[:900], *[None] * 100]})
    plot = plots.plot(drawn, drawn.drifts[0])
    labels = [b.label for b in plot.bars]
    assert len(labels) == plots.MOST_BARS + 1
    assert labels[-2:] == ["13 more", "missing"]
    assert plot.bars[-2].width is None
    assert sum(b.then for b in plot.bars) == pytest.approx(1)
    assert sum(b.now for b in plot.bars) == pytest.approx(1)


def drawn_heights(path: str) -> list[float]:
    return [plots.HEIGHT - float(y) for y in re.findall(r"V([0-9.]+)H", path)]


def test_outlines_of_numbers_hold_all_values() -> None:
    drawn = verdict({"x": normal(2000, 1)}, {"x": normal(1000, 2, shift=3)})
    plot = plots.plot(drawn, drawn.drifts[0])
    assert float(plot.low.replace("−", "-")) < -2
    assert float(plot.high) > 5
    then, now = drawn_heights(plot.then_path), drawn_heights(plot.now_path)
    assert sum(then) == pytest.approx(sum(now), rel=0.01), "both hold all values, so both are as large"
    assert max(i for i, height in enumerate(then) if height) < max(i for i, height in enumerate(now) if height)


def test_outlines_show_how_many_values_are_the_smallest_one() -> None:
    rest = np.arange(1, 1001) / 10
    drawn = verdict({"x": [*np.zeros(1000), *rest]}, {"x": [*np.zeros(100), *rest]})
    plot = plots.plot(drawn, drawn.drifts[0])
    then, now = drawn_heights(plot.then_path), drawn_heights(plot.now_path)
    assert then[0] / sum(then) == pytest.approx(0.5, abs=0.03)
    assert now[0] / sum(now) == pytest.approx(0.1, abs=0.03)


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
    assert words.show_number(value) == shown
