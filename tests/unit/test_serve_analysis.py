"""What the analysis of a rollout answers: verdicts, reasons, samples, forecasts. Its error rates: see test_…_chance."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.serve.analysis import Analysis, Design, Judged, Verdict, analyse, errors, forecast, required
from mlp_ci.serve.analysis.evidence import Table, log_ratio
from mlp_ci.serve.measured import LATENCY_BOUNDS_MS, Seen, latency_bin, prediction_bin
from mlp_ci.serve.rollout.progress import Stratum
from mlp_ci.spec.serve import DEFAULT_ANALYSIS, Check

ERRORS = Check.model_validate({"metric": "error_rate", "max_increase": 0.01})
P99 = Check.model_validate({"metric": "latency_p99_ms", "max_ratio": 2.0})
P50 = Check.model_validate({"metric": "latency_p50_ms", "max_increase": 5.0})
PREDICTIONS = Check.model_validate({"metric": "predictions", "max_distance": 0.1})
ACCURACY = Check.model_validate({"metric": "accuracy", "max_drop": 0.02})
RMSE = Check.model_validate({"metric": "rmse", "max_drop": 0.5})
BIAS = Check.model_validate({"metric": "bias", "max_drop": 0.5})
ALL = (ERRORS, P99, P50, PREDICTIONS, ACCURACY)
DESIGN = Design()


def seen(requests: int, errors: int = 0, **more: Any) -> Seen:
    return Seen(requests=requests, errors=errors, **more)


def latencies(requests: int, middle: float = 5.0, spread: float = 0.5) -> dict[int, int]:
    """A log-normal's, as exactly as whole numbers can."""
    below = [0.5 * math.erfc(-math.log(b / middle) / spread / math.sqrt(2)) for b in LATENCY_BOUNDS_MS]
    counts = [round(requests * (b - a)) for a, b in zip([0.0, *below], [*below, 1.0], strict=True)]
    return {k: n for k, n in enumerate(counts) if n}


def step(stable: Seen, canary: Seen, weight: int = 10) -> Stratum:
    return Stratum(weight=weight, started="2026-11-21T00:00:00Z", stable=stable, canary=canary)


def one(check: Check, *strata: Stratum, design: Design = DESIGN) -> Judged:
    (judged,) = analyse([check], strata, design).judged
    return judged


def test_no_checks_pass_and_nothing_measured_is_insufficient() -> None:
    assert analyse([], [step(seen(0), seen(0))], DESIGN) == Analysis(verdict=Verdict.PASS)
    for strata in ([], [step(seen(0), seen(0))], [step(seen(1000), seen(0))], [step(seen(0), seen(1000, 500))]):
        found = analyse(ALL, strata, DESIGN)
        assert found.verdict is Verdict.INSUFFICIENT
        assert {j.verdict for j in found.judged} == {Verdict.INSUFFICIENT}
        assert all(j.reason for j in found.judged)


def test_twice_the_errors_fail_and_the_same_pass() -> None:
    worse = one(ERRORS, step(seen(27_000, 270), seen(3000, 60)))
    assert worse.verdict is Verdict.FAIL
    assert worse.stable == pytest.approx(0.01)
    assert worse.canary == pytest.approx(0.02)
    assert worse.effect == pytest.approx(0.01)
    assert worse.low is not None
    assert 0 < worse.low < 0.01 < (worse.high or 0)
    assert "2 % errors, the old version 1 % (60 of 3,000 requests, 270 of 27,000)" in worse.reason
    alike = one(ERRORS, step(seen(27_000, 270), seen(3000, 30)))
    assert alike.verdict is Verdict.PASS
    assert alike.high is not None
    assert alike.high < 0.01
    assert alike.seen == 3000
    early = one(ERRORS, step(seen(2700, 27), seen(300, 3)))
    assert early.verdict is Verdict.INSUFFICIENT
    assert early.needed is not None
    assert early.needed > 1000
    assert f"300 requests of the {early.needed:,} needed" in early.reason


