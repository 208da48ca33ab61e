"""Drives a rollout on a target: start the version, try it, move the traffic step by step, or back.

What to do is decided by :mod:`mlp_ci.serve.rollout.steps`. How far it is stands in the target itself, and is written
before anything follows from it: first the step that is wanted, then its traffic, then that it has begun. So a driver
that is killed anywhere is followed by one that goes on, and of two at once the second finds out.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import InputError, OutsideError, RolloutAborted
from mlp_ci.progress import doing, note
from mlp_ci.report import Finding, Outcome
from mlp_ci.serve.rollout import standing, steps, trials
from mlp_ci.serve.rollout.ending import FIX, Failed, abort, again
from mlp_ci.serve.rollout.progress import Phase
from mlp_ci.serve.rollout.steps import Action, Decision
from mlp_ci.serve.state import Arm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.analysis import Analysis
    from mlp_ci.serve.measured import Labels, Measured
    from mlp_ci.serve.rollout.progress import Progress
    from mlp_ci.serve.smoke import Smoke
    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets import Release, Settings, Target
    from mlp_ci.serve.telling.facts import Facts

LOOKS = (0.1, 2.0)  # seconds between two looks: at the beginning of a step, and later
DEAF = 60.0  # seconds for which nobody may be able to say what was measured


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be rolled out. ``watch``: how long to stay with it. ``rehearsal``: the stage where it runs already.

    ``labels`` says how good versions are by the labels that have come.
    """

    release: Release
    settings: Settings
    smoke: Sequence[Smoke] = ()
    watch: timedelta = timedelta(0)
    rehearsal: Place | None = None
    labels: Labels | None = None


@dataclass
class Driven:
    """How far it came: ``phase`` is done, running or paused. ``facts`` is None where no rollout was needed."""

    phase: Phase
    findings: list[Finding] = field(default_factory=list)
    facts: Facts | None = None


def roll_out(target: Target, place: Place, plan: Plan) -> Driven:
    """Bring the release to all of the traffic, or as far as it may be by now.

    Raises InputError when it does not start or does not answer what it is asked (no traffic was moved), Failed when it
    was aborted (all traffic is back), RolloutAborted when another command moved the traffic meanwhile.
    """
    clear_others(target, place, plan.release.digest)
    # From here on whoever else moves the traffic, a rollback above all, has the last word.
    arms, before, progress = target.arms(place), target.live(place), target.progress(place)
    going = progress if progress and progress.going and progress.digest == plan.release.digest else None
    target.prepare(place, plan.release, plan.settings)
    not_rolled_back(target, place, plan.release)
    findings = [] if going else _tried(target, place, plan)
    not_rolled_back(target, place, plan.release)
    driver = _Driver(target, place, plan, arms, findings)
    if before is None or before.version == plan.release.version:
        return driver.at_once("")
    if going is None:
        if plan.settings.serve.rollout.strategy == steps.AT_ONCE:
            return driver.at_once("")
        window = plan.settings.serve.rollout.trust
        ran = [i for i in target.history(place.home, place.model) if i.stage == place.stage]
        last = steps.trusted(ran, target.held(place), plan.release.digest, clock.now(), window)
        if last:
            return driver.at_once(f"it had all traffic here until {last:%Y-%m-%d %H:%M} UTC, so no step is needed")
        going = driver.begin(before.version, progress)
    return driver.drive(going)


# ---------------------------------------------------------------- before


def not_rolled_back(target: Target, place: Place, release: Release) -> None:
    """A rollback may have come while the version was fetched and started; what it took away stays away."""
    if all(h.known or h.digest != release.digest for h in target.held(place)):
        return
    if all(a.version != release.version for a in target.arms(place)):
        target.withdraw(place, release.version)
    msg = f"version {release.version} was rolled back in {place} while this deployed it"
    raise RolloutAborted(msg, why="no traffic was moved to it again", fix="see what the rollback says")


def clear_others(target: Target, place: Place, digest: str) -> None:
    """What a rollout left half way goes, if git no longer asks for it or somebody ended it."""
    fact, arms, progress = target.live(place), target.arms(place), target.progress(place)
    wanted = progress if progress and progress.going and progress.digest == digest else None
    others = [a.version for a in arms if fact and a.version not in (fact.version, wanted.version if wanted else None)]
    if fact and others:
        target.shift(place, [Arm(version=fact.version, weight=100)], expected=arms)
        for version in others:
            target.withdraw(place, version)
    if progress and progress.going and wanted is None:
        target.keep(place, replace(progress, phase=Phase.ABORTED, why="git asks for another version"), progress)


