"""The decision about drift: an alarm needs rows, evidence, size and persistence, and says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from mlp_ci.data.drift.calibration import Calibration, Series
from mlp_ci.data.drift.compare import ColumnDrift, Decision, Sample, compare
from mlp_ci.data.drift.null_windows import windows_of
from mlp_ci.data.drift.reference import Reference
from mlp_ci.data.profiles.groups import groups_of
from mlp_ci.data.profiles.profile import Profile, profile_values
from mlp_ci.errors import InputError
from mlp_ci.monitor.risk import risk_of_a_look
from mlp_ci.spec.model import Drift, Monitor

Values = Mapping[str, NDArray[Any]]
RISK = 0.0014


def spec(**changes: Any) -> Drift:
    return Drift.model_validate(changes)


def reference_of_values(values: Values, *, calibrated: bool = True, **more: Any) -> Reference:
    rows = max(len(v) for v in values.values())
    columns = {name: profile_values(v) for name, v in values.items()}
    series = {
        name: Series(groups=groups_of(columns[name]), counts=tuple(tuple(r) for r in windows_of(v, columns[name])))
        for name, v in values.items()
    }
    calibration = Calibration(seconds=None, columns=series) if calibrated else None
    return Reference(profile=Profile(rows=rows, columns=columns), calibration=calibration, **more)


def sample(reference: Reference, values: Values, **more: Any) -> Sample:
    like = reference.profile.columns
    columns = {name: profile_values(v, like=like[name]) for name, v in values.items()}
    return Sample(profile=Profile(rows=max(len(v) for v in values.values()), columns=columns), **more)


def normals(rows: int, seed: int, *, shift: float = 0.0, columns: int = 20) -> dict[str, NDArray[np.float64]]:
    """Independent normal columns x0, x1 …; x0 is shifted."""
    random = np.random.default_rng(seed)
    values = {f"x{i}": random.normal(0, 1, rows) for i in range(columns)}
    values["x0"] = values["x0"] + shift
    return values


def shift_of(psi: float) -> float:
    """By how many standard deviations a normal moves for this PSI over its deciles."""
    edges = scipy.stats.norm.ppf(np.arange(1, 10) / 10)
    low, high = 0.0, 3.0
    for _ in range(50):
        middle = (low + high) / 2
        q = np.diff(np.concatenate([[0], scipy.stats.norm.cdf(edges - middle), [1]]))
        low, high = (middle, high) if np.sum((q - 0.1) * np.log(q / 0.1)) < psi else (low, middle)
    return low


REFERENCE = reference_of_values(normals(20_000, 1))


@cache
def reference_of_a_hundred() -> Reference:
    return reference_of_values(normals(20_000, 1, columns=100))


def look(
    *windows: Values, reference: Reference = REFERENCE, risk: float = RISK, **changes: Any
) -> dict[str, ColumnDrift]:
    """The decisions by column (and segment); the first window is the one that is looked at."""
    now, *earlier = (sample(reference, w) for w in windows)
    return {d.name: d for d in compare(reference, now, spec(**changes), earlier=earlier, risk=risk)}


# ---------------------------------------------------------------- the four conditions


def test_one_feature_of_a_hundred_is_found_and_stands_first() -> None:
    reference = reference_of_a_hundred()
    windows = [normals(5000, seed, shift=0.6, columns=100) for seed in (2, 3)]
    found = compare(
        reference, sample(reference, windows[0]), spec(), earlier=[sample(reference, windows[1])], risk=RISK
    )
    assert [d.column for d in found if d.decision is Decision.DRIFTED] == ["x0"]
    assert found[0].column == "x0"
    assert found[0].psi > found[0].limit >= 0.1
    assert {d.decision for d in found[1:]} == {Decision.STABLE}


def test_too_few_rows_decide_nothing() -> None:
    few = look(normals(499, 2, shift=3), persistence=1)["x0"]
    assert few.decision is Decision.INSUFFICIENT
    assert few.reason == "499 rows, 500 are needed to decide"
    assert look(normals(500, 2, shift=3), persistence=1)["x0"].decision is Decision.DRIFTED


def test_a_small_difference_is_no_alarm_however_certain() -> None:
    window = normals(50_000, 2, shift=0.25)
    found = look(window, normals(50_000, 3, shift=0.25))["x0"]
    assert found.p_adjusted < RISK
    assert found.decision is Decision.STABLE
    assert found.reason == f"small: PSI {found.psi:.3f} is below 0.1"
    assert look(window, normals(50_000, 3, shift=0.25), psi=0.01)["x0"].decision is Decision.DRIFTED


def test_a_large_difference_that_can_be_chance_is_no_alarm() -> None:
    reference = reference_of_values({"x": np.random.default_rng(1).normal(0, 1, 5000)})
    now = {"x": np.random.default_rng(3).normal(0.2, 1, 40)}
    found = look(now, now, reference=reference, min_rows=40, psi=0.05)["x"]
    assert found.psi > 0.05
    assert found.decision is Decision.STABLE
    assert "usual" in found.reason


def test_what_is_significant_alone_need_not_be_among_many() -> None:
    """The same window of the same column: with ninety-nine others it could be the chance of one in a hundred."""
    alone = reference_of_values({"x0": normals(20_000, 1)["x0"]})
    hundred = reference_of_a_hundred()
    for seed in range(60):
        now = normals(500, seed, shift=0.25, columns=100)
        one = look({"x0": now["x0"]}, reference=alone, psi=0.01, persistence=1, risk=0.01)["x0"]
        if one.decision is Decision.DRIFTED and one.p_adjusted > 0.002:
            many = look(now, reference=hundred, psi=0.01, persistence=1, risk=0.01)["x0"]
            assert many.p_value == pytest.approx(one.p_value)
            assert many.p_adjusted > 0.01
            assert many.decision is Decision.STABLE
            return
    pytest.fail("no window lay between")


def test_a_change_in_one_window_only_is_suspected() -> None:
    changed, same = normals(5000, 2, shift=0.6), normals(5000, 3)
    first = look(changed)["x0"]
    assert first.decision is Decision.SUSPECTED
    assert "no earlier window with enough rows confirms it yet" in first.reason
    blip = look(changed, same)["x0"]
    assert blip.decision is Decision.SUSPECTED
    assert "the window before did not show it" in blip.reason
    over = look(same, changed)["x0"]
    assert over.decision is Decision.STABLE
    assert look(changed, persistence=1)["x0"].decision is Decision.DRIFTED


def test_persistence_counts_windows_in_a_row() -> None:
    changed, same = normals(5000, 2, shift=0.6), normals(5000, 3)
    assert look(changed, changed, persistence=3)["x0"].decision is Decision.SUSPECTED
    assert look(changed, changed, same, changed, persistence=3)["x0"].decision is Decision.SUSPECTED
    lasting = look(changed, changed, changed, persistence=3)["x0"]
    assert lasting.decision is Decision.DRIFTED
    assert len(lasting.before) == 2


def test_windows_with_too_few_rows_confirm_nothing_and_deny_nothing() -> None:
    changed, few, same = normals(5000, 2, shift=0.6), normals(100, 4), normals(5000, 3)
    assert look(changed, few, changed)["x0"].decision is Decision.DRIFTED
    assert look(changed, few, same)["x0"].decision is Decision.SUSPECTED
    assert look(changed, few, few)["x0"].decision is Decision.SUSPECTED
    assert len(look(changed, few, changed)["x0"].before) == 1


# ---------------------------------------------------------------- what is normal


def moving(days: int, seed: int, move: float, shift: float = 0.0) -> NDArray[np.float64]:
    """``days`` of 500 rows each, whose means differ by ``move``."""
    random = np.random.default_rng(seed)
    return (random.normal(0, 1, (days, 500)) + random.normal(shift, move, (days, 1))).ravel()


def test_what_windows_of_the_reference_do_is_no_alarm() -> None:
    values = {f"x{i}": moving(64, i, 0.4) for i in range(10)}
    known, blind = reference_of_values(values), reference_of_values(values, calibrated=False)
    alarms = {True: 0, False: 0}
    for seed in range(20):
        now = {f"x{i}": moving(1, 1000 + 10 * seed + i, 0.4) for i in range(10)}
        for calibrated, reference in ((True, known), (False, blind)):
            found = look(now, reference=reference, persistence=1).values()
            alarms[calibrated] += any(d.decision is Decision.DRIFTED for d in found)
    assert alarms[True] <= 1
    assert alarms[False] >= 10


def test_the_report_says_what_is_usual() -> None:
    reference = reference_of_values({"x": moving(64, 1, 0.4)})
    found = look({"x": moving(1, 99, 0.4)}, reference=reference)["x"]
    assert found.windows == 64
    assert 0.1 < found.usual < 0.4
    assert found.limit > found.usual
    assert look({"x": moving(1, 99, 0.4)}, reference=reference_of_values({"x": moving(64, 1, 0.0)}))["x"].usual < 0.03


@pytest.mark.parametrize("rows", [1, 150, 600])
def test_a_tiny_reference_gives_no_alarm_where_nothing_changed(rows: int) -> None:
    reference = reference_of_values(normals(rows, 1, columns=5))
    for seed in range(10):
        found = look(normals(600, 2 + seed, columns=5), reference=reference, persistence=1)
        assert not [d for d in found.values() if d.decision is Decision.DRIFTED]


# ---------------------------------------------------------------- kinds of columns


def test_values_that_go_missing_are_drift() -> None:
    windows = [normals(5000, seed) for seed in (2, 3)]
    for window in windows:
        window["x1"][:2500] = np.nan
    found = look(*windows)["x1"]
    assert found.decision is Decision.DRIFTED
    assert (found.nulls_then, found.nulls_now) == (0.0, 0.5)
    assert (found.rows_then, found.rows_now) == (20_000, 5000)


def test_a_new_category_is_drift() -> None:
    reference = reference_of_values({"s": np.array(["a", "b", "a", "b", "a"] * 200)})
    now = {"s": np.array(["a"] * 500 + ["c"] * 500)}
    found = look(now, now, reference=reference)["s"]
    assert found.decision is Decision.DRIFTED
    assert found.kind == "category"
    assert found.distances.ks is None


def test_a_change_among_rare_values_is_drift() -> None:
    random = np.random.default_rng(1)
    then = np.array([f"id{i}" for i in random.integers(0, 3000, 20_000)])
    now = {"s": np.array([f"id{i}" for i in random.integers(0, 5, 3000)])}
    reference = reference_of_values({"s": then})
    assert look(now, now, reference=reference)["s"].decision is Decision.DRIFTED
    same = {"s": np.array([f"id{i}" for i in random.integers(0, 3000, 3000)])}
    assert look(same, same, reference=reference)["s"].decision is Decision.STABLE


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        (np.ones(1000), np.ones(1000), Decision.STABLE),
        (np.ones(1000), np.full(1000, 0.5), Decision.DRIFTED),
        (np.ones(1000), np.full(1000, 2.0), Decision.DRIFTED),
        (np.ones(1000), np.full(1000, np.nan), Decision.DRIFTED),
        (np.full(1000, np.nan), np.full(1000, np.nan), Decision.STABLE),
        (np.full(1000, np.nan), np.ones(1000), Decision.DRIFTED),
        (np.ones(1000), np.array([]), Decision.INSUFFICIENT),
    ],
)
def test_constant_and_empty_columns(then: NDArray[Any], now: NDArray[Any], expected: Decision) -> None:
    found = look({"c": now}, {"c": now}, reference=reference_of_values({"c": then}))["c"]
    assert found.decision is expected, found.reason


def test_a_column_that_one_side_lacks_is_left_out() -> None:
    gone = {"x0": normals(1000, 2)["x0"]}
    assert set(look(gone, gone)) == {"x0"}
    assert look(normals(1000, 3), gone)["x1"].decision is Decision.STABLE


def test_profiles_in_other_bins_are_refused() -> None:
    reference = reference_of_values({"x": np.arange(9.0)})
    for wrong in (np.arange(9.0) + 0.5, np.array(["a"] * 9)):
        other = Sample(profile=Profile(rows=9, columns={"x": profile_values(wrong)}))
        with pytest.raises(InputError, match="cannot be compared"):
            compare(reference, other, spec())


# ---------------------------------------------------------------- order, segments


def test_what_probably_hurts_most_comes_first() -> None:
    then, now = normals(20_000, 1, columns=3), normals(5000, 2, shift=1.2, columns=3)
    now["x1"] = now["x1"] + 0.6
    plain = reference_of_values(then)
    weighed = reference_of_values(then, importance={"x0": 0.05, "x1": 0.9, "x2": 0.05})

    def order(reference: Reference) -> list[str]:
        windows = [sample(reference, now)] * 2
        return [d.column for d in compare(reference, windows[0], spec(), earlier=windows[1:], risk=RISK)]

    assert order(plain) == ["x0", "x1", "x2"]
    assert order(weighed) == ["x1", "x0", "x2"]
    found = look(now, now, reference=weighed)["x1"]
    assert found.importance == 0.9
    assert found.weight == pytest.approx(found.psi * 0.9)


def test_a_segment_that_drifts_alone_is_named() -> None:
    random = np.random.default_rng(1)
    whole = random.normal(0, 1, 20_000)
    reference = reference_of_values({"x": whole})
    like = reference.profile.columns["x"]

    def part(values: NDArray[np.float64]) -> dict[str, Profile]:
        return {"carrier=UA": Profile(rows=len(values), columns={"x": profile_values(values, like=like)})}

    reference = Reference(profile=reference.profile, segments=part(whole[:4000]), calibration=reference.calibration)
    rows = random.normal(0, 1, 10_000)
    odd = random.normal(0.8, 1, 800)
    window = sample(reference, {"x": np.concatenate([rows, odd])}, segments=part(odd))
    found = compare(reference, window, spec(), earlier=[window], risk=RISK)
    assert [(d.name, d.decision) for d in found] == [
        ("x where carrier=UA", Decision.DRIFTED),
        ("x", Decision.STABLE),
    ]
    few = sample(reference, {"x": rows}, segments=part(odd[:100]))
    assert compare(reference, few, spec(), risk=RISK)[-1].decision is Decision.INSUFFICIENT
    none = sample(reference, {"x": rows})
    assert [d.name for d in compare(reference, none, spec(), risk=RISK)] == ["x"]


# ---------------------------------------------------------------- how many false alarms, how much is seen


def test_the_risk_of_a_look_keeps_to_the_rate() -> None:
    hourly = Monitor.model_validate({"schedule": "hourly"})
    assert risk_of_a_look(hourly) * 24 * 30.4375 == pytest.approx(1)
    weekly = Monitor.model_validate({"schedule": "weekly"})
    assert risk_of_a_look(weekly) == 0.05


def test_nothing_drifted_means_no_alarm_in_fifty_looks() -> None:
    windows = [sample(REFERENCE, normals(600, seed)) for seed in range(2, 53)]
    looks = [compare(REFERENCE, now, spec(), earlier=[before], risk=RISK) for before, now in pairwise(windows)]
    assert not [d for found in looks for d in found if d.decision is Decision.DRIFTED]


def with_x0(like: Reference, seed: int) -> Reference:
    """A reference whose x0 is of other rows; the columns beside it, which take longest to make, stay."""
    own = reference_of_values(normals(20_000, seed, columns=1))
    assert like.calibration
    assert own.calibration
    columns = {**like.profile.columns, **own.profile.columns}
    series = {**like.calibration.columns, **own.calibration.columns}
    profile = Profile(rows=like.profile.rows, columns=columns)
    return Reference(profile=profile, calibration=Calibration(seconds=None, columns=series))


def seen_within_two_windows(seed: int, like: Reference) -> bool:
    shift = shift_of(0.2)
    windows = [normals(5000, 2 * seed + i, shift=shift, columns=100) for i in range(2)]
    return look(*windows, reference=with_x0(like, 10_000 + seed))["x0"].decision is Decision.DRIFTED


def test_psi_of_a_fifth_in_one_of_a_hundred_features_is_seen() -> None:
    assert seen_within_two_windows(0, reference_of_a_hundred())


@pytest.mark.slow
def test_psi_of_a_fifth_in_one_of_a_hundred_features_is_seen_in_nineteen_of_twenty_cases() -> None:
    assert np.mean([seen_within_two_windows(seed, reference_of_a_hundred()) for seed in range(100)]) >= 0.95


def hourly_alarms(seed: int, *, daily: float, days: int = 10) -> int:
    """Alarms of an hourly look in ``days`` without drift: twenty features, 100 rows an hour, a daily rhythm."""
    random = np.random.default_rng(seed)
    hours = np.arange((40 + days) * 24)

    def values(part: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        return {
            f"x{i}": (
                random.normal(0, 1, (len(part), 100)) + daily * np.sin(2 * np.pi * part / 24 + i)[:, None]
            ).ravel()
            for i in range(20)
        }

    reference = reference_of_values(values(hours[: 40 * 24]))
    live = {name: v.reshape(-1, 100) for name, v in values(hours[38 * 24 :]).items()}
    hour = [sample(reference, {n: v[h] for n, v in live.items()}) for h in range(len(live["x0"]))]
    alarms = 0
    for end in range(48, len(hour), 6):
        day, before = (
            Sample(profile=_added([s.profile for s in hour[end - back : end - back + 24]])) for back in (24, 48)
        )
        found = compare(reference, day, spec(), earlier=[before], risk=risk_of_a_look(Monitor.model_validate({})))
        alarms += any(d.decision is Decision.DRIFTED for d in found)
    return alarms


def _added(profiles: list[Profile]) -> Profile:
    whole = profiles[0]
    for profile in profiles[1:]:
        whole = whole.merge(profile)
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("daily", [0.0, 0.5])
def test_stationary_data_gives_no_alarm_with_or_without_a_daily_rhythm(daily: float) -> None:
    assert sum(hourly_alarms(seed, daily=daily) for seed in range(3)) == 0


def test_every_number_of_a_decision_is_a_number() -> None:
    for seed in range(5):
        for d in look(normals(600, seed, shift=seed / 2), normals(600, 99)).values():
            numbers = (d.psi, d.p_value, d.p_adjusted, d.usual, d.limit, d.weight, *d.before)
            assert all(math.isfinite(v) and v >= 0 for v in numbers), d
            assert d.p_value <= d.p_adjusted <= 1
