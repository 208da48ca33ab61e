"""Loads models and predicts, in a process of its own: ``python -P predictor.py request.json``.

Runs in the team's training environment, so it needs nothing but MLflow, pandas and numpy there, and imports nothing
of mlp-ci. Loading a model runs code of the team; this process has none of the job's secrets and never sees a target.

The request: ``{"features": <parquet file>, "models": [{"folder": …, "task": …, "output": <npz file>, "latency": bool,
"importance": "classes" | "numbers" (what it predicts) or absent, "robustness": ["missing", "noise"] or a part}, …]}``.
An output holds ``label`` (rows,), ``probability`` (rows, classes) or (rows,) if there is one, ``classes``, ``names``
of a DataFrame's columns, ``latency_ms``, ``rows_per_second``, ``load_seconds``, ``memory_bytes``, and what
:func:`importances` and :func:`perturbed` found; what went wrong is written to ``<output>.error`` as JSON.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

# 368 calls and more bound the 99th percentile from both sides with 95 % confidence.
LATENCY_CALLS = 1000
LATENCY_SECONDS = 1.0
BATCH_ROWS = 1024
BATCH_CALLS, BATCH_FEWEST, BATCH_SECONDS = 50, 3, 0.2
IMPORTANCE_ROWS = 2000
IMPORTANCE_FEWEST = 50
# All permuted rows together, so that many features do not take long; and cells in memory at once (about 32 MB).
IMPORTANCE_PREDICTIONS = 40_000
IMPORTANCE_CELLS = 4_000_000
IMPORTANCE_SECONDS = 60.0
IMPORTANCE_SEED = 20130101
PERTURBED_SHARE = 0.1  # of the cells that go missing or are swapped, and of its spread that a number is moved by


def main(request_file: str) -> int:
    """Predict with every model of the request; 0 if all could, 1 if one could not."""
    import pandas as pd

    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    features = pd.read_parquet(request["features"])
    failed = 0
    for model in request["models"]:
        try:
            predict_with(model, features)
        except Exception as error:  # whatever the team's code raises is told, in the next line
            failed = 1
            said = "".join(traceback.format_exception(error)[-6:])
            kind, name = type(error).__name__, getattr(error, "name", "") or ""
            told = {"kind": kind, "text": str(error)[:2000], "name": name, "traceback": said[-4000:]}
            Path(model["output"] + ".error").write_text(json.dumps(told), encoding="utf-8")
    return failed


def predict_with(model: dict[str, Any], features: Any) -> None:
    """One model: loading it, predictions for all rows, and what is measured of it."""
    import mlflow.pyfunc
    import numpy as np

    before = forget_peak()
    started = time.perf_counter()
    loaded = mlflow.pyfunc.load_model(model["folder"])
    found: dict[str, Any] = {"load_seconds": np.asarray(time.perf_counter() - started)}
    schema = loaded.metadata.get_input_schema()
    names = [n for n in schema.input_names() if n in features.columns] if schema and schema.has_input_names() else None
    chosen = features[names] if names else features
    answer, classes = answering(loaded, str(model.get("task", "")))
    started = time.perf_counter()
    found |= read(answer(chosen), classes)
    per_row = (time.perf_counter() - started) / max(1, len(chosen))
    if model.get("latency"):
        found["rows_per_second"] = throughput(answer, chosen)
        found["latency_ms"] = latencies(answer, chosen)
    peak = peak_bytes()
    if peak is not None and before is not None:
        found["memory_bytes"] = np.asarray(max(0, peak - before))
    for kind in model.get("robustness", ()):
        found |= perturbed(kind, answer, classes, chosen)
    if model.get("importance"):
        found |= importances(answer, chosen, classes=model["importance"] == "classes", per_row=per_row)
    with Path(model["output"]).open("wb") as stream:
        np.savez(stream, **found)


def answering(loaded: Any, task: str) -> tuple[Any, Any]:
    """How the model is asked, and the names of its classes if the answer is a probability for each of them."""
    import numpy as np

    native = native_classifier(loaded)
    if native is None or task in ("regression", "forecasting"):
        return loaded.predict, None
    if task == "multilabel":
        return (lambda rows: of_labels(native.predict_proba(rows))), None
    if task == "ranking":
        two = len(native.classes_) == 2
        return (lambda rows: native.predict_proba(rows)[:, 1]) if two else loaded.predict, None
    return native.predict_proba, np.asarray([str(c) for c in native.classes_])


def of_labels(answer: Any) -> Any:
    """Probabilities of labels, (rows, labels): some classifiers give one array of two columns for each label."""
    import numpy as np

    if isinstance(answer, list):
        return np.stack([one[:, 1] if one.shape[1] > 1 else np.zeros(len(one)) for one in answer], axis=1)
    return np.asarray(answer, dtype=float)


def read(answer: Any, classes: Any) -> dict[str, Any]:
    """An answer as arrays: ``label``, and ``probability`` with ``classes`` where that is what was asked for."""
    import numpy as np

    if classes is not None:
        probability = np.asarray(answer, dtype=float)
        return {"probability": probability, "classes": classes, "label": classes[probability.argmax(axis=1)]}
    found = {"label": as_array(answer)}
    if hasattr(answer, "columns") and len(answer.columns) > 1:
        found["names"] = np.asarray([str(name) for name in answer.columns])
    return found


def native_classifier(loaded: Any) -> Any:
    """The framework's own classifier, if it gives probabilities; None for everything else."""
    try:
        raw = loaded.get_raw_model()
    except Exception:  # flavours that have none raise whatever they like
        return None
    return raw if hasattr(raw, "predict_proba") and getattr(raw, "classes_", None) is not None else None


