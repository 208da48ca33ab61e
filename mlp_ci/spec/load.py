"""From a file to a frozen typed object, or to all of its problems at once, each with its place and its cure."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mlp_ci.errors import Problem, SpecError
from mlp_ci.spec.document import Document, Path_, parse_document, read_document
from mlp_ci.spec.gateway import GatewaySpec
from mlp_ci.spec.model import ModelSpec
from mlp_ci.spec.platform import PlatformSpec
from mlp_ci.spec.promotion import PromotionSpec

Spec = TypeVar("Spec", ModelSpec, PromotionSpec, PlatformSpec, GatewaySpec)
KINDS: Mapping[str, type[BaseModel]] = {
    "model": ModelSpec,
    "promotion": PromotionSpec,
    "platform": PlatformSpec,
    "gateway": GatewaySpec,
}
MODEL_FILE = "model.yaml"
PROMOTION_FILE = "promotion.yaml"
PLATFORM_FILE = "platform.yaml"


def load_model(repo: Path) -> ModelSpec:
    """``model.yaml`` of the model repository at ``repo``."""
    return _validated(read_document(repo / MODEL_FILE, shown_as=MODEL_FILE), ModelSpec)


def load_promotion(repo: Path) -> PromotionSpec:
    """``promotion.yaml`` of the model repository at ``repo``."""
    return _validated(read_document(repo / PROMOTION_FILE, shown_as=PROMOTION_FILE), PromotionSpec)


def parse_promotion(raw: bytes, name: str = PROMOTION_FILE) -> PromotionSpec:
    """``promotion.yaml`` from its bytes, as read from some commit."""
    return _validated(parse_document(raw, name), PromotionSpec)


def parse_model(raw: bytes, name: str = MODEL_FILE) -> ModelSpec:
    """``model.yaml`` from its bytes, as read from some commit."""
    return _validated(parse_document(raw, name), ModelSpec)


def load_platform(file: Path) -> PlatformSpec:
    """``platform.yaml`` at ``file``."""
    missing = "correct the path that --platform or MLP_PLATFORM gives, or leave it out to use the organisation's file"
    return _validated(read_document(file, missing=missing), PlatformSpec)


def parse_platform(raw: bytes, name: str = PLATFORM_FILE) -> PlatformSpec:
    """``platform.yaml`` from its bytes, as read from the org's ``.github`` repository."""
    return _validated(parse_document(raw, name), PlatformSpec)


def load_gateway(file: Path) -> GatewaySpec:
    """``gateway.yaml`` at ``file``."""
    return _validated(read_document(file, missing="correct the path that --config gives"), GatewaySpec)


def default_platform() -> PlatformSpec:
    """What holds where there is no ``platform.yaml``: two stages, three tiers, no prices."""
    return PlatformSpec(apiVersion="mlp-ci/v1")  # type: ignore[call-arg]


def _validated(document: Document, kind: type[Spec]) -> Spec:
    value = _without_extensions(document.value)
    if not isinstance(value, dict):
        what = "the file is empty" if value is None else "the file must hold keys and values"
        fix = f"{_schema_of(kind)} prints what belongs in it"
        raise SpecError([Problem(what=what, file=document.file, line=1, column=1, fix=fix)])
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        items = _one_per_place(document, [dict(item) for item in error.errors(include_url=False)])
        raise SpecError([_with_cure(_problem(document, kind, item), kind) for item in items]) from None


def _schema_of(kind: type[BaseModel]) -> str:
    return f"`mlp-ci schema {kind.__name__.removesuffix('Spec').lower()}`"


def _with_cure(problem: Problem, kind: type[BaseModel]) -> Problem:
    return problem if problem.fix else replace(problem, fix=f"{_schema_of(kind)} prints what may stand here")


