"""The Open Inference Protocol, version 2 (KServe's, Triton's): bodies of ``/v2/models/…/infer``, and metadata.

Specification: github.com/kserve/open-inference-protocol, inference_rest.yaml. A column is a tensor of the shape (rows)
or (rows, 1); where all columns are numbers, one tensor (rows, columns) may hold them all, in the signature's order.
Tensors come as JSON; the binary extension is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.answers import encoded, json_value
from mlp_ci.serve.payload import BadRequest, Rows, decode
from mlp_ci.serve.server.invocations import question_of
from mlp_ci.serve.signature import TensorRule, compile_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlp_ci.serve.model import Loaded
    from mlp_ci.serve.server.batching import Question
    from mlp_ci.serve.signature import Signature

DATATYPES = {
    "double": "FP64",
    "float": "FP32",
    "integer": "INT32",
    "long": "INT64",
    "boolean": "BOOL",
    "float64": "FP64",
    "float32": "FP32",
    "float16": "FP16",
    "int64": "INT64",
    "int32": "INT32",
    "int16": "INT16",
    "int8": "INT8",
    "uint64": "UINT64",
    "uint32": "UINT32",
    "uint16": "UINT16",
    "uint8": "UINT8",
    "bool": "BOOL",
}
KNOWN = frozenset({*DATATYPES.values(), "BYTES"})
_NUMPY = {kind: name for name, kind in DATATYPES.items() if name[-1].isdigit() or name == "bool"}
_DEEPEST = 16  # dimensions
OUTPUT = "predictions"  # the output's name, where the answers are not objects


@dataclass(frozen=True)
class Asked:
    """What of a request the answer needs."""

    question: Question
    id: str | None
    outputs: tuple[str, ...]


def reader(signature: Signature) -> Callable[[bytes], Asked]:
    """What reads a body; it raises BadRequest."""

    def read(body: bytes) -> Asked:
        document = decode(body)
        if not isinstance(document, dict) or not isinstance(document.get("inputs"), list) or not document["inputs"]:
            msg = "the body must be an object with the list `inputs`, one object for each tensor"
            raise BadRequest(msg)
        name = document.get("id")
        if name is not None and not isinstance(name, str):
            msg = "id must be text"
            raise BadRequest(msg)
        tensors = dict(_tensor(i, value) for i, value in enumerate(document["inputs"]))
        if len(tensors) != len(document["inputs"]):
            msg = "two inputs have the same name"
            raise BadRequest(msg)
        question = question_of(_rows(tensors, signature), signature)
        if not signature.rules and not signature.tensors:  # then the request alone knows the types
            _cast(question, {value["name"]: value["datatype"] for value in document["inputs"]})
        params = signature.params.known(document.get("parameters"))
        return Asked(question.told(params), name, _wanted(document.get("outputs")))

    return read


def _tensor(index: int, value: Any) -> tuple[str, tuple[list[int], list[Any]]]:
    """The name, shape and flat values of one input."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        msg = f"input {index} must be an object with name, shape, datatype and data"
        raise BadRequest(msg)
    name, shape, kind = value["name"], value.get("shape"), value.get("datatype")
    if "data" not in value:
        msg = f"input {name} has no data; this server reads tensors as JSON, not the binary extension"
        raise BadRequest(msg)
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n >= 0 for n in shape):
        msg = f"input {name}: shape must be a list of whole numbers"
        raise BadRequest(msg)
    if not isinstance(kind, str) or kind not in KNOWN:
        msg = f"input {name}: datatype must be one of {', '.join(sorted(KNOWN))}"
        raise BadRequest(msg)
    flat = _flat(value["data"], name)
    if len(flat) != math.prod(shape):
        msg = f"input {name} has {len(flat)} values; its shape {shape} needs {math.prod(shape)}"
        raise BadRequest(msg)
    return name, (shape, flat)


def _cast(question: Question, kinds: Mapping[str, str]) -> None:
    """The values as the request says that they are: 1 of an FP64 is 1.0. Raises BadRequest where one is not."""

    def cast(name: str, values: Any) -> Any:
        known = _NUMPY.get(kinds[name])
        return TensorRule(name, known, ()).check(values) if known else values

    if question.array is not None:
        question.array = cast(next(iter(kinds)), question.array)
        return
    columns = zip(question.names, zip(*question.rows, strict=True), strict=True)
    question.rows = list(zip(*(cast(name, values) for name, values in columns), strict=True))


def _flat(data: Any, name: str) -> list[Any]:
    """The values of nested lists, in order."""
    if not isinstance(data, list):
        msg = f"input {name}: data must be a list"
        raise BadRequest(msg)
    values = data
    for _ in range(_DEEPEST):
        if not any(type(v) is list for v in values):
            return values
        values = [inner for v in values for inner in (v if type(v) is list else [v])]
    msg = f"input {name}: its data is nested too deeply"
    raise BadRequest(msg)


def _wanted(outputs: Any) -> tuple[str, ...]:
    if outputs is None:
        return ()
    named = isinstance(outputs, list) and all(isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs)
    if not named:
        msg = "outputs must be a list of objects with a name"
        raise BadRequest(msg)
    return tuple(o["name"] for o in outputs)


