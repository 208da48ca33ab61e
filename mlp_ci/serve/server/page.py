"""``/docs``: a page for people who want to ask this model something. Nothing on it comes from another address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.serve.server.openapi import example_tensors

if TYPE_CHECKING:
    from mlp_ci.serve.server.app import Application

TEMPLATE = Path(__file__).parent / "page.html.jinja"
_TYPES = {
    "double": "number",
    "float": "number",
    "integer": "whole number, 32 bits",
    "long": "whole number",
    "string": "text",
}


def html(app: Application) -> str:
    """The page, made anew for each visit: it is asked for by people."""
    from mlp_ci.drawing.template import fill

    facts, signature = app.facts, app.loaded.signature
    rows = [
        {
            "name": rule.name,
            "type": _TYPES.get(rule.type, rule.type),
            "required": rule.required,
            "nullable": rule.nullable,
        }
        for rule in signature.rules
    ]
    values = {
        "facts": facts,
        "rows": rows,
        "tensors": signature.tensors,
        "params": [
            {
                "name": one["name"],
                "type": _TYPES.get(one["type"], one["type"]),
                "many": bool(one.get("shape")),
                "default": json.dumps(one["default"], ensure_ascii=False),
            }
            for one in signature.params.declared
        ],
        "invocation": json.dumps(app.example or {"inputs": [[0.0]]}, ensure_ascii=False),
        "inference": json.dumps(example_tensors(signature), ensure_ascii=False) if signature.rules else "",
        "infer": f"/v2/models/{facts.model}/infer",
    }
    return fill(TEMPLATE, {}, values)
