"""What MLflow remembers of a run and of a version, as frozen values."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER = re.compile("evaluations/[0-9a-f]{16}")  # a tag is whatever somebody wrote into it


@dataclass(frozen=True, kw_only=True)
class RunFact:
    """What MLflow remembers of one run. Times are aware UTC; ``ended`` is None while it is not finished."""

    run_id: str
    status: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    started: datetime
    ended: datetime | None = None

    @property
    def trained(self) -> bool:
        """Whether a whole model lies in this run."""
        return self.status == "FINISHED" and self.tags.get("mlp.status") == "trained" and bool(self.digest)

    @property
    def digest(self) -> str:
        return self.tags.get("mlp.digest", "")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of a metric, measured at ``moment`` (Unix time in milliseconds)."""

    name: str
    value: float
    moment: int
    step: int


@dataclass(frozen=True, kw_only=True)
class VersionFact:
    """What the registry remembers of one version.

    ``data`` maps the paths of the data to their DVC digests; ``evaluation`` is the folder of the run where the
    evidence that it was registered with lies.
    """

    model: str
    number: int
    run_id: str
    digest: str = ""
    gate: str = ""
    evidence: str = ""
    commit: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    train_key: str = ""
    evaluation: str = ""
    created: datetime

    @property
    def evidence_file(self) -> str:
        """The artefact of the run that is this version's evidence; older versions have it at the top."""
        return f"{self.evaluation}/evidence.json" if _FOLDER.fullmatch(self.evaluation) else "evidence.json"


def instant(milliseconds: int | None) -> datetime:
    return datetime.fromtimestamp((milliseconds or 0) / 1000, tz=UTC)


def run_fact(run: Any) -> RunFact:
    return RunFact(
        run_id=run.info.run_id,
        status=run.info.status,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        started=instant(run.info.start_time),
        ended=instant(run.info.end_time) if run.info.end_time else None,
    )


def version_fact(version: Any) -> VersionFact:
    tags = dict(version.tags or {})
    return VersionFact(
        model=version.name,
        number=int(version.version),
        run_id=version.run_id or "",
        digest=tags.get("mlp.digest", ""),
        gate=tags.get("mlp.gate", ""),
        evidence=tags.get("mlp.evidence", ""),
        commit=tags.get("mlp.commit", ""),
        data=_data(tags.get("mlp.data", "")),
        train_key=tags.get("mlp.train_key", ""),
        evaluation=tags.get("mlp.evaluation", ""),
        created=instant(version.creation_timestamp),
    )


def _data(text: str) -> dict[str, str]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}
