"""Promotions: who may put which bytes where. ``policy`` decides; the other modules ask GitHub and the registry.

Names are loaded when they are used, so that importing this package costs nothing. No module in it has the name of
one of them: an import of the module would hide the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_ci.promote.case import Verdict
    from mlp_ci.promote.intent import verify_intent
    from mlp_ci.promote.judging import approvals
    from mlp_ci.promote.proposals import Wish, promote, propose
    from mlp_ci.promote.rollback_record import record_rollback

__all__ = ["Verdict", "Wish", "approvals", "promote", "propose", "record_rollback", "verify_intent"]

_HOMES = {
    "Verdict": "case",
    "Wish": "proposals",
    "approvals": "judging",
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

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
