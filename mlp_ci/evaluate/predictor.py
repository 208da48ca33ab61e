"""Loads models and predicts, in a process of its own: ``python -P predictor.py request.json``.

Runs in the team's training environment, so it needs nothing but MLflow, pandas and numpy there, and imports nothing
of mlp-ci. Loading a model runs code of the team; this process has none of the job's secrets and never sees a target.

The request: ``{"features": <parquet file>, "models": [{"folder": …, "output": <npz file>, "latency": bool}, …]}``.
An output holds ``label`` (rows,), ``probability`` (rows, classes) or (rows,) if there is one, ``classes`` and
``latency_ms``; what went wrong with a model is written to ``<output>.error`` as JSON.
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
    if native is not None:
        found["probability"] = np.asarray(native.predict_proba(chosen), dtype=float)
        found["classes"] = np.asarray([str(c) for c in native.classes_])
        found["label"] = found["classes"][found["probability"].argmax(axis=1)]
        one = native.predict_proba
    else:
        found["label"] = as_array(loaded.predict(chosen))
        one = loaded.predict
    if model.get("latency"):
        found["latency_ms"] = latencies(one, chosen)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
