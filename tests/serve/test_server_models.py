"""What models answer through the server's own ways of asking them, held against MLflow's."""

from __future__ import annotations

import asyncio
import json
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci.errors import InputError
from mlp_ci.serve.answers import plain, values_of
from mlp_ci.serve.model import Loaded, load
from mlp_ci.serve.payload import BadRequest, parse
from mlp_ci.serve.server import inference
from mlp_ci.serve.server.batching import Batcher, BatchLimits, ModelFailed, Overloaded, Question, answer_all
from mlp_ci.serve.server.counting import Board
from mlp_ci.serve.server.invocations import question_of, reader, written
from mlp_ci.serve.server.probing import example_of, learn
from mlp_ci.serve.signature import compile_signature
from tests.serve.models import save_linear, save_onnx
from tests.serving import save_model

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.xdist_group("model-server")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def linear(folder: Path) -> Path:
    return save_linear(folder / "linear")


def answers(loaded: Loaded, *values: Any) -> list[Any]:
    """What the server would say to bodies that arrive together: predictions, or the error."""
    read = reader(loaded.signature)
    return list(answer_all(loaded, [read(json.dumps(v).encode()) for v in values]))


def told(loaded: Loaded, value: Any) -> str:
    """The refusal of one body."""
    try:
        (answer,) = answers(loaded, value)
    except BadRequest as error:
        return error.message
    assert isinstance(answer, BadRequest), answer
    return answer.message


