"""Serving: one version's model server, the gateway in front, the targets they run on, and moving traffic.

Importing this package costs nothing: a rollback must not wait for libraries that it does not use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_ci.serve.agreement import disagreements, repair
    from mlp_ci.serve.flow_deploy import deploy
    from mlp_ci.serve.flow_plan import plan
    from mlp_ci.serve.flow_rollback import rollback
    from mlp_ci.serve.state import Interval, LiveFact
    from mlp_ci.serve.targets import history, live

__all__ = ["Interval", "LiveFact", "deploy", "disagreements", "history", "live", "plan", "repair", "rollback"]

_HOMES = {
    "deploy": "mlp_ci.serve.flow_deploy",
    "plan": "mlp_ci.serve.flow_plan",
    "rollback": "mlp_ci.serve.flow_rollback",
    "disagreements": "mlp_ci.serve.agreement",
    "repair": "mlp_ci.serve.agreement",
    "live": "mlp_ci.serve.targets",
    "history": "mlp_ci.serve.targets",
    "LiveFact": "mlp_ci.serve.state",
    "Interval": "mlp_ci.serve.state",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
