"""Versions that a cluster is asked for, as tests want them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlp_ci.serve.state import Place
from mlp_ci.serve.targets import Release, Settings
from mlp_ci.serve.targets.kubernetes import wanted as wanting
from mlp_ci.serve.targets.kubernetes.wanted import Wanted
from mlp_ci.spec.serve import KubernetesServing, Serve

PLACE = Place(Path("/nowhere"), "flight-delay", "production")
IMAGE = "registry.example/models/flight-delay:v3-0123456789ab"


def digest(version: int) -> str:
    return "sha256:" + f"{version:02x}" * 32


def cluster(**fields: Any) -> KubernetesServing:
    return KubernetesServing.model_validate({"namespace": "models", "gateway": "infra/public", **fields})


def serve(**fields: Any) -> Serve:
    return Serve.model_validate({"target": "kubernetes", **fields})


def release(version: int) -> Release:
    return Release(version, digest(version), Path("/nowhere"), f"evidence {version}")


def wanted(version: int = 3, *, on: dict[str, Any] | None = None, log: bool = True, **fields: Any) -> Wanted:
    columns = {"root": "/log", "columns": {"distance": "float", "carrier": "string"}, "sample": 1.0}
    labels = {"commit": "0123456789abcdef", "run": "a1b2", "team": "growth"}
    settings = Settings(serve=serve(**fields), log=columns if log else {}, labels=labels)
    return wanting.wanted(PLACE, release(version), settings, cluster(**(on or {})), IMAGE)
