"""What differs where nothing drifted: groups fixed by the reference, its windows, and p-values that can be trusted."""

from __future__ import annotations

import itertools
import json
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.data.drift.calibration import Calibration, Series, Variation, nulls_of, variation_of
from mlp_ci.data.drift.compare import Measured
from mlp_ci.data.drift.null_windows import FEWEST, MOST, cut, window_counts, windows_of
from mlp_ci.data.drift.reference import reference_of
from mlp_ci.data.profiles.groups import NUMBER_GROUPS, Groups, groups_of
from mlp_ci.data.profiles.profile import profile_values
from mlp_ci.data.profiles.profiling import profile_groups, profile_rows
from mlp_ci.data.profiles.statistics import psi
from mlp_ci.errors import InputError
from mlp_ci.spec.data import Data

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TEN = np.full(10, 0.1)


# ---------------------------------------------------------------- groups


def test_a_number_is_cut_into_ten_parts_of_the_reference() -> None:
    reference = profile_values(np.random.default_rng(1).lognormal(0, 1, 10_000))
    counts = groups_of(reference).count(reference)
    assert len(counts) == NUMBER_GROUPS + 1
    assert all(900 <= n <= 1100 for n in counts[:-1])
    assert counts[-1] == 0


def test_the_groups_do_not_move_with_new_data() -> None:
    random = np.random.default_rng(1)
    reference = profile_values(random.normal(0, 1, 10_000))
    groups = groups_of(reference)
    now = profile_values(random.normal(2, 1, 1000), like=reference)
    assert groups_of(now) != groups
    assert sum(groups.count(now)) == 1000
    assert groups.count(now)[NUMBER_GROUPS - 1] > 700


@pytest.mark.parametrize(("then", "now"), [(0.03, 0.3), (0.95, 0.6), (0.5, 0.8), (0.001, 0.05), (0.995, 0.9)])
def test_a_change_of_a_flag_is_seen_however_rare_one_of_its_values_is(then: float, now: float) -> None:
    random = np.random.default_rng(2)
    reference = profile_values(random.binomial(1, then, 20_000))
    assert psi(reference, profile_values(random.binomial(1, now, 2000), like=reference)) > 0.1


def test_values_besides_one_that_most_rows_have_are_groups_of_their_own() -> None:
    random = np.random.default_rng(3)

    def amounts(zeros: float, sign: int) -> NDArray[np.float64]:
        return np.where(random.random(5000) < zeros, 0.0, sign * random.lognormal(0, 1, 5000))

    for sign in (1, -1):
        reference = profile_values(amounts(0.97, sign))
        assert psi(reference, profile_values(amounts(0.97, sign), like=reference)) < 0.01
        assert psi(reference, profile_values(amounts(0.7, sign), like=reference)) > 0.5


def test_a_constant_that_changes_is_seen_on_both_sides() -> None:
    reference = profile_values(np.full(1000, 3.5))
    for value in (3.4, 3.6, -1e9, 1e9):
        assert psi(reference, profile_values(np.full(1000, value), like=reference)) > 1
    assert psi(reference, profile_values(np.full(70, 3.5), like=reference)) == 0


def test_frequent_categories_stand_alone_and_the_others_are_told_apart_by_hash() -> None:
    names = [f"v{i}" for i in range(60) for _ in range(60 - i + 5)]
    reference = profile_values(names)
    groups = groups_of(reference)
    assert groups.names is not None
    assert groups.names[:2] == ("v0", "v1")
    assert (len(groups.names), groups.tail) == (19, 8)
    assert sum(groups.count(reference)) == len(names)
    few = groups_of(profile_values(["a"] * 90 + ["b"] * 10))
    assert (few.names, few.tail) == (("a", "b"), 1)


VALUES = st.one_of(
    st.lists(st.floats(allow_subnormal=False), max_size=200),
    st.lists(st.integers(-3, 3).map(float), max_size=200),
    st.lists(st.sampled_from([0.0, 1.0, math.nan, 1e308, -1e308, math.inf]), max_size=200),
)