def split(columns: list[str], *rows: list[Any]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": columns, "data": list(rows)}}


def test_an_array_is_answered_as_a_table_is(linear: Path) -> None:
    import mlflow.pyfunc

    rows = np.random.default_rng(1).normal(size=(20, 2)).tolist()
    loaded = load(linear)
    assert loaded.matrix is not None
    with warnings.catch_warnings(action="error"):  # of names that were not there at its training
        assert loaded.predict(pd.DataFrame({"b": [1.0], "a": [3.0]})) == pytest.approx([5.0])
    expected = mlflow.pyfunc.load_model(str(linear)).predict(pd.DataFrame(rows, columns=["a", "b"])).tolist()
    assert answers(loaded, split(["a", "b"], *rows)) == [expected]
    assert answers(loaded, split(["b", "a"], *[[b, a] for a, b in rows])) == [expected]
    together = answers(loaded, *[split(["a", "b"], row) for row in rows])
    np.testing.assert_allclose([value for (value,) in together], expected, rtol=1e-12)


def test_models_that_look_at_columns_get_tables(flights: Path) -> None:
    loaded = load(flights)
    assert (loaded.kind, loaded.matrix, loaded.arrays) == ("sklearn", None, None)


def test_what_a_model_refuses_is_learnt_before_it_serves(linear: Path, flights: Path) -> None:
    loaded, sample = learn(load(linear), example_of(linear))
    assert sample == pytest.approx([2.0])
    assert [rule.nullable for rule in loaded.signature.rules] == [False, False]
    assert told(loaded, split(["a", "b"], [1, None])) == "column b, row 0: null, and this model needs a value"
    assert told(loaded, split(["a", "b"], [1, 2], [float("nan"), 2])).startswith("column a, row 1: null")
    assert "Infinity is not a finite number" in told(loaded, split(["a", "b"], [1, float("inf")]))
    good, bad = answers(loaded, split(["a", "b"], [1, 1]), split(["a", "b"], [None, 1]))
    assert good == pytest.approx([3.0])
    assert isinstance(bad, BadRequest)
    trees, _ = learn(load(flights), example_of(flights))
    distance = trees.signature.rules[0]
    assert (distance.name, distance.nullable) == ("distance", True)
    assert distance.largest < 1e39  # trees compute in 32 bits
    assert "larger than this model can take" in told(trees, split(["distance", "hour", "carrier"], [1e300, 1, "UA"]))


def test_a_model_that_raises_spoils_nobody_elses_answer(folder: Path) -> None:
    broken = load(save_model(folder / "broken", fails=True))
    row = ["distance", "hour", "carrier"]
    found = answers(broken, split(row, [1.0, 8, "UA"]), split(row, [1.0, 7, "UA"]), split(row, [1.0, 9, "UA"]))
    assert (found[0], found[2]) == ([0.5], [0.5])
    assert isinstance(found[1], ModelFailed)


def test_a_graph_answers_as_through_mlflow(folder: Path) -> None:
    import mlflow.pyfunc

    model = save_onnx(folder / "matrix", columns=False)
    loaded, _ = learn(load(model), None)
    assert (loaded.kind, loaded.matrix is None) == ("onnx", False)
    rows = pd.DataFrame({"x0": [1.0, -2.5], "x1": [0.25, 1e6]})
    expected = mlflow.pyfunc.load_model(str(model)).predict(rows)["sum"].tolist()
    assert answers(loaded, {"dataframe_records": rows.to_dict("records")}) == [expected]
    assert loaded.predict(rows) == expected
    assert "larger than this model can take" in told(loaded, split(["x0", "x1"], [1e39, 0]))
    assert "needs a value" in told(loaded, split(["x0", "x1"], [1, None]))  # it would answer NaN


def test_a_graph_of_columns_with_text(folder: Path) -> None:
    loaded, sample = learn(load(save_onnx(folder / "columns", columns=True)), None)
    assert sample == [{"twice": 0.0, "same": ""}]
    assert answers(loaded, {"inputs": {"name": ["x", "y"], "size": [1, 2]}}) == [
        [{"twice": 2.0, "same": "x"}, {"twice": 4.0, "same": "y"}]
    ]
    assert (
        told(loaded, {"inputs": {"name": [None], "size": [1]}})
        == "column name, row 0: null, and this model needs a value"
    )
    assert "missing column name" in told(loaded, {"inputs": {"size": [1]}})


def test_a_graph_that_no_signature_feeds_is_refused(folder: Path) -> None:
    model = save_onnx(folder / "misnamed", columns=True)
    text = (model / "MLmodel").read_text()
    (model / "MLmodel").write_text(
        text.replace('"name": "name"', '"name": "title"').replace("name: name", "name: title")
    )
    with pytest.raises(InputError, match="the graph needs name, size"):
        load(model)


TENSORS = compile_signature('[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]')
NAMED = compile_signature(
    '[{"name": "a", "type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}},'
    ' {"name": "b", "type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]'
)

SMALL = compile_signature('[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]')


def test_tensors_are_checked_and_asked_together() -> None:
    loaded = Loaded(TENSORS, lambda rows: rows.sum(axis=1).tolist(), "pyfunc")
    assert answers(loaded, {"inputs": [[1, 2]]}, {"instances": [[3, 4.5], [5, 6]]}) == [[3.0], [7.5, 11.0]]
    question = reader(NAMED)(b'{"inputs": {"a": [1, 2], "b": [[1, 2], [3, null]]}}')
    assert question.array["b"].tolist()[0] == [1.0, 2.0]
    assert np.isnan(question.array["b"][1, 1])
    assert question.array["a"].dtype == np.int64


@pytest.mark.parametrize(
    ("signature", "content", "message"),
    [
        (TENSORS, '{"inputs": [[1, 2, 3]]}', "the tensor has the shape [1, 3], not [-1, 2]"),
        (TENSORS, '{"inputs": [[1, 2], [3]]}', "differ in length"),
        (TENSORS, '{"inputs": [["1", "2"]]}', "the tensor must hold numbers"),
        (TENSORS, '{"inputs": {"a": [1]}}', "the model needs an array"),
        (TENSORS, '{"inputs": ' + "[" * 80 + "1" + "]" * 80 + "}", "the tensor"),
        (SMALL, '{"inputs": [[1, 1e39]]}', "the tensor holds a number that is not finite in 32 bits"),
        (NAMED, '{"inputs": {"a": [1]}}', "missing tensor b"),
        (NAMED, '{"inputs": {"a": [1.5], "b": [[1, 2]]}}', "tensor a must hold whole numbers"),
        (NAMED, '{"inputs": {"a": [1e30], "b": [[1, 2]]}}', "tensor a must hold whole numbers"),
        (NAMED, '{"inputs": {"a": [1, 2], "b": [[1, 2]]}}', "the columns of inputs differ in length"),
        (NAMED, '{"inputs": [[1]]}', "missing tensor a"),
        (compile_signature(None), '{"inputs": [[1], [2, 3]]}', "differ in length"),
        (compile_signature(None), '{"inputs": [{}]}', "names no column"),
        (TENSORS, '{"inputs": [[1, 2]], "params": {"temperature": 2}}', "takes no param temperature"),
    ],
)
def test_a_wrong_tensor_is_refused_by_its_name(signature: Any, content: str, message: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        reader(signature)(content.encode())
    assert message in refusal.value.message


INNER = compile_signature(
    json.dumps(
        [
            {"name": "image", "type": "binary"},
            {"name": "scores", "type": "array", "items": {"type": "double"}},
            {
                "name": "user",
                "type": "object",
                "properties": {"age": {"type": "long"}, "plan": {"type": "string", "required": False}},
            },
            {"name": "seen", "type": "map", "values": {"type": "array", "items": {"type": "boolean"}}},
        ]
    )
)
FITS = {"image": "aGk=", "scores": [1, 2.5], "user": {"age": 3}, "seen": {"de": [True]}}


def test_bytes_lists_and_objects_reach_the_model_as_mlflow_has_them() -> None:
    loaded = Loaded(INNER, plain, "pyfunc")
    ((answer,),) = answers(loaded, {"dataframe_records": [FITS]})
    assert answer == {**FITS, "image": b"hi"}
    assert [type(v) for v in answer["scores"]] == [float, float]  # MLflow takes no whole number for one
    assert (
        written([answer])
        == b'{"predictions":[{"image":"aGk=","scores":[1.0,2.5],"user":{"age":3},"seen":{"de":[true]}}]}'
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": "no base64!"}, 'column image, row 1: "no base64!" is not base64 of bytes'),
        ({"image": 7}, "column image, row 1: 7 is not base64 of bytes"),
        ({"scores": "no"}, 'column scores, row 1: "no" is not a list'),
        ({"scores": [1, "x"]}, 'column scores, row 1: item 1: "x" is not a number'),
        ({"user": 3}, "column user, row 1: 3 is not an object"),
        ({"user": {"plan": "a"}}, "column user, row 1: it has no age"),
        ({"user": {"age": 1.5}}, "column user, row 1: age: 1.5 is not a whole number of 64 bits"),
        ({"seen": {"de": [True, 0]}}, "column seen, row 1: de: item 1: 0 is not true or false"),
    ],
)
def test_what_is_wrong_inside_of_a_value_is_named(wrong: dict[str, Any], message: str) -> None:
    loaded = Loaded(INNER, plain, "pyfunc")
    assert told(loaded, {"dataframe_records": [FITS, {**FITS, **wrong}]}) == message


def test_what_mlflow_refuses_by_the_signature_is_the_clients_mistake(folder: Path) -> None:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    class Same(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input

    signature = ModelSignature(Schema([ColSpec("datetime", "day"), ColSpec("long", "n")]))
    mlflow.pyfunc.save_model(str(folder / "days"), python_model=Same(), signature=signature, pip_requirements=[])
    loaded = load(folder / "days")
    right, wrong = ({"dataframe_records": [{"day": day, "n": 1}]} for day in ("2026-01-02", "1500-01-02"))
    good, bad = answers(loaded, right, wrong)  # together: the one must not spoil the other
    assert isinstance(bad, BadRequest)
    assert "Out of bounds" in bad.message
    asked = inference.reader(loaded.signature)(
        json.dumps(
            {
                "inputs": [
                    {"name": "day", "datatype": "BYTES", "shape": [1], "data": ["2026-01-02"]},
                    {"name": "n", "datatype": "INT64", "shape": [1], "data": [1]},
                ]
            }
        ).encode()
    )
    day, _ = json.loads(inference.written(asked, good, "days", "1"))["outputs"]
    assert day == {"name": "day", "shape": [1], "datatype": "BYTES", "data": ["2026-01-02T00:00:00"]}


def test_answers_of_every_kind_become_plain_values() -> None:
    assert plain(np.array([[1.5, 2], [3, 4]])) == [[1.5, 2.0], [3.0, 4.0]]
    assert plain(pd.DataFrame({"p": [0.5, 1.0]})) == [0.5, 1.0]
    assert plain(pd.DataFrame({"p": [0.5], "q": ["x"]})) == [{"p": 0.5, "q": "x"}]
    assert plain({"p": np.array([1, 2]), "q": np.array(["x", "y"])}) == [{"p": 1, "q": "x"}, {"p": 2, "q": "y"}]
    with pytest.raises(TypeError, match="nothing for object"):
        plain([object()])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (np.array([1.5, np.nan, -np.inf]), [1.5, None, None]),
        ([1.5, float("nan")], [1.5, None]),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), [[1.0, None], [2.0, 3.0]]),
        (pd.DataFrame({"a": [1.0], "b": [np.nan]}), [{"a": 1.0, "b": None}]),
        (pd.DataFrame({"a": [1.0], "b": [pd.NaT]}), [{"a": 1.0, "b": None}]),
    ],
)
def test_an_answer_that_is_no_number_is_null_and_spoils_no_other(answer: Any, expected: list[Any]) -> None:
    loaded = Loaded(compile_signature(None), values_of(lambda _rows: answer), "test")
    rows = Question(len(expected), None, ("a",), [[1]] * len(expected))
    (found,) = answer_all(loaded, [rows])
    assert isinstance(found, list)
    assert json.loads(written(found)) == {"predictions": expected}


