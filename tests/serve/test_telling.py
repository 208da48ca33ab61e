"""What is told of a rollout: true to the counts, safe whatever the names are, whole at every moment."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import timedelta
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.report import Outcome, markdown, print_json, print_text
from mlp_ci.serve.analysis import Design, analyse
from mlp_ci.serve.measured import Seen, prediction_bin, value_of_bin
from mlp_ci.serve.rollout.progress import Phase, Progress, Stratum
from mlp_ci.serve.telling import charts, ended, outlines, page, status
from mlp_ci.serve.telling.facts import Facts
from mlp_ci.serve.telling.standing import Standing, coming, commands, sentence, steps_of
from mlp_ci.serve.telling.words import Scale, lasting, scale_of
from mlp_ci.spec.serve import Rollout
from tests.pages import read
from tests.serve.simulated import BEGAN, ROLLOUT, Version, aborted, rolled

HOSTILE = "<script>alert(1)</script> | @everyone \x1b[31m\n## forged"


@cache
def harmless() -> Facts:
    return rolled(Version(), minutes=(60, 90))


@cache
def harmful() -> Facts:
    return rolled(Version(errors=0.05, texts=True), stable=Version(texts=True), minutes=(60, 20))


@cache
def undecided() -> Facts:
    return rolled(Version(errors=0.013), minutes=(60, 10))


def in_phase(facts: Facts, phase: Phase, **more: object) -> Facts:
    assert facts.progress is not None
    return replace(facts, progress=replace(facts.progress, phase=phase, **more))  # type: ignore[arg-type]


# ---------------------------------------------------------------- sentences


def test_a_running_rollout_says_where_it_stands_and_what_follows() -> None:
    facts = harmless()
    assert sentence(facts) == (
        "flight-delay: version 4 has 10 % of the traffic of production, beside version 3; "
        "what was measured is enough to go on"
    )
    assert coming(facts) == ["The next tick moves 50 % of the traffic to it."]
    slow = replace(facts, rollout=ROLLOUT.model_copy(update={"min_step": timedelta(hours=2)}))
    assert coming(slow) == [
        "The first tick after 12:00 UTC moves 50 % of the traffic to it; no step is shorter than 2 h."
    ]
    last = in_phase(facts, Phase.RUNNING, step=3)
    assert coming(last) == ["The next tick settles it with all the traffic."]
    assert "all traffic back" in coming(harmful())[0]
    assert [c.split()[2] for c, _ in commands(facts)] == ["pause", "promote", "abort"]


def test_an_undecided_one_says_what_is_missing_and_until_when() -> None:
    facts = undecided()
    assert facts.analysis is not None
    assert facts.current is not None
    errors = next(j for j in facts.analysis.judged if j.metric == "error_rate")
    assert str(errors.verdict) == "insufficient"
    assert errors.needed is not None
    left = errors.needed - errors.seen
    about = lasting(left / (errors.seen / 600))  # the step is ten minutes old
    assert f"Errors: {left:,} more requests of the new version, about {about} as it goes now." in coming(facts)
    assert coming(facts)[-1] == "If it still cannot tell at 2026-11-22 10:00 UTC, it stops there and a person decides."
    impatient = replace(facts, rollout=ROLLOUT.model_copy(update={"wait": timedelta(), "on_insufficient": "advance"}))
    assert coming(impatient)[-1] == "The step has waited 0 s: at the next tick it goes on all the same."


def test_every_end_and_every_pause_has_its_words() -> None:
    facts = harmless()
    paused = in_phase(facts, Phase.PAUSED, by="bob", why="errors cannot be told apart")
    assert "is paused by bob in production, with 10 % of the traffic: errors cannot be told apart" in sentence(paused)
    assert [c.split()[2] for c, _ in commands(paused)] == ["resume", "promote", "abort"]
    gone = aborted(harmful(), "errors")
    assert sentence(gone).endswith("was aborted in production at 10 %: errors; all traffic is back on version 3")
    assert commands(gone)[0][0] == "mlp-ci rollout retry --stage production"
    done = replace(in_phase(facts, Phase.DONE, step=3), live=4)
    assert sentence(done) == "flight-delay: version 4 has all the traffic of production"
    assert "mlp-ci rollback" in coming(done)[0]
    idle = Facts(model="m", stage="staging", now=BEGAN, rollout=Rollout.model_validate({}), live=2)
    assert sentence(idle) == "m: version 2 has all the traffic of staging, and no rollout is under way"
    assert sentence(replace(idle, live=None)) == "m: nothing was ever deployed in staging"
    assert not coming(idle)
    assert not commands(idle)


def test_a_rollout_that_is_history_says_who_has_the_traffic_now() -> None:
    """Somebody rolled back after the end, or a third version came: what the rollout left is no longer so."""
    done = replace(in_phase(harmless(), Phase.DONE, step=3), live=3)
    assert sentence(done).endswith("version 4 got all the traffic of production; version 3 has all the traffic by now")
    assert "stays warm" not in coming(done)[0]
    words = read(page.page(done)).words
    assert "Traffic of version 4 0 %" in words
    gone = replace(aborted(harmful(), "the rollout was aborted at 10 %: errors"), live=2)
    assert sentence(gone).endswith("aborted in production at 10 %: errors; version 2 has all the traffic by now")


def test_tables_say_insufficient_as_the_verdict_does() -> None:
    table = status.metrics_table(undecided())
    assert table
    assert "? insufficient" in {row[1] for row in table.rows}


def test_an_a_b_test_ends_with_its_effect() -> None:
    facts = in_phase(harmless(), Phase.DONE, step=3, strategy="ab")
    assert facts.analysis is not None
    errors = facts.analysis.judged[0]
    scale = scale_of("error_rate", ROLLOUT)
    within = scale.span(errors.low, errors.high)
    found = f"errors {scale.effect(errors.effect)}, between {within}, on {errors.seen:,} requests"
    assert found in sentence(facts)
    assert "p99 latency × " in sentence(facts)


def test_a_shadow_gets_copies() -> None:
    spec = Rollout.model_validate({"strategy": "shadow"})
    progress = Progress(version=4, digest="d", stable=3, strategy="shadow", steps=(100,), started="", step=0)
    facts = Facts(model="m", stage="production", now=BEGAN, rollout=spec, live=3, progress=progress)
    assert "version 4 has a copy of 100 % of the traffic of production" in sentence(facts)
    assert sentence(facts).endswith("nothing was measured in this step yet")
    assert "copied to version 4" in read(page.page(facts)).words


# ---------------------------------------------------------------- numbers


def test_steps_show_what_was_counted_and_how_long_each_took() -> None:
    facts = harmless()
    assert facts.progress is not None
    first, second, third, last = steps_of(facts)
    assert (first.standing, second.standing, third.standing) == (Standing.OVER, Standing.HERE, Standing.AHEAD)
    assert first.canary == facts.progress.past[0].canary
    assert (first.seconds, second.seconds, third.seconds) == (3600.0, 5400.0, None)
    assert first.forecast.startswith("1 % of 10 requests/s: at least")
    assert not last.forecast  # nothing is compared at 100 %
    ends = [s.standing for s in steps_of(aborted(facts, "x"))]
    assert ends == [Standing.OVER, Standing.FAILED, Standing.LEFT_OUT, Standing.LEFT_OUT]


def test_a_clock_that_jumps_back_gives_no_negative_time() -> None:
    facts = replace(harmless(), now=BEGAN - timedelta(days=1))
    assert all((s.seconds or 0) >= 0 for s in steps_of(facts))
    assert "-" not in "".join(lasting(s.seconds or 0) for s in steps_of(facts))
    assert read(page.page(facts)).headings


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.4, "less than a second"),
        (59.7, "1 min"),
        (3599.9, "1 h"),
        (3660, "1 h 1 min"),
        (200000, "2 d 8 h"),
    ],
)
def test_times_are_short(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


def test_differences_have_the_unit_of_their_check() -> None:
    assert Scale(kind="share").span(-0.0072, 0.0082) == "−0.72 to +0.82 points"
    assert Scale(kind="share").limit(0.01) == "1 point"
    assert scale_of("latency_p99_ms", ROLLOUT).span(0.826, 1.33) == "× 0.826 to 1.33"
    assert Scale(kind="ms").effect(-1.5) == "−1.5 ms"
    assert Scale(kind="number").limit(-0.03) == "−0.03"
    assert Scale(kind="share").span(None, 0.01) == "at most +1 point"
    assert Scale(kind="share").span(0.01, None) == "at least +1 point"


def test_the_middle_of_a_bin_falls_into_the_bin() -> None:
    for value in (0.0, 0.07, 0.999, 1.5, 3.7, 12345.6, -0.01, -2.5, -7e6):
        name = prediction_bin(value)
        middle = value_of_bin(name)
        assert middle is not None
        assert prediction_bin(middle) == name
        assert abs(middle - value) <= max(0.005, 0.03 * abs(value)) + 1e-12
    assert [value_of_bin(prediction_bin(v)) for v in (None, True, "p10", float("nan"))] == [None] * 4


# ---------------------------------------------------------------- drawings


def widths(band: str) -> list[float]:
    """The height of a band at each of its looks, in units of the drawing."""
    points = [tuple(map(float, p.split())) for p in band.strip("MZ").split("L")]
    half = len(points) // 2
    return [low - high for (_, high), (_, low) in zip(points[:half], reversed(points[half:]), strict=True)]


def test_intervals_narrow_and_stand_where_the_numbers_say() -> None:
    drawn = {n.metric: n for n in charts.narrowings(harmless())}
    assert list(drawn) == ["error_rate", "latency_p99_ms", "predictions"]
    for one in drawn.values():
        found = widths(one.band)
        assert found[-1] < found[0] / 2
        assert min(found) >= 0
        assert [t.text for t in one.steps] == ["1 %", "10 %"]
        assert one.outcome is Outcome.PASS
        assert one.filled == 100.0
        assert one.x_ticks[-1].text == "4,000"  # of 5,837: 371 in the first step and 5,466 in the second
    bad = {n.metric: n for n in charts.narrowings(harmful())}["error_rate"]
    assert bad.outcome is Outcome.FAIL
    level = float(bad.margin.split()[1].split("L")[0])
    lowest = [float(p.split()[1]) for p in bad.band.strip("MZ").split("L")][len(widths(bad.band))]
    assert lowest < level  # the lower bound of the last look is above the margin: further up in the drawing
    assert charts.narrowings(replace(harmless(), analysis=None)) == []
    early = {n.metric: n for n in charts.narrowings(rolled(Version(), minutes=(4,), looks=4))}
    assert early["error_rate"].clipped == "The bounds are wider than is drawn."
    assert early["error_rate"].span.endswith("to +100 points")
    # The margin of one point is not lost in bounds of a hundred.
    assert max(float(t.text) for t in early["error_rate"].y_ticks) <= 7


def test_outlines_need_answers_of_both() -> None:
    facts = harmless()
    assert [o.title for o in outlines.outlines(facts)] == ["Latency in this step", "Predictions in this step"]
    assert outlines.bars(facts) is None
    shares = outlines.bars(harmful())
    assert shares is not None
    assert sum(old for _, old, _ in shares.rows) == pytest.approx(1.0)
    assert facts.current is not None
    few = replace(facts, current=replace(facts.current, canary=Seen(requests=3, latency={40: 3})))
    assert outlines.outlines(few) == []


# ---------------------------------------------------------------- the three ways to tell it


@pytest.mark.parametrize("facts", [harmless, harmful, undecided], ids=lambda f: f.__name__)
def test_the_page_is_whole_and_loads_nothing(facts: object) -> None:
    text = page.page(facts())  # type: ignore[operator]
    found = read(text)
    assert found.loaded == []
    assert found.handlers == []
    assert "script" not in found.tags
    assert len(text) < 150_000
    assert {"What comes next", "Steps", "What decides it", "What they answered"} <= set(found.headings)
    assert all(found.labels)
    assert "nan" not in text.lower().replace("predictions", "")
    assert text == page.page(facts())  # type: ignore[operator]


def test_no_name_or_reason_gets_out_of_its_place() -> None:
    facts = in_phase(harmful(), Phase.ABORTED, why=HOSTILE, by=HOSTILE)
    facts = replace(facts, model=HOSTILE, forecast=(HOSTILE,), address="http://127.0.0.1:1/" + HOSTILE)
    found = read(page.page(facts))
    assert "script" not in found.tags
    assert found.loaded == []
    written = ended.evidence(facts)
    assert "<script" not in written
    assert "\n## forged" not in written
    assert "@everyone" not in written
    stream = io.StringIO()
    print_text(status.report([facts]), stream)
    assert "\x1b[31m" not in stream.getvalue()
    assert "\n## forged" not in stream.getvalue()
    assert "\n## forged" not in markdown(status.report([facts]))


def test_the_report_is_news_and_has_the_figures() -> None:
    facts = harmless()
    assert facts.current is not None
    told = status.report([facts])
    assert told.exit_code == 0
    assert told.outputs == {"rollout": "running"}
    stream = io.StringIO()
    print_json(told.as_dict(), stream)
    stage = json.loads(stream.getvalue())["data"]["stages"][0]
    assert Progress.from_json(stage["progress"]) == facts.progress
    assert stage["verdict"] == "pass"
    steps, metrics = told.tables
    canary = facts.current.canary
    assert steps.rows[1][4].startswith(f"{canary.errors:,} of {canary.requests:,}")
    assert metrics.columns[-1] == "sample"
    assert [r[0] for r in metrics.rows] == ["errors", "p99 latency", "predictions"]
    summary = markdown(told)
    assert "**What decides it**" in summary
    both = status.report([facts, aborted(harmful(), "errors")])
    assert both.outputs == {"rollout": "aborted"}
    assert both.outcome is Outcome.FAIL
    assert both.exit_code == 0


def test_the_evidence_of_an_abort_names_values_bounds_and_bytes() -> None:
    facts = aborted(harmful(), "errors: more of them")
    written = ended.evidence(facts)
    assert facts.analysis is not None
    errors = facts.analysis.judged[0]
    assert errors.canary is not None
    assert "sha256:" + "ab" * 32 in written
    assert re.search(r"✗ \*\*errors\*\*: .*the old version", written)
    assert "| errors | ✗ fail |" in written
    assert "mlp-ci rollout retry --stage production" in written
    assert ended.evidence(replace(facts, progress=None)) == ""


counts = st.builds(
    lambda n, share, pairs: Seen(
        requests=n,
        errors=int(n * share),
        latency={b: 1 + c for b, c in pairs},
        predictions={
            prediction_bin(v): 1 + abs(int(b)) for v, (b, _) in zip((0.2, -3.0, "a", None, 1e9), pairs, strict=False)
        },
    ),
    st.integers(0, 10**7),
    st.floats(0, 1),
    st.lists(st.tuples(st.integers(0, 142), st.integers(0, 10**6)), max_size=6),
)


@settings(max_examples=25, deadline=None)
@given(stable=counts, canary=counts, weight=st.sampled_from([1, 10, 50]), jump=st.integers(-(10**6), 10**6))
def test_whatever_was_counted_can_be_told(stable: Seen, canary: Seen, weight: int, jump: int) -> None:
    stratum = Stratum(weight=weight, started=BEGAN.isoformat(), stable=stable, canary=canary)
    facts = harmless()
    assert facts.progress is not None
    facts = replace(
        facts,
        now=BEGAN + timedelta(seconds=jump),
        current=stratum,
        analysis=analyse(ROLLOUT.analysis, [stratum], Design()),
        progress=replace(facts.progress, past=(), looks=(), step=facts.progress.steps.index(weight)),
    )
    assert read(page.page(facts)).headings
    assert ended.evidence(facts)
    print_text(status.report([facts]), io.StringIO())
