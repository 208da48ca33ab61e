"""GitHub's published OpenAPI description, through githubkit: which model each operation's answer must fit.

githubkit's generated client carries, per operation, the path template in its docstring and the response model in its
call, so the mapping is read from there instead of being written a second time.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Union

from githubkit_schemas import v2026_03_10
from githubkit_schemas.v2026_03_10 import models
from pydantic import TypeAdapter, ValidationError

_HEAD = re.compile(r"^(GET|POST|PUT|PATCH|DELETE) (/\S*)$", re.M)
# The error bodies all operations may give beside those they list.
_COMMON = {401: "BasicError", 403: "BasicError", 404: "BasicError", 400: "BasicError", 413: "BasicError"}
# What GitHub answers and its description leaves out: `closed`, `reopened` and the like fit none of the events it lists.
_UNLISTED = {("GET", "/repos/{owner}/{repo}/issues/{issue_number}/events"): "StateChangeIssueEvent"}


@dataclass(frozen=True)
class Operation:
    """``model`` is the source of a type over ``models``, None for an answer without a body."""

    model: str | None
    errors: dict[int, str] = field(default_factory=dict)


@cache
def operations() -> dict[tuple[str, str], Operation]:
    """(method, path template) → operation, for all of GitHub's REST API."""
    found = {}
    for file in sorted((Path(v2026_03_10.__path__[0]) / "rest").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (head := _HEAD.search(ast.get_docstring(node) or "")):
                found[head[1], head[2]] = _operation(node)
    return found


def check(method: str, template: str, status: int, body: bytes) -> str:
    """What is wrong with an answer, or an empty string."""
    operation = operations()[method, template]
    if 300 <= status < 400:
        return ""
    source = operation.model if status < 300 else operation.errors.get(status, _COMMON.get(status, "ValidationError"))
    if status == 422 and source == "ValidationError":
        source = "Union[ValidationError, ValidationErrorSimple, BasicError]"
    if status < 300 and (method, template) in _UNLISTED:
        source = str(source).removesuffix("]]") + f", {_UNLISTED[method, template]}]]"
    if source is None:
        return "has a body" if body and not template.endswith("/logs") else ""
    if not body:
        return "" if status in (202, 204) else f"has no body, but should be {source}"
    try:
        _adapter(source).validate_python(json.loads(body))
    except ValidationError as error:
        return f"is no {source}: {error.errors()[:3]}"
    return ""


def event_problem(event: str, action: str | None, payload: Any) -> str:
    """What is wrong with a webhook payload, or an empty string."""
    name = "Webhook" + "".join(part.capitalize() for part in f"{event}_{action or ''}".split("_"))
    try:
        _adapter(name).validate_python(payload)
    except ValidationError as error:
        return f"is no {name}: {error.errors()[:3]}"
    return ""


@cache
def _adapter(source: str) -> TypeAdapter[Any]:
    # The models load lazily, so each is asked for by name.
    names = set(re.findall(r"[A-Z]\w+", source)) - {"Union", "None"}
    return TypeAdapter(eval(source, {"Union": Union, **{name: getattr(models, name) for name in names}}))


def _operation(function: ast.FunctionDef) -> Operation:
    model = None
    errors: dict[int, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.keyword) and node.arg == "response_model":
            model = ast.unparse(node.value)
        if isinstance(node, ast.keyword) and node.arg == "error_models" and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                errors[int(ast.literal_eval(key))] = ast.unparse(value)  # type: ignore[arg-type]
    return Operation(model, errors)
