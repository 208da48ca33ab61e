"""What is known of a rollout now: what was measured and what that says. Looking changes nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci.errors import OutsideError
from mlp_ci.serve.measured import Seen
from mlp_ci.serve.rollout import steps
from mlp_ci.serve.state import SHADOW
from mlp_ci.serve.telling.facts import Facts

if TYPE_CHECKING:
    from datetime import datetime

    from mlp_ci.serve.analysis import Analysis, Design
    from mlp_ci.serve.measured import Measured
    from mlp_ci.serve.rollout.progress import Progress
    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets import Target
    from mlp_ci.spec.serve import Rollout


def facts(target: Target, place: Place, rollout: Rollout, now: datetime) -> Facts:
    """What is known of the newest rollout of a place, with what was measured up to now where somebody can say."""
    progress, analysis = target.progress(place), None
    if progress is not None and progress.going and progress.step_started:
        with suppress(OutsideError):  # what was seen at the last look is still true
            progress = steps.observed(progress, target.measured(place), now)
    if progress is not None:
        analysis = analysed(progress, rollout)
    return told(target, place, rollout, (progress, analysis, now))


def told(
    target: Target, place: Place, rollout: Rollout, what: tuple[Progress | None, Analysis | None, datetime]
) -> Facts:
    """The facts for those who tell of them."""
    progress, analysis, now = what
    fact = target.live(place)
    return Facts(
        model=place.model,
        stage=place.stage,
        now=now,
        rollout=rollout,
        address=fact.address if fact else "",
        live=fact.version if fact else None,
        progress=progress,
        current=progress.current if progress else None,
        analysis=analysis,
        forecast=progress.forecast if progress else (),
    )


def analysed(progress: Progress, rollout: Rollout) -> Analysis | None:
    """What was seen of both versions says; None where they were never beside each other."""
    from mlp_ci.serve.analysis import analyse

    seen = tuple(s for s in progress.strata if s.weight < 100 or progress.strategy == SHADOW)
    return analyse(rollout.analysis, seen, _design(rollout)) if seen else None


def forecast(progress: Progress, rollout: Rollout, measured: Measured) -> Progress:
    """With a line for each step that says how many requests it will need, and how long that will take."""
    from mlp_ci.serve.analysis import forecast as lines

    baseline = measured.versions.get(progress.stable, Seen())
    rate = sum(seen.requests for seen in measured.versions.values()) / measured.seconds if measured.seconds else 0.0
    mirrored = progress.strategy == SHADOW
    said = lines(progress.steps, rate, rollout.analysis, _design(rollout), baseline, mirrored=mirrored)
    return replace(progress, forecast=tuple(said))


def _design(rollout: Rollout) -> Design:
    from mlp_ci.serve.analysis import Design

    return Design(false_abort=rollout.false_abort, power=rollout.power)
