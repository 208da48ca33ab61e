"""What ``gateway.json`` says: which requests go to which versions, and how they are logged.

Format 2 has ``routes``. Format 1, with ``arms``, ``log``, ``model`` and ``stage`` at the top, is one route that matches
everything. The file is written by a program, so what is wrong in it is a KeyError, TypeError or ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

STABLE, SHADOW = "stable", "shadow"
TIMEOUT = 30.0  # seconds for an answer, where the route does not say
# Columns of the prediction log that no input column may take the name of.
OWN_COLUMNS = ("ts", "request_id", "version", "arm", "latency_ms", "prediction")


@dataclass(frozen=True)
class LogPlan:
    """Where the log is, which input columns it keeps (with their types of model.yaml), and which share of requests."""

    root: Path
    model: str
    stage: str
    columns: Mapping[str, str]
    sample: float = 1.0

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], model: str, stage: str) -> LogPlan | None:
        """None where nothing is to be logged."""
        if not raw.get("root"):
            return None
        columns = {str(k): str(v) for k, v in raw.get("columns", {}).items() if k not in OWN_COLUMNS}
        sample = float(raw.get("sample", 1.0))
        if not 0 <= sample <= 1:
            msg = f"a sample is a share from 0 to 1, not {sample}"
            raise ValueError(msg)
        return cls(Path(raw["root"]), model, stage, columns, sample)


@dataclass(frozen=True)
class ArmPlan:
    """One version and its share. ``weight`` of a shadow is the per cent of requests that are mirrored to it."""

    version: int
    arm: str
    weight: float
    url: str
    digest: str = ""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ArmPlan:
        made = cls(
            int(raw["version"]), str(raw["arm"]), float(raw["weight"]), str(raw["url"]), str(raw.get("digest") or "")
        )
        parts = urlsplit(made.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            msg = f"{made.url!r} is no address of a server"
            raise ValueError(msg)
        if not 0 <= made.weight <= 1_000_000:
            msg = f"the weight {made.weight} of version {made.version} is negative or no number"
            raise ValueError(msg)
        return made


@dataclass(frozen=True)
class Match:
    """Which requests a route is for; what is empty matches all. ``fields`` looks at the first row of the body."""

    path: str = ""
    host: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    fields: tuple[tuple[str, frozenset[str]], ...] = ()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Match:
        path = str(raw.get("path") or "").rstrip("/")
        if path and not path.startswith("/"):
            msg = f"the path {path!r} must begin with /"
            raise ValueError(msg)
        headers = {str(k).lower().encode(): str(v).encode() for k, v in (raw.get("headers") or {}).items()}
        fields = {str(k): frozenset(map(text_of, v)) for k, v in (raw.get("fields") or {}).items()}
        return cls(path, str(raw.get("host") or "").lower(), tuple(headers.items()), tuple(fields.items()))


@dataclass(frozen=True)
class RoutePlan:
    """One model in one stage."""

    model: str
    stage: str
    arms: tuple[ArmPlan, ...]
    match: Match = field(default_factory=Match)
    sticky: str = ""
    salt: str = ""
    timeout: float = TIMEOUT
    log: LogPlan | None = None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> RoutePlan:
        model, stage = str(raw.get("model") or ""), str(raw.get("stage") or "")
        arms = tuple(ArmPlan.from_json(a) for a in raw["arms"])
        timeout = float(raw.get("timeout") or TIMEOUT)
        if not 0 < timeout <= 3600:
            msg = f"a timeout of {timeout} s is none"
            raise ValueError(msg)
        return cls(
            model,
            stage,
            # In this order arms are cut off the hash of a sticky key: a canary that grows keeps whom it had.
            tuple(sorted(arms, key=lambda a: (a.arm == STABLE, a.arm, a.version))),
            Match.from_json(raw.get("match") or {}),
            str(raw.get("sticky") or ""),
            str(raw.get("salt") or f"{model}/{stage}"),
            timeout,
            LogPlan.from_json(raw.get("log") or {}, model, stage),
        )


@dataclass(frozen=True)
class Plan:
    """All routes; the first that matches a request gets it."""

    generation: int = 0
    routes: tuple[RoutePlan, ...] = ()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Plan:
        """Read either format; raises KeyError, TypeError or ValueError."""
        generation = int(raw.get("generation") or 0)
        if "routes" in raw:
            return cls(generation, tuple(RoutePlan.from_json(r) for r in raw["routes"]))
        return cls(generation, (RoutePlan.from_json(raw),))


def text_of(value: Any) -> str:
    """A value of a request as the text that rules and sticky keys go by: 7, 7.0 and "7" are one user."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
