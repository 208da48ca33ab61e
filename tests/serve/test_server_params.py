"""What a request tells a model besides its rows: the params of its signature."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from mlp_ci.serve.model import Loaded, load
from mlp_ci.serve.server import inference, openapi
from mlp_ci.serve.server.app import Application, Facts
from mlp_ci.serve.server.batching import Batcher, BatchLimits, answer_all
from mlp_ci.serve.server.counting import Board
from mlp_ci.serve.server.invocations import reader
from mlp_ci.serve.server.page import html
from mlp_ci.serve.server.probing import learn
from mlp_ci.serve.signature import compile_signature
from tests.serve.models import save_linear
from tests.serve.test_server_models import answers, split, told

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("model-server")


PARAMS = json.dumps(
    [
        {"name": "times", "type": "double", "default": 2.0, "shape": None},
        {"name": "plus", "type": "long", "default": [1], "shape": [-1]},
    ]
)


def test_params_that_the_signature_declares_reach_the_model_as_through_mlflow(tmp_path: Path) -> None:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, Schema

    class Scaled(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input["a"] * params["times"] + sum(params["plus"])

    signature = ModelSignature(
        Schema([ColSpec("double", "a")]), params=ParamSchema.from_json(PARAMS), outputs=Schema([ColSpec("double")])
    )
    path = tmp_path / "scaled"
    mlflow.pyfunc.save_model(str(path), python_model=Scaled(), signature=signature, pip_requirements=[])
    loaded, _ = learn(load(path), None)
    rows, own = split(["a"], [1.0], [3.0]), mlflow.pyfunc.load_model(str(path))
    for params in ({}, {"times": 10}, {"plus": [5, 6]}, {"times": 0.5, "plus": []}):
        expected = own.predict(pd.DataFrame({"a": [1.0, 3.0]}), params=params).tolist()
        assert answers(loaded, {**rows, "params": params}) == [expected]
        tensor = {"name": "a", "datatype": "FP64", "shape": [2], "data": [1, 3]}
        asked = {"inputs": [tensor], "parameters": {**params, "priority": 1}}
        question = inference.reader(loaded.signature)(json.dumps(asked).encode()).question
        assert answer_all(loaded, [question]) == [expected]
    assert told(loaded, {**rows, "params": {"times": "two"}}) == 'param times: "two" is not a number'
    assert told(loaded, {**rows, "params": {"plus": 1}}) == "param plus: 1 is not a list, each item a whole number"
    assert told(loaded, {**rows, "params": {"tims": 1}}) == "the model takes no param tims; it declares times, plus"
    assert told(loaded, {**rows, "params": [1]}) == "params must be an object of values by name"


def test_params_that_the_signature_does_not_declare_are_refused_by_name(tmp_path: Path) -> None:
    asked = {**split(["a", "b"], [1, 2]), "params": {"times": 1}}
    assert (
        told(load(save_linear(tmp_path / "linear")), asked)
        == "the model takes no param times; its signature declares none"
    )


def test_requests_with_other_params_are_not_asked_together() -> None:
    calls: list[tuple[int, Any]] = []

    def predict(frame: Any, params: dict[str, Any] | None = None) -> list[Any]:
        calls.append((len(frame), params))
        return [float(v) for v in frame["a"]]

    signature = compile_signature(json.dumps([{"type": "double", "name": "a", "required": True}]), PARAMS)
    loaded, read = Loaded(signature, predict, "test", predict_with=predict), reader(signature)

    async def main() -> None:
        batcher = Batcher(loaded, BatchLimits(), Board().of(0))
        waiting = []
        for params in (None, {"times": 1.0}, {"times": 3.0}, {"times": 1}, {}):
            asked = {**split(["a"], [7.0]), **({} if params is None else {"params": params})}
            waiting.append(batcher.submit(read(json.dumps(asked).encode())))
        assert [await one for one in waiting] == [[7.0]] * 5

    asyncio.run(main())
    assert calls == [(2, None), (2, {"times": 1.0}), (1, {"times": 3.0})]


def test_the_description_and_the_page_show_them() -> None:
    signature = compile_signature(json.dumps([{"type": "double", "name": "a", "required": True}]), PARAMS)
    board = Board()
    app = Application(Loaded(signature, list, "test"), Facts("m", 1, "sha256:0", "test"), board, board.of(0))
    schemas = openapi.document(app)["components"]["schemas"]
    times = {"type": "number", "format": "double", "default": 2.0}
    for one in schemas["Rows"]["oneOf"]:
        assert one["properties"]["params"]["properties"]["times"] == times
    plus = schemas["Tensors"]["properties"]["parameters"]["properties"]["plus"]
    assert (plus["type"], plus["items"]["type"], plus["default"]) == ("array", "integer", [1])
    assert "<td>times</td>" in html(app)