def test_any_verdict_that_is_not_pass_wins() -> None:
    bad = step(seen(27_000, 270, latency=latencies(27_000)), seen(3000, 90, latency=latencies(3000)))
    found = analyse(DEFAULT_ANALYSIS, [bad], DESIGN)
    assert [j.verdict for j in found.judged] == [Verdict.FAIL, Verdict.PASS, Verdict.PASS]
    assert found.verdict is Verdict.FAIL
    few = step(seen(270, 3, latency=latencies(270)), seen(30, 0, latency=latencies(30)))
    assert analyse(DEFAULT_ANALYSIS, [few], DESIGN).verdict is Verdict.INSUFFICIENT


def test_errors_against_an_error_free_baseline_fail_and_never_pass() -> None:
    """Kayenta passes these (kayenta#377). Two at 1 % are enough: one would fall there once in a hundred by chance."""
    assert one(ERRORS, step(seen(14_850), seen(150, 1), 1)).verdict is Verdict.INSUFFICIENT
    found = one(ERRORS, step(seen(14_850), seen(150, 2), 1))
    assert found.verdict is Verdict.FAIL
    assert found.reason == "2 errors in 150 requests, the old version had none in 14,850"
    first = analyse(DEFAULT_ANALYSIS, [step(seen(271), seen(29, 3))], DESIGN).judged[0]
    assert (first.verdict, first.low) == (Verdict.FAIL, 0), "what was refuted is not within the bounds"
    half = [one(ERRORS, step(seen(3000), seen(3000, errors), 50)).verdict for errors in (1, 4, 10)]
    assert half == [Verdict.INSUFFICIENT, Verdict.INSUFFICIENT, Verdict.FAIL]
    many = one(ERRORS, step(seen(60_000), seen(60_000, 1), 50))  # at most a tenth of the margin
    assert many.verdict is Verdict.PASS


def by_tens(last: float) -> list[Stratum]:
    """Nine steps with the sample that each needs: errors of 1 % with both versions, in the last step ``last``."""
    made = []
    for weight in range(10, 100, 10):
        needed = required([ERRORS], weight, DESIGN, seen(100_000, 1000))[0].requests
        assert needed
        others = needed * (100 - weight) // weight
        bad = last if weight == 90 else 0.01
        made.append(step(seen(others, round(others * 0.01)), seen(needed, round(needed * bad)), weight))
    return made


def test_harm_that_begins_in_a_late_step_does_not_hide_behind_the_steps_before() -> None:
    assert one(ERRORS, *by_tens(0.01)).verdict is Verdict.PASS
    assert one(ERRORS, *by_tens(0.03)).verdict is Verdict.FAIL
    begun = one(ERRORS, *by_tens(0.02))
    assert (begun.verdict, begun.seen) == (Verdict.INSUFFICIENT, begun.needed), "it has its sample, and does not pass"
    assert "worse in this one" in begun.reason
    latency = [
        step(seen(9000, latency=latencies(9000)), seen(1000, latency=latencies(1000, slow)), weight)
        for weight, slow in ((10, 5.0), (20, 5.0), (50, 10.0))
    ]
    assert one(P99, *latency[:2]).verdict is Verdict.PASS
    assert one(P99, *latency).verdict is not Verdict.PASS


def test_a_step_needs_its_own_sample_but_all_steps_are_evidence() -> None:
    before = step(seen(180_000, 1800), seen(1800, 18), 1)
    assert one(ERRORS, before).verdict is Verdict.PASS
    fresh = one(ERRORS, before, step(seen(900, 9), seen(100, 1)))
    assert fresh.verdict is Verdict.INSUFFICIENT
    assert fresh.seen == 100
    doubtful, more = step(seen(180_000, 1800), seen(1200, 22), 1), step(seen(9000, 90), seen(1000, 20))
    assert one(ERRORS, doubtful).verdict is not Verdict.FAIL
    assert one(ERRORS, more).verdict is not Verdict.FAIL
    assert one(ERRORS, doubtful, more).verdict is Verdict.FAIL


