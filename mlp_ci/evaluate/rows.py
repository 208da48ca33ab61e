"""The held-out rows: what goes into the model, and the targets that predictions are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import BINARY, MULTICLASS, REGRESSION, Array

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlp_ci.spec import Column, ModelSpec

MOST_CLASSES = 20  # whole numbers with more different values are a quantity, not classes


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The held-out data. ``target`` holds class indices into ``classes`` (binary: 1 is positive) or numbers;
    ``slices`` the columns that gates slice by, as text."""

    frame: Any
    task: str
    target: Array
    classes: tuple[str, ...]
    slices: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.target)


def read_held_out(file: Path, spec: ModelSpec) -> HeldOut:
    """Read the test file of model.yaml. InputError for a missing target, missing labels or a single class."""
    frame = read_frame(file, spec.data.columns)
    target = spec.data.target
    if target not in frame.columns:
        msg = f"{spec.data.test} has no column {target!r}, the target"
        raise InputError(msg, fix=f"its columns are {', '.join(map(str, frame.columns))}", file="model.yaml")
    if not len(frame):
        msg = f"{spec.data.test} has no rows"
        raise InputError(msg, why="no gate can be judged", fix="write held-out rows, then `dvc add` and `dvc push`")
    missing = int(frame[target].isna().sum())
    if missing:
        msg = f"{missing} of {len(frame)} rows of {spec.data.test} have no {target}"
        raise InputError(msg, why="a row without its label judges nothing", fix="leave them out of the held-out data")
    task: str = spec.evaluate.task
    if task == "auto":
        task = _task_of(frame[target], spec.data.columns.get(target))
    values, classes = _encode(frame[target], task, spec)
    return HeldOut(frame=frame, task=task, target=values, classes=classes, slices=_slices(frame, spec))


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


def _task_of(target: Any, column: Column | None) -> str:
    distinct = target.nunique()
    kind = target.dtype.kind
    whole = kind in "iub" or (kind == "f" and bool((target == target.round()).all()))
    if kind not in "iufb":
        return BINARY if distinct <= 2 else MULTICLASS
    if distinct <= 2 and whole and (column is None or column.type != "float"):
        return BINARY
    if kind in "iu" and distinct <= MOST_CLASSES and (column is None or column.type != "float"):
        return MULTICLASS
    return REGRESSION


def _encode(target: Any, task: str, spec: ModelSpec) -> tuple[Array, tuple[str, ...]]:
    if task == REGRESSION:
        if target.dtype.kind not in "iufb":
            msg = f"the target {spec.data.target} holds text, so evaluate.task cannot be regression"
            raise InputError(msg, fix="set `evaluate: {task: multiclass}`", file="model.yaml")
        return target.to_numpy(dtype=float), ()
    values = np.asarray([class_name(v) for v in target.tolist()])
    classes = sorted(set(values.tolist()), key=_in_order)
    if len(classes) < 2:
        msg = f"every row of {spec.data.test} has {spec.data.target} = {classes[0]}"
        raise InputError(msg, why="with one class only, no metric tells good from bad", fix="hold out rows of both")
    if task == BINARY and len(classes) > 2:
        msg = f"evaluate.task is binary, and {spec.data.target} has {len(classes)} values"
        raise InputError(msg, fix="set `evaluate: {task: multiclass}`", file="model.yaml")
    index = {name: i for i, name in enumerate(classes)}
    return np.asarray([index[v] for v in values.tolist()]), tuple(classes)


def class_name(value: Any) -> str:
    """One name for one class, however it is written: 1, 1.0 and True are the same."""
    text = str(value)
    known = {"True": "1", "true": "1", "False": "0", "false": "0"}
    if text in known:
        return known[text]
    return text.removesuffix(".0") if text.removesuffix(".0").lstrip("-").isdigit() else text


def _in_order(name: str) -> tuple[int, float, str]:
    return (0, float(name), "") if name.lstrip("-").isdigit() else (1, 0.0, name)


def _slices(frame: Any, spec: ModelSpec) -> dict[str, Array]:
    found = {}
    for name in sorted({g.slice for g in spec.evaluate.gates if g.slice}):
        if name not in frame.columns:
            msg = f"a gate slices by {name!r}, and {spec.data.test} has no such column"
            raise InputError(msg, fix=f"its columns are {', '.join(map(str, frame.columns))}", file="model.yaml")
        found[name] = np.asarray(["" if v is None or v != v else str(v) for v in frame[name].tolist()])  # noqa: PLR0124
    return found
