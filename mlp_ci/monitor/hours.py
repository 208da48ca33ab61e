"""The profiles of the log's hours: made once, kept beside the rows, and added up to windows of any length.

An hour is kept under the version and the reference that it was profiled for, with the names and sizes of the files that
it was made from: files that came later are profiled and added, files that packing replaced are known to be the same.
What is kept is derived: without it the next look is slower, and the same.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.data.profiles.compact import compact, expand
from mlp_ci.data.profiles.profile import Profile
from mlp_ci.data.profiles.shapes import merged, natural
from mlp_ci.monitor.windows import parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FORMAT = "mlp-ci/hour/v1"
PREFIX = ".profile-"


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What some rows of the log say. A column that the rows' files do not have is in no profile.

    ``profile`` covers the inputs of all rows, and the predictions of one version; ``versions`` is how many rows each
    version answered; ``unreadable`` are files that were left out.
    """

    rows: int = 0
    versions: Mapping[int, int] = field(default_factory=dict)
    profile: Profile = field(default_factory=lambda: Profile(rows=0, columns={}))
    segments: Mapping[str, Profile] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()


def add_up(slices: Sequence[Slice]) -> Slice:
    """All rows of the slices together."""
    versions: dict[int, int] = {}
    for part in slices:
        for version, rows in part.versions.items():
            versions[version] = versions.get(version, 0) + rows
    names = {name: None for part in slices for name in part.segments}
    return Slice(
        rows=sum(part.rows for part in slices),
        versions=dict(sorted(versions.items())),
        profile=_profiles([part.profile for part in slices]),
        segments={name: _profiles([p.segments[name] for p in slices if name in p.segments]) for name in names},
        unreadable=tuple(name for part in slices for name in part.unreadable),
    )


def _profiles(profiles: Sequence[Profile]) -> Profile:
    """Column by column: what one profile lacks, the others may have."""
    names = {name: None for profile in profiles for name in profile.columns}
    columns = {name: merged(name, *(p.columns[name] for p in profiles if name in p.columns)) for name in names}
    return Profile(rows=sum(p.rows for p in profiles), columns=columns)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A slice that was kept, and the files (name → bytes) that it was made from."""

    parts: Mapping[str, int]
    slice: Slice


class HourStore:
    """The kept profiles for one version and the reference whose digest is given."""

    def __init__(self, version: int, reference: Profile, digest: str) -> None:
        self.reference = reference
        self.name = f"{PREFIX}v{version}-{digest[:16]}.json"

    def load(self, hour: Path) -> Kept | None:
        """What is kept of an hour; None where nothing is, or what is there cannot be used."""
        try:
            value = json.loads((hour / self.name).read_text(encoding="utf-8"))
            if value["format"] != FORMAT:
                return None
            parts = {str(name): natural(size) for name, size in value["parts"].items()}
            return Kept(parts=parts, slice=self._slice(value))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return None  # made anew

    def save(self, hour: Path, kept: Kept) -> None:
        """Keep it; where the log may only be read, the next look makes it again."""
        value = {
            "format": FORMAT,
            "parts": dict(kept.parts),
            "rows": kept.slice.rows,
            "versions": {str(v): n for v, n in kept.slice.versions.items()},
            "profile": compact(kept.slice.profile),
            "segments": {name: compact(p) for name, p in kept.slice.segments.items()},
        }
        write_beside(hour / self.name, value)

    def _slice(self, value: Mapping[str, Any]) -> Slice:
        return Slice(
            rows=natural(value["rows"]),
            versions={int(v): natural(n) for v, n in value["versions"].items()},
            profile=expand(value["profile"], self.reference),
            segments={str(name): expand(p, self.reference) for name, p in value["segments"].items()},
        )


def sizes_of(hour: Path) -> dict[Path, int]:
    """The files of one hour that count, with their bytes. A file that goes meanwhile was replaced: look once more."""
    for _ in range(3):
        with suppress(FileNotFoundError):
            return {part: part.stat().st_size for part in parts_of(hour)}
    return {}


def repoint(hour: Path, replaced: Sequence[str], by: Path) -> None:
    """After packing: profiles that were made from the replaced files are those of the packed one."""
    for file in hour.glob(f"{PREFIX}*.json"):
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            if set(value["parts"]) == set(replaced):
                write_beside(file, {**value, "parts": {by.name: by.stat().st_size}})
        except (OSError, ValueError, KeyError, TypeError):
            continue  # made anew by the next look


def write_beside(file: Path, value: Mapping[str, Any]) -> None:
    """Write JSON in one moment; nothing where the folder cannot be written to."""
    scratch = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        scratch.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")
        scratch.replace(file)
    except OSError:
        with suppress(OSError):  # a file system that may only be read refuses even this
            scratch.unlink()