def test_harm_that_begins_with_more_traffic_is_seen() -> None:
    fine = step(seen(400_000, 4000), seen(4000, 40), 1)
    assert one(ERRORS, fine, step(seen(27_000, 270), seen(3000, 72))).verdict is Verdict.FAIL


def test_latency_by_ratio_and_by_milliseconds() -> None:
    base = seen(27_000, latency=latencies(27_000))
    slow = one(P99, step(base, seen(3000, latency=latencies(3000, 10.0))))
    assert slow.verdict is Verdict.FAIL
    assert slow.effect == pytest.approx(2.0, rel=0.05)
    assert slow.low is not None
    assert 1 < slow.low < 2
    assert "requests are slower than" in slow.reason
    same = one(P99, step(base, seen(3000, latency=latencies(3000))))
    assert same.verdict is Verdict.PASS
    assert same.effect == pytest.approx(1.0, abs=0.03)
    assert same.stable == pytest.approx(5 * math.exp(0.5 * 2.326), rel=0.03)
    assert one(P50, step(base, seen(300, latency=latencies(300, 11.0)))).verdict is Verdict.FAIL
    fine = one(P50, step(base, seen(300, latency=latencies(300, 5.5))))
    assert fine.verdict is Verdict.PASS
    assert fine.effect == pytest.approx(0.5, abs=0.1)


def test_a_cold_start_is_no_harm() -> None:
    """The first request of a new process is slow; the quantile is about many."""
    cold = {**latencies(40), latency_bin(4000.0): 1}
    found = one(P99, step(seen(4000, latency=latencies(4000)), seen(41, latency=cold), 1))
    assert found.verdict is Verdict.INSUFFICIENT
    few = {**latencies(3000), latency_bin(4000.0): 3}  # one in a thousand: the quantile stays where it was
    found = one(P99, step(seen(300_000, latency=latencies(300_000)), seen(3003, latency=few), 1))
    assert found.verdict is Verdict.PASS


def test_a_margin_finer_than_the_bins_is_said_to_be_so() -> None:
    fine = Check.model_validate({"metric": "latency_p99_ms", "max_ratio": 1.01})
    bins = {latency_bin(5.0): 900_000}
    found = one(fine, step(seen(900_000, latency=bins), seen(100_000, latency={latency_bin(5.0): 100_000})))
    assert found.verdict in (Verdict.PASS, Verdict.INSUFFICIENT)
    broad = {k: n * 100 for k, n in latencies(9000, spread=3.0).items()}
    found = one(fine, step(seen(900_000, latency=broad), seen(100, latency=latencies(100, spread=3.0))))
    assert found.verdict is Verdict.INSUFFICIENT


def spread_out(rows: int, shift: float = 0.0) -> dict[str, int]:
    """Predictions from 0 to 1, evenly, and ``shift`` of them moved from the lower half to the upper."""
    return {f"p{k:02d}": round(rows * (0.01 + (shift if k >= 50 else -shift) / 50)) for k in range(100)}


def test_predictions_that_moved_fail_either_way() -> None:
    base = seen(90_000, predictions=spread_out(90_000))
    up = one(PREDICTIONS, step(base, seen(10_000, predictions=spread_out(10_000, 0.15))))
    assert up.verdict is Verdict.FAIL
    assert up.effect == pytest.approx(0.15, abs=0.01)
    assert up.low is not None
    assert 0.05 < up.low < 0.15 < (up.high or 0)
    assert "35 % up to 0.5, before 50 %" in up.reason
    down = one(PREDICTIONS, step(base, seen(10_000, predictions=spread_out(10_000, -0.15))))
    assert down.verdict is Verdict.FAIL
    same = one(PREDICTIONS, step(base, seen(10_000, predictions=spread_out(10_000))))
    assert same.verdict is Verdict.PASS
    a_little = one(PREDICTIONS, step(base, seen(10_000, predictions=spread_out(10_000, 0.03))))
    assert a_little.verdict is Verdict.PASS


