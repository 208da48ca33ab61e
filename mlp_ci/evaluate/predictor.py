"""Loads models and predicts, in a process of its own: ``python -P predictor.py request.json``.

Runs in the team's training environment, so it needs nothing but MLflow, pandas and numpy there, and imports nothing
of mlp-ci. Loading a model runs code of the team; this process has none of the job's secrets and never sees a target.

The request: ``{"features": <parquet file>, "models": [{"folder": …, "output": <npz file>, "latency": bool,
"importance": "classes" | "numbers" (what it predicts) or absent}, …]}``. An output holds ``label`` (rows,),
``probability`` (rows, classes) or (rows,) if there is one, ``classes``, ``latency_ms``, and what :func:`importances`
found; what went wrong with a model is written to ``<output>.error`` as JSON.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

LATENCY_CALLS = 200
LATENCY_SECONDS = 2.0
IMPORTANCE_ROWS = 2000
IMPORTANCE_FEWEST = 50
# All permuted rows together, so that many features do not take long; and cells in memory at once (about 32 MB).
IMPORTANCE_PREDICTIONS = 40_000
IMPORTANCE_CELLS = 4_000_000
IMPORTANCE_SECONDS = 60.0
IMPORTANCE_SEED = 20130101


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
    """One model: predictions for all rows, then the latency of single rows."""
    import mlflow.pyfunc
    import numpy as np

    loaded = mlflow.pyfunc.load_model(model["folder"])
    schema = loaded.metadata.get_input_schema()
    names = [n for n in schema.input_names() if n in features.columns] if schema and schema.has_input_names() else None
    chosen = features[names] if names else features
    native = native_classifier(loaded)
    found: dict[str, Any] = {}
    started = time.perf_counter()
    if native is not None:
        found["probability"] = np.asarray(native.predict_proba(chosen), dtype=float)
        found["classes"] = np.asarray([str(c) for c in native.classes_])
        found["label"] = found["classes"][found["probability"].argmax(axis=1)]
        one = native.predict_proba
    else:
        found["label"] = as_array(loaded.predict(chosen))
        one = loaded.predict
    per_row = (time.perf_counter() - started) / max(1, len(chosen))
    if model.get("latency"):
        found["latency_ms"] = latencies(one, chosen)
    if model.get("importance"):
        found |= importances(one, chosen, classes=model["importance"] == "classes", per_row=per_row)
    with Path(model["output"]).open("wb") as stream:
        np.savez(stream, **found)


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

    array = np.asarray(result.to_numpy() if hasattr(result, "to_numpy") else result)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return array if array.dtype.kind in "fiub" else array.astype(str)


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
