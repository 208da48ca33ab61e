"""What is known of one rollout at one moment; all that is told of it is derived from this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from mlp_ci.serve.analysis import Analysis
    from mlp_ci.serve.rollout.progress import Progress, Stratum
    from mlp_ci.spec.serve import Rollout


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One model in one stage. ``progress`` is None when no rollout is under way there and none ended here.

    ``live`` is the version that has the traffic that the new one has not (None: nothing ever ran). ``rollout`` is what
    model.yaml asks for. ``current`` is what both versions answered since the step began; ``analysis`` what it says
    together with the steps before; both are None when nothing was measured, as after the end. ``forecast`` has a line
    for each step, from before the rollout began. ``now`` is by the project's clock, ``address`` the gateway's.
    """

    model: str
    stage: str
    now: datetime
    rollout: Rollout
    address: str = ""
    live: int | None = None
    progress: Progress | None = None
    current: Stratum | None = None
    analysis: Analysis | None = None
    forecast: tuple[str, ...] = ()