def _rows(tensors: Mapping[str, tuple[list[int], list[Any]]], signature: Signature) -> Rows:
    """Tensors as the rows of MLflow's protocol, so that both are checked alike."""
    count = next(iter(tensors.values()))[0][0]
    for name, (shape, _) in tensors.items():
        if shape[0] != count:
            msg = f"input {name} has {shape[0]} rows, another {count}"
            raise BadRequest(msg)
    if not count:
        msg = "the inputs hold no rows"
        raise BadRequest(msg)
    if len(tensors) == 1:
        (name, (shape, flat)) = next(iter(tensors.items()))
        if signature.tensor or (not signature.rules and not signature.tensors and len(shape) > 1):
            return Rows({}, count, tensor=_nested(flat, shape))
        if len(shape) == 2 and name not in signature.names and shape[1] == len(signature.names):
            width = shape[1]
            return Rows({c: flat[i::width] for i, c in enumerate(signature.names)}, count)
    if signature.tensors:
        return Rows({name: _nested(flat, shape) for name, (shape, flat) in tensors.items()}, count)
    for name, (shape, _) in tensors.items():
        if math.prod(shape[1:]) != 1:
            msg = f"input {name} is a column, so its shape must be [{count}] or [{count}, 1], not {shape}"
            raise BadRequest(msg)
    return Rows({name: flat for name, (_, flat) in tensors.items()}, count)


def _nested(flat: list[Any], shape: Sequence[int]) -> list[Any]:
    """Flat values as lists of lists."""
    if len(shape) > _DEEPEST:
        msg = f"a shape of {len(shape)} dimensions is too much"
        raise BadRequest(msg)
    values: list[Any] = flat
    for size in reversed(shape[1:]):
        if not size:
            return [[] for _ in range(shape[0])]
        values = [values[i : i + size] for i in range(0, len(values), size)]
    return values


def written(asked: Asked, predictions: list[Any], model: str, version: str) -> bytes:
    """The answer's body; raises BadRequest for an output that is not there, Unwritable for what JSON cannot hold."""
    columns = _columns(predictions)
    unknown = [name for name in asked.outputs if name not in columns]
    if unknown:
        msg = f"there is no output {unknown[0][:60]!r}; the model gives {', '.join(columns)}"
        raise BadRequest(msg)
    outputs = [_output(name, columns[name]) for name in asked.outputs or columns]
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if asked.id is not None:
        answer["id"] = asked.id
    return encoded(answer)


def _columns(predictions: list[Any]) -> dict[str, list[Any]]:
    """Objects as one output for each of their fields; anything else as one output."""
    if predictions and all(type(p) is dict and p.keys() == predictions[0].keys() for p in predictions):
        return {str(name): [p[name] for p in predictions] for name in predictions[0]}
    return {OUTPUT: predictions}


def _output(name: str, values: list[Any]) -> dict[str, Any]:
    shape, flat = [len(values)], values
    while flat and all(type(v) is list and len(v) == len(flat[0]) and v for v in flat):
        shape.append(len(flat[0]))
        flat = [inner for v in flat for inner in v]
    kind = _datatype(flat)
    if kind == "BYTES":
        flat = [_text(v) for v in flat]
    return {"name": name, "shape": shape, "datatype": kind, "data": flat}


def _text(value: Any) -> str:
    """One element of BYTES: text and times as they are, all else as JSON."""
    if isinstance(value, str):
        return value
    known = json_value(value) if hasattr(value, "isoformat") or isinstance(value, bytes) else None
    if known is not None:
        return str(known)
    return encoded(value).decode()


def _datatype(values: Sequence[Any]) -> str:
    kinds = set(map(type, values))
    for datatype, allowed in (("BOOL", {bool}), ("INT64", {int}), ("FP64", {int, float})):
        if kinds <= allowed:
            return datatype
    return "BYTES"


def described(signature: Signature) -> list[dict[str, Any]]:
    """The inputs, as the protocol's metadata has them."""
    if signature.tensors:
        return [
            {"name": t.name or "inputs", "datatype": DATATYPES.get(t.type, "BYTES"), "shape": list(t.shape) or [-1]}
            for t in signature.tensors
        ]
    return [{"name": r.name, "datatype": DATATYPES.get(r.type, "BYTES"), "shape": [-1]} for r in signature.rules]


def outputs(loaded: Loaded, sample: list[Any] | None) -> list[dict[str, Any]]:
    """The outputs, as the metadata has them: from an answer of the model, else from what MLmodel says of it."""
    if sample:
        found = [_output(name, values) for name, values in _columns(sample).items()]
        return [{"name": o["name"], "datatype": o["datatype"], "shape": [-1, *o["shape"][1:]]} for o in found]
    kinds = {r.name: r.type for r in compile_signature(loaded.outputs).rules}
    told = [{"name": n, "datatype": DATATYPES.get(k, "BYTES"), "shape": [-1]} for n, k in kinds.items()]
    return (
        told
        if len(told) > 1
        else [{"name": OUTPUT, "datatype": told[0]["datatype"] if told else "FP64", "shape": [-1]}]
    )