def test_categories_and_nan_among_predictions() -> None:
    base = {"=cat": 6000, "=dog": 3000, "=eel": 1000}
    moved = one(
        PREDICTIONS,
        step(seen(10_000, predictions=base), seen(2000, predictions={"=cat": 800, "=dog": 900, "=eel": 300})),
    )
    assert moved.verdict is Verdict.FAIL
    assert moved.effect == pytest.approx(0.2, abs=0.001)
    assert "total variation" in moved.reason
    numbers = {prediction_bin(v): 1000 for v in (-3.0, -0.5, 0.2, 0.7, 4.0, 900.0)}
    gone = {**dict.fromkeys(numbers, 700), "nan": 1800}
    assert one(PREDICTIONS, step(seen(6000, predictions=numbers), seen(6000, predictions=gone))).verdict is Verdict.FAIL
    constant = one(PREDICTIONS, step(seen(6000, predictions={"true": 6000}), seen(600, predictions={"true": 600})))
    assert constant.verdict is Verdict.INSUFFICIENT


def test_a_missing_prediction_leaves_numbers_in_their_order() -> None:
    """A shift is judged by the order of numbers; null, as NaN comes through JSON, must not make them categories."""
    base, up = seen(90_000, predictions=spread_out(90_000)), spread_out(10_000, 0.05)
    without = one(PREDICTIONS, step(base, seen(10_000, predictions=up)))
    missing = one(PREDICTIONS, step(base, seen(10_001, predictions={**up, "none": 1})))
    assert missing.effect == pytest.approx(without.effect, abs=0.001)
    assert "total variation" not in missing.reason


def test_rows_of_one_request_count_for_one() -> None:
    """A batch of a hundred like rows is no hundred observations."""
    rows = one(
        PREDICTIONS, step(seen(900, predictions=spread_out(90_000)), seen(100, predictions=spread_out(10_000, 0.1)))
    )
    assert rows.seen == 100
    assert rows.verdict is Verdict.INSUFFICIENT


def labels(metric: str, rows: int, mean: float, variance: float) -> Seen:
    return seen(rows, means={metric: (rows, mean, variance)})


def test_metrics_of_labels_know_which_way_harm_lies() -> None:
    def judged(check: Check, old: float, new: float, variance: float = 0.09, rows: int = 8000) -> Judged:
        return one(check, step(labels(check.metric, rows, old, variance), labels(check.metric, rows, new, variance)))

    assert judged(ACCURACY, 0.9, 0.86).verdict is Verdict.FAIL
    assert judged(ACCURACY, 0.9, 0.94).verdict is Verdict.PASS
    assert judged(ACCURACY, 0.9, 0.86).margin == -0.02
    assert judged(RMSE, 10, 11, 9).verdict is Verdict.FAIL
    assert judged(RMSE, 10, 9, 9).verdict is Verdict.PASS
    assert judged(RMSE, 10, 11, 9).margin == 0.5
    assert judged(BIAS, 0, 1, 9).verdict is Verdict.FAIL  # two-sided: both ways harm
    assert judged(BIAS, 0, -1, 9).verdict is Verdict.FAIL
    assert judged(ACCURACY, 0.9, 0.5, rows=10).verdict is Verdict.INSUFFICIENT


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_insufficient(bad: float) -> None:
    for mean, variance in ((bad, 0.1), (0.9, bad), (0.9, -1.0)):
        found = one(ACCURACY, step(labels("accuracy", 900, 0.9, 0.1), labels("accuracy", 900, mean, variance)))
        assert found.verdict is Verdict.INSUFFICIENT
        assert "not defined" in found.reason
    for variance in (0.0, 5e-324, 1e-200):
        exact = labels("accuracy", 900, 0.9, variance)
        assert one(ACCURACY, step(exact, exact)).verdict is Verdict.PASS
        assert one(ACCURACY, step(exact, labels("accuracy", 900, 0.8, variance))).verdict is Verdict.FAIL
    huge = one(ACCURACY, step(labels("accuracy", 900, 1e300, 1e300), labels("accuracy", 900, -1e300, 1e300)))
    assert huge.verdict in Verdict


