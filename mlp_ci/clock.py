"""The clock: real time, unless ``MLP_CLOCK_FILE`` names a file that holds an ISO 8601 instant.

An instant alone stands still. ``<instant> @ <seconds since the epoch>`` goes on from that instant as real time does
from those seconds: so it is in the sandbox, which moves it forward to let months pass in minutes. Nothing else ever
fakes time.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlp_ci.errors import InputError

ENV = "MLP_CLOCK_FILE"


def now() -> datetime:
    """The current instant, aware and in UTC."""
    file = os.environ.get(ENV)
    if not file:
        return datetime.now(UTC)
    try:
        return instant_of(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"the clock file {file}, which {ENV} names, cannot be used: {error}"
        fix = f"unset {ENV} for the real time, or write an instant such as 2026-01-31T08:00:00Z into the file"
        raise InputError(msg, fix=fix) from error


def instant_of(text: str) -> datetime:
    """What time it is by the text of a clock file."""
    instant, _, began = text.strip().partition(" @ ")
    passed = max(0.0, time.time() - float(began)) if began else 0.0
    return parse_instant(instant) + timedelta(seconds=passed)


def parse_instant(text: str) -> datetime:
    """Parse an ISO 8601 date or instant; without a zone it is UTC."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"{text!r} is not a date or an instant"
        raise InputError(msg, fix="write it as 2026-01-31 or 2026-01-31T08:00:00Z") from error
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def set_instant(file: Path, instant: datetime) -> None:
    """Move the clock in ``file``, from where it goes on with real time; readers never see half of an instant."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    began = time.time_ns() // 1_000_000 / 1000  # rounded down, so that no time passes backwards
    scratch.write_text(f"{instant.astimezone(UTC).isoformat()} @ {began:.3f}", encoding="utf-8")
    scratch.replace(file)
