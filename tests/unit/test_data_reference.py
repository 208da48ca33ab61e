"""The reference of a version: what stands in ``profile.json``, and that it is read or refused, never half."""

from __future__ import annotations

import copy
import json
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlp_ci.data.drift.compare import Sample, compare
from mlp_ci.data.drift.null_windows import windows_of
from mlp_ci.data.drift.reference import Reference, reference_of
from mlp_ci.data.profiles.outcomes import outcomes_of
from mlp_ci.data.profiles.profile import PREDICTION, Profile, profile_values
from mlp_ci.data.profiles.shapes import TextProfile
from mlp_ci.errors import InputError
from mlp_ci.spec.data import Data
from mlp_ci.spec.model import Drift

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COLUMNS: dict[str, Any] = {
    "late": {"type": "bool"},
    "ts": {"type": "timestamp"},
    "x": {"type": "float"},
    "few": {"type": "int"},
    "carrier": {"type": "string"},
    "note": {"type": "string"},
    "secret": {"type": "string", "sensitive": True},
    "salary": {"type": "float", "sensitive": True},
    "unwatched": {"type": "string", "monitor": False},
}
SELECT = """SELECT hash(i) % 4 = 0 AS late, TIMESTAMP '2026-01-01' + to_minutes(i * 5) AS ts,
hash(i + 7) % 5000 / 7 AS x, CASE WHEN i % 50 = 0 THEN NULL ELSE i % 4 END AS few,
CASE WHEN i < 4 THEN 'rarecarrier' ELSE ['UA', 'AA', 'DL'][CAST(1 + hash(i + 1) % 3 AS INTEGER)] END AS carrier,
'passenger ' || hash(i) || ' wrote' || repeat(' more', CAST(hash(i + 2) % 7 AS INTEGER)) AS note,
'secretperson' || (i % 3) AS secret, 987654.0 + i % 3 AS salary, 'unwatchedthing' AS unwatched
FROM range({rows}) r(i)"""


def data_of(**changes: Any) -> Data:
    spec = {"train": "train.parquet", "test": "test.parquet", "target": "late", "time": "ts", "columns": COLUMNS}
    return Data.model_validate({**spec, **changes})


