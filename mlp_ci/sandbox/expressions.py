"""GitHub's expression language, for what is decided before a job starts: concurrency groups, run names, runner labels.
What happens inside a job is evaluated by act.

Reference: docs.github.com, "Evaluate expressions in workflows and actions". A syntax error or an unknown function
raises InputError; an unknown property is null, as on GitHub.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from mlp_ci.errors import InputError

Value: TypeAlias = Any  # what JSON can hold

_TEMPLATE = re.compile(r"\$\{\{(?P<body>(?:'(?:[^']|'')*'|[^'}]|\}(?!\}))*)\}\}")
_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>[+-]?(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?))"
    r"|(?P<name>[A-Za-z_][\w-]*)|(?P<operator>&&|\|\||==|!=|<=|>=|[<>!()\[\].,*]))"
)
_BINDING = {"||": 1, "&&": 2, "==": 3, "!=": 3, "<": 4, "<=": 4, ">": 4, ">=": 4}


def substitute(text: str, contexts: Mapping[str, Value]) -> Value:
    """Replace every ``${{ … }}`` in ``text``. A text that is one expression and nothing else keeps the value's type."""
    whole = _TEMPLATE.fullmatch(text.strip())
    if whole:
        return evaluate(whole["body"], contexts)
    return _TEMPLATE.sub(lambda match: as_text(evaluate(match["body"], contexts)), text)


def evaluate(expression: str, contexts: Mapping[str, Value]) -> Value:
    """The value of ``expression``, without its ``${{ }}``, over ``contexts`` such as ``{"vars": {"A": "b"}}``."""
    return _Parser(expression, contexts).whole()


