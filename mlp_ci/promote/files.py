"""model.yaml and promotion.yaml as they are at a commit on GitHub, and what differs between two of the latter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.errors import InputError
from mlp_ci.promote.case import QUARANTINE
from mlp_ci.spec import MODEL_FILE, PROMOTION_FILE, ModelSpec, PromotionSpec, parse_model, parse_promotion

if TYPE_CHECKING:
    from mlp_ci.github import Hub


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