def _tried(target: Target, place: Place, plan: Plan) -> list[Finding]:
    """Ask the version itself, and the same bytes where they serve already, before it gets any traffic here."""
    release, questions = plan.release, trials.trials_of(plan.release, plan.smoke)
    wrong = trials.asked(target, place, release.version, questions)
    if wrong:
        if all(a.version != release.version for a in target.arms(place)):
            target.withdraw(place, release.version)
        msg = f"version {release.version} {wrong}"
        raise InputError(msg, why="no traffic was moved", fix="mend the model, register it again and promote that")
    said = trials.passed(place, questions, "it")
    if plan.rehearsal is None or not questions.any:
        return said
    wrong = trials.asked(target, plan.rehearsal, None, questions)
    if wrong:
        target.withdraw(place, release.version)
        msg = f"version {release.version} runs in {plan.rehearsal.stage} and {wrong}"
        raise InputError(msg, why=f"no traffic was moved in {place.stage}", fix="mend the stage before, or the model")
    return said + trials.passed(plan.rehearsal, questions, f"what {plan.rehearsal.stage} serves")


# ---------------------------------------------------------------- the steps


@dataclass
class _Driver:
    """One command's drive. ``arms`` is how the traffic was split when it last looked or moved it."""

    target: Target
    place: Place
    plan: Plan
    arms: list[Arm]
    findings: list[Finding]
    checks: list[bool] = field(default_factory=list)
    deaf_since: float | None = None

    def at_once(self, because: str) -> Driven:
        """All traffic, without steps."""
        before = self.target.live(self.place)
        self.target.settle(self.place, self.plan.release, clock.now(), expected=self.arms)
        if because:
            self._say("step", f"100 % on version {self.plan.release.version}: {because}")
        self.findings += self._again(before.version if before else None, None)
        return Driven(Phase.DONE, self.findings)

    def begin(self, stable: int, last: Progress | None) -> Progress:
        """Write down that the first step is wanted, with what it will need."""
        release, rollout = self.plan.release, self.plan.settings.serve.rollout
        progress = steps.first(release.version, release.digest, stable, rollout, clock.now())
        with contextlib.suppress(OutsideError):  # how much traffic there is cannot be said; the steps will
            progress = standing.forecast(progress, rollout, self.target.measured(self.place))
        self.findings += [
            Finding(check="forecast", outcome=Outcome.SKIP, subject=self.place.stage, message=line, severity="notice")
            for line in progress.forecast
        ]
        for line in progress.forecast:
            note(f"{self.place.stage}: {line}")
        self.target.keep(self.place, progress, last)
        return progress

    def drive(self, progress: Progress) -> Driven:
        """Look and decide, again and again, until it is done, paused, or must wait for longer than this may watch."""
        end = time.monotonic() + self.plan.watch.total_seconds()
        while True:
            progress, analysis = self._look(self._moved(progress))
            now, rollout = clock.now(), self.plan.settings.serve.rollout
            decision = steps.decide(progress, analysis, self.checks, now, rollout)
            facts = standing.told(self.target, self.place, rollout, (progress, analysis, now))
            done = self._do(decision, progress, facts)
            if isinstance(done, Driven):
                return done
            waiting, progress = decision.action is Action.HOLD, done
            unsure = self.checks[-1:] == [False]  # three in a row decide: do not leave after the first
            if waiting and time.monotonic() >= end and not unsure:
                return self._left(progress, decision, facts)
            if waiting:
                doing(f"{self.place.stage}: {progress.weight} % on version {progress.version}: {decision.why}")
                time.sleep(self._pause(progress, end))

    def _moved(self, progress: Progress) -> Progress:
        """Have the traffic as the step wants it; a step that has not begun begins."""
        progress = self._current(progress)
        wanted, arms = steps.split(progress), self.target.arms(self.place)
        if progress.step_started:
            if arms != wanted:
                self._lost()
            self.arms = wanted
            return progress
        if progress.phase is Phase.PAUSED:
            return progress
        if arms != wanted:
            doing(f"{self.place.stage}: {progress.weight} % to version {progress.version}")
            self.target.shift(self.place, wanted, expected=self.arms)
            self.arms, self.checks = wanted, []
        measured = self._measured()
        if measured is None:
            return progress
        try:
            return self._kept(steps.begun(progress, measured, clock.now()), progress)
        except RolloutAborted:
            kept = self.target.progress(self.place)
            if kept is None or not kept.going:  # ended by a person who saw no traffic on it yet
                self.target.shift(self.place, [Arm(version=progress.stable, weight=100)], expected=wanted)
            raise

    def _look(self, progress: Progress) -> tuple[Progress, Analysis | None]:
        """Measure, check, and remember what was seen."""
        self.checks = [*self.checks, self.target.healthy(self.place, progress.version)][-steps.FAILED_CHECKS :]
        if self.target.arms(self.place) != self.arms:
            self._lost()
        now, rollout, measured = clock.now(), self.plan.settings.serve.rollout, self._measured()
        seen = steps.observed(progress, measured, now) if measured and progress.step_started else progress
        if self.plan.labels:
            began, versions = datetime.fromisoformat(progress.started), (progress.stable, progress.version)
            seen = steps.labelled(seen, self.plan.labels(self.place.stage, began, versions))
        analysis = None
        if steps.compared(seen):
            analysis = standing.analysed(seen, rollout)
            seen = seen.looked(steps.looks_of(analysis, now))
        return self._kept(seen, progress), analysis

    def _do(self, decision: Decision, progress: Progress, facts: Facts) -> Driven | Progress:
        """Do what was decided; how it ended, or how far it is now."""
        said = f"{progress.weight} % on version {progress.version}: {decision.why}"
        if decision.action is Action.ABORT:
            failed = abort(self.target, self.place, progress, decision.why, facts)
            failed.findings = self.findings
            raise failed
        if decision.action is Action.ADVANCE:
            self._say("step", said)
            self.checks = []
            return self._kept(steps.advanced(progress, told=decision.told), progress)
        if decision.action is Action.SETTLE:
            self._say("step", said)
            self.target.settle(self.place, self.plan.release, clock.now(), expected=self.arms)
            over = replace(facts, progress=self.target.progress(self.place), live=progress.version)
            self.findings += self._again(progress.stable, over)
            return Driven(Phase.DONE, self.findings, over)
        if decision.action is Action.PAUSE:
            kept = self._kept(steps.paused(progress, decision.why), progress)
            waits = kept.phase is Phase.PAUSED
            return self._left(kept, decision, replace(facts, progress=kept)) if waits else kept
        return progress

    def _left(self, progress: Progress, decision: Decision, facts: Facts) -> Driven:
        """It goes on later, or when a person says so."""
        paused = progress.phase is Phase.PAUSED
        message = f"{progress.weight} % on version {progress.version}: {decision.why}"
        fix = f"mlp-ci rollout resume, promote or abort --stage {self.place.stage}" if paused else ""
        self.findings.append(
            Finding(
                check="step",
                outcome=Outcome.INCONCLUSIVE,
                subject=self.place.stage,
                message=message,
                fix=fix,
                severity="warning" if paused else "notice",
            )
        )
        return Driven(progress.phase, self.findings, facts)

    # ------------------------------------------------------------ back

    def _again(self, before: int | None, facts: Facts | None) -> list[Finding]:
        try:
            return again(self.target, self.place, (self.plan.release, before), self.plan.smoke)
        except Failed as failed:
            failed.findings, failed.facts = self.findings, facts
            raise

    # ------------------------------------------------------------ the target, as it is meanwhile

    def _kept(self, progress: Progress, before: Progress) -> Progress:
        """Write it down. If a person has said something since, that is how it is, and this is to be thought over."""
        if progress == before:
            return progress
        try:
            self.target.keep(self.place, progress, before)
        except RolloutAborted:
            said = self._current(before)
            if said == before:
                raise
            return said
        return progress

    def _current(self, progress: Progress) -> Progress:
        """What is kept now, if that is ours; RolloutAborted when it was ended, or another controller drives it."""
        kept = self.target.progress(self.place)
        if kept is not None and steps.same_but_for_a_person(kept, progress):
            if kept.going:
                return kept
            msg = f"another command moved the traffic of {self.place}: it ended the rollout of version {kept.version}"
            raise RolloutAborted(msg, why=kept.why, fix=FIX)
        msg = f"another command drives the rollout of {self.place}"
        raise RolloutAborted(msg, why="this one changed nothing more", fix="`mlp-ci rollout status` says how it goes")

    def _measured(self) -> Measured | None:
        """What was counted; None when nobody can say, which may be so for a while."""
        try:
            measured = self.target.measured(self.place)
        except OutsideError:
            self.deaf_since = self.deaf_since or time.monotonic()
            if time.monotonic() - self.deaf_since > min(DEAF, self.plan.watch.total_seconds()):
                raise
            return None
        self.deaf_since = None
        return measured

    def _lost(self) -> None:
        msg = f"another command moved the traffic of {self.place} during the rollout"
        raise RolloutAborted(msg, fix="run `mlp-ci deploy` again when it is done")

    def _pause(self, progress: Progress, end: float) -> float:
        lasted = steps.elapsed(progress, clock.now()).total_seconds()
        soon, late = LOOKS
        return max(0.0, min(max(soon, lasted / 20), late, max(soon, end - time.monotonic())))

    def _say(self, check: str, message: str) -> None:
        note(f"{self.place.stage}: {message}")
        self.findings.append(Finding(check=check, outcome=Outcome.PASS, subject=self.place.stage, message=message))
