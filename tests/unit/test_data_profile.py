"""Profiles: exact counts in fixed bins, the same from a file and from memory, mergeable, never a raw row."""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.data.profile import (
    BINS,
    CATEGORIES,
    MARGIN,
    CategoryProfile,
    NumberProfile,
    Profile,
    profile_values,
)
from mlp_ci.data.profiling import profile_file
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
