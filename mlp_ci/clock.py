"""The clock: real time, unless ``MLP_CLOCK_FILE`` names a file that holds an ISO 8601 instant.

The sandbox moves that file forward so that months pass in minutes; nothing else ever fakes time.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from mlp_ci.errors import InputError

ENV = "MLP_CLOCK_FILE"


def now() -> datetime:
    """The current instant, aware and in UTC."""
    file = os.environ.get(ENV)
    if not file:
        return datetime.now(UTC)
    return parse_instant(Path(file).read_text(encoding="utf-8").strip())


def parse_instant(text: str) -> datetime:
    """Parse an ISO 8601 date or instant; without a zone it is UTC."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"{text!r} is not a date or an instant"
        raise InputError(msg, fix="write it as 2026-01-31 or 2026-01-31T08:00:00Z") from error
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def set_instant(file: Path, instant: datetime) -> None:
    """Move the clock in ``file``; readers see the old or the new instant, never half of one."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    scratch.write_text(instant.astimezone(UTC).isoformat(), encoding="utf-8")
    scratch.replace(file)
