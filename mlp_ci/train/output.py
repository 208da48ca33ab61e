"""What a training command must leave behind, checked before anything of it is stored."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SAVE_MODEL = """\
import os
from mlflow.models import infer_signature
mlflow.sklearn.save_model(  # or the save_model of your framework
    model, os.environ["MLP_OUTPUT"] + "/model",
    signature=infer_signature(X, model.predict(X)),
    pip_requirements=["scikit-learn"],
)"""


@dataclass(frozen=True, kw_only=True)
class Output:
    """A whole training output: the model's folder, the flavours it offers, and the command's own metrics."""

    model: Path
    flavors: tuple[str, ...]
    metrics: dict[str, float] = field(default_factory=dict)


def check_output(folder: Path) -> Output:
    """Check ``folder/model`` and read ``folder/metrics.json``; InputError says which lines of Python mend it."""
    model = folder / "model"
    if not model.is_dir():
        written = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        said = f"it left {', '.join(written[:8])} there" if written else "it left nothing there"
        msg = "the training command ended well but wrote no model to $MLP_OUTPUT/model"
        raise InputError(msg, why=f"{said}; without a model there is nothing to register", fix=SAVE_MODEL)
    description = read_mlmodel(model)
    if not description.get("signature"):
        msg = "the model has no signature"
        why = "serving, validation and drift need to know which columns of which types the model reads"
        raise InputError(msg, why=why, fix=SAVE_MODEL)
    flavors = tuple(sorted(description.get("flavors") or {}))
    if "python_function" not in flavors:
        msg = f"the model has no python_function flavour, only {', '.join(flavors) or 'none'}"
        fix = "save it with mlflow.pyfunc.save_model, or with a flavour of MLflow that includes it"
        raise InputError(msg, why="evaluation and serving load every model through it", fix=fix)
    return Output(model=model, flavors=flavors, metrics=read_metrics(folder / "metrics.json"))


def read_mlmodel(model: Path) -> dict[str, Any]:
    """The ``MLmodel`` file of a model folder."""
    import yaml

    file = model / "MLmodel"
    if not file.is_file():
        msg = "$MLP_OUTPUT/model holds no MLmodel file, so it is not a model that MLflow can load"
        raise InputError(msg, fix=SAVE_MODEL)
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"the MLmodel file of the model is not valid YAML: {' '.join(str(error).split())[:200]}"
        raise InputError(msg, fix=SAVE_MODEL) from error
    if not isinstance(value, dict):
        msg = "the MLmodel file of the model holds no keys"
        raise InputError(msg, fix=SAVE_MODEL)
    return value


def read_metrics(file: Path) -> dict[str, float]:
    """The command's own metrics: a JSON object of finite numbers; nested names are joined with a dot."""
    if not file.exists():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        msg = f"metrics.json is not JSON: {error}"
        raise InputError(msg, fix='write it as {"loss": 0.25}') from error
    if not isinstance(value, dict):
        msg = "metrics.json is not a JSON object"
        raise InputError(msg, fix='write it as {"loss": 0.25}')
    flat = flatten(value)
    bad = [k for k, v in flat.items() if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v)]
    if bad:
        msg = f"metrics.json: {', '.join(bad[:5])} is not a finite number"
        raise InputError(msg, why="MLflow stores numbers", fix="leave it out or write a number")
    return {k: float(v) for k, v in flat.items()}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` → ``{"a.b": 1}``; lists become JSON text."""
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: json.dumps(value) if isinstance(value, list) else value}
