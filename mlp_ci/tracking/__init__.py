"""The only user of MLflow: runs, versions, aliases, artefacts, as plain values.

Works with any address that MLflow knows. For a server the first contact is one cheap request, so that an address
where nobody answers costs seconds instead of MLflow's minutes of retries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.errors import InputError
from mlp_ci.tracking.address import first_contact, require_address
from mlp_ci.tracking.artifact import artifact_digest, verify_digest
from mlp_ci.tracking.client import Tracking
from mlp_ci.tracking.facts import Point, RunFact, VersionFact

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.spec import PlatformSpec

__all__ = ["Point", "RunFact", "Tracking", "VersionFact", "artifact_digest", "connect", "verify_digest"]


def connect(ctx: Context, platform: PlatformSpec | None = None) -> Tracking:
    """MLflow at the context's address or else at the platform's.

    Raises InputError when there is no address and OutsideError, within about five seconds, when nobody answers.
    """
    uri = ctx.tracking_uri or (platform.tracking.uri if platform and platform.tracking else "")
    if not uri:
        msg = "there is no address of MLflow"
        raise InputError(
            msg,
            why="every run, version and evidence file is remembered there",
            fix="set MLFLOW_TRACKING_URI, or `tracking: {uri: …}` in the organisation's platform.yaml",
        )
    require_address(uri)
    uri = uri.rstrip("/")
    if uri.startswith(("http://", "https://")):
        first_contact(uri)
    return Tracking(uri)
