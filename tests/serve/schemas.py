"""The schemas that clusters publish, of Kubernetes and of custom resources (crds/); unknown fields are errors."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

CRDS = Path(__file__).parent / "crds"
KINDS = {"HTTPRoute": "httproutes", "Gateway": "gateways", "InferenceService": "inferenceservices"}


def crd(plural: str) -> dict[str, Any]:
    """The CustomResourceDefinition of that plural."""
    return dict(json.loads((CRDS / f"{plural}.json").read_text(encoding="utf-8")))


def problem(manifest: dict[str, Any]) -> str:
    """What a cluster would say against a manifest; empty when nothing."""
    if manifest["kind"] not in KINDS:
        try:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            return str(error)
        return ""
    found = sorted(_validator(manifest["kind"]).iter_errors(manifest), key=lambda e: list(map(str, e.path)))
    return "; ".join(f"{'.'.join(map(str, e.path))}: {e.message}" for e in found)


@cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    version = crd(KINDS[kind])["spec"]["versions"][0]
    schema = _strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def _strict(node: Any) -> Any:
    """A field that is not named is an error, as in an API server with strict field validation."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    strict = {key: _strict(value) for key, value in node.items()}
    named = isinstance(node.get("properties"), dict) and node.get("type") == "object"
    if named and "additionalProperties" not in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        strict["additionalProperties"] = False
    return strict
