"""MLflow's scoring protocol, ``POST /invocations``: a body read into a question for the model, answers written.

The common case, all columns in the order of the signature, costs one comparison; everything else goes through
:mod:`mlp_ci.serve.payload` and comes out the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.serve.answers import encoded
from mlp_ci.serve.payload import BadRequest, Rows, decode, parse_document
from mlp_ci.serve.server.batching import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlp_ci.serve.signature import Signature


def reader(signature: Signature) -> Callable[[bytes], Question]:
    """What reads a JSON body into a question; it raises BadRequest."""
    names, listed = signature.names, list(signature.names)
    width = len(names)

    def read(body: bytes) -> Question:
        document = decode(body)
        if width and type(document) is dict and len(document) == 1:
            rows = _in_order(document, listed, width)
            if rows:
                return Question(len(rows), names, names, rows)
        question = question_of(parse_document(document), signature)
        return question.told(signature.params.checked(document.get("params")))

    return read


def _in_order(document: dict[str, Any], names: list[str], width: int) -> list[list[Any]] | None:
    """The rows of a body whose columns are just those of the model; None for any other, right or wrong."""
    split = document.get("dataframe_split")
    if split is not None:
        if type(split) is not dict or split.get("columns") != names:
            return None
        data = split.get("data")
        if type(data) is not list:
            return None
        for row in data:
            if type(row) is not list or len(row) != width:
                return None
        return data
    records = document.get("dataframe_records")
    if type(records) is not list:
        return None
    try:
        return [[row[name] for name in names] for row in records]
    except (KeyError, TypeError, IndexError):
        return None


def question_of(rows: Rows, signature: Signature) -> Question:
    """The question that parsed rows are; raises BadRequest that names the column or tensor."""
    if signature.tensors and not signature.tensor:
        return _tensors({t.name: t.check(_given(rows, t.name)) for t in signature.tensors}, rows.count)
    if rows.tensor is not None and (signature.tensor or not signature.rules):
        return _tensor(rows.tensor, signature)
    if signature.tensor:
        msg = "the model needs an array: send inputs or instances as nested lists"
        raise BadRequest(msg)
    chosen = signature.chosen(rows)
    if not chosen:
        msg = "the request names no column"
        raise BadRequest(msg)
    names = signature.names if len(chosen) == len(signature.names) else tuple(chosen)
    values: Sequence[Any] = list(zip(*(rows.columns[name] for name in chosen), strict=True))
    # Without a signature the types of one request's values would change another's.
    return Question(rows.count, names if signature.rules else None, names, values)


def _given(rows: Rows, name: str) -> Any:
    if name not in rows.columns:
        msg = f"missing tensor {name}; send inputs as an object of tensors by name"
        raise BadRequest(msg)
    return rows.columns[name]


def _tensor(value: Any, signature: Signature) -> Question:
    """An array without a name."""
    if signature.tensors:
        array = signature.tensors[0].check(value)
        return Question(len(array), ("array", array.shape[1:]), array=array)
    import numpy as np

    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        msg = "the lists of inputs differ in length, or nest too deeply"
        raise BadRequest(msg) from None
    return Question(len(array), None, array=array)


def _tensors(arrays: dict[str, Any], count: int) -> Question:
    """Arrays by name, which have as many rows."""
    for name, array in arrays.items():
        if len(array) != count:
            msg = f"tensor {name} has {len(array)} rows, another {count}"
            raise BadRequest(msg)
    return Question(count, tuple((name, array.shape[1:]) for name, array in arrays.items()), array=arrays)


def written(predictions: list[Any]) -> bytes:
    """The answer's body; raises Unwritable for what JSON cannot hold."""
    return encoded({"predictions": predictions})
