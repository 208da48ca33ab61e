"""The held-out rows: what goes into the model, what predictions are held against, and how rows belong together."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import FORECASTING, MULTILABEL, RANKING, Array
from mlp_ci.evaluate.targets import class_name, encode, task_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlp_ci.spec import Column, ModelSpec

__all__ = ["HeldOut", "class_name", "read_frame", "read_held_out", "slice_columns"]

MISSING, OTHER = "(missing)", "(other)"
# A column of text with more values is cut to the most frequent ones; numbers with more are cut into so many parts.
MOST_VALUES, MOST_NUMBERS, PARTS = 50, 20, 4


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The held-out data. ``target`` holds class indices into ``classes`` (binary: 1 is positive) or numbers.

    ``groups``: a code of ``evaluate.group`` per row, ``(rows,)``; ``times``: ``data.time`` in seconds since 1970,
    ``(rows,)``; None where there is none. ``slices``: each column of a gate and of ``evaluate.slices`` as text.
    ``scale``: forecasting, see :func:`seasonal_error`.
    """

    frame: Any
    task: str
    target: Array
    classes: tuple[str, ...]
    slices: Mapping[str, Array] = field(default_factory=dict)
    groups: Array | None = None
    times: Array | None = None
    scale: Array | None = None

    def __len__(self) -> int:
        return len(self.target)


def read_held_out(file: Path, spec: ModelSpec) -> HeldOut:
    """Read the test file of model.yaml.

    InputError for a missing column, missing labels, a single class, and for what the task needs and the data lacks.
    """
    frame = read_frame(file, spec.data.columns)
    target = spec.data.target
    _require(frame, target, "the target", spec)
    if not len(frame):
        msg = f"{spec.data.test} has no rows"
        raise InputError(msg, why="no gate can be judged", fix="write held-out rows, then `dvc add` and `dvc push`")
    task = task_of(frame[target].dropna(), spec)
    if task == MULTILABEL and file.suffix != ".parquet":
        frame[target] = frame[target].fillna("")  # an empty cell of a text file is a row without labels
    missing = int(frame[target].isna().sum())
    if missing:
        msg = f"{missing} of {len(frame)} rows of {spec.data.test} have no {target}"
        raise InputError(msg, why="a row without its label judges nothing", fix="leave them out of the held-out data")
    values, classes = encode(frame[target], task, spec)
    groups, times = _groups(frame, task, spec), _times(frame, task, spec)
    return HeldOut(
        frame=frame,
        task=task,
        target=values,
        classes=classes,
        slices=_declared(frame, spec),
        groups=groups,
        times=times,
        scale=seasonal_error(values, groups, times, spec.evaluate.season) if task == FORECASTING else None,
    )


def read_frame(file: Path, columns: Mapping[str, Column]) -> Any:
    """A data file as a DataFrame; times in text formats become times where model.yaml says so."""
    import pandas as pd

    try:
        if file.suffix == ".parquet":
            return pd.read_parquet(file)
        text = pd.read_json(file, lines=True) if ".json" in file.name or ".ndjson" in file.name else pd.read_csv(file)
        for name, column in columns.items():
            if name in text.columns and column.type in ("timestamp", "date"):
                text[name] = pd.to_datetime(text[name])
    except (ValueError, OSError, pd.errors.ParserError) as error:
        msg = f"{file.name} cannot be read: {' '.join(str(error).split())[:300]}"
        raise InputError(msg, fix="`mlp-ci validate` says what is wrong with it") from error
    return text


def _require(frame: Any, column: str, what: str, spec: ModelSpec) -> None:
    if column not in frame.columns:
        msg = f"{spec.data.test} has no column {column!r}, {what}"
        raise InputError(msg, fix=f"its columns are {', '.join(map(str, frame.columns))}", file="model.yaml")


# ---------------------------------------------------------------- how rows belong together


def _groups(frame: Any, task: str, spec: ModelSpec) -> Array | None:
    """Codes of ``evaluate.group``, ``(rows,)``."""
    name = spec.evaluate.group
    if name is None:
        if task == RANKING:
            msg = "a ranking needs evaluate.group: the column that says which rows answer one query"
            raise InputError(msg, fix="add `group: query_id` (its name) to evaluate", file="model.yaml")
        return None
    _require(frame, name, "evaluate.group", spec)
    missing = int(frame[name].isna().sum())
    if missing:
        msg = f"{missing} of {len(frame)} rows of {spec.data.test} have no {name}"
        raise InputError(msg, why="it says which rows belong together", fix="fill it in, or leave the rows out")
    codes = frame[name].astype(str).factorize(sort=True)[0]
    if len(set(codes.tolist())) < 2 and task != FORECASTING:
        msg = f"every row of {spec.data.test} has the same {name}"
        raise InputError(
            msg, why="rows of one group are drawn together, so nothing is known from one", file="model.yaml"
        )
    return np.asarray(codes)


