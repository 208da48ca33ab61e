"""JSON Schemas of the three files, for editors and for the reference pages."""

from __future__ import annotations

import json
from typing import Any

from mlp_ci.spec.load import KINDS


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``model``, ``promotion`` or ``platform``."""
    schema = KINDS[kind].model_json_schema(by_alias=True)
    _allow_extensions(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{kind}.schema.json",
        **schema,
        "title": f"{kind}.yaml",
    }


def schema_text(kind: str) -> str:
    """The committed form of a schema: sorted only as the model is, two spaces, a final newline."""
    return json.dumps(json_schema(kind), indent=2, ensure_ascii=False, default=str) + "\n"


def _allow_extensions(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("additionalProperties") is False:
            node["patternProperties"] = {"^x-": True}
        for child in node.values():
            _allow_extensions(child)
    elif isinstance(node, list):
        for child in node:
            _allow_extensions(child)