@settings(max_examples=80, deadline=None)
@given(VALUES, VALUES)
def test_every_row_is_in_one_group_of_a_number(then: list[float], now: list[float]) -> None:
    reference = profile_values(np.array(then, dtype=float))
    groups = groups_of(reference)
    for values in (then, now):
        counts = groups.count(profile_values(np.array(values, dtype=float), like=reference))
        assert len(counts) == groups.size
        assert sum(counts) == len(values)
        assert min(counts) >= 0
    assert Groups.from_json(json.loads(json.dumps(groups.to_json()))) == groups


WORDS = st.lists(st.one_of(st.none(), st.sampled_from([f"w{i}" for i in range(40)])), max_size=300)


@settings(max_examples=80, deadline=None)
@given(WORDS, WORDS)
def test_every_row_is_in_one_group_of_a_category(then: list[str | None], now: list[str | None]) -> None:
    reference = profile_values([*then, *["common"] * 5])
    groups = groups_of(reference)
    for values in (then, now):
        counts = groups.count(profile_values(np.array([*values, None], dtype=object)[:-1], like=reference))
        assert len(counts) == groups.size
        assert sum(counts) == len(values)
    assert Groups.from_json(json.loads(json.dumps(groups.to_json()))) == groups


@pytest.mark.parametrize(
    "change",
    [
        {"edges": None},
        {"edges": [1.0], "names": ["a"]},
        {"edges": [2.0, 1.0]},
        {"edges": [math.nan]},
        {"edges": ["x"]},
        {"edges": None, "names": ["a", "a"]},
        {"tail": 0},
        {"tail": 99},
        {"tail": math.inf},
        {"tail": 1.5},
    ],
)
def test_damaged_groups_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Groups.from_json({"edges": [1.0, 2.0], "names": None, "tail": 1, **change})


def test_a_column_of_another_kind_is_refused() -> None:
    numbers, words = profile_values(np.arange(50.0)), profile_values(["a"] * 50)
    with pytest.raises(InputError, match="another kind"):
        groups_of(numbers).count(words)
    with pytest.raises(InputError, match="another kind"):
        groups_of(words).count(numbers)


# ---------------------------------------------------------------- windows

SELECT = """SELECT CASE WHEN i % 11 = 0 THEN NULL WHEN i % 13 = 0 THEN 'nan'::DOUBLE ELSE hash(i) % 1000 / 7 END AS x,
CASE WHEN hash(i) % 20 = 0 THEN 1 ELSE 0 END AS flag,
CASE WHEN i % 17 = 0 THEN NULL WHEN i % 2 = 0 THEN 'v' || (hash(i) % 200) ELSE 'often ' || (i % 3) END AS c,
'a text about ' || hash(i) || repeat(' and more', CAST(hash(i) % 9 AS INTEGER)) AS t,
CAST(NULL AS DOUBLE) AS nothing, i AS "mlp-ci row", TIMESTAMP '2026-01-01' + to_seconds(i * 60) AS ts
FROM range(1, 6001) r(i)"""
KINDS = {"x": "number", "flag": "number", "c": "category", "t": "text", "nothing": "number"}


@pytest.fixture
def data() -> Any:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE data AS {SELECT}")
        yield connection


@pytest.mark.parametrize("time", ["ts", None])
def test_windows_are_counted_as_profiles_are(data: Any, time: str | None) -> None:
    whole = profile_rows(data, "data", KINDS)
    groups = {name: groups_of(column) for name, column in whole.columns.items()}
    assert groups["c"].tail == 8
    windows = cut(data, "data", time, timedelta(hours=5))
    counted = window_counts(data, "data", windows, groups)
    source = f"(SELECT *, {windows.index} AS w FROM data) WHERE w IS NOT NULL"
    parts = profile_groups(data, source, KINDS, like=whole, by="CAST(w AS BIGINT)")
    assert len(parts) == windows.count
    for name, group in groups.items():
        expected = [tuple(group.count(parts[w].columns[name])) for w in sorted(parts)]
        assert counted[name] == expected, name
    assert windows.seconds == (5 * 3600 if time else None)


