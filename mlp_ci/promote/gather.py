"""Everything the policy wants to know, asked of GitHub and of the registry and put into a :class:`Case`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError
from mlp_ci.promote.policy import QUARANTINE, Case, Registered, latest_reviews
from mlp_ci.spec import MODEL_FILE, PROMOTION_FILE, ModelSpec, PromotionSpec, StageEntry, parse_model, parse_promotion

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlp_ci.github import Hub, PullDetail, ReviewFact
    from mlp_ci.spec import PlatformSpec
    from mlp_ci.tracking import Tracking


def model_at(hub: Hub, ref: str) -> ModelSpec:
    """model.yaml at a commit or branch."""
    raw = hub.read_file(MODEL_FILE, ref)
    if raw is None:
        msg = f"there is no {MODEL_FILE} at {ref[:12]} of {hub.place.full_name}"
        raise InputError(msg, fix="this command is for model repositories; `mlp-ci init` starts one")
    return parse_model(raw)


def promotion_at(hub: Hub, ref: str, model: str) -> PromotionSpec:
    """promotion.yaml at a commit or branch; an empty one for ``model`` where there is none."""
    raw = hub.read_file(PROMOTION_FILE, ref)
    if raw is None:
        return PromotionSpec(apiVersion="mlp-ci/v1", model=model)  # type: ignore[call-arg]
    return parse_promotion(raw)


def changed_stages(before: PromotionSpec, after: PromotionSpec) -> list[str]:
    """The stages whose entry differs; with the pseudo-stage QUARANTINE when a quarantine is lifted."""
    names = [*before.stages, *(s for s in after.stages if s not in before.stages)]
    changed = [s for s in names if before.stages.get(s) != after.stages.get(s)]
    kept = {q.digest for q in after.quarantine}
    lifted = any(q.digest not in kept for q in before.quarantine)
    return [*changed, *([QUARANTINE] if lifted else [])]


def merged_result(now: PromotionSpec, parted: PromotionSpec, head: PromotionSpec) -> PromotionSpec:
    """What the default branch (``now``) will say after a branch that ``parted`` and came to ``head`` is merged."""
    stages = dict(now.stages)
    for stage in changed_stages(parted, head):
        if stage in head.stages:
            stages[stage] = head.stages[stage]
        else:
            stages.pop(stage, None)
    gone = {q.digest for q in parted.quarantine} - {q.digest for q in head.quarantine}
    new = [q for q in head.quarantine if q.digest not in {p.digest for p in (*parted.quarantine, *now.quarantine)}]
    quarantine = (*(q for q in now.quarantine if q.digest not in gone), *new)
    return head.model_copy(update={"stages": stages, "quarantine": quarantine})


@dataclass
class Gatherer:
    """Asks each question once. ``registry`` connects to MLflow, and only when a version has to be looked up."""

    hub: Hub
    platform: PlatformSpec
    registry: Callable[[], Tracking]
    _tracking: Tracking | None = None
    _permissions: dict[str, str] = field(default_factory=dict)

    def tracking(self) -> Tracking:
        if self._tracking is None:
            self._tracking = self.registry()
        return self._tracking

    def registered(self, model: str, entry: StageEntry | None) -> Registered:
        """What the registry knows of the version that ``entry`` names."""
        if entry is None:
            return Registered(exists=False)
        try:
            found = self.tracking().version(model, entry.version)
        except InputError:
            return Registered(exists=False)
        return Registered(exists=True, gate=found.gate, digest=found.digest, evidence=found.evidence)

    def permissions(self, reviews: tuple[ReviewFact, ...]) -> dict[str, str]:
        """What those whose review could matter may do."""
        for review in latest_reviews(reviews).values():
            if review.person and not review.bot and review.person not in self._permissions:
                self._permissions[review.person] = self.hub.permission(review.person)
        return self._permissions

    def case(self, pull: PullDetail, stage: str, model: ModelSpec, change: tuple[PromotionSpec, PromotionSpec]) -> Case:
        """The case of one stage; ``change`` is promotion.yaml on the default branch without and with it."""
        before, after = change
        reviews = tuple(self.hub.reviews(pull.number))
        return Case(
            stage=stage,
            tier=model.tier,
            platform=self.platform,
            default_branch=self.hub.default_branch,
            pull=pull,
            reviews=reviews,
            permissions=self.permissions(reviews),
            before=before.model_copy(update={"model": model.name}),
            after=after,
            registered=self.registered(model.name, after.stages.get(stage)),
        )
