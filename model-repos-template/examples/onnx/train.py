"""Trains the model. The training contract, whatever the framework:

gets    MLP_DATA_TRAIN, MLP_PARAMS (paths), MLP_SEED, MLFLOW_TRACKING_URI and MLFLOW_RUN_ID for logging of your own
leaves  an MLflow model with a signature in $MLP_OUTPUT/model and, if it likes, numbers in $MLP_OUTPUT/metrics.json

The held-out data is not among them, on purpose. `mlp-ci train` runs this file exactly as CI does.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

import mlflow.onnx
import numpy as np
import onnx
import pandas as pd
import yaml
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import make_pipeline

# Numbers only: text columns do not reach onnxruntime through MLflow with pandas 3.
NUMBERS = ["amount"]
TARGET = "returned"
PACKAGES = ("mlflow", "onnx", "onnxruntime", "pandas")


def main() -> None:
    rows = pd.read_csv(os.environ["MLP_DATA_TRAIN"])
    params = yaml.safe_load(Path(os.environ["MLP_PARAMS"]).read_text())
    features, target = rows[NUMBERS], rows[TARGET]
    classifier = GradientBoostingClassifier(**params, random_state=int(os.environ["MLP_SEED"]))
    # The columns by name, so that each is an input of the graph.
    model = make_pipeline(make_column_transformer(("passthrough", NUMBERS)), classifier).fit(features, target)

    output = Path(os.environ["MLP_OUTPUT"])
    mlflow.onnx.save_model(
        as_onnx(model),
        output / "model",
        signature=infer_signature(features, model.predict_proba(features)[:, 1]),
        input_example=features.head(3),
        pip_requirements=[f"{name}=={version(name)}" for name in PACKAGES],
    )
    metrics = {"train_rows": len(rows), "train_accuracy": model.score(features, target)}
    (output / "metrics.json").write_text(json.dumps(metrics))


def as_onnx(model) -> onnx.ModelProto:
    """The model as one ONNX graph: a column in per feature, the probability of a return out."""
    inputs = [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    converted = to_onnx(model, initial_types=inputs, options={"zipmap": False})
    graph = converted.graph
    # MLflow wants one value per row of each output: of the two probabilities, the second.
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "second"))
    graph.node.append(onnx.helper.make_node("Gather", ["probabilities", "second"], ["probability"], axis=1))
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info("probability", onnx.TensorProto.FLOAT, [None, 1]))
    onnx.checker.check_model(converted)
    return converted


if __name__ == "__main__":
    main()
