"""What the held-out targets are: the task, and the targets as the metrics take them.

How a target is written for each task:

- binary, multiclass: a number, a flag or text per row; binary: the larger (or later in the alphabet) is positive
- multilabel: a list of labels per row (Parquet, JSON lines), or text with ``|`` between the labels; an empty list or
  an empty text is a row without labels
- regression, forecasting: a number per row
- ranking: the relevance of the row for its query (``evaluate.group``), a number from 0 (irrelevant) up
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import BINARY, FORECASTING, MULTICLASS, MULTILABEL, RANKING, REGRESSION, Array

if TYPE_CHECKING:
    from mlp_ci.spec import Column, ModelSpec

MOST_CLASSES = 20  # whole numbers with more different values are a quantity, not classes
BETWEEN_LABELS = "|"
NUMBERS = (REGRESSION, FORECASTING, RANKING)


def task_of(target: Any, spec: ModelSpec) -> str:
    """The task that model.yaml names; with ``auto`` what the target looks like. Ranking and forecasting look like
    regression, so they must be named."""
    if spec.evaluate.task != "auto":
        return str(spec.evaluate.task)
    if target.dtype.kind == "O" and target.map(lambda v: isinstance(v, list | tuple | np.ndarray)).any():
        return MULTILABEL
    return _looks_like(target, spec.data.columns.get(spec.data.target))


def _looks_like(target: Any, column: Column | None) -> str:
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


def encode(target: Any, task: str, spec: ModelSpec) -> tuple[Array, tuple[str, ...]]:
    """The targets as :class:`~mlp_ci.evaluate.metrics.Predictions` has them, and the names of the classes.

    InputError where the values do not fit the task, and where there is one class only.
    """
    if task in NUMBERS:
        return _numbers(target, task, spec), ()
    if task == MULTILABEL:
        return _labels(target, spec)
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


def _numbers(target: Any, task: str, spec: ModelSpec) -> Array:
    if target.dtype.kind not in "iufb":
        msg = f"the target {spec.data.target} holds text, so evaluate.task cannot be {task}"
        raise InputError(msg, fix="set `evaluate: {task: multiclass}`", file="model.yaml")
    values: Array = target.to_numpy(dtype=float)
    if not np.isfinite(values).all():
        msg = f"{int((~np.isfinite(values)).sum())} rows of {spec.data.test} have an infinite {spec.data.target}"
        raise InputError(msg, fix="leave them out of the held-out data")
    if task == RANKING and (values < 0).any():
        msg = f"{int((values < 0).sum())} rows of {spec.data.test} have a negative {spec.data.target}"
        raise InputError(msg, why="a relevance is 0 (irrelevant) or more", fix="shift the relevances to start at 0")
    if task == RANKING and not (values > 0).any():
        msg = f"no row of {spec.data.test} has a {spec.data.target} above 0"
        raise InputError(msg, why="where nothing is relevant, no order is better", fix="hold out queries with answers")
    return values


def _labels(target: Any, spec: ModelSpec) -> tuple[Array, tuple[str, ...]]:
    """0 or 1 per row and label, ``(rows, labels)``."""
    if target.dtype.kind in "iufb":
        msg = f"the target {spec.data.target} holds one number per row, so evaluate.task cannot be multilabel"
        fix = f"write a list of labels per row, or text with `{BETWEEN_LABELS}` between them"
        raise InputError(msg, fix=fix, file="model.yaml")
    found = [labels_in(v) for v in target.tolist()]
    classes = sorted({label for labels in found for label in labels}, key=_in_order)
    if not classes:
        msg = f"no row of {spec.data.test} has a label in {spec.data.target}"
        raise InputError(msg, why="with no label at all, no metric tells good from bad", fix="hold out labelled rows")
    index = {name: i for i, name in enumerate(classes)}
    values = np.zeros((len(found), len(classes)), dtype=int)
    for row, labels in enumerate(found):
        values[row, [index[label] for label in labels]] = 1
    return values, tuple(classes)


def labels_in(value: Any) -> tuple[str, ...]:
    """The labels of one row: of a list, or of text with ``|`` between them."""
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(dict.fromkeys(class_name(v) for v in value))
    text = "" if value is None or value != value else str(value)  # noqa: PLR0124
    parts = (part.strip() for part in text.split(BETWEEN_LABELS))
    return tuple(dict.fromkeys(class_name(part) for part in parts if part))


def class_name(value: Any) -> str:
    """One name for one class, however it is written: 1, 1.0 and True are the same."""
    text = str(value)
    known = {"True": "1", "true": "1", "False": "0", "false": "0"}
    if text in known:
        return known[text]
    return text.removesuffix(".0") if text.removesuffix(".0").lstrip("-").isdigit() else text


def _in_order(name: str) -> tuple[int, float, str]:
    return (0, float(name), "") if name.lstrip("-").isdigit() else (1, 0.0, name)
