"""What a model returned, read as predictions of the task, and checked.

What a model may return for each row, by task:

- binary, multiclass: a class, or a probability per class (binary: also of the positive class alone)
- multilabel: a column per label of probabilities or of 0 and 1, named by the labels (a DataFrame) or in their sorted
  order; or a list of labels, or text with ``|`` between them
- regression, forecasting, ranking: a number; ranking: the higher, the earlier in the order
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.errors import InputError
from mlp_ci.evaluate.importance import Importance
from mlp_ci.evaluate.metrics import BINARY, MULTILABEL, THRESHOLD, Array, Predictions
from mlp_ci.evaluate.targets import BETWEEN_LABELS, NUMBERS, class_name, labels_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.evaluate.rows import HeldOut

NOT_MEASURED = Importance(shares={}, rows=0, trouble="it was not asked for")


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What one model did: predictions, the value that the prediction log would hold, and what was measured meanwhile.

    ``latency_ms`` of single rows; ``rows_per_second`` of batches; ``memory_mb`` is the peak above what the process had
    before loading, None where it is not known. ``importance`` is only asked of the first model. ``perturbed``: by kind
    of perturbation (missing, noise), the predictions of the same rows then, or why there are none.
    """

    predictions: Predictions
    logged: Array
    latency_ms: Array = field(default_factory=lambda: np.asarray([]))
    rows_per_second: Array = field(default_factory=lambda: np.asarray([]))
    load_seconds: float | None = None
    memory_mb: float | None = None
    importance: Importance = NOT_MEASURED
    perturbed: Mapping[str, Predictions | str] = field(default_factory=dict)


def interpret(stored: Mapping[str, Array], held_out: HeldOut) -> Predicted:
    """Turn what a model returned into predictions; InputError for a wrong shape and for values that are no numbers."""
    label, probability = stored["label"], stored.get("probability")
    if len(label) != len(held_out) or (probability is not None and len(probability) != len(held_out)):
        msg = f"the model returned {len(label)} predictions for {len(held_out)} rows"
        raise InputError(msg, fix="its predict must return one prediction per row, in the order of the rows")
    for values in (label, probability):
        _require_finite(values)
    predictions, logged = _read(stored, held_out)
    return Predicted(predictions=predictions, logged=logged, latency_ms=stored.get("latency_ms", np.asarray([])))


def _read(stored: Mapping[str, Array], held_out: HeldOut) -> tuple[Predictions, Array]:
    label, probability = stored["label"], stored.get("probability")
    if held_out.task in NUMBERS:
        numbers = _numbers(label)
        said = Predictions(
            task=held_out.task,
            target=held_out.target,
            label=numbers,
            groups=held_out.groups,
            scale=held_out.scale,
        )
        return said, numbers
    if held_out.task == MULTILABEL:
        return _multilabel(stored, held_out)
    names = tuple(class_name(c) for c in stored["classes"].tolist()) if "classes" in stored else held_out.classes
    if probability is None:
        probability, names = _as_probability(stored, held_out, names)
    if held_out.task == BINARY:
        return _binary(label, probability, names, held_out)
    return _multiclass(label, probability, names, held_out)


def _binary(
    label: Array, probability: Array | None, names: tuple[str, ...], held_out: HeldOut
) -> tuple[Predictions, Array]:
    if probability is not None and probability.ndim == 2:
        if held_out.classes[1] not in names or probability.shape[1] != 2:
            msg = f"the model knows the classes {', '.join(names)}, the held-out data {', '.join(held_out.classes)}"
            raise InputError(msg, fix="train on the same target as the held-out data has")
        probability = probability[:, names.index(held_out.classes[1])]
    if probability is None:
        chosen = np.asarray([held_out.classes.index(c) if c in held_out.classes else -1 for c in _names(label)])
        logged = chosen if held_out.classes == ("0", "1") else np.asarray(_names(label))
    else:
        chosen = (probability >= THRESHOLD).astype(int)
        logged = probability
    said = Predictions(
        task=BINARY, target=held_out.target, label=chosen, probability=probability, classes=held_out.classes
    )
    return said, logged