def files_of(folder: Path, rows: int = 6000) -> list[Path]:
    folder.mkdir(exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE rows AS {SELECT.format(rows=rows)}")
        for name, share in (("train", "<"), ("test", ">=")):
            connection.execute(f"COPY (SELECT * FROM rows WHERE hash(ts) % 10 {share} 8) TO '{folder}/{name}.parquet'")
    return [folder / "train.parquet", folder / "test.parquet"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    reference = reference_of(files_of(folder), data_of(), timedelta(days=1), ["carrier"])
    random = np.random.default_rng(1)
    scores = random.random(2000)
    column = profile_values(scores)
    reference = reference.with_predictions(column, windows_of(scores, column))
    return Reference(
        profile=reference.profile,
        segments=reference.segments,
        calibration=reference.calibration,
        importance={"x": 0.75, "few": 0.25},
        outcomes=outcomes_of(column.edges, scores, random.random(2000) < scores),  # type: ignore[union-attr]
    )


def through_json(reference: Reference) -> Reference:
    return Reference.from_json(json.loads(json.dumps(reference.to_json(), allow_nan=False)))


# ---------------------------------------------------------------- what it holds


def test_the_json_round_trip(made: Reference) -> None:
    assert through_json(made) == made
    assert through_json(made).digest() == made.digest()
    bare = Reference(profile=made.profile)
    assert through_json(bare) == bare


def test_the_features_are_profiled_and_nothing_else(made: Reference) -> None:
    assert set(made.profile.columns) == {"x", "few", "carrier", "note", PREDICTION}
    assert made.profile.rows == 6000
    assert made.profile.columns["few"].nulls == 120
    assert isinstance(made.profile.columns["note"], TextProfile)
    assert made.calibration is not None
    assert set(made.calibration.columns) == set(made.profile.columns)


def test_segments_are_the_frequent_values_and_add_up(made: Reference) -> None:
    assert set(made.segments) == {"carrier=UA", "carrier=AA", "carrier=DL"}
    assert sum(part.rows for part in made.segments.values()) == 5996
    for part in made.segments.values():
        assert set(part.columns) == {"x", "few", "note"}


def test_nothing_rare_and_nothing_sensitive_is_written_down(made: Reference) -> None:
    text = json.dumps(made.to_json())
    for word in ("rarecarrier", "secretperson", "987654", "unwatchedthing", "passenger", "wrote"):
        assert word not in text, word
    assert "salary" not in text
    assert "UA" in text


def test_the_size_does_not_depend_on_the_rows(tmp_path: Path) -> None:
    sizes = []
    for rows in (100_000, 300_000):  # enough for as many windows as there ever are
        reference = reference_of(files_of(tmp_path / str(rows), rows), data_of(), timedelta(days=1))
        sizes.append(len(json.dumps(reference.to_json())))
    assert sizes[1] < 1.3 * sizes[0]


def test_a_value_in_quotes_or_with_an_equals_sign_can_be_a_segment(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 1 AS late, i AS x, CASE WHEN i % 2 = 0 THEN 'O''Hare = \"big\"' ELSE 'b' END AS place "
            f"FROM range(100) r(i)) TO '{tmp_path}/train.parquet'"
        )
    columns = {"late": {"type": "int"}, "x": {"type": "int"}, "place": {"type": "string"}}
    data = data_of(columns=columns, time=None)
    reference = reference_of([tmp_path / "train.parquet"], data, timedelta(days=1), ["place", "x", "nowhere"])
    assert {name: part.rows for name, part in reference.segments.items()} == {
        'place=O\'Hare = "big"': 50,
        "place=b": 50,
    }


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_handful_of_rows_makes_a_reference(tmp_path: Path, rows: int) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({SELECT.format(rows=rows)}) TO '{tmp_path}/train.parquet'")
    reference = reference_of([tmp_path / "train.parquet"], data_of(), timedelta(days=1), ["carrier"])
    assert reference.profile.rows == rows
    assert through_json(reference) == reference
    now = Sample(profile=reference.profile)
    assert {d.decision for d in compare(reference, now, Drift.model_validate({}))} == {"insufficient"}


def test_a_column_that_the_file_lacks_is_an_error(tmp_path: Path) -> None:
    files = files_of(tmp_path, 100)
    with pytest.raises(InputError, match="no column gone"):
        reference_of(files, data_of(columns={**COLUMNS, "gone": {"type": "int"}}), timedelta(days=1))


def test_the_digest_follows_the_bins_and_the_segments(made: Reference) -> None:
    assert Reference(profile=made.profile).digest() != made.digest()
    assert Reference(profile=made.profile, segments=made.segments).digest() == made.digest()


# ---------------------------------------------------------------- damaged or foreign


def small() -> Reference:
    random = np.random.default_rng(2)
    number, flag = random.normal(size=400), random.integers(0, 2, 400)
    words = np.array(["a", "b", "c"])[random.integers(0, 3, 400)]
    columns = {"x": profile_values(number), "flag": profile_values(flag), "s": profile_values(words)}
    length = profile_values(flag * 1.0)
    text = TextProfile(count=400, nulls=0, distinct=9, length=length, words=length)  # type: ignore[arg-type]
    profile = Profile(rows=400, columns={**columns, "t": text})
    reference = Reference(profile=profile, segments={"s=a": Profile(rows=400, columns={"x": columns["x"]})})
    reference = reference.with_predictions(columns["x"], windows_of(number, columns["x"]))
    outcomes = outcomes_of((0.25, 0.5), random.random(400), flag)
    return Reference(
        profile=reference.profile,
        segments=reference.segments,
        calibration=reference.calibration,
        importance={"x": 1.0},
        outcomes=outcomes,
    )


SMALL = small()
GOOD = json.loads(json.dumps(SMALL.to_json()))
JUNK = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        1,
        3,
        1.5,
        10**30,
        10**400,
        math.nan,
        math.inf,
        "",
        "x",
        "1",
        [],
        [1],
        [None],
        [[]],
        {},
        {"a": 1},
    ]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    """The way to every value of a JSON document."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


PLACES = list(places(GOOD))
# The long lists of counts are all alike: one place in each is as good as hundreds.
SHORT = [path for path in PLACES if not any(isinstance(key, int) and key > 1 for key in path)]


def read(value: Any) -> None:
    """Either it is refused, or it can be used."""
    try:
        reference = Reference.from_json(value)
    except InputError as error:
        assert len(str(error)) < 1000
        return
    try:
        compare(reference, Sample(profile=SMALL.profile, segments=SMALL.segments), Drift.model_validate({}))
    except InputError:
        return


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(SHORT), JUNK)
@example(("calibration", "seconds"), math.inf)
@example(("importance", "x"), 10**400)
@example((), [])
@example((), "text")
@example((), None)
def test_a_changed_value_is_refused_or_harmless(path: tuple[Any, ...], junk: Any) -> None:
    if not path:
        read(junk)
        return
    damaged = copy.deepcopy(GOOD)
    inside = damaged
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = junk
    read(damaged)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from([path for path in SHORT if path]), st.randoms(use_true_random=False))
def test_a_missing_value_is_refused_or_harmless(path: tuple[Any, ...], random: Any) -> None:
    damaged = copy.deepcopy(GOOD)
    inside = damaged
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    if isinstance(inside, dict) and random.random() < 0.3:
        inside["surprise"] = {"kind": "number"}
    read(damaged)


@settings(max_examples=120, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["format", "rows", "columns", "segments", "calibration"]), inner),
        ),
        max_leaves=8,
    )
)
def test_foreign_json_is_refused(value: Any) -> None:
    with pytest.raises(InputError):
        Reference.from_json(value)
    if isinstance(value, dict):
        read({**value, "format": GOOD["format"]})


def test_another_format_says_what_to_do() -> None:
    with pytest.raises(InputError) as caught:
        Reference.from_json({**GOOD, "format": "mlp-ci/profile/v1"})
    assert "mlp-ci/profile/v1" in caught.value.what
    assert "register a new version" in str(caught.value.fix)


def test_a_segment_with_columns_of_its_own_is_refused() -> None:
    damaged = copy.deepcopy(GOOD)
    damaged["segments"]["s=a"]["columns"]["other"] = damaged["columns"]["x"]
    with pytest.raises(InputError, match="columns of its own"):
        Reference.from_json(damaged)
