"""An ONNX model through onnxruntime itself: six microseconds a prediction, where MLflow's wrapper takes milliseconds.

Answers as the wrapper does (``mlflow.onnx``: the columns are the inputs of the graph by name, or one matrix where there
is one input), with two differences: a column also feeds an input of shape (rows, 1), and an output of several numbers
per row stays together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError
from mlp_ci.serve.answers import plain
from mlp_ci.serve.signature import FLOAT32_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlp_ci.serve.signature import ColumnRule, Signature

_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


@dataclass(frozen=True)
class Input:
    """One input of the graph: numpy type, number of dimensions, and whether it takes a single row at a time."""

    name: str
    type: str
    rank: int
    single: bool


@dataclass(frozen=True)
class OnnxModel:
    """A session with what is known of its inputs and outputs."""

    signature: Signature
    run: Callable[[Any, Mapping[str, Any]], list[Any]]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, flavor: Mapping[str, Any], signature: Signature, threads: int) -> OnnxModel:
        """The session of ``folder``; raises InputError when an input is of a type that requests cannot give."""
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            msg = f"this is an ONNX model, and {error.name} is not installed here"
            raise InputError(msg, fix="pip install onnxruntime, where the server runs") from error
        session = onnxruntime.InferenceSession(
            str(folder / str(flavor["data"])), _options(flavor, threads), providers=_providers(flavor)
        )
        inputs = tuple(_input(i) for i in session.get_inputs())
        names = {i.name for i in inputs}
        if signature.rules and len(inputs) > 1 and not names <= set(signature.names):
            msg = f"the graph needs {', '.join(sorted(names))}; the signature has {', '.join(signature.names)}"
            raise InputError(msg, fix="save the model with a signature whose columns are the inputs of the graph")
        return cls(_exact(signature, inputs), session.run, inputs, tuple(o.name for o in session.get_outputs()))

    @property
    def takes_matrix(self) -> bool:
        return len(self.inputs) == 1 and self.inputs[0].rank == 2 and self.signature.number_type is not None

    def matrix(self, rows: Any) -> list[Any]:
        """Predictions of an array (rows, columns)."""
        only = self.inputs[0]
        return self._ask({only.name: rows.astype(only.type, copy=False)})

    def arrays(self, columns: Mapping[str, Any]) -> list[Any]:
        """Predictions of columns (rows,) or, by name, of tensors."""
        import numpy as np

        if len(self.inputs) == 1 and self.inputs[0].name not in columns:
            only = self.inputs[0]
            return self._ask({only.name: np.column_stack(list(columns.values())).astype(only.type)})
        return self._ask({i.name: _shaped(columns[i.name], i) for i in self.inputs})

    def predict(self, rows: Any) -> list[Any]:
        """Predictions of a DataFrame, an array or arrays by name."""
        if hasattr(rows, "columns"):
            return self.arrays({str(name): rows[name].to_numpy() for name in rows.columns})
        if isinstance(rows, dict):
            return self.arrays(rows)
        only = self.inputs[0]
        return self._ask({only.name: rows.astype(only.type, copy=False)})

    def _ask(self, feed: Mapping[str, Any]) -> list[Any]:
        count = len(next(iter(feed.values())))
        if count > 1 and any(i.single for i in self.inputs):
            return [one for k in range(count) for one in self._ask({n: v[k : k + 1] for n, v in feed.items()})]
        answers = self.run(None, feed)
        if len(answers) == 1:
            return _rows(answers[0])
        columns = [_rows(answer) for answer in answers]
        return [dict(zip(self.outputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _rows(answer: Any) -> list[Any]:
    """One value per row of one output: a number where there is one, else a list; maps of a ZipMap with text keys."""
    if isinstance(answer, list):
        return plain([{str(k): v for k, v in one.items()} if isinstance(one, dict) else one for one in answer])
    return plain(answer[:, 0] if answer.ndim == 2 and answer.shape[1] == 1 else answer)


def _shaped(values: Any, wanted: Input) -> Any:
    import numpy as np

    found = np.asarray(values, dtype=wanted.type)
    return found.reshape(-1, 1) if wanted.rank == 2 and found.ndim == 1 else found


def _input(found: Any) -> Input:
    if found.type not in _TYPES:
        msg = f"the graph's input {found.name} is a {found.type}, which no request can give"
        raise InputError(msg, fix="save a graph whose inputs are tensors of numbers, texts or booleans")
    shape = found.shape or []
    return Input(found.name, _TYPES[found.type], len(shape), bool(shape) and shape[0] == 1)


def _options(flavor: Mapping[str, Any], threads: int) -> Any:
    """As the model asks for; but its threads are the server's: a team of them costs more than a small row."""
    import onnxruntime

    asked = flavor.get("onnx_session_options") or {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    if asked.get("graph_optimization_level") is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(asked["graph_optimization_level"])
    return options


def _providers(flavor: Mapping[str, Any]) -> list[Any]:
    import onnxruntime

    here = onnxruntime.get_available_providers()
    asked = flavor.get("providers") or []
    usable = [p for p in asked if (p if isinstance(p, str) else p[0]) in here]
    return usable or ["CPUExecutionProvider"]


def _exact(signature: Signature, inputs: tuple[Input, ...]) -> Signature:
    """What a graph cannot take is the client's mistake, and named: a column or text that is missing, a number that does
    not fit into 32 bits where it computes in those."""
    types = {i.name: i.type for i in inputs}
    only = inputs[0].type if len(inputs) == 1 else ""
    return replace(signature, rules=tuple(_narrowed(rule, types.get(rule.name, only)) for rule in signature.rules))


def _narrowed(rule: ColumnRule, kind: str) -> ColumnRule:
    largest = FLOAT32_MAX if rule.type == "double" and kind == "float32" else rule.largest
    return replace(rule, required=True, nullable=rule.nullable and rule.type != "string", largest=largest)