def _times(frame: Any, task: str, spec: ModelSpec) -> Array | None:
    """``data.time`` in seconds since 1970, ``(rows,)``; a time without a zone is UTC."""
    import pandas as pd

    name = spec.data.time
    needed = "evaluate.block" if spec.evaluate.block else "a forecast" if task == FORECASTING else ""
    if name is None or name not in frame.columns:
        if not needed:
            return None
        if name is not None:
            _require(frame, name, "data.time", spec)
        msg = f"{needed} needs data.time: the column with the time of a row"
        raise InputError(msg, fix="add `time: timestamp` (its name) to data", file="model.yaml")
    try:
        numeric = frame[name].dtype.kind in "iuf"
        parsed = pd.to_datetime(frame[name], utc=True, **({"unit": "s"} if numeric else {"format": "mixed"}))
    except (ValueError, TypeError, OverflowError) as error:
        if not needed:
            return None
        msg = f"{name} of {spec.data.test} cannot be read as a time: {' '.join(str(error).split())[:200]}"
        raise InputError(msg, fix="write it as `2026-01-31T12:00:00Z`") from error
    missing = int(parsed.isna().sum())
    if missing and needed:
        msg = f"{missing} of {len(frame)} rows of {spec.data.test} have no {name}"
        raise InputError(msg, why=f"{needed} needs the time of every row", fix="fill it in, or leave the rows out")
    if missing:
        return None
    return np.asarray((parsed - pd.Timestamp("1970-01-01", tz="UTC")).dt.total_seconds(), dtype=float)


def seasonal_error(target: Array, groups: Array | None, times: Array | None, season: int) -> Array:
    """The mean absolute error, in each row's series, of forecasting the value ``season`` rows earlier, ``(rows,)``.

    It is the scale of the mean absolute scaled error (Hyndman & Koehler, 2006), here of the held-out rows themselves:
    the judging machine need not have the training data. NaN for a series that is too short or never changes.
    """
    scale = np.full(len(target), np.nan)
    codes = np.zeros(len(target), dtype=int) if groups is None else groups
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        ordered = rows if times is None else rows[np.argsort(times[rows], kind="stable")]
        moved = np.abs(target[ordered][season:] - target[ordered][:-season])
        if len(moved) and moved.any():
            scale[rows] = moved.mean()
    return scale


# ---------------------------------------------------------------- slices


def _declared(frame: Any, spec: ModelSpec) -> dict[str, Array]:
    """Every column that a gate or ``evaluate.slices`` names, as text. A name that says who somebody is stays hidden."""
    found = {}
    wanted = dict.fromkeys(spec.evaluate.slices, "evaluate.slices names it")
    wanted |= {g.gap: "a gate bounds a gap over it" for g in spec.evaluate.gates if g.gap}
    wanted |= {g.slice: "a gate slices by it" for g in spec.evaluate.gates if g.slice}
    for name, why in sorted(wanted.items()):
        if name not in frame.columns:
            msg = f"{spec.data.test} has no column {name!r}, and {why}"
            raise InputError(msg, fix=f"its columns are {', '.join(map(str, frame.columns))}", file="model.yaml")
        known = spec.data.columns.get(name)
        many = frame[name].dtype.kind == "f" and frame[name].nunique() > MOST_NUMBERS
        text = _parts(frame[name]) if many else _text(frame[name])
        found[name] = _hidden(text, name) if known is not None and known.sensitive else text
    return found


def slice_columns(frame: Any, spec: ModelSpec) -> dict[str, Array]:
    """The columns in whose values a search may look for bad slices, as text, ``(rows,)`` each.

    Those that the model reads and those that model.yaml names for slices; numbers with many values in four parts of
    equal size, text with many values as its most frequent ones. Never key, target, time, group or a sensitive column.
    """
    apart = {*spec.data.key, spec.data.target, spec.data.time, spec.evaluate.group}
    apart |= {name for name, column in spec.data.columns.items() if column.sensitive}
    named = {*spec.data.features, *spec.evaluate.slices, *(g.slice for g in spec.evaluate.gates)}
    named |= {g.gap for g in spec.evaluate.gates}
    found = {}
    for name in map(str, frame.columns):
        if name not in named - apart:
            continue
        column = frame[name]
        if column.dtype.kind in "iuf" and column.nunique() > MOST_NUMBERS:
            found[name] = _parts(column)
        elif column.dtype.kind not in "mM":
            found[name] = _frequent(_text(column))
    return {name: text for name, text in found.items() if 1 < len(np.unique(text)) < len(text)}


def _text(column: Any) -> Array:
    values = column.astype(object).tolist()
    gone = column.isna().tolist()
    return np.asarray([MISSING if none else _shown(v) for v, none in zip(values, gone, strict=True)], dtype=str)


def _shown(value: Any) -> str:
    """A whole number without its ``.0``, which it has only because another row has none."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _parts(column: Any) -> Array:
    """Numbers in four parts of about equal size: ``1.5 to 3``, the last one with its end."""
    values = column.to_numpy(dtype=float, na_value=np.nan)
    finite = values[np.isfinite(values)]
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, PARTS + 1)))
    if len(edges) < 2:
        return _text(column)
    part = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    names = np.asarray([f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges)])
    return np.where(np.isfinite(values), names[part], MISSING)


def _frequent(text: Array) -> Array:
    names, counts = np.unique(text, return_counts=True)
    if len(names) <= MOST_VALUES:
        return text
    kept = names[np.argsort(-counts, kind="stable")[:MOST_VALUES]]
    return np.where(np.isin(text, kept), text, OTHER)


def _hidden(text: Array, column: str) -> Array:
    """``sex 1``, ``sex 2`` …, the most frequent value first."""
    names, inverse, counts = np.unique(text, return_inverse=True, return_counts=True)
    place = np.empty(len(names), dtype=int)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(names))
    return np.asarray([f"{column} {i + 1}" for i in place[inverse]])