def as_array(result: Any) -> Any:
    """Predictions as numbers, or as text where they are not."""
    import numpy as np

    if hasattr(result, "toarray"):  # a sparse matrix
        result = result.toarray()
    if isinstance(result, list) and any(isinstance(row, list | tuple | set) for row in result):
        rows = np.empty(len(result), dtype=object)  # lists of labels are of any length
        rows[:] = result
        result = rows
    array = np.asarray(result.to_numpy() if hasattr(result, "to_numpy") else result)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind == "O" and array.ndim == 1:
        array = np.asarray([joined(value) for value in array.tolist()])
    return array if array.dtype.kind in "fiub" else array.astype(str)


def joined(value: Any) -> Any:
    """A list of labels as one text."""
    return "|".join(str(v) for v in value) if hasattr(value, "__iter__") and not isinstance(value, str) else value


def latencies(predict: Any, features: Any) -> Any:
    """Milliseconds of predictions of one row each, after three that do not count."""
    import numpy as np

    rows = [features.iloc[i % len(features) : i % len(features) + 1] for i in range(LATENCY_CALLS + 3)]
    times: list[float] = []
    deadline = time.perf_counter() + LATENCY_SECONDS
    for row in rows:
        started = time.perf_counter()
        predict(row)
        times.append((time.perf_counter() - started) * 1000)
        if time.perf_counter() > deadline and len(times) > 3:
            break
    return np.asarray(times[3:])


def throughput(predict: Any, features: Any) -> Any:
    """Rows per second of batches, (calls,)."""
    import numpy as np

    batch = features.iloc[:BATCH_ROWS]
    found: list[float] = []
    deadline = time.perf_counter() + BATCH_SECONDS
    while len(found) < BATCH_CALLS and (len(found) < BATCH_FEWEST or time.perf_counter() < deadline):
        started = time.perf_counter()
        predict(batch)
        found.append(len(batch) / max(1e-9, time.perf_counter() - started))
    return np.asarray(found)


def forget_peak() -> int | None:
    """The memory of this process in bytes; from now on its peak is counted. None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status("VmRSS")


def peak_bytes() -> int | None:
    """The largest memory of this process since :func:`forget_peak`, in bytes."""
    return _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def perturbed(kind: str, predict: Any, classes: Any, features: Any) -> dict[str, Any]:
    """What the model says of the same rows with missing or noisy inputs, under names that start with the kind.

    A model may refuse such rows; its message may hold values, so only its kind is told, as ``<kind>_trouble``.
    """
    import numpy as np

    said = {"missing": "with a tenth of the values missing", "noise": "with moved and swapped values"}[kind]
    found: dict[str, Any] = {f"{kind}_rows": np.asarray(len(features))}
    try:
        answer = read(predict(spoilt(kind, features)), classes)
    except Exception as error:  # whatever the team's code raises
        return {**found, f"{kind}_trouble": f"the model refused rows {said} ({type(error).__name__})"}
    return {**found, **{f"{kind}_{name}": values for name, values in answer.items()}}


def spoilt(kind: str, features: Any) -> Any:
    """The same rows; missing: each cell with a chance of a tenth; noise: numbers moved by a tenth of their standard
    deviation (normal; whole ones rounded), a tenth of all other values swapped with another row's; times stay."""
    import numpy as np

    chance = np.random.default_rng(IMPORTANCE_SEED)
    rows = features.copy()
    for place in range(features.shape[1]):
        column = features.iloc[:, place]
        hit = chance.random(len(column)) < PERTURBED_SHARE
        kept = column
        if kind == "missing":
            kept = column.mask(hit)
        elif column.dtype.kind in "iuf":
            moved = chance.normal(0, 1, len(column)) * PERTURBED_SHARE * float(column.std(ddof=0) or 0.0)
            whole = column.dtype.kind != "f"
            kept = column + (np.round(moved).astype("int64") if whole else moved)
            # Inside of what occurs: a whole number of few bits must not start again at its other end.
            kept = kept.clip(column.min(), column.max()).astype(column.dtype) if whole else kept
        elif column.dtype.kind not in "mM":
            order = np.arange(len(column))
            order[hit] = chance.permutation(order[hit])
            kept = column.take(order)
        rows.isetitem(place, kept.array)
    return rows