@pytest.mark.parametrize(
    ("datatype", "shape", "given", "expected", "answered"),
    [
        ("FP64", [2], [1, 2], "float64", "FP64"),
        ("FP32", [2, 1], [1, 2], "float32", "FP64"),
        ("INT32", [2], [1, 2], "int32", "INT64"),
        ("UINT8", [2, 1], [1, 2], "uint8", "INT64"),
        ("BOOL", [2], [True, False], "bool", "BOOL"),
        ("BYTES", [2], ["a", "b"], "object", "BYTES"),
    ],
)
def test_without_a_signature_the_datatype_of_the_request_holds(
    datatype: str, shape: list[int], given: list[Any], expected: str, answered: str
) -> None:
    kinds = []

    def same(rows: Any) -> Any:
        values = rows["a"] if hasattr(rows, "columns") else rows[:, 0]
        kinds.append("object" if values.dtype.name in ("str", "string") else values.dtype.name)
        return values

    loaded = Loaded(compile_signature(None), values_of(same), "test")
    read = inference.reader(loaded.signature)
    tensor = {"name": "a", "datatype": datatype, "shape": shape, "data": given}
    asked = read(json.dumps({"inputs": [tensor]}).encode())
    (found,) = answer_all(loaded, [asked.question])
    assert isinstance(found, list)
    (output,) = json.loads(inference.written(asked, found, "m", "1"))["outputs"]
    assert (kinds, output["datatype"], output["data"]) == ([expected], answered, given)
    if datatype != "BYTES":
        with pytest.raises(BadRequest, match="tensor a must hold"):
            read(json.dumps({"inputs": [{**tensor, "data": ["x", "y"]}]}).encode())


