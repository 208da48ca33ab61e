"""Models that do one thing each: sleep, kill their process, refuse what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.predicting import save

if TYPE_CHECKING:
    from pathlib import Path


NUMBERS = [{"type": "double", "name": "a", "required": True}, {"type": "double", "name": "b", "required": True}]


def save_peculiar(folder: Path, kind: str) -> Path:
    """A model of the numbers a and b that needs no library, so that its server starts at once.

    ``sleepy`` sleeps a milliseconds and answers b; ``deadly`` ends its process where a is 13, and answers who it is.
    """

    class Sleepy:
        def predict(self, rows: Any) -> Any:
            import time

            time.sleep(float(rows.a.max()) / 1000)
            return rows.b.tolist()

    class Deadly:
        def predict(self, rows: Any) -> Any:
            import os

            if (rows.a == 13).any():
                os._exit(13)
            return [float(os.getpid())] * len(rows)

    models: dict[str, Any] = {"sleepy": Sleepy(), "deadly": Deadly()}
    return save(folder, models[kind], NUMBERS)


def save_linear(folder: Path) -> Path:
    """a + 2 b, by scikit-learn, which refuses null."""
    import mlflow.sklearn
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    mlflow.sklearn.save_model(
        LinearRegression().fit(rows, rows.a + 2 * rows.b),
        str(folder),
        signature=infer_signature(rows, rows.a.to_numpy()),
        input_example=pd.DataFrame({"a": [0.0], "b": [1.0]}),
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )
    return folder


def save_onnx(folder: Path, *, columns: bool) -> Path:
    """x0 + 2 x1 as a graph: of one input (rows, 2), or of a column and a text that is only passed through."""
    import mlflow.onnx
    import numpy as np
    import onnx
    import pandas as pd
    from mlflow.models import infer_signature
    from onnx import TensorProto, helper

    if columns:
        inputs = [
            helper.make_tensor_value_info("size", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("name", TensorProto.STRING, [None, 1]),
        ]
        nodes = [
            helper.make_node("Add", ["size", "size"], ["twice"]),
            helper.make_node("Identity", ["name"], ["same"]),
        ]
        outputs = [
            helper.make_tensor_value_info("twice", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("same", TensorProto.STRING, [None, 1]),
        ]
        weights = []
        rows: Any = pd.DataFrame({"size": [1.0, 2.0], "name": ["a", "b"]})
    else:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])]
        nodes = [helper.make_node("MatMul", ["x", "w"], ["sum"])]
        outputs = [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [None, 1])]
        weights = [onnx.numpy_helper.from_array(np.array([[1.0], [2.0]], dtype="float32"), "w")]
        rows = pd.DataFrame({"x0": [1.0, 2.0], "x1": [0.5, 0.5]})
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    mlflow.onnx.save_model(model, str(folder), signature=infer_signature(rows), pip_requirements=["onnxruntime"])
    return folder