def test_the_sample_grows_with_what_is_asked() -> None:
    base = seen(100_000, 1000, latency=latencies(100_000))

    def of(weight: int = 1, design: Design = DESIGN, margin: float = 0.01) -> int:
        (need,) = required(
            [Check.model_validate({"metric": "error_rate", "max_increase": margin})], weight, design, base
        )
        assert need.requests is not None
        return need.requests

    assert of() < of(weight=10) < of(weight=50)
    assert of() < of(design=Design(power=0.9)) < of(design=Design(power=0.9, false_abort=0.01))
    assert of(margin=0.02) < of() < of(margin=0.005)
    two = required(DEFAULT_ANALYSIS, 1, DESIGN, base)
    assert two[0].requests is not None
    assert of() < two[0].requests < 2000
    assert required(DEFAULT_ANALYSIS, 100, DESIGN, base) == ()
    assert len(required(DEFAULT_ANALYSIS, 100, DESIGN, base, mirrored=True)) == len(DEFAULT_ANALYSIS)


def test_forecast_says_how_long_before_it_starts() -> None:
    base = seen(100_000, 1000, latency=latencies(100_000))
    first, second, third = forecast((1, 10, 50, 100), 10.0, DEFAULT_ANALYSIS, DESIGN, base)
    needed = required(DEFAULT_ANALYSIS, 1, DESIGN, base)[0].requests
    assert (
        first
        == f"1 % of 10 requests/s: at least 5.3 h ({needed:,} requests of the new version) to see 1 % → 2 % errors"
    )
    assert second.startswith("10 % of 10 requests/s: at least 3")
    assert " min (" in second
    assert third.startswith("50 %")
    (unknown,) = forecast((50,), 0.0, DEFAULT_ANALYSIS, DESIGN, Seen())
    assert unknown.startswith("50 % of the requests: at least ")
    assert unknown.endswith("requests of the new version to see 1 % (assumed) → 2 % errors")
    (labelled,) = forecast((50,), 5.0, [ACCURACY], DESIGN, base)
    assert labelled == "50 % of 5 requests/s: how long is not known; accuracy: known once labels come"
    assert forecast((50,), 5.0, [], DESIGN, base) == ("50 % of 5 requests/s: nothing is compared",)
    (shadow,) = forecast((100,), 5.0, [ERRORS], DESIGN, base, mirrored=True)
    assert shadow.startswith("100 % of 5 requests/s: at least")


def test_what_a_step_asks_for_before_is_what_it_waits_for() -> None:
    base = seen(100_000, 1000)
    (need,) = required([ERRORS], 10, DESIGN, base)
    assert one(ERRORS, step(seen(9000, 90), seen(1000, 9))).needed == pytest.approx(need.requests, rel=0.1)