def _multiclass(
    label: Array, probability: Array | None, names: tuple[str, ...], held_out: HeldOut
) -> tuple[Predictions, Array]:
    classes = (*held_out.classes, *(n for n in names if n not in held_out.classes))
    if probability is not None:
        aligned = np.zeros((len(held_out), len(classes)))
        for column, name in enumerate(names):
            aligned[:, classes.index(name)] = probability[:, column]
        probability = aligned
        chosen = probability.argmax(axis=1)
    else:
        found = _names(label)
        classes = (*classes, *sorted(set(found) - set(classes)))
        index = {name: i for i, name in enumerate(classes)}
        chosen = np.asarray([index[n] for n in found])
    said = Predictions(
        task=held_out.task, target=held_out.target, label=chosen, probability=probability, classes=classes
    )
    return said, np.asarray(classes)[chosen]


def _multilabel(stored: Mapping[str, Array], held_out: HeldOut) -> tuple[Predictions, Array]:
    given = stored.get("probability", stored["label"])
    if given.ndim == 1:
        found = [labels_in(v) for v in given.tolist()]
        names = tuple(dict.fromkeys((*held_out.classes, *sorted({n for labels in found for n in labels}))))
        values = np.asarray([[float(name in labels) for name in names] for labels in found])
    else:
        names = tuple(class_name(n) for n in stored["names"].tolist()) if "names" in stored else held_out.classes
        if given.shape[1] != len(names) or given.dtype.kind not in "fiub":
            msg = f"the model returned {given.shape[1]} columns, and the held-out data has {len(names)} labels"
            raise InputError(msg, fix="return a DataFrame whose columns are named by the labels")
        values = given.astype(float)
    if ((values < 0) | (values > 1)).any():
        msg = "the model returned values below 0 or above 1, which are no probabilities of labels"
        raise InputError(msg, fix="return a probability, or 0 or 1, per label")
    classes = (*held_out.classes, *(n for n in names if n not in held_out.classes))
    aligned, target = np.zeros((len(held_out), len(classes))), np.zeros((len(held_out), len(classes)), dtype=int)
    aligned[:, [classes.index(n) for n in names]] = values
    target[:, : held_out.target.shape[1]] = held_out.target
    chosen = (aligned >= THRESHOLD).astype(int)
    said = Predictions(
        task=MULTILABEL,
        target=target,
        label=chosen,
        probability=aligned if (values % 1).any() else None,
        classes=classes,
    )
    named = np.asarray(classes)
    return said, np.asarray([BETWEEN_LABELS.join(named[row == 1]) for row in chosen], dtype=str)


def _as_probability(
    stored: Mapping[str, Array], held_out: HeldOut, names: tuple[str, ...]
) -> tuple[Array | None, tuple[str, ...]]:
    """What a generic ``predict`` returned, read as probabilities: one column per class, or shares between 0 and 1."""
    label = stored["label"]
    if label.dtype.kind != "f":
        return None, names
    if label.ndim == 2 and "names" in stored:
        told = tuple(class_name(n) for n in stored["names"].tolist())
        if set(held_out.classes) <= set(told):
            return label, told
    if label.ndim == 2 and label.shape[1] == len(held_out.classes):
        return label, names
    between = label.ndim == 1 and bool(((label >= 0) & (label <= 1)).all()) and bool((label != label.round()).any())
    return (label if between and held_out.task == BINARY else None), names


def _names(label: Array) -> list[str]:
    if label.ndim != 1:
        msg = f"the model returned {label.shape[1]} values per row, and the target has other classes"
        raise InputError(msg, fix="return one class per row, or one probability per class of the target")
    return [class_name(v) for v in label.tolist()]


def _numbers(label: Array) -> Array:
    if label.ndim != 1 or label.dtype.kind not in "fiub":
        msg = f"the model returned {label.dtype} of shape {label.shape}, not one number per row"
        raise InputError(msg, fix="return one number per row, or set `evaluate: {task: multiclass}`", file="model.yaml")
    return label.astype(float)


def _require_finite(values: Array | None) -> None:
    if values is None or values.dtype.kind != "f":
        return
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        msg = f"{int(bad.sum())} of {len(values)} predictions are NaN or infinite, the first in row {first}"
        raise InputError(msg, why="no metric and no gate can be computed", fix="handle missing inputs in the model")
