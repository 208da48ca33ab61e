"""A rollout as pure steps: what was measured in, what to do next out.

The simple rule of this version: a step holds for a moment and a few health checks, and is aborted when the new version
answers with clearly more errors than the old one and does not recover. It does not ask how many requests a verdict
needs: with little traffic a step says little, and the report says how much it saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Action(StrEnum):
    """What to do with the current step."""

    HOLD = "hold"
    ADVANCE = "advance"
    ABORT = "abort"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long a step takes and what ends it. ``margin`` is a difference of error rates, 0 to 1.

    A version that looks worse after fewer than ``errors`` errors gets ``patience`` seconds to look better.
    """

    seconds: float = 0.4
    patience: float = 10.0
    checks: int = 3
    failed_checks: int = 3
    errors: int = 3
    margin: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was measured since the step began; the checks are health checks of the new version, oldest first."""

    seconds: float
    checks: Sequence[bool]
    stable_requests: int = 0
    stable_errors: int = 0
    canary_requests: int = 0
    canary_errors: int = 0


def judge(seen: Seen, pace: Pace) -> tuple[Action, str]:
    """The action and its reason."""
    last = list(seen.checks)[-pace.failed_checks :]
    if len(last) == pace.failed_checks and not any(last):
        return Action.ABORT, f"its server failed {pace.failed_checks} health checks in a row"
    canary = seen.canary_errors / seen.canary_requests if seen.canary_requests else 0.0
    stable = seen.stable_errors / seen.stable_requests if seen.stable_requests else 0.0
    worse = canary > stable + pace.margin
    if worse and (seen.canary_errors >= pace.errors or seen.seconds >= pace.patience):
        return Action.ABORT, (
            f"{seen.canary_errors} of its {seen.canary_requests} requests failed, "
            f"against {seen.stable_errors} of {seen.stable_requests} on the version before"
        )
    good = len(last) > 0 and last[-1] and sum(seen.checks) >= pace.checks
    if seen.seconds >= pace.seconds and good and not worse:
        return Action.ADVANCE, f"{seen.canary_requests} requests, {seen.canary_errors} errors"
    return Action.HOLD, ""


def steps_left(steps: Sequence[int], weight: int) -> list[int]:
    """The steps from the one that stands at ``weight`` on, so that a rollout that was killed goes on where it was."""
    return [step for step in steps if step >= weight]
