"""Profiles: exact counts in fixed bins, the same from a file and from memory, mergeable, never a raw row."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.data.profiles.profile import BINS, MARGIN, Profile, profile_values
from mlp_ci.data.profiles.profiling import profile_file, profile_groups, profile_rows
from mlp_ci.data.profiles.shapes import CATEGORIES, CategoryProfile, NumberProfile, TextProfile
from mlp_ci.errors import InputError
from mlp_ci.spec.data import Column

if TYPE_CHECKING:
    from pathlib import Path


def columns(**types: Any) -> dict[str, Column]:
    return {n: Column.model_validate({"type": t} if isinstance(t, str) else t) for n, t in types.items()}


def write(file: Path, select: str) -> Path:
    duckdb.connect().execute(f"COPY ({select}) TO '{file}'")
    return file


SELECT = (
    "SELECT hash(i) % 100000 / 7.0 AS x, i % 5 AS few, 'c' || (i % 3) AS cat, i % 4 = 0 AS flag, "
    "CASE WHEN i % 10 = 0 THEN NULL WHEN i % 10 = 1 THEN 'nan'::DOUBLE WHEN i = 2 THEN 'inf'::DOUBLE "
    "ELSE i END AS gaps FROM range({}, {}) t(i)"
)
ALL = columns(x="float", few="int", cat="string", flag="bool", gaps="float")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "a.parquet", SELECT.format(0, 5000))


def number(profile: Profile, name: str) -> NumberProfile:
    column = profile.columns[name]
    assert isinstance(column, NumberProfile)
    return column


def category(profile: Profile, name: str) -> CategoryProfile:
    column = profile.columns[name]
    assert isinstance(column, CategoryProfile)
    return column


def test_counts_are_those_of_the_data(file: Path) -> None:
    profile = profile_file(file, ALL)
    values = duckdb.connect().execute(f"SELECT x FROM '{file}'").fetchnumpy()["x"]
    x = number(profile, "x")
    assert len(x.edges) <= BINS + 2 * MARGIN
    edges = np.array([-np.inf, *x.edges, np.inf])
    expected = [int(((values > a) & (values <= b)).sum()) for a, b in itertools.pairwise(edges)]
    assert list(x.counts) == expected
    assert max(x.counts) <= 2 * 5000 / BINS
    assert x.mean == pytest.approx(values.mean())
    assert number(profile, "few").counts == (0, 1000, 1000, 1000, 1000, 1000, 0)
    assert category(profile, "cat").counts == {"c0": 1667, "c1": 1667, "c2": 1666}
    assert category(profile, "flag").counts == {"false": 3750, "true": 1250}


def test_a_shift_beyond_the_reference_is_seen_where_it_went() -> None:
    values = np.random.default_rng(3).normal(50, 10, 5000)
    reference = profile_values(values)
    shifted = profile_values(values + 40, like=reference)
    assert shifted.counts[-1] < 0.1 * 5000
    assert sum(1 for c in shifted.counts[-MARGIN:] if c) > 10


def test_nan_infinity_and_null_are_nulls(file: Path) -> None:
    gaps = number(profile_file(file, ALL), "gaps")
    assert (gaps.count, gaps.nulls) == (3999, 1001)
    assert gaps.smallest == 3.0


def test_json_round_trip(file: Path) -> None:
    profile = profile_file(file, ALL).with_column("prediction", profile_values(np.linspace(0, 1, 50)))
    assert Profile.from_json(json.loads(json.dumps(profile.to_json(), allow_nan=False))) == profile


def test_two_halves_add_up_to_the_whole(tmp_path: Path, file: Path) -> None:
    reference = profile_file(file, ALL)
    one = profile_file(write(tmp_path / "1.parquet", SELECT.format(0, 2000)), ALL, like=reference)
    two = profile_file(write(tmp_path / "2.parquet", SELECT.format(2000, 5000)), ALL, like=reference)
    both = one.merge(two)
    assert both.rows == reference.rows
    for name, column in both.columns.items():
        assert column.counts == reference.columns[name].counts, name
        assert (column.count, column.nulls) == (reference.columns[name].count, reference.columns[name].nulls)
    assert number(both, "x").mean == pytest.approx(number(reference, "x").mean)
    assert number(both, "x").largest == number(reference, "x").largest


def test_profiles_with_other_bins_do_not_add_up(tmp_path: Path, file: Path) -> None:
    other = profile_file(write(tmp_path / "o.parquet", SELECT.format(9000, 9100)), ALL)
    with pytest.raises(InputError, match="different bins"):
        profile_file(file, ALL).merge(other)
    with pytest.raises(InputError, match="different columns"):
        profile_file(file, ALL).merge(profile_file(file, columns(x="float")))


def test_sensitive_unwatched_and_timed_columns_stay_out(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", "SELECT 1.0 AS a, 'x' AS s, 2 AS u, TIMESTAMP '2013-01-01' AS t FROM range(9)")
    some = columns(
        a="float", s={"type": "string", "sensitive": True}, u={"type": "int", "monitor": False}, t="timestamp"
    )
    assert set(profile_file(file, some).columns) == {"a"}


def test_rare_values_are_never_written_down(tmp_path: Path) -> None:
    value = "CASE WHEN i < 4 THEN 'rare person' WHEN i < 90 THEN 'common' ELSE 'id' || i END"
    select = f"SELECT {value} AS s FROM range(100) t(i)"
    profile = profile_file(write(tmp_path / "a.parquet", select), columns(s="string"))
    assert category(profile, "s").counts == {"common": 86}
    assert category(profile, "s").other == 14
    assert category(profile, "s").distinct == 12
    assert "rare" not in json.dumps(profile.to_json())


def test_the_size_does_not_depend_on_rows_or_levels(tmp_path: Path) -> None:
    select = "SELECT random() AS x, 'v' || (i % 20000) AS s FROM range(200000) t(i)"
    profile = profile_file(write(tmp_path / "a.parquet", select), columns(x="float", s="string"))
    assert len(category(profile, "s").counts) == CATEGORIES
    assert category(profile, "s").other == 200000 - 10 * CATEGORIES
    assert len(json.dumps(profile.to_json())) < 15000


def test_new_values_fall_into_other_and_open_bins(tmp_path: Path, file: Path) -> None:
    reference = profile_file(file, ALL)
    select = "SELECT 1e9 AS x, -1 AS few, 'new' AS cat, NULL::BOOLEAN AS flag, 0.0 AS gaps FROM range(7)"
    now = profile_file(write(tmp_path / "n.parquet", select), ALL, like=reference)
    assert number(now, "x").counts[-1] == 7
    assert number(now, "few").counts[0] == 7
    assert category(now, "cat").other == 7
    assert category(now, "flag").nulls == 7


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_other_formats_give_the_same_profile(tmp_path: Path, suffix: str) -> None:
    select = "SELECT i * 0.5 AS x, 'c' || (i % 3) AS cat FROM range(300) t(i)"
    some = columns(x="float", cat="string")
    parquet = profile_file(write(tmp_path / "a.parquet", select), some)
    option = "(FORMAT json)" if suffix == "jsonl" else ""
    duckdb.connect().execute(f"COPY ({select}) TO '{tmp_path}/a.{suffix}' {option}")
    assert profile_file(tmp_path / f"a.{suffix}", some) == parquet


def test_empty_data_and_missing_column(tmp_path: Path) -> None:
    empty = profile_file(write(tmp_path / "a.parquet", SELECT.format(0, 0)), ALL)
    assert empty.rows == 0
    assert number(empty, "x").counts == (0,)
    with pytest.raises(InputError, match="has no column zz"):
        profile_file(tmp_path / "a.parquet", columns(zz="float"))


def test_values_in_memory_match_values_in_a_file(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=3000)
    file = tmp_path / "a.csv"
    file.write_text("x\n" + "\n".join(repr(float(v)) for v in values))
    from_file = number(profile_file(file, columns(x="float")), "x")
    in_memory = profile_values(values)
    assert isinstance(in_memory, NumberProfile)
    assert in_memory.edges == from_file.edges
    assert in_memory.counts == from_file.counts
    assert profile_values(values[:100], like=in_memory).counts == profile_values(values[:100], like=from_file).counts


def test_classes_in_memory() -> None:
    classes = profile_values(["yes"] * 10 + ["no"] * 20 + ["odd"] * 2 + [None])
    assert isinstance(classes, CategoryProfile)
    assert (classes.counts, classes.other, classes.nulls) == ({"no": 20, "yes": 10}, 2, 1)
    assert profile_values(np.array([True, False] * 5)).counts == {"false": 5, "true": 5}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "mlp-ci/profile/v1"},
        {"format": None},
        {"rows": -1},
        {"columns": []},
        {"columns": {"x": {"kind": "number"}}},
        {"columns": {"x": {"kind": "words", "count": 0, "nulls": 0}}},
        {"columns": {"x": 3}},
        {
            "columns": {
                "x": {
                    "kind": "number",
                    "count": 3,
                    "nulls": 0,
                    "mean": 1,
                    "smallest": 0,
                    "largest": 2,
                    "edges": [2, 1],
                    "counts": [1, 1, 1],
                }
            }
        },
        {"columns": {"x": {"kind": "category", "count": 3, "nulls": 0, "distinct": 1, "counts": {"a": 1}, "other": 0}}},
    ],
)
def test_a_damaged_or_foreign_profile_is_refused(change: dict[str, Any]) -> None:
    good = Profile(rows=0, columns={}).to_json()
    with pytest.raises(InputError, match="profile"):
        Profile.from_json({**good, **change})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_subnormal=False), max_size=300))
def test_counts_always_add_up(values: list[float]) -> None:
    profile = profile_values(np.array(values, dtype=float))
    assert isinstance(profile, NumberProfile)
    assert sum(profile.counts) == profile.count == sum(math.isfinite(v) for v in values)
    whole = Profile(rows=len(values), columns={"x": profile})
    assert Profile.from_json(json.loads(json.dumps(whole.to_json()))) == whole


# ---------------------------------------------------------------- quantiles


def assert_quantile_within_a_bin(values: np.ndarray, profile: NumberProfile, share: float) -> None:
    """The wanted rank and that of the answer lie in the same bin, whose share bounds the error."""
    found = profile.quantile(share)
    assert found is not None
    assert profile.smallest is not None
    assert profile.largest is not None
    assert profile.smallest <= found <= profile.largest
    below, upto = float((values < found).mean()), float((values <= found).mean())
    error = max(0.0, below - share, share - upto)
    assert error <= max(profile.counts) / profile.count + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_a_quantile_is_off_by_at_most_one_bin_in_rank(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = [
        random.normal(0, 1, 5000),
        random.lognormal(0, 2, 3000),
        random.standard_cauchy(20000),
        np.where(random.random(4000) < 0.6, 0.0, random.exponential(1, 4000)),
    ][seed % 4]
    profile = profile_values(values)
    assert isinstance(profile, NumberProfile)
    for share in (0.0, 0.001, 0.01, 0.25, 0.5, 0.9, 0.999, 1.0):
        assert_quantile_within_a_bin(values, profile, share)
    if seed % 4 != 3:
        assert max(profile.counts) <= profile.count / BINS + 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=300),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50),
    st.floats(0, 1),
)
def test_a_quantile_of_any_numbers_in_any_bins(then: list[float], now: list[float], share: float) -> None:
    reference = profile_values(np.array(then))
    profile = profile_values(np.array(now), like=reference)
    assert isinstance(profile, NumberProfile)
    assert_quantile_within_a_bin(np.array(now), profile, share)


def test_there_is_no_quantile_of_nothing() -> None:
    nothing = profile_values(np.array([np.nan]))
    assert isinstance(nothing, NumberProfile)
    assert nothing.quantile(0.5) is None


# ---------------------------------------------------------------- adding up

HOURS = """SELECT hash(i) % 100000 / 7.0 AS x, CASE WHEN hash(i + 1) % 9 = 0 THEN NULL ELSE 1e6 + i % 7 END AS far,
CASE WHEN i % 6 = 0 THEN NULL WHEN i % 2 = 0 THEN 'rare ' || (hash(i + 2) % 500) ELSE 'c' || (i % 3) END AS cat,
'a note about ' || hash(i) || repeat(' and on', CAST(hash(i + 3) % 5 AS INTEGER)) AS note, i // 700 AS hour
FROM range(5000) r(i)"""
KINDS = {"x": "number", "far": "number", "cat": "category", "note": "text"}


@pytest.fixture(scope="module")
def hours() -> tuple[Profile, dict[int, Profile]]:
    """The profile of all rows, and those of the hours in its bins."""
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE data AS {HOURS}")
        whole = profile_rows(connection, "data", KINDS)
        return whole, profile_groups(connection, "data", KINDS, like=whole, by="hour")


def assert_same(one: Profile, two: Profile) -> None:
    """Equal in every count, in means and deviations up to rounding; distinct values are only bounded."""
    assert one.rows == two.rows
    assert one.columns.keys() == two.columns.keys()
    for name, column in one.columns.items():
        other = two.columns[name]
        if isinstance(column, TextProfile):
            assert isinstance(other, TextProfile)
            assert (column.count, column.nulls) == (other.count, other.nulls)
            assert_numbers(column.length, other.length)
            assert_numbers(column.words, other.words)
        elif isinstance(column, NumberProfile):
            assert isinstance(other, NumberProfile)
            assert_numbers(column, other)
        else:
            assert isinstance(other, CategoryProfile)
            assert replace(column, distinct=0) == replace(other, distinct=0)


def assert_numbers(one: NumberProfile, two: NumberProfile) -> None:
    moments = {"mean": None, "deviation": None}
    assert replace(one, **moments) == replace(two, **moments)
    assert one.mean == pytest.approx(two.mean, rel=1e-12)
    assert one.deviation == pytest.approx(two.deviation, rel=1e-9)


def test_the_profiles_of_the_hours_are_those_of_each_hour_alone(hours: tuple[Profile, dict[int, Profile]]) -> None:
    whole, parts = hours
    assert sorted(parts) == list(range(8))
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE data AS {HOURS}")
        for hour, part in parts.items():
            alone = profile_rows(connection, f"(SELECT * FROM data WHERE hour = {hour})", KINDS, like=whole)
            assert_same(part, alone)


def test_the_hours_add_up_in_any_order_and_grouping(hours: tuple[Profile, dict[int, Profile]]) -> None:
    whole, parts = hours
    some = list(parts.values())
    assert_same(reduce(Profile.merge, some), whole)
    assert_same(reduce(Profile.merge, reversed(some)), whole)
    halves = reduce(Profile.merge, some[:3]), reduce(Profile.merge, some[3:])
    assert_same(halves[1].merge(halves[0]), whole)
    assert isinstance(whole.columns["cat"], CategoryProfile)
    assert sum(whole.columns["cat"].tail) == whole.columns["cat"].other > 0


def test_the_deviation_is_that_of_the_values(hours: tuple[Profile, dict[int, Profile]]) -> None:
    with duckdb.connect() as connection:
        exact = connection.execute(f"SELECT stddev_pop(x), stddev_pop(far) FROM ({HOURS})").fetchone()
    assert exact is not None
    assert number(hours[0], "x").deviation == pytest.approx(exact[0], rel=1e-9)
    assert number(hours[0], "far").deviation == pytest.approx(exact[1], rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(allow_nan=True), max_size=30), min_size=1, max_size=6))
def test_parts_of_any_numbers_add_up(parts: list[list[float]]) -> None:
    together = np.array([v for part in parts for v in part], dtype=float)
    reference = profile_values(together)
    found = [
        Profile(rows=len(p), columns={"x": profile_values(np.array(p, dtype=float), like=reference)}) for p in parts
    ]
    whole = number(reduce(Profile.merge, found), "x")
    assert isinstance(reference, NumberProfile)
    assert (whole.counts, whole.nulls, whole.count) == (reference.counts, reference.nulls, reference.count)
    assert (whole.smallest, whole.largest) == (reference.smallest, reference.largest)
    if reference.count and max(abs(reference.smallest or 0), abs(reference.largest or 0)) < 1e100:
        spread = 1e-9 * (1e-300 + max(abs(reference.smallest or 0), abs(reference.largest or 0)))
        assert whole.mean == pytest.approx(reference.mean, rel=1e-9, abs=spread)
        assert whole.deviation == pytest.approx(reference.deviation, rel=1e-6, abs=10 * spread)


def test_numbers_that_overflow_have_no_moments(tmp_path: Path) -> None:
    select = "SELECT CASE WHEN i % 2 = 0 THEN 1.7e308 ELSE 1.6e308 END AS x FROM range(100) r(i)"
    found = number(profile_file(write(tmp_path / "a.parquet", select), columns(x="float")), "x")
    assert (found.mean, found.deviation, found.count) == (None, None, 100)
    assert number(Profile(rows=0, columns={"x": found}).merge(Profile(rows=0, columns={"x": found})), "x").mean is None


def test_few_values_leave_room_on_both_sides() -> None:
    reference = profile_values(np.array([1.0, 2.0] * 50))
    now = profile_values(np.array([0.5, 1.0, 2.0, 3.0]), like=reference)
    assert isinstance(now, NumberProfile)
    assert now.counts == (1, 1, 1, 1)


def test_categories_of_which_none_is_frequent(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", "SELECT 'id' || i AS s FROM range(60) t(i)")
    reference = profile_file(file, columns(s="string"))
    assert category(reference, "s").counts == {}
    again = category(profile_file(file, columns(s="string"), like=reference), "s")
    assert (again.other, sum(again.tail)) == (60, 60)
