"""What a promotion needs: the platform's policy and the model's own, the stricter of the two in every point. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from mlp_ci.spec import TIERS

if TYPE_CHECKING:
    from mlp_ci.spec import Freeze, PlatformSpec, Promote

# What an undecided gate means: a version like any other, a version that a person has to approve, no version.
CARE = ("pass", "ask", "block")


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What one stage asks of one model.

    ``teams``: slugs, each with at least one approval. ``soak``: how long a version must have been in the stage before.
    ``laxer``: what model.yaml asks for in vain, because the platform asks for more.
    """

    tier: str
    count: int
    teams: tuple[str, ...] = ()
    cannot_approve: frozenset[str] = frozenset()  # in lower case
    soak: timedelta = timedelta()
    freezes: tuple[Freeze, ...] = ()
    machine: bool = False
    laxer: tuple[str, ...] = ()

    def with_person(self) -> Requirement:
        """The same with at least one person's approval, which no machine's merge can take the place of."""
        return replace(self, count=max(1, self.count), machine=False)


def strictest_care(*said: str) -> str:
    """The strictest of several answers to what an undecided gate means; a word that is none counts as ``ask``."""
    return max((word if word in CARE else "ask" for word in said), key=CARE.index)


def tier_of(platform: PlatformSpec, model: str, tier: str) -> str:
    """The tier that counts: the model's own, or the platform's floor for it where that is stricter."""
    floor = platform.models.get(model)
    return max(tier, floor.tier, key=TIERS.index) if floor and tier in TIERS else tier


def requirement(platform: PlatformSpec, own: Promote, tier: str, stage: str) -> Requirement:
    """What ``stage`` needs of a model of this tier, which must be one of the platform's; ``own`` is its model.yaml's.

    ``stage`` may be no stage at all (a quarantine to be lifted): then the most that any stage needs is needed.
    """
    policy = platform.tiers[tier]
    stages = [stage] if stage in platform.stage_names() else list(platform.stage_names())
    theirs = [policy.approvals[s] for s in stages]
    ours = [own.approvals[s] for s in stages if s in own.approvals]
    floor = 0 if stage in platform.stage_names() else 1
    count = max([floor, *(n.count for n in (*theirs, *ours))])
    teams = dict.fromkeys(team for need in (*theirs, *ours) for team in need.teams)
    soak, laxer = _soak(platform, own, stage)
    laxer += [
        f"model.yaml asks for {own.approvals[s].count} in {s}, the platform for {policy.approvals[s].count}"
        for s in stages
        if s in own.approvals and own.approvals[s].count < policy.approvals[s].count
    ]
    return Requirement(
        tier=tier,
        count=count,
        teams=tuple(teams),
        cannot_approve=frozenset(who.lower() for who in (*platform.cannot_approve, *own.cannot_approve)),
        soak=soak,
        freezes=tuple(f for f in (*platform.freezes, *own.freezes) if not f.stages or stage in f.stages),
        machine=policy.merge == "machine" and count == 0,
        laxer=tuple(laxer),
    )


def _soak(platform: PlatformSpec, own: Promote, stage: str) -> tuple[timedelta, list[str]]:
    earlier = platform.stage_before(stage) if stage in platform.stage_names() else None
    if earlier is None:
        return timedelta(), []
    asked, ours = earlier.soak or timedelta(), own.soak.get(earlier.name)
    if ours is not None and ours < asked:
        return asked, [f"model.yaml asks for a shorter soak in {earlier.name} than the platform"]
    return max(asked, ours or timedelta()), []