SHARED = duckdb.connect()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 3000), st.integers(1, 500), st.integers(0, 10**6))
def test_windows_lie_apart_and_are_as_long_as_asked(seconds: int, rows: int, step: int, start: int) -> None:
    with SHARED.cursor() as connection:
        connection.execute(
            'CREATE OR REPLACE TEMP TABLE data AS SELECT i AS "mlp-ci row", '
            f"make_timestamp(({start} + i * {step}) * 1000000) AS ts FROM range(1, {rows} + 1) r(i)"
        )
        windows = cut(connection, "data", "ts", timedelta(seconds=seconds))
        assert 1 <= windows.count <= MOST
        assert windows.seconds is None or windows.seconds <= seconds
        found = connection.execute(
            f"SELECT w, min(epoch(ts)), max(epoch(ts)) FROM (SELECT *, {windows.index} AS w FROM data) "
            "WHERE w IS NOT NULL GROUP BY w ORDER BY w"
        ).fetchall()
        assert all(0 <= w < windows.count for w, *_ in found)
        if windows.seconds is not None:
            assert all(last - first < windows.seconds for _, first, last in found)
            assert all(later[1] > earlier[2] for earlier, later in itertools.pairwise(found))


def test_a_short_reference_is_cut_into_shorter_windows(data: Any) -> None:
    windows = cut(data, "data", "ts", timedelta(days=28))
    assert windows.count == FEWEST
    assert windows.seconds == pytest.approx(6000 * 60 / FEWEST, rel=1e-3)


def test_predictions_are_cut_into_neighbouring_parts() -> None:
    values = np.random.default_rng(1).random(5000)
    like = profile_values(values)
    parts = windows_of(values, like)
    assert len(parts) == 25
    assert np.sum(parts, axis=0).tolist() == groups_of(like).count(like)
    assert len(windows_of(values[:10], like)) == 1


# ---------------------------------------------------------------- p-values


