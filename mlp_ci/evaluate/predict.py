"""Predictions of held-out rows by one or more models, made in a process of their own, and checked."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.errors import InputError, MlpError, OutsideError
from mlp_ci.evaluate import predictor
from mlp_ci.evaluate.importance import Importance, importance_of
from mlp_ci.evaluate.metrics import BINARY, REGRESSION, THRESHOLD, Array, Predictions
from mlp_ci.evaluate.rows import HeldOut, class_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST_SECONDS = 3600.0
NOT_MEASURED = Importance(shares={}, rows=0, trouble="it was not asked for")


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What one model did: predictions, the value that the prediction log would hold, milliseconds of single rows,
    and how much of it rests on each input (only asked of the first model)."""

    predictions: Predictions
    logged: Array
    latency_ms: Array
    importance: Importance = NOT_MEASURED


def predict(
    folders: Sequence[Path], features: Any, held_out: HeldOut, *, python: Path, environ: Mapping[str, str]
) -> list[Predicted | MlpError]:
    """Predict with each model; what is wrong with one is returned in its place, so that it does not hide the others.

    ``features`` is a DataFrame without the target: the models' process never sees it. Raises OutsideError when that
    process dies.
    """
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        place = Path(scratch)
        features.to_parquet(place / "features.parquet")
        predicts = "numbers" if held_out.task == REGRESSION else "classes"
        models = [
            {
                "folder": str(folder),
                "output": str(place / f"{i}.npz"),
                "latency": True,
                "importance": "" if i else predicts,
            }
            for i, folder in enumerate(folders)
        ]
        request = {"features": str(place / "features.parquet"), "models": models}
        (place / "request.json").write_text(json.dumps(request), encoding="utf-8")
        said = _run(python, place / "request.json", environ)
        return [_outcome(Path(str(m["output"])), held_out, said) for m in models]


def _run(python: Path, request: Path, environ: Mapping[str, str]) -> str:
    command = [str(python), "-P", str(Path(predictor.__file__).resolve()), str(request)]
    # One thread: that is how a version is served, and a team of threads per single row is ten times slower.
    settings = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "MLFLOW_LOGGING_LEVEL": "ERROR", **environ}
    try:
        done = subprocess.run(
            command,
            cwd=request.parent,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            env=settings,
            timeout=LONGEST_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        msg = f"predicting the held-out rows took longer than {LONGEST_SECONDS / 60:.0f} minutes"
        raise InputError(msg, fix="make predicting faster, or hold out fewer rows") from error
    tail = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-12:])
    if done.returncode < 0:
        msg = f"the process that predicts was killed (signal {-done.returncode})"
        why = "most often the machine ran out of memory"
        raise OutsideError(msg, why=why, fix="run again on a machine with more memory, or hold out fewer rows")
    return tail


def _outcome(output: Path, held_out: HeldOut, said: str) -> Predicted | MlpError:
    trouble = Path(f"{output}.error")
    if trouble.is_file():
        return _told(json.loads(trouble.read_text(encoding="utf-8")))
    if not output.is_file():
        fix = "the evaluation needs mlflow, pandas and pyarrow in train.environment; see the lines above"
        return InputError(f"the model could not be tried: {said or 'the process said nothing'}", fix=fix)
    try:
        with np.load(output, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
            return replace(interpret(found, held_out), importance=importance_of(found))
    except MlpError as error:
        return error


def _told(trouble: Mapping[str, str]) -> MlpError:
    text = f"{trouble['kind']}: {trouble['text']}"
    if trouble["kind"] in ("ModuleNotFoundError", "ImportError"):
        package = trouble["name"].split(".")[0] or "the package"
        fix = f"add {package} to the environment of model.yaml (train.environment); the model is loaded in it"
        return InputError(f"the model cannot be loaded: {text}", fix=fix)
    why = "\n".join(trouble["traceback"].strip().splitlines()[-10:])
    fix = "load the model with mlflow.pyfunc.load_model and predict the held-out features by hand; mend and train again"
    return InputError(f"the model cannot predict the held-out rows: {text}", why=why, fix=fix)


def interpret(stored: Mapping[str, Array], held_out: HeldOut) -> Predicted:
    """Turn what a model returned into predictions; InputError for a wrong shape and for values that are no numbers."""
    label, probability = stored["label"], stored.get("probability")
    latency = stored.get("latency_ms", np.asarray([]))
    if len(label) != len(held_out) or (probability is not None and len(probability) != len(held_out)):
        msg = f"the model returned {len(label)} predictions for {len(held_out)} rows"
        raise InputError(msg, fix="its predict must return one prediction per row, in the order of the rows")
    for values in (label, probability):
        _require_finite(values)
    if held_out.task == REGRESSION:
        numbers = _numbers(label)
        return Predicted(
            predictions=Predictions(task=REGRESSION, target=held_out.target, label=numbers),
            logged=numbers,
            latency_ms=latency,
        )
    names = tuple(class_name(c) for c in stored["classes"].tolist()) if "classes" in stored else held_out.classes
    if probability is None:
        probability = _as_probability(label, held_out)
    if held_out.task == BINARY:
        return _binary(label, probability, names, held_out, latency)
    return _multiclass(label, probability, names, held_out, latency)


def _binary(
    label: Array, probability: Array | None, names: tuple[str, ...], held_out: HeldOut, latency: Array
) -> Predicted:
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
    predictions = Predictions(
        task=BINARY, target=held_out.target, label=chosen, probability=probability, classes=held_out.classes
    )
    return Predicted(predictions=predictions, logged=logged, latency_ms=latency)


def _multiclass(
    label: Array, probability: Array | None, names: tuple[str, ...], held_out: HeldOut, latency: Array
) -> Predicted:
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
    logged = np.asarray(classes)[chosen]
    predictions = Predictions(
        task=held_out.task, target=held_out.target, label=chosen, probability=probability, classes=classes
    )
    return Predicted(predictions=predictions, logged=logged, latency_ms=latency)


def _as_probability(label: Array, held_out: HeldOut) -> Array | None:
    """What a generic ``predict`` returned, read as probabilities: one column per class, or shares between 0 and 1."""
    if label.dtype.kind != "f":
        return None
    if label.ndim == 2 and label.shape[1] == len(held_out.classes):
        return label
    between = label.ndim == 1 and bool(((label >= 0) & (label <= 1)).all()) and bool((label != label.round()).any())
    return label if between and held_out.task == BINARY else None


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


def single_row_python(executables: Path) -> Path:
    """The interpreter of an environment, by the folder of its programs."""
    return executables / ("python.exe" if os.name == "nt" else "python")
