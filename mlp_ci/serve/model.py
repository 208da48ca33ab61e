"""Loads an MLflow model for serving: its signature compiled, its predictions as plain JSON values.

Only called after the artefact's digest was verified: loading a pickle runs the code in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from mlp_ci.errors import InputError
from mlp_ci.serve.signature import Signature, compile_signature

if TYPE_CHECKING:
    from pathlib import Path

Predict = Callable[[Any], list[Any]]


@dataclass(frozen=True)
class Loaded:
    """A model in memory. ``predict`` takes a DataFrame (or an array) and returns one JSON value per row."""

    signature: Signature
    predict: Predict
    kind: str


def load(folder: Path) -> Loaded:
    """Load the MLflow model in ``folder``; raises InputError when it is none.

    A classifier with two classes serves the probability of its second (positive) class; any other model serves
    what MLflow's ``predict`` returns.
    """
    description = read_description(folder)
    flavors = description.get("flavors") or {}
    signature = compile_signature((description.get("signature") or {}).get("inputs"))
    estimator = _pickled_sklearn(folder, flavors.get("sklearn") or {})
    if estimator is not None:
        predict, kind = _native(estimator), "sklearn"
        return Loaded(signature, predict or _values_of(estimator.predict), kind)
    import mlflow.pyfunc

    loaded = mlflow.pyfunc.load_model(str(folder))
    predict = _native(_raw_model(loaded))
    return Loaded(signature, predict or _values_of(loaded.predict), "pyfunc")


def read_description(folder: Path) -> Mapping[str, Any]:
    """The MLmodel file of ``folder``."""
    try:
        description = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        msg = f"{folder} is not an MLflow model: {error}"
        raise InputError(msg, fix="save the model with mlflow.<flavor>.save_model") from error
    if not isinstance(description, dict) or not isinstance(description.get("flavors"), dict):
        msg = f"{folder}/MLmodel names no flavors"
        raise InputError(msg, fix="save the model with mlflow.<flavor>.save_model")
    return description


def _pickled_sklearn(folder: Path, flavor: Mapping[str, Any]) -> Any:
    """The scikit-learn object, unpickled directly: a second sooner than through MLflow, which does just this."""
    if flavor.get("serialization_format") not in ("pickle", "cloudpickle") or flavor.get("code"):
        return None
    import pickle

    with (folder / str(flavor["pickled_model"])).open("rb") as stream:
        return pickle.load(stream)


def _raw_model(loaded: Any) -> Any:
    """The framework's own object behind a pyfunc model; None where the flavour or the team's class offers none."""
    try:
        return loaded.get_raw_model()
    except Exception:  # what such a class raises is its own affair; its `predict` is what counts
        return None


def _native(model: Any) -> Predict | None:
    """Probabilities of the positive class, if ``model`` is a classifier with two classes; else None."""
    classes = getattr(model, "classes_", None)
    if classes is None or len(classes) != 2 or not hasattr(model, "predict_proba"):
        return None

    def predict(frame: Any) -> list[Any]:
        probabilities: list[Any] = model.predict_proba(frame)[:, 1].tolist()
        return probabilities

    return predict


def _values_of(function: Callable[[Any], Any]) -> Predict:
    def predict(frame: Any) -> list[Any]:
        result = function(frame)
        if hasattr(result, "to_dict") and hasattr(result, "columns"):
            records: list[Any] = result.to_dict(orient="records")
            return records
        return result.tolist() if hasattr(result, "tolist") else list(result)

    return predict