def windows(random: np.random.Generator, count: int, rows: int, move: float, like: int = 1) -> NDArray[np.int64]:
    """Counts of ten groups in windows whose mean moves by ``move`` standard deviations; ``like`` share a move."""
    means = np.repeat(random.normal(0, move, -(-count // like)), like)[:count]
    edges = scipy.stats.norm.ppf(np.arange(1, 10) / 10)
    below = scipy.stats.norm.cdf((edges[None] * math.hypot(1, move)) - means[:, None])
    shares = np.diff(np.column_stack([np.zeros(count), below, np.ones(count)]), axis=1)
    return random.multinomial(rows, shares)


def p_values(move: float, *, rows: int, live_rows: int, worlds: int, calibrated: bool = True) -> NDArray[np.float64]:
    """p-values of windows in which nothing drifted: forty worlds' worth of references, ten windows each."""
    found = []
    for seed in range(worlds):
        random = np.random.default_rng(seed)
        table = windows(random, 60, rows, move)
        live = windows(random, 10, live_rows, move).astype(float)
        variation = variation_of(table.tolist()) if calibrated else Variation()
        then = np.repeat(table.sum(axis=0, keepdims=True).astype(float), 10, axis=0)
        found.append(Measured.of(then, live, [variation] * 10).p_values)
    return np.concatenate(found)


@pytest.mark.parametrize("live_rows", [500, 5000])
def test_p_values_of_independent_rows_are_uniform(live_rows: int) -> None:
    found = p_values(0.0, rows=500, live_rows=live_rows, worlds=40)
    assert np.mean(found < 0.01) <= 0.025
    if live_rows == 500:
        assert scipy.stats.kstest(found, "uniform").pvalue > 1e-4
        assert 0.4 < found.mean() < 0.6


@pytest.mark.parametrize("move", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(("rows", "live_rows"), [(1000, 1000), (200, 5000), (5000, 500)])
def test_windows_that_always_move_are_no_evidence(move: float, rows: int, live_rows: int) -> None:
    found = p_values(move, rows=rows, live_rows=live_rows, worlds=150)
    assert np.mean(found < 0.01) <= 0.02


def test_without_calibration_windows_that_move_would_be_evidence() -> None:
    assert np.mean(p_values(0.2, rows=1000, live_rows=1000, worlds=20, calibrated=False) < 0.01) > 0.3


def test_a_change_beyond_what_windows_do_is_evidence() -> None:
    random = np.random.default_rng(1)
    table = windows(random, 60, 2000, 0.1)
    edges = scipy.stats.norm.ppf(np.arange(1, 10) / 10)
    shares = np.diff(np.concatenate([[0], scipy.stats.norm.cdf(edges - 1.0), [1]]))
    live = random.multinomial(2000, shares)[None].astype(float)
    then = table.sum(axis=0, keepdims=True).astype(float)
    assert Measured.of(then, live, [variation_of(table.tolist())]).p_values[0] < 1e-6


def test_rare_groups_do_not_hide_how_much_the_others_vary() -> None:
    random = np.random.default_rng(1)
    base = np.array([0.1245] * 8 + [0.0003] * 12)
    found = []
    for _ in range(30):
        moved = base * np.exp(random.normal(0, 0.2, (60, 1)) * np.array([1, -1] + [0] * 18))
        found.append(variation_of(random.multinomial(200, moved / moved.sum(axis=1, keepdims=True)).tolist()).between)
    assert np.mean(found) == pytest.approx(0.01, rel=0.3)


def test_neighbours_that_resemble_each_other_count_for_less() -> None:
    random = np.random.default_rng(4)
    alone = np.mean([variation_of(windows(random, 60, 2000, 0.3).tolist()).freedom for _ in range(20)])
    alike = np.mean([variation_of(windows(random, 60, 2000, 0.3, like=6).tolist()).freedom for _ in range(20)])
    assert alike < 0.6 * alone


def test_a_trend_in_the_reference_is_variation_of_it() -> None:
    edges = scipy.stats.norm.ppf(np.arange(1, 10) / 10)
    below = scipy.stats.norm.cdf(edges[None] - np.linspace(-0.5, 0.5, 40)[:, None])
    shares = np.diff(np.column_stack([np.zeros(40), below, np.ones(40)]), axis=1)
    table = np.random.default_rng(1).multinomial(2000, shares)
    then = table.sum(axis=0, keepdims=True).astype(float)
    ends = Measured.of(np.repeat(then, 2, axis=0), table[[0, -1]].astype(float), [variation_of(table.tolist())] * 2)
    assert ends.p_values.min() > 0.01


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_windows_say_nothing_about_variation(count: int) -> None:
    table = windows(np.random.default_rng(1), count, 500, 0.5).tolist() if count else []
    assert variation_of(table) == Variation(windows=count)


def test_windows_with_a_handful_of_rows_are_left_out() -> None:
    assert variation_of([[3, 4]] * 50).windows == 0
    assert variation_of([[300, 400]] * 50 + [[3, 4]] * 50).windows == 50


@pytest.mark.parametrize("row", [[1000], [0, 1000], [1000, 0, 0], [0, 0, 5000]])
def test_a_column_with_one_group_does_not_vary(row: list[int]) -> None:
    assert variation_of([row] * 10) == Variation(windows=10)
    then, now = np.array([row], dtype=float) * 10, np.array([row], dtype=float)
    assert Measured.of(then, now, [variation_of([row] * 10)]).p_values.tolist() == [1.0]


def test_huge_counts_are_no_trouble() -> None:
    table = (windows(np.random.default_rng(1), 40, 10**6, 0.2) * 10**9).tolist()
    then = np.array([np.sum(table, axis=0)], dtype=float)
    found = Measured.of(then, np.array([table[0]], dtype=float), [variation_of(table)])
    assert 0.001 < found.p_values[0] <= 1


COUNTS = st.one_of(st.integers(0, 40), st.integers(0, 10**6), st.integers(0, 2**62))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[int]], list[int], list[int]]:
    width = draw(st.integers(1, 12))
    row = st.lists(COUNTS, min_size=width, max_size=width)
    return draw(st.lists(row, max_size=12)), draw(row), draw(row)


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from([1.0, 2.5, 1e6]))
def test_no_table_gives_an_impossible_p_value(
    table: tuple[list[list[int]], list[int], list[int]], stretch: float
) -> None:
    reference, then, now = table
    variation = variation_of(reference)
    numbers = (variation.between, variation.squared, variation.observed, variation.freedom)
    assert all(math.isfinite(v) and v >= 0 for v in numbers), variation
    a, b = np.array([then], dtype=float), np.array([now], dtype=float)
    measured = Measured.of(a, b, [variation], stretch)
    assert 0 <= measured.p_values[0] <= 1, variation
    nulls = nulls_of(a, b, [variation], stretch)
    for chance in (0.05, 1e-3, 1e-7):
        limit = float(nulls.quantiles(chance)[0])
        assert limit >= 0
        assert not math.isnan(limit)
        if nulls.mean[0] > 0 and math.isfinite(limit):
            assert float(nulls.p_values(np.array([limit]))[0]) == pytest.approx(chance, rel=0.05)


# ---------------------------------------------------------------- from a file

SPEC: dict[str, Any] = {
    "train": "train.parquet",
    "test": "test.parquet",
    "target": "y",
    "columns": {
        name: {"type": kind}
        for name, kind in {"y": "int", "x": "float", "flag": "int", "c": "string", "nothing": "float"}.items()
    },
}


def data_spec(**changes: Any) -> Data:
    return Data.model_validate({**SPEC, **changes})


def test_the_series_json_round_trip() -> None:
    groups = Groups(edges=(1.0, 2.0))
    calibration = Calibration(seconds=3600.0, columns={"x": Series(groups=groups, counts=((1, 2, 3, 0), (4, 5, 6, 7)))})
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, "60", True])
def test_a_window_without_a_length_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"window|finite"):
        Calibration.from_json({"seconds": seconds, "columns": {}})