def any_seen(requests: int, share: float, salt: int) -> Seen:
    """Whatever a gateway could have counted, and more."""
    return Seen(
        requests=requests,
        errors=int(requests * share),
        latency={salt % 143: requests // 2, (salt // 143) % 143: requests - requests // 2},
        predictions={prediction_bin(((salt >> 3) % 1000) / 300 - 1): requests, "nan": salt % 3},
        means={"accuracy": (requests, [0.5, math.nan, math.inf][salt % 3], share)},
    )


SEEN = st.builds(any_seen, st.integers(0, 10**7), st.floats(0, 1), st.integers(0, 2**32))


@pytest.mark.filterwarnings("error")
@given(st.lists(st.tuples(st.integers(1, 100), SEEN, SEEN), max_size=3))
@settings(max_examples=60, deadline=None)
def test_anything_that_can_be_counted_is_judged(steps: list[tuple[int, Seen, Seen]]) -> None:
    found = analyse(ALL, [step(stable, canary, weight) for weight, stable, canary in steps], DESIGN)
    assert len(found.judged) == len(ALL)
    for judged in found.judged:
        numbers = (judged.stable, judged.canary, judged.effect, judged.low, judged.high)
        assert not any(math.isnan(n) for n in numbers if n is not None)
        if judged.low is not None and judged.effect is not None:
            assert judged.low <= judged.effect + 1e-9
        if judged.high is not None and judged.effect is not None:
            assert judged.effect - 1e-9 <= judged.high
        assert judged.needed is None or judged.needed >= 30


ORDER = {Verdict.PASS: 0, Verdict.INSUFFICIENT: 1, Verdict.FAIL: 2}


@given(st.integers(0, 400), st.integers(0, 40), st.integers(1, 40), st.sampled_from([1, 10, 50]))
@settings(max_examples=60, deadline=None)
def test_more_errors_are_never_better(old: int, new: int, more: int, weight: int) -> None:
    others = 2000 * (100 - weight) // weight
    found = [one(ERRORS, step(seen(others, min(old, others)), seen(2000, k), weight)) for k in (new, new + more)]
    assert ORDER[found[0].verdict] <= ORDER[found[1].verdict]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_steps_add_up(old: int, new: int, part: int) -> None:
    """The same requests in two steps of one weight are the same evidence, but for where harm may begin."""
    share = part / 10
    whole = Table(10.0 * old, 18_000.0, 1.0 * new, 2000.0)
    cut = [Table(10.0 * old * s, 18_000.0 * s, new * s, 2000.0 * s) for s in (share, 1 - share)]
    for stable, canary in ((0.01, 0.02), (1e-4, 0.3)):
        parts = [float(log_ratio(t, stable, canary)) for t in cut]
        assert sum(parts) == pytest.approx(float(log_ratio(whole, stable, canary)))
    assert math.exp(errors.evidence(cut, 0.01)) >= (math.exp(errors.evidence([whole], 0.01)) - 0.2) * (1 - 1e-9)


def test_refusals_are_judged_like_errors_but_not_by_a_handful() -> None:
    """A version that refuses what the other answers is worse; a client that sends three bad requests is not."""
    check = Check.model_validate({"metric": "rejection_rate", "max_increase": 0.02})

    def judged(stable: int, canary: int, requests: int) -> Judged:
        return one(check, step(seen(9 * requests, rejected=stable), seen(requests, rejected=canary)))

    assert judged(90, 50, 1000).verdict is Verdict.FAIL
    assert "5 % refused, the old version 1 %" in judged(90, 50, 1000).reason
    assert judged(90, 10, 1000).verdict is Verdict.PASS
    assert judged(0, 30, 300).verdict is Verdict.FAIL
    assert judged(0, 2, 50).verdict is Verdict.INSUFFICIENT
    assert judged(0, 3, 2000).verdict is Verdict.PASS


def test_it_takes_at_most_20_ms() -> None:
    strata = [
        step(
            seen(90_000, 900, latency=latencies(90_000), predictions=spread_out(90_000)),
            seen(10_000, 100, latency=latencies(10_000), predictions=spread_out(10_000)),
        )
    ] * 2
    strata = [replace(s, weight=w) for s, w in zip(strata, (1, 10), strict=True)]
    analyse(ALL, strata, DESIGN)
    took = []
    for _ in range(5):
        began = time.process_time()
        analyse(ALL, strata, DESIGN)
        took.append(time.process_time() - began)
    assert min(took) < 0.04  # 0.02 on a quiet machine
