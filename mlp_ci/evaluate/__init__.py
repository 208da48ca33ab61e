"""Metrics, intervals, gates and evidence for a trained model on held-out data. Loaded when used: numpy is not free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_ci.evaluate.flow import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        from mlp_ci.evaluate.flow import evaluate

        return evaluate
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