def test_the_windows_of_a_reference_are_those_of_all_its_files_together(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        for name, first in (("train", 0), ("test", 1)):
            connection.execute(
                "COPY (SELECT 1 AS y, hash(i) % 999 / 7.0 AS x, i // 2 % 2 AS flag, 'c' AS c, NULL::DOUBLE AS nothing, "
                f"TIMESTAMP '2026-01-01' + to_minutes(i) AS ts FROM range({first}, 40000, 2) r(i)) "
                f"TO '{tmp_path}/{name}.parquet'"
            )
    files = [tmp_path / "train.parquet", tmp_path / "test.parquet"]
    timed, untimed = (reference_of(files, data_spec(**t), timedelta(days=1)) for t in ({"time": "ts"}, {}))
    assert timed.calibration is not None
    assert untimed.calibration is not None
    assert (timed.calibration.seconds, untimed.calibration.seconds) == (86400, None)
    assert [sum(row) for row in timed.calibration.columns["x"].counts] == [1440] * 27
    for reference in (timed, untimed):
        assert reference.calibration is not None
        for name, column in reference.profile.columns.items():
            series = reference.calibration.columns[name]
            assert series.groups == groups_of(column)
            assert {len(row) for row in series.counts} == {series.groups.size}
    assert np.sum(untimed.calibration.columns["flag"].counts, axis=0).tolist() == [0, 20000, 20000, 0, 0]
