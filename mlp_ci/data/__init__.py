"""The data of a model: checks compiled to aggregate queries, profiles, and drift between profiles.

Importing this package is cheap: each function imports what it needs when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.report import Report


def validate(context: Context) -> Report:
    """Fetch the data that ``model.yaml`` names and check it; see :mod:`mlp_ci.data.checks.flow_validate`."""
    from mlp_ci.data.checks.flow_validate import validate as run

    return run(context)


__all__ = ["validate"]