def as_text(value: Value) -> str:
    """``value`` the way GitHub puts it into text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "Object" if isinstance(value, Mapping) else "Array" if isinstance(value, list) else str(value)


def truthy(value: Value) -> bool:
    """Whether ``value`` counts as true: all but null, false, 0, NaN and the empty text."""
    return not (
        value is None or value is False or value == "" or (_is_number(value) and (value == 0 or math.isnan(value)))
    )


class _Parser:
    """Precedence climbing over the tokens, evaluating on the way; an expression is short and used once."""

    def __init__(self, text: str, contexts: Mapping[str, Value]) -> None:
        self.text = text
        self.contexts = {name.lower(): value for name, value in contexts.items()}
        self.tokens = _tokens(text)
        self.at = 0

    def whole(self) -> Value:
        value = self.binary(0)
        if self.at != len(self.tokens):
            raise _syntax(self.text)
        return value

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> tuple[str, str]:
        if self.at >= len(self.tokens) or (wanted and self.peek() != wanted):
            raise _syntax(self.text)
        self.at += 1
        return self.tokens[self.at - 1]

    def binary(self, floor: int) -> Value:
        left = self.unary()
        while (binding := _BINDING.get(self.peek(), 0)) > floor:
            operator = self.take()[1]
            right = self.binary(binding)
            left = _operate(operator, left, right)
        return left

    def unary(self) -> Value:
        if self.peek() == "!":
            self.take()
            return not truthy(self.unary())
        return self.postfix(self.primary())

    def primary(self) -> Value:
        kind, text = self.take()
        if kind == "string":
            return text[1:-1].replace("''", "'")
        if kind == "number":
            return float(int(text, 16)) if "0x" in text else float(text)
        if text == "(":
            value = self.binary(0)
            self.take(")")
            return value
        if kind != "name":
            raise _syntax(self.text)
        if self.peek() == "(":
            return self.call(text)
        literals: dict[str, Value] = {"true": True, "false": False, "null": None}
        return literals[text] if text in literals else self.contexts.get(text.lower())

    def call(self, name: str) -> Value:
        self.take("(")
        arguments: list[Value] = []
        while self.peek() != ")":
            arguments.append(self.binary(0))
            if self.peek() == ",":
                self.take()
        self.take(")")
        function = _FUNCTIONS.get(name.lower())
        if function is None:
            what = f"The expression function {name}() is not known before a job starts, in: {self.text.strip()}"
            raise InputError(what, fix=f"use one of {', '.join(_FUNCTIONS)}")
        try:
            return function(arguments)
        except (ValueError, IndexError) as error:
            what = f"The expression function {name}() cannot take these values: {self.text.strip()}"
            raise InputError(what, why=str(error), fix="see GitHub's page on expressions") from error

    def postfix(self, value: Value) -> Value:
        while self.peek() in (".", "["):
            if self.take()[1] == ".":
                value = _member(value, self.take()[1])
            else:
                value = _member(value, self.binary(0))
                self.take("]")
        return value


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _syntax(text)
        found.append((match.lastgroup or "", match[match.lastgroup or 0]))
        at = match.end()
    return found


def _syntax(text: str) -> InputError:
    what = f"The expression cannot be read: {text.strip()}"
    return InputError(what, fix="write it as GitHub's page on expressions shows; text goes in single quotes")


def _member(value: Value, key: Value) -> Value:
    if isinstance(value, Mapping):
        wanted = as_text(key).lower()
        return next((item for name, item in value.items() if str(name).lower() == wanted), None)
    if isinstance(value, list):
        if key == "*":
            return value
        inside = _is_number(key) and 0 <= key < len(value)
        return value[int(key)] if inside else None
    return None


def _operate(operator: str, left: Value, right: Value) -> Value:
    if operator == "&&":
        return right if truthy(left) else left
    if operator == "||":
        return left if truthy(left) else right
    if operator in ("==", "!="):
        return _equal(left, right) == (operator == "==")
    if isinstance(left, str) and isinstance(right, str):
        first, second = left.lower(), right.lower()
        return _ordered(operator, (first > second) - (first < second))
    one, two = _as_number(left), _as_number(right)
    return False if math.isnan(one) or math.isnan(two) else _ordered(operator, (one > two) - (one < two))


def _ordered(operator: str, sign: int) -> bool:
    return {"<": sign < 0, "<=": sign <= 0, ">": sign > 0, ">=": sign >= 0}[operator]


def _equal(left: Value, right: Value) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.lower() == right.lower()
    if isinstance(left, (Mapping, list)) or isinstance(right, (Mapping, list)):
        return left is right
    if type(left) is type(right):
        return bool(left == right)
    return _as_number(left) == _as_number(right)


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_number(value: Value) -> float:
    if value is None:
        return 0.0
    if isinstance(value, (bool, int, float)):
        return float(value)
    try:
        return float(value.strip() or 0) if isinstance(value, str) else math.nan
    except ValueError:
        return math.nan


def _contains(arguments: Sequence[Value]) -> bool:
    where, what = arguments
    if isinstance(where, list):
        return any(_equal(item, what) for item in where)
    return as_text(what).lower() in as_text(where).lower()


def _format(arguments: Sequence[Value]) -> str:
    parts = re.split(r"(\{\{|\}\}|\{\d+\})", as_text(arguments[0]))
    braces = {"{{": "{", "}}": "}"}
    return "".join(
        as_text(arguments[int(part[1:-1]) + 1]) if re.fullmatch(r"\{\d+\}", part) else braces.get(part, part)
        for part in parts
    )


def _join(arguments: Sequence[Value]) -> str:
    items = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
    return (as_text(arguments[1]) if len(arguments) > 1 else ",").join(as_text(item) for item in items)


_FUNCTIONS: dict[str, Callable[[Sequence[Value]], Value]] = {
    "contains": _contains,
    "startswith": lambda given: as_text(given[0]).lower().startswith(as_text(given[1]).lower()),
    "endswith": lambda given: as_text(given[0]).lower().endswith(as_text(given[1]).lower()),
    "format": _format,
    "join": _join,
    "tojson": lambda given: json.dumps(given[0], indent=2),
    "fromjson": lambda given: json.loads(as_text(given[0])),
}
