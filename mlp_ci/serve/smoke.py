"""The team's own questions to a version (``serve.smoke``): what it must answer before anybody else may ask it.

A file of JSON lines: ``{"request": {"dataframe_records": […]}}``, with ``predictions`` and ``tolerance`` where the
answer is known. ``request`` is the body of ``/invocations``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_KEYS = {"request", "predictions", "tolerance"}
TOLERANCE = 1e-6
_SHOWN = 200


@dataclass(frozen=True)
class Smoke:
    """One question; ``predictions`` is None where any answer will do. ``tolerance`` is an absolute difference."""

    line: int
    body: bytes
    predictions: list[Any] | None
    tolerance: float = TOLERANCE


def read(file: Path) -> tuple[Smoke, ...]:
    """The questions of a file; raises InputError that names the line of what is none."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        msg = f"the smoke file {file} cannot be read: {error}"
        raise InputError(msg, fix="mend it, or `serve.smoke` in model.yaml, which names it") from error
    return parse(text, str(file))


def parse(text: str, file: str) -> tuple[Smoke, ...]:
    """The questions in a text; ``file`` is where it came from."""
    questions = tuple(_one(line, n, file) for n, line in enumerate(text.splitlines(), 1) if line.strip())
    if not questions:
        msg = f"the smoke file {file} asks nothing"
        raise InputError(msg, fix='write lines such as {"request": {"dataframe_records": [{"x": 1}]}}', file=file)
    return questions


def _one(line: str, number: int, file: str) -> Smoke:
    try:
        value = json.loads(line)
        wrong = "" if isinstance(value, dict) else "is no JSON object"
    except ValueError as error:
        value, wrong = {}, f"is no JSON: {error}"
    unknown = sorted(set(value) - _KEYS) if not wrong else []
    if unknown:
        wrong = f"has {unknown[0]!r}, which means nothing here (it knows {', '.join(sorted(_KEYS))})"
    elif not wrong and not isinstance(value.get("request"), dict):
        wrong = "has no `request` with the body of a question"
    elif not wrong and not isinstance(value.get("predictions"), list | None):
        wrong = "has `predictions` that are no list"
    tolerance = value.get("tolerance", TOLERANCE) if not wrong else TOLERANCE
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        wrong = "has a `tolerance` that is no number from 0 up"
    if wrong:
        msg = f"line {number} of the smoke file {wrong}"
        raise InputError(
            msg, fix='each line is {"request": {…}, "predictions": […], "tolerance": 0.01}', file=file, line=number
        )
    return Smoke(number, json.dumps(value["request"]).encode(), value.get("predictions"), float(tolerance))


def wrong(smoke: Smoke, status: int, answer: bytes) -> str:
    """What is wrong with an answer; empty when it is as it should be."""
    shown = answer[:_SHOWN].decode(errors="replace")
    if status != 200:
        return f"line {smoke.line}: it answers {status}: {shown}"
    try:
        given = json.loads(answer)["predictions"]
    except (ValueError, KeyError, TypeError):
        return f"line {smoke.line}: it answers without predictions: {shown}"
    if smoke.predictions is None:
        return ""
    if not same(given, smoke.predictions, smoke.tolerance):
        expected = json.dumps(smoke.predictions)[:_SHOWN]
        return f"line {smoke.line}: it predicts {json.dumps(given)[:_SHOWN]}, not {expected}"
    return ""


def same(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two JSON values are the same, numbers within ``tolerance`` of each other."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= tolerance
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k], tolerance) for k in one)
    return bool(one == other)
