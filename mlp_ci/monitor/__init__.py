"""What is watched once a version is live: drift, performance, cost, and the retraining that follows an alarm.

Importing this package is cheap: each function's module is imported when the function is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.monitor.windows import Window

if TYPE_CHECKING:
    from mlp_ci.monitor.cost import cost
    from mlp_ci.monitor.retrain import retrain
    from mlp_ci.monitor.watch import monitor

__all__ = ["Window", "cost", "monitor", "retrain"]

_HOMES = {
    "cost": "mlp_ci.monitor.cost",
    "monitor": "mlp_ci.monitor.watch",
    "retrain": "mlp_ci.monitor.retrain",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    found = getattr(import_module(_HOMES[name]), name)
    # Importing mlp_ci.monitor.cost puts the module under the name of its function; the function wins.
    globals()[name] = found
    return found
