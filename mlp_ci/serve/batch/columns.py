"""Which columns of the input a model is given, and which stay beside its predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError
from mlp_ci.spec.load import MODEL_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from mlp_ci.serve.batch.checks import Rule
    from mlp_ci.serve.batch.inputs import Input
    from mlp_ci.serve.signature import Signature
    from mlp_ci.spec import ModelSpec

ALL, NONE = "all", "none"
PREDICTION = "prediction"


@dataclass(frozen=True)
class Wanted:
    """A column and what it is read as; an empty type: as it comes."""

    name: str
    type: str


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a model is given: columns with their types; ``matrix`` and ``tensors`` as in :class:`workers.Model`."""

    rules: tuple[Rule, ...]
    matrix: str | None = None
    tensors: Mapping[str, str] = field(default_factory=dict)


def given_to_model(signature: Signature, data: Input, spec: ModelSpec | None) -> Given:
    """By the signature; InputError where a file lacks a column, or where nobody knows which columns it needs."""
    if signature.rules:
        _require(data, [rule.name for rule in signature.rules if rule.required])
        return Given(rules=signature.rules)
    if signature.tensors and not signature.tensor:
        _require(data, [tensor.name for tensor in signature.tensors])
        named = tuple(Wanted(t.name, "" if len(t.shape) > 1 else _word(t.type)) for t in signature.tensors)
        return Given(rules=named, tensors={t.name: t.type for t in signature.tensors})
    features = [n for n in spec.data.features if n in data.names] if spec else data.names
    if spec:
        _require(data, features)
    if signature.tensor:
        _require_width(signature, features)
        kind = signature.tensors[0].type if signature.tensors else "float64"
        return Given(rules=tuple(Wanted(name, "double") for name in features), matrix=kind)
    if data.source.format == "csv":
        msg = "the model has no signature, so nobody knows as what the text of a CSV is to be read"
        raise InputError(msg, fix="predict a Parquet file, or save the model with a signature (`infer_signature`)")
    return Given(rules=tuple(Wanted(name, "") for name in features))


def _require(data: Input, names: Sequence[str]) -> None:
    for file in data.files:
        missing = [name for name in names if name not in file.names]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            msg = f"{file.shown} has no column{plural} {', '.join(missing)}, and the model needs {', '.join(names)}"
            raise InputError(msg, fix=f"its columns are {', '.join(file.names)}")


def _require_width(signature: Signature, features: Sequence[str]) -> None:
    shape = signature.tensors[0].shape if signature.tensors else (-1, -1)
    if len(shape) != 2 or shape[1] not in (-1, len(features)):
        msg = f"the model needs an array of the shape {list(shape)}, and {len(features)} columns can be given"
        fix = f"let data.columns of {MODEL_FILE} name exactly the model's inputs, in its order"
        raise InputError(msg, why=f"they are {', '.join(features)}", fix=fix)


def _word(kind: str) -> str:
    """The type of a signature's column that a numpy type can be read as."""
    return "double" if kind.startswith("float") else "long" if kind.startswith(("int", "uint")) else ""


def kept(data: Input, asked: Sequence[str], spec: ModelSpec | None, written: str) -> pa.Schema:
    """The columns that stay, with their types: the key, and those asked for. ``written``: parquet or csv.

    ``all`` means every column that is not marked sensitive, ``none`` no column at all.
    """
    import pyarrow as pa

    key = list(spec.data.key) if spec else []
    names = _names(data, asked, key, spec)
    unknown = [name for name in names if name not in data.names]
    if unknown:
        what = "the key of model.yaml" if set(unknown) <= set(key) and not set(unknown) & set(asked) else "--keep"
        msg = f"{data.source.shown_as} has no column {', '.join(unknown)}, which {what} names"
        raise InputError(msg, fix=f"its columns are {', '.join(data.names)}; `--keep none` keeps none")
    clash = [name for name in names if name == PREDICTION or name.startswith(f"{PREDICTION}_")]
    if clash:
        msg = f"a column that is to be kept is called {clash[0]}, as predictions are"
        raise InputError(msg, fix="rename it, or leave it out of --keep")
    types = {name: _type(data, name, spec, written) for name in names}
    nested = [name for name, kind in types.items() if written == "csv" and pa.types.is_nested(kind)]
    if nested:
        msg = f"a CSV cannot hold {nested[0]}, which is a {types[nested[0]]}"
        raise InputError(msg, fix="write Parquet, or leave it out of --keep")
    return pa.schema(list(types.items()))


def _names(data: Input, asked: Sequence[str], key: list[str], spec: ModelSpec | None) -> list[str]:
    if NONE in asked:
        return []
    if ALL in asked:
        hidden = {n for n, column in spec.data.columns.items() if column.sensitive} if spec else set()
        return list(dict.fromkeys([*key, *(name for name in data.names if name not in hidden)]))
    return list(dict.fromkeys([*key, *asked]))


def _type(data: Input, name: str, spec: ModelSpec | None, written: str) -> pa.DataType:
    """As it comes; text of a CSV that becomes Parquet as model.yaml describes it."""
    import pyarrow as pa

    known = spec.data.columns.get(name) if spec else None
    if name not in data.text or written == "csv" or known is None:
        return data.type_of(name)
    declared = {
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us"),
        "date": pa.timestamp("us"),
    }
    return declared.get(known.type, pa.string())
