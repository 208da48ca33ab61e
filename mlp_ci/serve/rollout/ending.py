"""How a rollout ends badly: the version is taken away, by the same steps as a rollback, and the evidence is kept."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import InputError, RolloutAborted
from mlp_ci.serve.rollout import standing, steps, trials
from mlp_ci.serve.state import Arm
from mlp_ci.serve.targets import Why

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.report import Finding
    from mlp_ci.serve.rollout.progress import Progress
    from mlp_ci.serve.smoke import Smoke
    from mlp_ci.serve.state import Place, Reversal
    from mlp_ci.serve.targets import Release, Target
    from mlp_ci.serve.telling.facts import Facts
    from mlp_ci.spec.serve import Rollout

FIX = "`mlp-ci rollout status` shows the evidence; mend the model and promote that, or another version"
CHECK_PAUSE = 0.2  # seconds between health checks that decide


class Failed(RolloutAborted):
    """The new version was taken away. ``reversal`` is how; ``facts`` is the evidence, where there was a rollout."""

    def __init__(self, what: str, why: str, fix: str, taken: tuple[Reversal, list[Finding], Facts | None]) -> None:
        super().__init__(what, why=why, fix=fix)
        self.reversal, self.findings, self.facts = taken


def abort(target: Target, place: Place, progress: Progress, why: str, facts: Facts) -> Failed:
    """All traffic back on the old version, if it is split as the step says; what to raise."""
    said = f"aborted at {progress.weight} %: {why}"
    wanted = Why(reason=f"the rollout was {said}", now=clock.now())
    reversal, _ = target.turn_back(place, progress.stable, wanted, expected=steps.split(progress))
    target.tidy(place)
    facts = replace(facts, progress=target.progress(place))
    msg = f"the rollout of version {progress.version} was {said}"
    return Failed(msg, f"all traffic is back on version {progress.stable}", FIX, (reversal, [], facts))


def guard(target: Target, place: Place, digest: str, rollout: Rollout) -> None:
    """Take away what does harm, and do nothing else: for when a rollout may not or cannot go on just now.

    Raises Failed when it was taken away.
    """
    progress = target.progress(place)
    if progress is None or not progress.going or not progress.step_started or progress.digest != digest:
        return
    if target.arms(place) != steps.split(progress):
        return
    facts = standing.facts(target, place, rollout, clock.now())
    if facts.progress:  # a gateway that began to count anew is followed from here, also while nothing may go on
        with contextlib.suppress(RolloutAborted):  # a person said something just now, which counts
            target.keep(place, facts.progress, progress)
    checks = [target.healthy(place, progress.version)]
    while not checks[-1] and len(checks) < steps.FAILED_CHECKS:
        time.sleep(CHECK_PAUSE)
        checks.append(target.healthy(place, progress.version))
    bad = steps.harm(facts.analysis if steps.compared(progress) else None, checks)
    if bad:
        raise abort(target, place, progress, bad, facts)


def again(target: Target, place: Place, what: tuple[Release, int | None], questions: Sequence[Smoke]) -> list[Finding]:
    """Ask ``what`` (a release that has all traffic, and the version before) through the address that clients use.

    Raises Failed when the answer is wrong, and the version before has the traffic again; InputError without one.
    """
    (release, before), asked = what, trials.trials_of(what[0], questions)
    wrong = trials.asked(target, place, None, asked) if asked.any else ""
    if not wrong:
        return trials.passed(place, asked, "what clients reach") if asked.any else []
    said = f"version {release.version} has the traffic and {wrong}"
    if before is None or before == release.version:
        raise InputError(said, why="there is no other version to go back to", fix="promote one that answers")
    why = Why(reason=f"the rollout was aborted after its last step: it {wrong}", now=clock.now())
    settled = [Arm(version=release.version, weight=100)]
    reversal, _ = target.turn_back(place, before, why, expected=settled)
    target.tidy(place)
    raise Failed(said, f"all traffic is back on version {before}", FIX, (reversal, [], None))
