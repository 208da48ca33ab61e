"""Whether this machine can train, looked at before anything is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlp_ci.train.job import Job


def require(job: Job) -> None:
    """Raise OutsideError when this machine cannot train the model."""
