"""Promotions: who may put which bytes where. ``policy`` decides; the other modules ask GitHub and the registry.

Names are loaded when they are used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_ci.promote.approvals import approvals
    from mlp_ci.promote.intent import verify_intent
    from mlp_ci.promote.policy import Verdict
    from mlp_ci.promote.proposals import promote, propose
    from mlp_ci.promote.rollback_record import record_rollback

__all__ = ["Verdict", "approvals", "promote", "propose", "record_rollback", "verify_intent"]

_HOMES = {
    "Verdict": "policy",
    "approvals": "approvals",
    "promote": "proposals",
    "propose": "proposals",
    "record_rollback": "rollback_record",
    "verify_intent": "intent",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    module = import_module(f"{__name__}.{_HOMES[name]}")
    found = getattr(module, name)
    globals()[name] = found  # over the submodule of the same name, which the import just put there
    return found