def importances(predict: Any, features: Any, *, classes: bool, per_row: float = 0.0) -> dict[str, Any]:
    """How far the predictions move when one column is shuffled among the rows (permutation; no label is used).

    ``per_row`` is how many seconds a prediction takes: a model that is too slow for this is left alone. Returns
    ``importance`` (columns,), ``importance_columns`` and ``importance_rows``, or ``importance_trouble``: why there is
    none. A model may refuse rows that never occurred; its message may hold values, so only its kind is told.
    """
    import numpy as np

    names = [str(name) for name in features.columns]
    rows = min(IMPORTANCE_ROWS, len(features), IMPORTANCE_PREDICTIONS // max(1, len(names)))
    if rows < min(IMPORTANCE_FEWEST, len(features)):
        return {"importance_trouble": f"the model reads {len(names):,} columns, too many to try each one"}
    if per_row * rows * len(names) > IMPORTANCE_SECONDS:
        return {"importance_trouble": f"it would take {per_row * rows * len(names) / 60:.0f} minutes"}
    drawn = np.random.default_rng(IMPORTANCE_SEED).choice(len(features), rows, replace=False)
    sample = features.iloc[np.sort(drawn)].reset_index(drop=True)
    try:
        moved = changes(predict, sample, classes=classes)
    except Exception as error:  # whatever the team's code raises
        return {"importance_trouble": f"the model refused rows with one column shuffled ({type(error).__name__})"}
    if not np.isfinite(moved).all():
        return {"importance_trouble": "the model gave no number for rows with one column shuffled"}
    return {"importance": moved, "importance_columns": np.asarray(names), "importance_rows": np.asarray(rows)}


def changes(predict: Any, sample: Any, *, classes: bool) -> Any:
    """The mean change of the prediction per shuffled column, (columns,); several columns in one call, which is faster.

    Block 0 of the first call is the sample itself; block b is the sample with one column shuffled.
    """
    import numpy as np

    rows, width = sample.shape
    at_once = max(1, IMPORTANCE_CELLS // max(1, rows * width))
    plain = np.arange(rows)
    before: Any = None
    moved: list[float] = []
    for first in range(0, width, at_once):
        shuffled = range(first, min(first + at_once, width))
        stacked = sample.take(np.tile(plain, len(shuffled) + (before is None)))
        for block, column in enumerate(shuffled, start=int(before is None)):
            order = np.random.default_rng([IMPORTANCE_SEED, column]).permutation(rows)
            where = np.tile(plain, len(stacked) // rows)
            where[block * rows : (block + 1) * rows] = order
            stacked.isetitem(column, sample.iloc[:, column].take(where).array)
        said = as_array(predict(stacked.reset_index(drop=True)))
        if len(said) != len(stacked):
            msg = "one prediction per row is needed"
            raise ValueError(msg)
        if before is None:
            before, said = said[:rows], said[rows:]
        moved += [distance(before, block, classes=classes) for block in said.reshape(-1, rows, *said.shape[1:])]
    return np.asarray(moved)


def distance(before: Any, after: Any, *, classes: bool) -> float:
    """The mean change of a prediction: of its probability, its value, or how often its class is another one."""
    import numpy as np

    if before.dtype.kind not in "fiub" or (before.ndim == 1 and classes and not (before % 1).any()):
        return float(np.mean(before != after))
    change = np.abs(after.astype(float) - before.astype(float))
    # Of probabilities per class, what one class gains another loses.
    return float(np.mean(change.sum(axis=1) / 2 if change.ndim == 2 else change))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
