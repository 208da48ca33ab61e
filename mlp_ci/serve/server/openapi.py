"""The OpenAPI description of one model's server, made of its signature: what this model takes, not what models may."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mlp_ci import __version__
from mlp_ci.serve.payload import FORMATS
from mlp_ci.serve.server import inference
from mlp_ci.serve.signature import FLOAT32_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.serve.server.app import Application
    from mlp_ci.serve.signature import ColumnRule, Signature

_FLOATS = {"type": "number"}
_TYPES: dict[str, dict[str, Any]] = {
    "double": {**_FLOATS, "format": "double"},
    "float": {**_FLOATS, "format": "float", "minimum": -FLOAT32_MAX, "maximum": FLOAT32_MAX},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "datetime": {"type": "string", "format": "date-time"},
    "binary": {"type": "string", "contentEncoding": "base64"},
    "array": {"type": "array"},
    "object": {"type": "object"},
    "map": {"type": "object"},
}
_ANSWERS = {
    "400": "The request cannot be answered; the message names the column.",
    "413": "The body is too large.",
    "415": "Another content type.",
    "429": "Too many requests wait; Retry-After says when to come again.",
    "500": "The model failed on an input that fits its signature.",
}


def document(app: Application) -> dict[str, Any]:
    """The whole description, OpenAPI 3.1."""
    facts, signature = app.facts, app.loaded.signature
    model = f"/v2/models/{facts.model}"
    paths: dict[str, Any] = {"/invocations": {"post": _invocations(app)}}
    for path in (model, f"{model}/versions/{facts.version}"):
        paths[f"{path}/infer"] = {"post": _infer(signature)}
        paths[path] = {"get": _get("Inputs and outputs of the model", "Metadata", "404")}
        paths[f"{path}/ready"] = {"get": _get("Whether it takes requests", "Any", "503")}
    for path, text, *further in (
        ("/health", "Whether it takes requests, and which version it is", "503"),
        ("/ping", "The same", "503"),
        ("/version", "Which version it is"),
        ("/v2", "What this server is"),
        ("/v2/health/live", "Whether it lives", "503"),
        ("/v2/health/ready", "Whether it takes requests", "503"),
        ("/openapi.json", "This description"),
    ):
        paths[path] = {"get": _get(text, "Any", *further)}
    for path, text, kind in (
        ("/metrics", "Counts for Prometheus", "text/plain"),
        ("/docs", "A page that says how to ask", "text/html"),
    ):
        paths[path] = {"get": _answered(text, {kind: {"schema": {"type": "string"}}})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": facts.model,
            "version": str(facts.version),
            "description": f"Version {facts.version} of {facts.model}, {facts.digest}, served by mlp-ci {__version__}.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(signature)},
    }


def _invocations(app: Application) -> dict[str, Any]:
    signature = app.loaded.signature
    kinds = {"application/json": _with_example({"$ref": "#/components/schemas/Rows"}, app.example)}
    if signature.rules:
        kinds["text/csv"] = {"schema": {"type": "string", "pattern": _csv_pattern(signature)}}
    return {
        "summary": "Predict rows (MLflow's protocol)",
        "requestBody": {"required": True, "content": kinds},
        "responses": {
            "200": _json("One prediction per row.", "Predictions"),
            **{code: _json(text, "Refusal") for code, text in _ANSWERS.items()},
        },
    }


def _infer(signature: Signature) -> dict[str, Any]:
    body = {"application/json": _with_example({"$ref": "#/components/schemas/Tensors"}, example_tensors(signature))}
    return {
        "summary": "Predict tensors (Open Inference Protocol, version 2)",
        "requestBody": {"required": True, "content": body},
        "responses": {
            "200": _json("The outputs.", "Outputs"),
            **{code: _json(text, "Error") for code, text in _ANSWERS.items()},
        },
    }


def _get(text: str, schema: str, *further: str) -> dict[str, Any]:
    told = _json(text, schema)
    return {
        "summary": text,
        "responses": {"200": told, **{code: _json("Not now, or not here.", "Any") for code in further}},
    }


def _answered(text: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"summary": text, "responses": {"200": {"description": text, "content": content}}}


def _json(text: str, schema: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _with_example(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"schema": schema, "example": example} if example is not None else {"schema": schema}


def _schemas(signature: Signature) -> dict[str, Any]:
    text, anything = {"type": "string"}, {"type": "object"}
    tensor = _object(
        {
            "name": text,
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": text,
            "data": {"type": "array"},
        }
    )
    return {
        "Rows": _rows(signature),
        "Predictions": _object({"predictions": {"type": "array"}}),
        "Refusal": _object({"error_code": text, "message": text}),
        "Error": _object({"error": text}),
        "Any": anything,
        "Tensors": _tensors(signature),
        "Outputs": _object(
            {"model_name": text, "model_version": text, "outputs": {"type": "array", "items": tensor}}, {"id": text}
        ),
        "Metadata": _object(
            {
                "name": text,
                "versions": {"type": "array", "items": text},
                "platform": text,
                "inputs": {"type": "array", "items": anything},
                "outputs": {"type": "array", "items": anything},
            }
        ),
    }


def _object(required: dict[str, Any], others: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(others or {})}}


def value_of(rule: ColumnRule) -> dict[str, Any]:
    """The JSON Schema of one value of a column."""
    schema = dict(_TYPES.get(rule.type, {}))
    if rule.type == "double" and rule.largest < 1e300:
        schema |= {"minimum": -FLOAT32_MAX, "maximum": FLOAT32_MAX}
    if rule.nullable and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return schema


def _rows(signature: Signature) -> dict[str, Any]:
    """The bodies of /invocations."""
    if signature.tensors and not signature.tensor:
        tensors = {t.name: {"type": "array"} for t in signature.tensors}
        return _one_of({"inputs": _object(tensors)}, signature)
    if signature.tensor or not signature.rules:
        lists = {"type": "array", "minItems": 1}
        return _one_of({"inputs": lists, "instances": lists}, signature)
    required = [r for r in signature.rules if r.required]
    others = {r.name: value_of(r) for r in signature.rules if not r.required}
    row = _object({r.name: value_of(r) for r in required}, others)
    records = {"type": "array", "minItems": 1, "items": row}
    values = [value_of(r) for r in signature.rules]
    line = {"type": "array", "prefixItems": values, "minItems": len(values), "maxItems": len(values)}
    split = {
        "columns": {"const": list(signature.names)},
        "data": {"type": "array", "minItems": 1, "items": line},
    }
    bodies = {"dataframe_records": records, "dataframe_split": _object(split), "instances": records}
    return _one_of(bodies, signature)


_CELLS = {
    "integer": "-?[0-9]{1,9}",
    "long": "-?[0-9]{1,18}",
    "boolean": "(true|false)",
    "string": "[A-Za-z0-9 ]+",
    "datetime": "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])",
}


def _csv_pattern(signature: Signature) -> str:
    """Tables that are surely right; others, with quotes or in another order, may be as well."""
    header = ",".join(re.escape(name) for name in signature.names)
    cells = ",".join(_CELLS.get(rule.type, r"-?[0-9]{1,9}(\.[0-9]{1,6})?") for rule in signature.rules)
    return rf"^{header}\n({cells}\n)+$"


def _one_of(bodies: dict[str, Any], signature: Signature) -> dict[str, Any]:
    """Just one of the formats; keys of other names are ignored, as by MLflow."""
    others = {**dict.fromkeys(FORMATS, False), **_params(signature, "params")}
    return {"oneOf": [_object({name: schema}, {**others, name: schema}) for name, schema in bodies.items()]}


def _params(signature: Signature, key: str) -> dict[str, Any]:
    """What may stand beside the rows, where the model declares it."""
    values = {str(one["name"]): _param(one) for one in signature.params.declared}
    return {key: {"type": "object", "properties": values, "additionalProperties": False}} if values else {}


def _param(declared: Mapping[str, Any]) -> dict[str, Any]:
    schema = dict(_TYPES.get(str(declared["type"]), {}))
    if declared.get("shape"):
        schema = {"type": "array", "items": schema}
    return {**schema, "default": declared["default"]}


def _tensors(signature: Signature) -> dict[str, Any]:
    """The body of an inference request: for columns, one row of them; more rows are described in words."""
    inputs: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"type": "object"}}
    if signature.rules:
        items = [_one(rule) for rule in signature.rules if rule.required]
        inputs = {
            "type": "array",
            "prefixItems": items,
            "minItems": len(items),
            "maxItems": len(items),
            "description": "One tensor for each column, in any order; the shape is [rows] or [rows, 1].",
        }
    return _object({"inputs": inputs}, {"id": {"type": ["string", "null"]}, **_params(signature, "parameters")})


def _one(rule: ColumnRule) -> dict[str, Any]:
    data = {"type": "array", "items": value_of(rule), "minItems": 1, "maxItems": 1}
    described = {"name": {"const": rule.name}, "shape": {"const": [1]}, "data": data}
    return _object({**described, "datatype": {"const": inference.DATATYPES.get(rule.type, "BYTES")}})


def example_tensors(signature: Signature) -> dict[str, Any] | None:
    """A request of one row, for a model of columns."""
    if not signature.rules:
        return None
    samples = {"FP64": 0.5, "FP32": 0.5, "INT64": 1, "INT32": 1, "BOOL": True, "BYTES": "text"}
    kinds = {r.name: inference.DATATYPES.get(r.type, "BYTES") for r in signature.rules}
    return {"inputs": [{"name": n, "shape": [1], "datatype": k, "data": [samples[k]]} for n, k in kinds.items()]}
