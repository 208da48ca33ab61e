"""What the analysis of a rollout is asked and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Verdict(StrEnum):
    """Of one metric, and of all of them together."""

    PASS = "pass"
    FAIL = "fail"
    INSUFFICIENT = "insufficient"  # cannot tell yet


@dataclass(frozen=True, kw_only=True)
class Design:
    """How often the analysis may be wrong, in a whole rollout and over all of its metrics.

    ``false_abort``: how often a version that is no worse may fail. ``power``: how surely one that is worse by the
    margin fails within the sample that a step asks for.
    """

    false_abort: float = 0.05
    power: float = 0.8


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One metric at one look.

    ``stable``, ``canary``, ``effect`` and its interval are of all steps together. ``effect`` is canary − stable, but
    their ratio where the margin is a ratio, and the distance of the distributions for predictions. ``low`` and
    ``high`` hold at every look of the rollout at once (None: unbounded or unknown). Beyond ``margin``, away from "no
    difference", is harm; it is negative where less is worse. ``seen`` and ``needed`` count what the new version
    answered in this step: requests, or rows where rows are what is measured. ``needed`` is None where it is not known.
    """

    metric: str
    verdict: Verdict
    reason: str
    margin: float
    stable: float | None = None
    canary: float | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    needed: int | None = None
    seen: int = 0

    def failed(self, reason: str, harmless: float) -> Judged:
        """Of a metric that fails: what is harmless was refuted, so no bound leaves it possible any more.

        The bounds come from other mixtures than the verdict, and may still be a little wider.
        """
        low, high, effect = self.low, self.high, self.effect
        if effect is not None and effect > harmless:
            low = harmless if low is None else max(low, harmless)
        elif effect is not None and effect < harmless:
            high = harmless if high is None else min(high, harmless)
        return replace(self, verdict=Verdict.FAIL, reason=reason, low=low, high=high)

    def begun(self, said: str) -> Judged:
        """Of a metric that would fail by this step alone, though not by all of them: harm may have begun just now."""
        return replace(self, reason=f"{said} over all steps, but worse in this one: cannot tell yet if that is chance")

    def ended(self, said: str, ruled_out: str, harm: str, unit: str = "requests") -> Judged:
        """Of a metric that does not fail: whether the step brought enough, by ``ruled_out`` or by the sample."""
        if ruled_out:
            return replace(self, verdict=Verdict.PASS, reason=f"{said}: {ruled_out}")
        if self.needed is None:
            return replace(self, reason=f"{said}: {self.seen:,} {unit} so far")
        if self.seen >= self.needed:
            reason = f"{said}: no harm seen in the {self.needed:,} {unit} that {harm} would take"
            return replace(self, verdict=Verdict.PASS, reason=reason)
        return replace(self, reason=f"{said}: {self.seen:,} {unit} of the {self.needed:,} needed")


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All metrics at one look: fail if any fails, else insufficient if any is, else pass."""

    verdict: Verdict
    judged: tuple[Judged, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a metric needs of the new version within a step, to see the harm that ``why`` says.

    ``requests`` counts ``unit``; None where nothing measured so far tells.
    """

    metric: str
    requests: int | None
    why: str
    unit: str = "requests"
