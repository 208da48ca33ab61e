"""What a model refuses, learnt once before it serves: then it is the client's mistake, a 400 that names the column.

A signature says that a column holds numbers; it cannot say that the model needs every one of them, or that it computes
in 32 bits. Both make estimators raise in the middle of a prediction, or answer NaN. So the model is asked about its own
input example with one value of each column gone, and with one enormous. This also is its first prediction, which in
many libraries is the slowest.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.answers import require_finite
from mlp_ci.serve.payload import BadRequest
from mlp_ci.serve.server.batching import Question, predict
from mlp_ci.serve.server.invocations import question_of
from mlp_ci.serve.signature import FLOAT32_MAX

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.serve.model import Loaded
    from mlp_ci.serve.signature import ColumnRule

SECONDS = 1.0  # a model that takes longer to ask is taken at its word
_ENORMOUS = 1e300
_SAMPLES = {
    "double": 0.0,
    "float": 0.0,
    "integer": 0,
    "long": 0,
    "boolean": False,
    "string": "",
    "datetime": "2000-01-01",
    "binary": "",
    "array": [],
    "map": {},
}


def example_of(folder: Path) -> dict[str, Any] | None:
    """A request's body from the input example that the model was saved with; None where there is none."""
    for name, key in (("serving_input_example.json", None), ("input_example.json", "dataframe_split")):
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if key is None and isinstance(found, dict):
            return found
        if isinstance(found, dict) and {"columns", "data"} <= found.keys():
            return {"dataframe_split": found}
        return {"inputs": found}
    return None


def example_row(loaded: Loaded, example: dict[str, Any] | None) -> Question | None:
    """The first row of the example, or one of zeros; None where no row can be made."""
    from mlp_ci.serve.payload import parse_document

    signature = loaded.signature
    try:
        question = question_of(parse_document(example), signature)
        if question.array is None:
            return Question(1, question.key, question.names, [list(question.rows[0])])
        return question
    except BadRequest:
        pass
    if not signature.rules:
        return None
    return Question(1, signature.names, signature.names, [[_SAMPLES.get(r.type) for r in signature.rules]])


def learn(loaded: Loaded, example: dict[str, Any] | None) -> tuple[Loaded, list[Any] | None]:
    """The model with a signature that knows what it refuses; and its answer to the example, if it has one."""
    question = example_row(loaded, example)
    if question is None:
        return loaded, None
    try:
        answer = predict(loaded, [question])
    except Exception as error:
        if example is not None:
            print(f"the model fails on its own input example: {error!r}", file=sys.stderr)
        return loaded, None
    if not question.names or question.key is None:
        return loaded, answer
    deadline = time.monotonic() + SECONDS
    asked = [r for r in loaded.signature.rules if r.name in question.names]
    missing = _refused(loaded, question, [r for r in asked if r.nullable], None, deadline)
    numbers = [r for r in asked if r.type == "double"]
    enormous = _refused(loaded, question, numbers, _ENORMOUS, deadline)
    rules = tuple(
        replace(
            r, nullable=r.nullable and r.name not in missing, largest=FLOAT32_MAX if r.name in enormous else r.largest
        )
        for r in loaded.signature.rules
    )
    return replace(loaded, signature=replace(loaded.signature, rules=rules)), answer


def _refused(loaded: Loaded, question: Question, rules: list[ColumnRule], value: Any, deadline: float) -> set[str]:
    """The columns with which the model fails when they hold ``value``."""
    if not rules or _answers(loaded, question, rules, value):
        return set()
    found = set()
    for rule in rules:
        if time.monotonic() > deadline:
            break
        if not _answers(loaded, question, [rule], value):
            found.add(rule.name)
    return found


def _answers(loaded: Loaded, question: Question, rules: list[ColumnRule], value: Any) -> bool:
    """Whether it predicts rows each of which has ``value`` in the column of one of ``rules``."""
    rows = []
    for rule in rules:
        row = list(question.rows[0])
        row[question.names.index(rule.name)] = value
        rows.append(row)
    try:
        with warnings.catch_warnings(action="ignore"):  # that numbers overflow is what is asked
            require_finite(predict(loaded, [Question(len(rows), question.key, question.names, rows)]))
    except Exception:  # whatever the team's code raises
        return False
    return True
