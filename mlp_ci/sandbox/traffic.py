"""The world outside the demo: people who ask the live model about real flights, day after day.

Moves the sandbox's clock through the days that it sends, so that a month of traffic takes seconds.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import cycle
from typing import TYPE_CHECKING, Any

from mlp_ci import clock
from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlp_ci.sandbox.home import Home


PEOPLE = 2
PAUSE = 0.001  # seconds that a person takes between an answer and the next question


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What a stretch of traffic was: rows asked about, and how many answers each version gave."""

    rows: int
    versions: dict[str, int]


def send_flights(home: Home, repo: Path, address: str, since: datetime, until: datetime, *, every: int = 10) -> Sent:
    """Ask the model at ``address`` about real flights from ``since`` to before ``until``, one in ``every``.

    ``repo`` is a work tree of the flights example, whose ``data/refresh.py`` knows where flights come from.
    """
    import httpx

    rows, versions = 0, dict[str, int]()
    with httpx.Client(timeout=30) as client:
        for instant, columns, records in _days(_source(repo), since, until, every):
            clock.set_instant(home.clock_file, instant)
            body = {"dataframe_split": {"columns": columns, "data": records}}
            answer = client.post(
                f"{address}/invocations", content=json.dumps(body), headers={"Content-Type": "application/json"}
            )
            if answer.is_error:
                msg = f"the model at {address} answered {answer.status_code}: {answer.text[:300]}"
                raise OutsideError(msg, fix="look at the logs below serve/ in the sandbox's folder")
            version = answer.headers.get("x-model-version", "?")
            versions[version] = versions.get(version, 0) + len(records)
            rows += len(records)
    clock.set_instant(home.clock_file, until)
    return Sent(rows=rows, versions=versions)


@dataclass
class Asked:
    """What came back while people asked: answers by version, and requests without a good answer."""

    versions: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    @property
    def answered(self) -> int:
        return self.versions.total()


@contextmanager
def asking(repo: Path, address: str, since: datetime, until: datetime) -> Iterator[Asked]:
    """People who ask about single flights of these days, without pause, while the block runs. The clock stays."""
    rows = [
        json.dumps({"dataframe_split": {"columns": columns, "data": [record]}}).encode()
        for _, columns, records in _days(_source(repo), since, until, every=10)
        for record in records
    ]
    asked, over = Asked(), threading.Event()
    people = [threading.Thread(target=_ask, args=(address, rows[n::PEOPLE], asked, over)) for n in range(PEOPLE)]
    for person in people:
        person.start()
    try:
        yield asked
    finally:
        over.set()
        for person in people:
            person.join()


def _ask(address: str, rows: list[bytes], asked: Asked, over: threading.Event) -> None:
    import httpx

    with httpx.Client(timeout=30, headers={"Content-Type": "application/json"}) as client:
        for row in cycle(rows):
            if over.wait(PAUSE):
                return
            try:
                answer = client.post(f"{address}/invocations", content=row)
            except httpx.HTTPError:
                asked.failed += 1
                continue
            if answer.is_error:
                asked.failed += 1
            else:
                asked.versions[answer.headers.get("x-model-version", "?")] += 1


def _source(repo: Path) -> Any:
    file = repo / "data" / "refresh.py"
    spec = importlib.util.spec_from_file_location("flights_example", file)
    if spec is None or spec.loader is None or not file.is_file():
        msg = f"{file} is not there: {repo} is not a work tree of the flights example"
        raise InputError(msg, fix="make one with `mlp-ci init FOLDER --example flights`")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _days(
    source: Any, since: datetime, until: datetime, every: int
) -> Iterator[tuple[datetime, list[str], list[list[Any]]]]:
    # Drawn, not every n-th: the schedule repeats itself, and a beat with it would look like drift.
    drawn = source.flights(since, until).sample(frac=1 / every, random_state=17).sort_index()
    flights = drawn.drop(columns=["delayed"])
    flights = flights.assign(scheduled_at=flights["scheduled_at"].astype(str))
    day = since
    while day < until:
        following = min(day + timedelta(days=1), until)
        bounds = [instant.replace(tzinfo=None).isoformat(sep=" ") for instant in (day, following)]
        chosen = flights[(flights["scheduled_at"] >= bounds[0]) & (flights["scheduled_at"] < bounds[1])]
        if len(chosen):
            # Through JSON, so that missing weather becomes null and numbers become plain ones.
            split = json.loads(chosen.to_json(orient="split", index=False))
            yield day + (following - day) / 2, split["columns"], split["data"]
        day = following
