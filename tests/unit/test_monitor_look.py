"""Windows, the prediction log, and the verdict of one look, on real Parquet files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from mlp_ci.data.drift.reference import Reference, reference_of
from mlp_ci.data.profiles.profile import profile_values
from mlp_ci.data.profiles.profiling import profile_file
from mlp_ci.errors import InputError
from mlp_ci.monitor import Window
from mlp_ci.monitor.look import Log, Look, look_at
from mlp_ci.monitor.risk import risk_of_a_look
from mlp_ci.monitor.verdict import ALARM, INSUFFICIENT, PASS, Verdict, names_of
from mlp_ci.monitor.watch import Facts, judge
from mlp_ci.monitor.windows import Span, log_parts, resolve
from mlp_ci.spec.data import Column
from mlp_ci.spec.model import ModelSpec
from mlp_ci.tracking import VersionFact

NOW = datetime(2013, 4, 8, 12, tzinfo=UTC)
WEEK = Span(since=NOW - timedelta(days=7), until=NOW)
WEEK_BEFORE = NOW - timedelta(days=9)
INPUTS = (
    "sin(i * 12.9898 + {seed}) * 10 + {shift} AS distance, ['UA', 'AA', 'DL'][i % 3 + 1] AS carrier, "
    "0.5 + 0.4 * cos(i * 78.233 + {seed}) AS prediction"
)


def spec(**monitor: Any) -> ModelSpec:
    columns = {
        "id": {"type": "int"},
        "distance": {"type": "float"},
        "carrier": {"type": "string"},
        "email": {"type": "string", "sensitive": True},
        "late": {"type": "int"},
    }
    return ModelSpec.model_validate(
        {
            "apiVersion": "mlp-ci/v1",
            "name": "toy",
            "team": "growth",
            "train": {"command": "true"},
            "data": {"train": "a.parquet", "test": "b.parquet", "key": ["id"], "target": "late", "columns": columns},
            "evaluate": {"gates": [{"metric": "roc_auc", "min": 0.5}]},
            "monitor": monitor,
        }
    )


def version(number: int = 3) -> VersionFact:
    empty: dict[str, Any] = dict.fromkeys(("digest", "evidence", "commit", "train_key"), "")
    return VersionFact(model="toy", number=number, run_id="r" * 32, gate="pass", data={}, created=NOW, **empty)


def trained_on(folder: Path, model: ModelSpec, inputs: str = INPUTS) -> Reference:
    """The reference of a version that was trained on 5,000 rows."""
    file = folder / "train.parquet"
    sql = inputs.format(seed=0, shift=0)
    duckdb.connect().execute(
        f"COPY (SELECT i AS id, 'a@b.c' AS email, i % 2 AS late, {sql} FROM range(5000) t(i)) TO '{file}'"
    )
    found = reference_of([file], model.data, timedelta(days=7))
    return found.with_predictions(profile_values(0.5 + 0.4 * np.cos(np.arange(5000) * 78.233)))


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    return trained_on(tmp_path, spec())


def log(folder: Path, at: datetime, rows: int, *, shift: float = 0, number: int = 3, extra: str = "") -> Path:
    """Write one part of the log with rows at ``at``."""
    hour = folder / "toy" / "stage=production" / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"
    hour.mkdir(parents=True, exist_ok=True)
    part = hour / f"part-{len(list(hour.iterdir()))}.parquet"
    inputs = INPUTS.format(seed=at.timestamp() % 7, shift=shift)
    duckdb.connect().execute(
        f"COPY (SELECT TIMESTAMP '{at:%Y-%m-%d %H:%M:%S}' AS ts, 'r' || i AS request_id, {number}::INTEGER AS version, "
        f"'stable' AS arm, 1.5 AS latency_ms, i AS id, {inputs} {extra} FROM range({rows}) t(i)) TO '{part}'"
    )
    return part


def without(part: Path, columns: str, extra: str = "") -> None:
    """Write a file of the log anew, without some columns, perhaps with others."""
    select = f"SELECT * EXCLUDE ({columns}) {extra} FROM (SELECT *, row_number() OVER () AS i FROM '{part}')"
    duckdb.connect().execute(f"COPY ({select}) TO '{part}.x' (FORMAT parquet)")
    Path(f"{part}.x").replace(part)


def verdict(folder: Path, reference: Reference, model: ModelSpec | None = None, span: Span = WEEK) -> Verdict:
    facts = Facts(repo=folder, log=folder, reference=reference, evidence={}, now=NOW)
    return judge(model or spec(), version(), facts, span, "production")


def look(folder: Path, reference: Reference, span: Span = WEEK) -> Look:
    model = spec()
    whole = Log(
        folder=folder, model="toy", stage="production", version=3, reference=reference, data=model.data, now=NOW
    )
    return look_at(whole, [span])[0]


# ---------------------------------------------------------------- windows


def test_the_default_window_ends_now_and_is_as_long_as_model_yaml_says() -> None:
    assert resolve(Window(stage="s"), NOW, timedelta(days=7)) == WEEK
    until = resolve(Window(stage="s", until="2013-03-01"), NOW, timedelta(days=1))
    assert until == Span(since=datetime(2013, 2, 28, tzinfo=UTC), until=datetime(2013, 3, 1, tzinfo=UTC))
    since = resolve(Window(stage="s", since="2013-04-08T06:00:00+02:00"), NOW, timedelta(days=1))
    assert since.since == datetime(2013, 4, 8, 4, tzinfo=UTC)


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(InputError, match="window starts at"):
        resolve(Window(stage="s", since="2013-05-01"), NOW, timedelta(days=1))
    with pytest.raises(InputError, match="not a date"):
        resolve(Window(stage="s", since="yesterday"), NOW, timedelta(days=1))


def test_only_the_folders_of_the_window_are_looked_into(tmp_path: Path) -> None:
    inside = [
        log(tmp_path, WEEK.since, 1),
        log(tmp_path, NOW - timedelta(hours=1), 1),
        log(tmp_path, NOW - timedelta(minutes=1), 1),
    ]
    log(tmp_path, WEEK.since - timedelta(hours=1), 1)
    log(tmp_path, NOW + timedelta(hours=1), 1)
    root = tmp_path / "toy" / "stage=production"
    (root / "date=nonsense" / "hour=01").mkdir(parents=True)
    (root / "date=2013-99-99").mkdir()
    (root / "notes.txt").write_text("not a day")
    (inside[0].parent / ".part-9.parquet").write_text("still being written")
    assert log_parts(tmp_path, "toy", "production", WEEK) == inside
    assert log_parts(tmp_path, "toy", "staging", WEEK) == []


# ---------------------------------------------------------------- the look


def test_rows_outside_the_window_are_left_out(tmp_path: Path, reference: Reference) -> None:
    log(tmp_path, NOW - timedelta(minutes=30), 100)
    log(tmp_path, NOW, 70)
    log(tmp_path, WEEK.since - timedelta(minutes=1), 50)
    assert look(tmp_path, reference).rows == 100


def test_inputs_are_of_all_versions_and_predictions_of_the_live_one(tmp_path: Path, reference: Reference) -> None:
    log(tmp_path, NOW - timedelta(hours=3), 600, number=2)
    log(tmp_path, NOW - timedelta(hours=2), 700, number=3)
    found = look(tmp_path, reference)
    assert found.versions == {2: 600, 3: 700}
    assert found.profile.columns["distance"].count == 1300
    assert found.profile.columns["prediction"].count == 700


def test_only_watched_features_and_predictions_are_profiled(tmp_path: Path, reference: Reference) -> None:
    log(tmp_path, NOW - timedelta(hours=3), 600, extra=", 1 AS late, 'x' AS email, 2.0 AS brand_new")
    assert set(look(tmp_path, reference).profile.columns) == {"distance", "carrier", "prediction"}


def test_a_column_that_the_log_lacks_is_named(tmp_path: Path, reference: Reference) -> None:
    without(log(tmp_path, NOW - timedelta(hours=3), 600), "carrier")
    found = verdict(tmp_path, reference)
    assert found.look.absent == ("carrier",)
    assert "distance" in {d.column for d in found.drifts}


def test_a_column_that_some_parts_lack_is_of_the_others_alone(tmp_path: Path, reference: Reference) -> None:
    """An older version of the model that did not read it is no reason to call it missing."""
    log(tmp_path, NOW - timedelta(hours=3), 600)
    part = log(tmp_path, NOW - timedelta(hours=2), 600)
    without(part, "carrier")
    without(log(tmp_path, NOW - timedelta(hours=3), 300), "carrier")
    found = verdict(tmp_path, reference)
    assert (found.look.rows, found.look.absent) == (1500, ())
    carrier = found.look.profile.columns["carrier"]
    assert (carrier.count, carrier.nulls) == (600, 0)
    assert found.outcome == PASS


def test_the_field_of_a_nested_column_is_not_the_column(tmp_path: Path, reference: Reference) -> None:
    part = log(tmp_path, NOW - timedelta(hours=3), 600)
    without(part, "carrier", ", {'carrier': 'UA', 'deeper': {'list': [1, 2]}} AS trip, [1] AS duckdb_schema")
    found = look(tmp_path, reference)
    assert found.absent == ("carrier",)
    assert set(found.profile.columns) == {"distance", "prediction"}


def test_a_file_that_is_no_part_of_the_log_is_named(tmp_path: Path, reference: Reference) -> None:
    good = log(tmp_path, NOW - timedelta(hours=3), 600)
    for name, columns in (
        ("no-ts", "1 AS version"),
        ("no-version", "now()::TIMESTAMP AS ts"),
        ("odd", "1 AS ts, 2 AS version"),
    ):
        duckdb.connect().execute(f"COPY (SELECT {columns}, 1.5 AS distance) TO '{good.parent / name}.parquet'")
    found = look(tmp_path, reference)
    assert found.rows == 600
    names = ["no-ts.parquet", "no-version.parquet", "odd.parquet"]
    assert sorted(found.unreadable) == [f"date=2013-04-08/hour=09/{name}" for name in names]


@pytest.mark.parametrize("values", ["[i]", "{'a': i}", "'text'", "TRUE", "NULL", "'ab'::BLOB", "NULL::STRUCT(a INT)"])
def test_a_column_that_changed_its_type_is_no_crash(tmp_path: Path, reference: Reference, values: str) -> None:
    part = log(tmp_path, NOW - timedelta(hours=3), 600)
    without(part, "distance, carrier", f", {values} AS distance, {values} AS carrier")
    found = verdict(tmp_path, reference)
    assert found.look.rows == 600
    assert {d.column for d in found.drifts} == {"distance", "carrier", "prediction"}


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1" + b"\0" * 64 + b"PAR1"])
def test_a_broken_part_is_left_out_and_named(tmp_path: Path, reference: Reference, content: bytes) -> None:
    good = log(tmp_path, NOW - timedelta(hours=3), 600)
    (good.parent / "part-broken.parquet").write_bytes(content)
    found = verdict(tmp_path, reference)
    assert found.look.unreadable == ("date=2013-04-08/hour=09/part-broken.parquet",)
    assert found.look.rows == 600
    good.unlink()
    assert verdict(tmp_path, reference).outcome == INSUFFICIENT


# ---------------------------------------------------------------- the verdict


def test_traffic_like_training_is_no_alarm(tmp_path: Path, reference: Reference) -> None:
    for hours in range(1, 13):
        log(tmp_path, NOW - timedelta(hours=hours), 200)
    found = verdict(tmp_path, reference)
    assert found.outcome == PASS
    assert found.sentence == "toy v3 in production: no drift in 2,400 rows"


def test_a_shift_is_an_alarm_once_a_second_window_shows_it(tmp_path: Path, reference: Reference) -> None:
    log(tmp_path, WEEK_BEFORE, 2000)
    log(tmp_path, NOW - timedelta(hours=1), 2000, shift=6)
    first = verdict(tmp_path, reference)
    assert first.outcome == PASS
    assert first.sentence == "toy v3 in production: no alarm; distance looked different for the first time (2,000 rows)"
    log(tmp_path, WEEK_BEFORE - timedelta(hours=1), 9000, shift=6)
    found = verdict(tmp_path, reference)
    assert found.outcome == ALARM
    assert found.sentence == "toy v3 in production: distance drifted (2,000 rows)"
    assert found.as_dict()["columns"][0]["column"] == "distance"
    assert found.as_dict()["columns"][0]["decision"] == "drifted"
    at_once = spec(drift={"persistence": 1})
    assert verdict(tmp_path / "x", reference, at_once).outcome == INSUFFICIENT
    log(tmp_path / "x", NOW - timedelta(hours=1), 2000, shift=6)
    assert verdict(tmp_path / "x", reference, at_once).outcome == ALARM


def test_an_empty_or_thin_log_is_insufficient(tmp_path: Path, reference: Reference) -> None:
    nothing = verdict(tmp_path, reference)
    assert (nothing.outcome, nothing.drifts) == (INSUFFICIENT, ())
    log(tmp_path, NOW - timedelta(hours=1), 100, shift=100)
    thin = verdict(tmp_path, reference)
    assert thin.outcome == INSUFFICIENT
    assert "100 rows came in, 500 are needed" in thin.sentence


def test_drifted_predictions_of_steady_inputs_are_an_alarm(tmp_path: Path, reference: Reference) -> None:
    moved = reference.with_predictions(profile_values(np.random.default_rng(1).uniform(0, 0.2, 3000)))
    log(tmp_path, NOW - timedelta(hours=1), 2000)
    log(tmp_path, WEEK_BEFORE, 2000)
    found = verdict(tmp_path, moved)
    assert found.sentence == "toy v3 in production: the predictions drifted (2,000 rows)"


@pytest.mark.parametrize(
    ("schedule", "rate", "expected"),
    [
        ("daily", "1 per month", 1 / 30.4375),
        ("hourly", "1 per month", 1 / 30.4375 / 24),
        ("weekly", "1 per month", 0.05),
        ("daily", "1 per year", 1 / 365.25),
    ],
)
def test_the_risk_of_a_look_follows_from_the_accepted_false_alarms(schedule: str, rate: str, expected: float) -> None:
    assert risk_of_a_look(spec(schedule=schedule, drift={"false_alarms": rate}).monitor) == pytest.approx(expected)


def test_names_in_a_sentence() -> None:
    assert names_of([]) == ""
    assert names_of(["a"]) == "a"
    assert names_of(["a", "b", "c"]) == "a, b and c"
    assert names_of(list("abcdef")) == "a, b, c, d and 2 more"


def test_the_profile_of_the_log_is_that_of_a_file_with_the_same_rows(tmp_path: Path, reference: Reference) -> None:
    part = log(tmp_path, NOW - timedelta(hours=1), 1500)
    features = {n: spec().data.columns[n] for n in ("distance", "carrier")}
    alone = profile_file(part, features, like=reference.profile)
    assert alone.columns["distance"] == look(tmp_path, reference).profile.columns["distance"]


def test_a_column_called_like_a_folder_of_the_log_keeps_its_own_values(tmp_path: Path) -> None:
    """The log's folders are named date=… and hour=…; a model may have a feature of that name."""
    hours = "7 + i % 3 AS hour"
    base = spec()
    columns = {**base.data.columns, "hour": Column(type="int")}
    model = base.model_copy(update={"data": base.data.model_copy(update={"columns": columns})})
    reference = trained_on(tmp_path, model, f"{hours}, {INPUTS}")
    log(tmp_path, NOW - timedelta(hours=1), 1500, extra=f", {hours}")
    found = verdict(tmp_path, reference, model)
    assert found.outcome != ALARM, found
    assert {d.column: d.psi for d in found.drifts}["hour"] < 0.01