def test_an_answer_that_is_no_number_stays_a_number_in_the_open_inference_protocol() -> None:
    loaded = Loaded(compile_signature(None), values_of(lambda _rows: np.array([1.5, np.nan])), "test")
    tensor = {"name": "a", "datatype": "FP64", "shape": [2], "data": [1, 2]}
    asked = inference.reader(loaded.signature)(json.dumps({"inputs": [tensor]}).encode())
    (found,) = answer_all(loaded, [asked.question])
    assert isinstance(found, list)
    (output,) = json.loads(inference.written(asked, found, "m", "1"))["outputs"]
    assert (output["datatype"], output["data"]) == ("FP64", [1.5, None])


SIGNATURE = compile_signature(
    json.dumps([{"type": t, "name": n, "required": True} for n, t in (("a", "double"), ("b", "long"), ("c", "string"))])
)
_values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)


@given(st.lists(st.lists(_values, min_size=2, max_size=4), min_size=1, max_size=3))
def test_the_quick_way_to_read_rows_and_the_thorough_one_agree(rows: list[list[Any]]) -> None:
    content = json.dumps(split(["a", "b", "c"], *rows)).encode()

    def outcome(read: Any) -> Any:
        try:
            question = read(content)
            columns = SIGNATURE.columns(question.rows, question.names)
        except BadRequest as error:
            return error.message
        return {name: list(map(repr, values)) for name, values in columns.items()}

    assert outcome(reader(SIGNATURE)) == outcome(lambda body: question_of(parse(body), SIGNATURE))


def test_requests_that_come_together_are_asked_together_but_none_waits_alone() -> None:
    calls: list[int] = []

    def predict(frame: Any) -> list[Any]:
        calls.append(len(frame))
        return [float(v) for v in frame["a"]]

    loaded = Loaded(SIGNATURE, predict, "test")
    counts = Board().of(0)

    def asked(value: float) -> Question:
        return Question(1, SIGNATURE.names, SIGNATURE.names, [[value, 1, "x"]])

    async def main() -> None:
        batcher = Batcher(loaded, BatchLimits(rows=4, delay=10.0, queue=12), counts)
        began = time.monotonic()
        assert await batcher.submit(asked(1)) == [1.0]
        assert time.monotonic() - began < 1  # alone: not after the ten seconds that it might have waited
        several = [batcher.submit(asked(v)) for v in range(10)]
        assert [await f for f in several] == [[float(v)] for v in range(10)]
        gone = batcher.submit(asked(5))
        gone.cancel()
        assert await batcher.submit(asked(6)) == [6.0]
        for v in range(12):
            batcher.submit(asked(v)).cancel()
        with pytest.raises(Overloaded) as refusal:
            batcher.submit(asked(0))
        assert refusal.value.seconds >= 1

    asyncio.run(main())
    assert calls[:4] == [1, 4, 4, 2]
    assert max(calls) == 4
