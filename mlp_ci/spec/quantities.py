"""The small value types that the files share: durations, rates, names, paths, digests."""

from __future__ import annotations

import re
import unicodedata
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_RATE = re.compile(r"(\d+(?:\.\d+)?) per (hour|day|week|month|year)")
_RATE_DAYS = {"hour": 1 / 24, "day": 1, "week": 7, "month": 30.4375, "year": 365.25}


class Strict(BaseModel):
    """A part of a file: frozen, no unknown keys, no silent conversions of text into numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def parse_duration(value: Any) -> Any:
    """``90s``, ``2h``, ``1h30m``, ``45d`` → timedelta; raises ValueError for anything else."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    parts = _DURATION.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        msg = "a duration is a number with a unit: 30s, 15m, 2h, 45d, 2w or 1h30m"
        raise ValueError(msg)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > 100 * 366 * 86400:
        msg = "a duration is at most a hundred years"
        raise ValueError(msg)
    return timedelta(seconds=seconds)


def show_duration(value: timedelta) -> str:
    """The shortest way to write a duration: ``1h30m``."""
    seconds = value.total_seconds()
    parts = []
    for unit in ("d", "h", "m"):
        count, seconds = divmod(seconds, _UNITS[unit])
        parts += [f"{count:.0f}{unit}"] if count else []
    if seconds or not parts:
        parts.append(f"{seconds:g}s")
    return "".join(parts)


def parse_rate(value: Any) -> Any:
    """``1 per month`` → events per day."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        msg = "a rate needs a unit of time: `1 per month`"
        raise ValueError(msg)
    match = _RATE.fullmatch(str(value).strip())
    if not match:
        msg = "a rate is written as `1 per month` (hour, day, week, month or year)"
        raise ValueError(msg)
    return float(match[1]) / _RATE_DAYS[match[2]]


def check_relative(value: Any) -> Any:
    """A path inside the repository: relative, forward slashes, no way out."""
    if not isinstance(value, str) or not value.strip():
        msg = "a path inside the repository is needed"
        raise ValueError(msg)
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value:
        msg = "the path must stay inside the repository: relative, with / and without .."
        raise ValueError(msg)
    return value


USD = Annotated[float, Field(ge=0)]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d|w))+$",
            "description": "A duration: 30s, 15m, 2h, 45d, 2w, 1h30m.",
        }
    ),
]
Rate = Annotated[
    float,
    BeforeValidator(parse_rate),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\d+(\.\d+)? per (hour|day|week|month|year)$",
            "description": "How often: `1 per month`. Read as events per day.",
        }
    ),
]
RepoPath = Annotated[str, BeforeValidator(check_relative)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
VersionNumber = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
ApiVersion = Annotated[str, Field(pattern=r"^mlp-ci/v1$")]
JOINERS = "\u200c\u200d"  # part of how some languages, and emoji, are written


def hidden(character: str) -> bool:
    """Whether a reader does not see a character: Unicode's formats, with the overrides of direction."""
    return unicodedata.category(character) == "Cf" and character not in JOINERS


def _visible(value: Any) -> Any:
    return "".join(c for c in value if not hidden(c)) if isinstance(value, str) else value


Visible = Annotated[str, BeforeValidator(_visible)]  # what a person typed on a command line, without what hides
Tier = Literal["low", "standard", "critical"]
TIERS: tuple[Tier, ...] = ("low", "standard", "critical")  # from the least strict