def _one_per_place(document: Document, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One error for a value that fits no member of a union, where pydantic gives one per member."""
    chosen: dict[Any, dict[str, Any]] = {}
    for item in items:
        if item["type"] == "too_short" and len(item["input"]):
            continue  # pydantic counts only the good items of a list; the bad ones are reported themselves
        path = _path_in_file(document, item["loc"])
        of_a_union = item["type"] not in ("missing", "extra_forbidden", "value_error")
        chosen.setdefault(path if of_a_union else (path, item["type"], item["loc"]), item)
    return list(chosen.values())


def _without_extensions(value: Any) -> Any:
    """Drop keys that start with ``x-``: a place for notes and other people's tools."""
    if isinstance(value, dict):
        return {k: _without_extensions(v) for k, v in value.items() if not k.startswith("x-")}
    if isinstance(value, list):
        return [_without_extensions(v) for v in value]
    return value


def _problem(document: Document, kind: type[BaseModel], item: dict[str, Any]) -> Problem:
    path = _path_in_file(document, item["loc"])
    shown = ".".join(str(p) for p in path) or "the file"
    match item["type"]:
        case "extra_forbidden":
            name = str(path[-1])
            known = _known_keys(kind, path[:-1])
            return document.problem(
                f"unknown key {shown!r}", document.nearest(path, key=True), _did_you_mean(name, known, "keys here")
            )
        case "missing":
            missing = ".".join(str(p) for p in item["loc"])
            return document.problem(
                f"{missing!r} is missing", document.nearest(path, key=True), f"add `{item['loc'][-1]}:`"
            )
        case "literal_error":
            allowed = [str(v).strip("'") for v in _literal_values(item)]
            return document.problem(
                f"{shown} cannot be {item['input']!r}",
                document.nearest(path, key=False),
                _did_you_mean(str(item["input"]), allowed, "allowed"),
            )
        case "value_error":
            return document.problem(f"{shown}: {item['msg'].removeprefix('Value error, ')}", document.start(path))
        case "string_pattern_mismatch" if path[-1:] == ("url",):
            message = f"{shown}: {_short(item['input'])} is no address of a server"
            return document.problem(message, document.nearest(path, key=False), _type_hint(item, path))
        case _:
            return document.problem(
                f"{shown}: {_lower_first(item['msg'].removeprefix('Input '))}, not {_short(item['input'])}",
                document.nearest(path, key=False),
                _type_hint(item, path),
            )


def _path_in_file(document: Document, loc: tuple[str | int, ...]) -> Path_:
    """The location of an error without the parts that pydantic adds for the members of a union."""
    path: Path_ = ()
    for part in loc:
        longer = (*path, part)
        if longer in document.keys or longer in document.values:
            path = longer
    return path


def _known_keys(kind: Any, path: Path_) -> list[str]:
    """The keys that may stand at ``path`` of a file of this kind."""
    for part in path:
        kind = _inside(kind, part)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [field.alias or name for name, field in kind.model_fields.items()]
    return []


def _inside(kind: Any, part: str | int) -> Any:
    """The type of the value under the key or index ``part`` of a value of type ``kind``."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                return _model_in(field.annotation)
    arguments = [a for a in typing.get_args(kind) if a is not Ellipsis]
    return _model_in(arguments[-1]) if arguments else None


def _model_in(annotation: Any) -> Any:
    """The model, mapping or list among the members of a union such as ``Cost | None``."""
    if typing.get_origin(annotation) in (dict, tuple):
        return annotation
    members = [annotation, *typing.get_args(annotation)]
    return next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), annotation)


def _literal_values(item: dict[str, Any]) -> list[str]:
    expected = str(item.get("ctx", {}).get("expected", ""))
    return [v.strip() for v in expected.replace(" or ", ", ").split(",") if v.strip()]


def _did_you_mean(given: str, known: list[str], noun: str) -> str:
    close = difflib.get_close_matches(given.lower(), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"{noun}: {', '.join(known)}" if known else ""


def _type_hint(item: dict[str, Any], path: Path_) -> str:
    value = item["input"]
    key = path[-1] if path else ""
    if item["type"] in ("int_type", "float_type", "int_parsing", "float_parsing") and isinstance(value, str):
        return f"write a number without quotes: `{key}: 1`"
    if item["type"] == "string_type" and isinstance(value, int | float | bool):
        return f'put it in quotes: `{key}: "{value}"`'
    if item["type"] == "string_pattern_mismatch" and key == "apiVersion":
        return "write `apiVersion: mlp-ci/v1`"
    if item["type"] == "string_pattern_mismatch" and key == "digest":
        return "a digest is sha256: and 64 hexadecimal digits; `mlp-ci promote` writes it"
    if item["type"] == "string_pattern_mismatch" and "cannot_approve" in path:
        return "a login as GitHub shows it: letters, digits and hyphens, without @"
    if item["type"] == "string_pattern_mismatch" and key == "url":
        return "write an address such as http://127.0.0.1:8081: http or https, a name and a port, without a query"
    if item["type"] == "string_pattern_mismatch" and {"teams", "team", "platform_team"} & set(path):
        return "the team's slug as in its address: `risk`, without @ and the organisation"
    if item["type"] == "string_pattern_mismatch":
        return "lower-case letters, digits and hyphens, at most 63"
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
