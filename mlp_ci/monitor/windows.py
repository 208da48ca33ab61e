"""Which time one look covers, and which files of the prediction log can hold it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mlp_ci.clock import parse_instant
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})")
_HOUR = re.compile(r"hour=(\d{2})")


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a person asks for: a stage, and perhaps a start and an end as ISO 8601 text."""

    stage: str
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, kw_only=True)
class Span:
    """From ``since`` up to, not including, ``until``; both aware and in UTC."""

    since: datetime
    until: datetime

    def __str__(self) -> str:
        return f"{self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC"


NOW = "now"


def resolve(window: Window, now: datetime, length: timedelta, schedule: str = "") -> Span:
    """The span that is meant, ``length`` long where no start is given.

    Where no end is given it is that of the last full hour, day or week (from Monday) in UTC, as ``schedule`` says:
    however often one looks in a day, it is the same look. ``now`` ends it at this moment. Stateless: the same arguments
    give the same span, so a look can be repeated or caught up on.
    """
    until = _last_full(now, schedule)
    if window.until:
        until = now if window.until == NOW else parse_instant(window.until)
    since = parse_instant(window.since) if window.since else until - length
    if since >= until:
        msg = f"the window starts at {since.isoformat()} and ends at {until.isoformat()}"
        raise InputError(msg, fix="pass a --since that is before --until")
    return Span(since=since, until=until)


def _last_full(now: datetime, schedule: str) -> datetime:
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    ends = {"hourly": hour, "daily": day, "weekly": day - timedelta(days=day.weekday())}
    return ends.get(schedule, now)


def log_parts(log: Path, model: str, stage: str, span: Span) -> list[Path]:
    """The files of the prediction log that can hold rows of the span, in order of time.

    Looks only into the folders of the span's dates and hours, however long the log is. Hidden files are being written,
    and files that a packed one replaces (see :mod:`mlp_ci.monitor.packing`) are about to go.
    """
    return [part for _, folder in hours(log, model, stage, span) for part in parts_of(folder)]


def hours(log: Path, model: str, stage: str, span: Span) -> Iterator[tuple[datetime, Path]]:
    """Begin and folder of every hour of the log that touches the span, in order of time."""
    root = log / model / f"stage={stage}"
    if not root.is_dir():
        return
    for day in sorted(root.iterdir()):
        start = _start(day.name, _DATE, "%Y-%m-%d")
        if start is None or start >= span.until or start + timedelta(days=1) <= span.since:
            continue
        for hour in sorted(day.iterdir()):
            match = _HOUR.fullmatch(hour.name)
            begin = start + timedelta(hours=int(match[1])) if match else None
            if begin is not None and begin < span.until and begin + timedelta(hours=1) > span.since:
                yield begin, hour


def first_hour(log: Path, model: str, stage: str) -> datetime | None:
    """Begin of the log's first hour that has a folder; None for an empty log."""
    root = log / model / f"stage={stage}"
    for day in sorted(root.iterdir()) if root.is_dir() else ():
        start = _start(day.name, _DATE, "%Y-%m-%d")
        begins = sorted(int(m[1]) for h in day.iterdir() if (m := _HOUR.fullmatch(h.name))) if start else []
        if start and begins:
            return start + timedelta(hours=begins[0])
    return None


def parts_of(hour: Path) -> list[Path]:
    """The files of one hour that count."""
    parts = sorted(p for p in hour.glob("*.parquet") if not p.name.startswith("."))
    replaced = {name for part in parts for name in replaced_by(part)}
    return [p for p in parts if p.name not in replaced]


def replaces_file(packed: Path) -> Path:
    """Where it is written which files a packed one replaces, until they are gone."""
    return packed.with_name(f".{packed.stem}.replaces.json")


def replaced_by(part: Path) -> list[str]:
    """Names of the files that ``part`` replaces and that may still be there."""
    try:
        return [str(name) for name in json.loads(replaces_file(part).read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []


def _start(name: str, pattern: re.Pattern[str], form: str) -> datetime | None:
    match = pattern.fullmatch(name)
    try:
        return datetime.strptime(match[1], form).replace(tzinfo=UTC) if match else None
    except ValueError:
        return None
