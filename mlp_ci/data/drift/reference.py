"""What a version's live data is compared with: the file ``profile.json`` of its run, and how it is made."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlp_ci.data.drift.calibration import Calibration, Series
from mlp_ci.data.drift.null_windows import cut, window_counts
from mlp_ci.data.engines.duck import open_file
from mlp_ci.data.engines.duck_load import load
from mlp_ci.data.engines.duck_sql import ROW, literal, quoted
from mlp_ci.data.plan import types_wanted
from mlp_ci.data.profiles.groups import groups_of
from mlp_ci.data.profiles.outcomes import Outcomes
from mlp_ci.data.profiles.profile import PREDICTION, Profile, require_format
from mlp_ci.data.profiles.profiling import profile_file, profile_rows
from mlp_ci.data.profiles.shapes import CategoryProfile, finite_number
from mlp_ci.data.sources import Source
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from mlp_ci.data.profiles.shapes import ColumnProfile
    from mlp_ci.spec.data import Data

# Segments are watched one by one while each has a fair share of the rows; a report with more would not be read.
MOST_SEGMENTS = 12
SMALLEST_SEGMENT = 0.01


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Everything that a version's live data is compared with; never a row.

    ``segments`` are profiles of the rows with one value of a segment column, named ``column=value``. ``importance`` is
    the share of the model's behaviour that rests on each feature (empty where unknown), ``outcomes`` the held-out
    labels by prediction (None where the model gives no probabilities).
    """

    profile: Profile
    segments: Mapping[str, Profile] = field(default_factory=dict)
    calibration: Calibration | None = None
    importance: Mapping[str, float] = field(default_factory=dict)
    outcomes: Outcomes | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` reads them back."""
        return {
            **self.profile.to_json(),
            "segments": {name: profile.to_json() for name, profile in self.segments.items()},
            "calibration": self.calibration.to_json() if self.calibration else None,
            "importance": dict(self.importance),
            "outcomes": self.outcomes.to_json() if self.outcomes else None,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Reference:
        """Read what :meth:`to_json` wrote; raises InputError for anything else."""
        require_format(value)
        profile = Profile.from_json(value)
        try:
            _require_known(profile, value.get("segments", {}))
            calibration, outcomes = value.get("calibration"), value.get("outcomes")
            return Reference(
                profile=profile,
                segments={str(name): Profile.from_json(p) for name, p in value.get("segments", {}).items()},
                calibration=Calibration.from_json(calibration) if calibration is not None else None,
                importance={str(k): finite_number(v) for k, v in value.get("importance", {}).items()},
                outcomes=Outcomes.from_json(outcomes) if outcomes is not None else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"the profile is damaged: {error!r}"
            raise InputError(msg, fix="register the version again") from error

    def digest(self) -> str:
        """SHA-256 of what profiles of live data depend on: the bins, and the segments."""
        import hashlib

        shapes = {"columns": self.profile.to_json()["columns"], "segments": sorted(self.segments)}
        return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()

    def with_predictions(self, column: ColumnProfile, windows: Sequence[Sequence[int]] | None = None) -> Reference:
        """A copy that also holds the profile of predictions, and how much they vary between parts of the held-out data.

        ``windows``: counts of the predictions' groups (:func:`groups_of`) in those parts.
        """
        profile = self.profile.with_column(PREDICTION, column)
        if not windows:
            return replace(self, profile=profile)
        known = self.calibration or Calibration(seconds=None, columns={})
        series = Series(groups=groups_of(column), counts=tuple(tuple(row) for row in windows), run=len(windows))
        calibration = replace(known, columns={**known.columns, PREDICTION: series})
        return replace(self, profile=profile, calibration=calibration)


def reference_of(files: Sequence[Path], data: Data, window: timedelta, segments: Iterable[str] = ()) -> Reference:
    """The reference of a version from the files that it was trained and judged on; predictions are added later.

    Raises InputError for a file that cannot be read or lacks a watched column.
    """
    features = {name: data.columns[name] for name in data.features}
    whole: Profile | None = None
    for file in files:
        found = profile_file(file, features, like=whole)
        whole = whole.merge(found) if whole else found
    assert whole is not None
    groups = {name: groups_of(column) for name, column in whole.columns.items()}
    chosen = _segment_values(whole, segments)
    with open_file(files[0], files[0].name, types_wanted(data)) as opened:
        source = _together(opened.connection, files[1:], data, list(whole.columns))
        windows = cut(opened.connection, source, data.time, window)
        counts = window_counts(opened.connection, source, windows, groups)
        parts = segment_profiles(opened.connection, source, chosen, whole)
    series = {name: Series(groups=groups[name], counts=tuple(c), run=windows.run) for name, c in counts.items()}
    calibration = Calibration(seconds=windows.seconds, columns=series)
    return Reference(profile=whole, segments=parts, calibration=calibration)


def _require_known(profile: Profile, segments: Mapping[str, Any]) -> None:
    """Raise ValueError for a segment with a column that the whole does not have."""
    for name, part in segments.items():
        if unknown := part["columns"].keys() - profile.columns.keys():
            msg = f"the segment {name[:60]} has columns of its own: {', '.join(sorted(unknown))[:60]}"
            raise ValueError(msg)


def _together(connection: Any, more: Sequence[Path], data: Data, columns: Sequence[str]) -> str:
    """A view of the rows of ``data`` and of more files below each other: a window has the rows of all of them."""
    wanted = ", ".join(quoted(name) for name in [*columns, *([data.time] if data.time else [])])
    parts = [f"SELECT {wanted}, {quoted(ROW)} FROM data"]
    for i, file in enumerate(more):
        load(connection, Source.parse(file, types=types_wanted(data)), f"more {i}")
        rows = " + ".join(f"(SELECT count(*) FROM {quoted(n)})" for n in ["data", *(f"more {k}" for k in range(i))])
        parts.append(f"SELECT {wanted}, {quoted(ROW)} + {rows} AS {quoted(ROW)} FROM {quoted(f'more {i}')}")
    connection.execute(f"CREATE TEMP VIEW every_row AS {' UNION ALL BY NAME '.join(parts)}")
    return "every_row"


def segment_profiles(connection: Any, source: str, segments: Iterable[str], like: Profile) -> dict[str, Profile]:
    """The profile of each segment's rows of a table; ``segments`` as they are named in :class:`Reference`."""
    found = {}
    for segment in segments:
        column, _, value = segment.partition("=")
        kinds = {name: c.kind for name, c in like.columns.items() if name not in (column, PREDICTION)}
        rows = f"(SELECT * FROM {source} WHERE CAST({quoted(column)} AS VARCHAR) = {literal(value)})"
        found[segment] = profile_rows(connection, rows, kinds, like=like)
    return found


def _segment_values(profile: Profile, columns: Iterable[str]) -> list[str]:
    """The frequent values of the segment columns, as ``column=value``."""
    found = []
    for name in columns:
        column = profile.columns.get(name)
        if isinstance(column, CategoryProfile):
            order = sorted(column.counts, key=lambda v, c=column: (-c.counts[v], v))  # type: ignore[misc]
            frequent = [v for v in order if column.counts[v] >= SMALLEST_SEGMENT * column.count]
            found += [f"{name}={value}" for value in frequent[:MOST_SEGMENTS]]
    return found
