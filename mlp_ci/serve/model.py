"""Loads an MLflow model for serving: its signature compiled, its predictions as plain JSON values.

Only called after the artefact's digest was verified: loading a pickle runs the code in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from mlp_ci.errors import InputError
from mlp_ci.serve.answers import plain, require_finite, values_of
from mlp_ci.serve.payload import BadRequest
from mlp_ci.serve.signature import Signature, compile_signature

if TYPE_CHECKING:
    from pathlib import Path

Predict = Callable[[Any], list[Any]]
_ENFORCEMENT = "Failed to enforce schema"  # how MLflow's refusals begin; a model's own exceptions say otherwise


@dataclass(frozen=True)
class Loaded:
    """A model in memory. ``predict`` takes a DataFrame (or an array) and returns one JSON value per row.

    ``arrays``, where the model has it, takes the columns as arrays instead of a DataFrame, and ``matrix`` takes
    :meth:`Signature.matrix`: the same answers, sooner. ``outputs`` is what MLmodel says about the answers.
    ``predict_with`` takes the request's params as well; a model without it does not look at them.
    """

    signature: Signature
    predict: Predict
    kind: str
    arrays: Predict | None = None
    matrix: Predict | None = None
    outputs: str | None = None
    predict_with: Callable[[Any, dict[str, Any]], list[Any]] | None = None

    def finite(self, rows: Any) -> list[Any]:
        """What ``predict`` answers; raises ValueError where that is NaN or infinity for some row."""
        values = self.predict(rows)
        require_finite(values)
        return values


def load(folder: Path, threads: int = 1) -> Loaded:
    """Load the MLflow model in ``folder``; raises InputError when it is none.

    A classifier with two classes serves the probability of its second (positive) class; any other model serves
    what MLflow's ``predict`` returns. ``threads`` is how many one prediction of an ONNX model may use.
    """
    description = read_description(folder)
    flavors = description.get("flavors") or {}
    described = description.get("signature") or {}
    signature = compile_signature(described.get("inputs"), described.get("params"))
    outputs = described.get("outputs")
    estimator = _pickled_sklearn(folder, flavors.get("sklearn") or {})
    if estimator is not None:
        from mlp_ci.serve.server.plain import reads_arrays

        loaded = Loaded(signature, _answering(estimator), "sklearn", outputs=outputs)
        if not reads_arrays(estimator, signature):
            return loaded
        return replace(loaded, predict=_of_tables(loaded.predict, signature), matrix=loaded.predict)
    if "onnx" in flavors:
        from mlp_ci.serve.server.onnx_model import OnnxModel

        model = OnnxModel.open(folder, flavors["onnx"], signature, threads)
        matrix = model.matrix if model.takes_matrix else None
        return Loaded(model.signature, model.predict, "onnx", model.arrays, matrix, outputs)
    import mlflow.pyfunc

    pyfunc = mlflow.pyfunc.load_model(str(folder))
    native, enforcing = _native(_raw_model(pyfunc)), _enforcing(pyfunc)
    if native is not None:
        return Loaded(signature, native, "pyfunc", outputs=outputs)

    def predict_with(rows: Any, params: dict[str, Any]) -> list[Any]:
        return plain(enforcing(rows, params))

    return Loaded(signature, values_of(enforcing), "pyfunc", outputs=outputs, predict_with=predict_with)


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


def _enforcing(pyfunc: Any) -> Callable[..., Any]:
    """MLflow's own ``predict``; what its schema enforcement refuses is the client's mistake, and becomes a BadRequest.

    Ours has looked at every value before; what is left are such things as a date that 64 bits of nanoseconds cannot
    hold.
    """
    from mlflow.exceptions import MlflowException

    def predict(rows: Any, params: dict[str, Any] | None = None) -> Any:
        try:
            return pyfunc.predict(rows, params=params)
        except MlflowException as error:
            said = str(error.message)
            if not said.startswith(_ENFORCEMENT):
                raise
            reason = said.rpartition("Error: ")[2][:300]
            msg = f"MLflow refuses these rows by the model's signature: {reason}"
            raise BadRequest(msg) from error

    return predict


def _answering(estimator: Any) -> Predict:
    return _native(estimator) or values_of(estimator.predict)


def _of_tables(matrix: Predict, signature: Signature) -> Predict:
    """The same for a DataFrame of the signature's columns, in any order, as well as for an array of them."""
    names = list(signature.names)
    return lambda rows: matrix(rows[names].to_numpy() if hasattr(rows, "columns") else rows)


def _native(model: Any) -> Predict | None:
    """Probabilities of the positive class, if ``model`` is a classifier with two classes; else None."""
    classes = getattr(model, "classes_", None)
    if classes is None or len(classes) != 2 or not hasattr(model, "predict_proba"):
        return None
    return values_of(lambda rows: model.predict_proba(rows)[:, 1])
