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
from mlp_ci.evaluate.answers import NOT_MEASURED, Predicted, interpret
from mlp_ci.evaluate.columns import check_reads, features_of
from mlp_ci.evaluate.importance import importance_of
from mlp_ci.evaluate.targets import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from mlp_ci.evaluate.metrics import Array, Predictions
    from mlp_ci.evaluate.rows import HeldOut
    from mlp_ci.spec import ModelSpec

__all__ = ["KINDS", "NOT_MEASURED", "Predicted", "Where", "interpret", "predict", "predict_only", "single_row_python"]

LONGEST_SECONDS = 3600.0
KINDS = ("missing", "noise")  # of perturbation


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where models are tried: the interpreter of the training environment, and the variables that it may see."""

    python: Path
    environ: Mapping[str, str]


def predict(
    folders: Sequence[Path], held_out: HeldOut, spec: ModelSpec, where: Where, robustness: Collection[str] = ()
) -> list[Predicted | MlpError]:
    """Predict with each model; what is wrong with one is returned in its place, so that it does not hide the others.

    Each has a process of its own, which never sees a target: its memory is its own, and what it imports too.
    ``robustness``: the perturbations (missing, noise) that the first model is tried with. Raises OutsideError when a
    process is killed.
    """
    return [
        _one(folder, held_out, spec, where, {"importance": _kind(held_out.task), "robustness": sorted(robustness)})
        if number == 0
        else _one(folder, held_out, spec, where, {})
        for number, folder in enumerate(folders)
    ]


def predict_only(folder: Path, held_out: HeldOut, spec: ModelSpec, where: Where) -> Predicted | MlpError:
    """What one model predicts, with nothing measured of it: for the many models of a search."""
    return _one(folder, held_out, spec, where, {"latency": False})


def _one(
    folder: Path, held_out: HeldOut, spec: ModelSpec, where: Where, asked: Mapping[str, Any]
) -> Predicted | MlpError:
    """In a folder of its own, too: no model can touch what another one reads or says."""
    try:
        check_reads(folder, held_out.frame, spec)
        with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
            place = Path(scratch)
            features_of(held_out.frame, spec).to_parquet(place / "features.parquet")
            output = place / "predictions.npz"
            model = {"folder": str(folder), "task": held_out.task, "output": str(output), "latency": True, **asked}
            request = {"features": str(place / "features.parquet"), "models": [model]}
            (place / "request.json").write_text(json.dumps(request), encoding="utf-8")
            return _outcome(output, held_out, _run(where, place / "request.json"))
    except InputError as error:
        return error


def _kind(task: str) -> str:
    return "numbers" if task in NUMBERS else "classes"


def _run(where: Where, request: Path) -> str:
    command = [str(where.python), "-P", str(Path(predictor.__file__).resolve()), str(request)]
    # One thread: that is how a version is served, and a team of threads per single row is ten times slower.
    settings = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "MLFLOW_LOGGING_LEVEL": "ERROR", **where.environ}
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
            return _with_measured(interpret(found, held_out), found, held_out)
    except MlpError as error:
        return error


def _with_measured(predicted: Predicted, found: Mapping[str, Array], held_out: HeldOut) -> Predicted:
    return replace(
        predicted,
        rows_per_second=found.get("rows_per_second", np.asarray([])),
        load_seconds=float(found["load_seconds"]),
        memory_mb=float(found["memory_bytes"]) / 1e6 if "memory_bytes" in found else None,
        importance=importance_of(found),
        perturbed={kind: _perturbed(kind, found, held_out) for kind in KINDS if f"{kind}_rows" in found},
    )


def _perturbed(kind: str, found: Mapping[str, Array], held_out: HeldOut) -> Predictions | str:
    """The predictions of rows with this perturbation, or why there are none."""
    if f"{kind}_trouble" in found:
        return str(found[f"{kind}_trouble"])
    own = {n.removeprefix(f"{kind}_"): v for n, v in found.items() if n.startswith(f"{kind}_")}
    try:
        return interpret(own, held_out).predictions
    except InputError as error:
        return error.what


def _told(trouble: Mapping[str, str]) -> MlpError:
    text = f"{trouble['kind']}: {trouble['text']}"
    if trouble["kind"] in ("ModuleNotFoundError", "ImportError"):
        package = trouble["name"].split(".")[0] or "the package"
        fix = f"add {package} to the environment of model.yaml (train.environment); the model is loaded in it"
        return InputError(f"the model cannot be loaded: {text}", fix=fix)
    why = "\n".join(trouble["traceback"].strip().splitlines()[-10:])
    fix = "load the model with mlflow.pyfunc.load_model and predict the held-out features by hand; mend and train again"
    return InputError(f"the model cannot predict the held-out rows: {text}", why=why, fix=fix)


def single_row_python(executables: Path) -> Path:
    """The interpreter of an environment, by the folder of its programs."""
    return executables / ("python.exe" if os.name == "nt" else "python")
