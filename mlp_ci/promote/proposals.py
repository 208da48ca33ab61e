"""The promotion pull request: one per stage, opened or updated, never two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.errors import GateError, InputError, NotApproved, NothingToDo
from mlp_ci.github import PullFact, PullRequest, connect, platform_of
from mlp_ci.promote.body import Asked, links, promotion_body
from mlp_ci.promote.files import model_at, promotion_at
from mlp_ci.promote.gather import Gatherer
from mlp_ci.promote.version_rules import registry_rules
from mlp_ci.report import Outcome, Report
from mlp_ci.spec import PROMOTION_FILE, PromotionSpec, StageEntry, edited_promotion

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.github import Hub
    from mlp_ci.spec import PlatformSpec
    from mlp_ci.tracking import Tracking, VersionFact

LABEL = "promotion"


def branch_of(stage: str) -> str:
    """The branch of the promotion pull request of a stage."""
    return f"mlp-ci/promote-{stage}"


def promote(ctx: Context, stage: str, version: int | None, emergency: str = "") -> Report:
    """Ask for a version in a stage; by default the one that the stage before has. NothingToDo when it is there.

    ``emergency`` says why it cannot wait for the usual approvals, stage order, soak and freezes.
    """
    from mlp_ci.tracking import connect as connect_tracking

    hub = connect(ctx.require_github("a promotion"))
    platform = platform_of(ctx)
    _require_stage(platform, stage)
    tracking = connect_tracking(ctx, platform)
    branch = hub.default_branch
    model = model_at(hub, branch)
    number = version
    if number is None:
        number = _default_version(platform, promotion_at(hub, branch, model.name), stage)
    wish = Wish(stage=stage, version=tracking.version(model.name, number), emergency=" ".join(emergency.split()))
    fact = propose(ctx, hub, tracking, platform, wish)
    said = "opened" if fact.created else "updated" if fact.changed else "already open and up to date"
    return Report(
        command="promote",
        headline=f"{model.name} {number} to {stage}: pull request #{fact.number} is {said}",
        outputs={"version": str(number), "pull-request": str(fact.number)},
        data={"version": number, "stage": stage, "pull_request": fact.number, "created": fact.created},
        links=[(f"pull request #{fact.number}", fact.url)],
    )


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked for; ``emergency`` is why it cannot wait, empty when it can."""

    stage: str
    version: VersionFact
    emergency: str = ""


def propose(ctx: Context, hub: Hub, tracking: Tracking, platform: PlatformSpec, wish: Wish) -> PullFact:
    """Open or update the promotion pull request of a stage; only promotion.yaml changes in it.

    Raises NothingToDo when the stage has the version, GateError when its gate did not pass, NotApproved when the
    policy would refuse it whoever approves: quarantined bytes, a stage left out, an emergency that nobody may declare.
    """
    stage, version = wish.stage, wish.version
    _require_stage(platform, stage)
    branch = hub.default_branch
    model = model_at(hub, branch)
    now = promotion_at(hub, branch, model.name)
    entry = _entry(Gatherer(ctx, hub, model.name, lambda: tracking), wish)
    if entry.same(now.stages.get(stage)):
        msg = f"{stage} already has {model.name} {version.number}"
        raise NothingToDo(msg)
    _refuse_hopeless(platform, now, stage, entry)
    text = (hub.read_file(PROMOTION_FILE, branch) or b"").decode()
    wanted = edited_promotion(text, now.model_copy(update={"stages": {**now.stages, stage: entry}}))
    place = hub.place
    asked = Asked(
        model=model,
        stage=stage,
        version=version,
        now=now.stages.get(stage),
        commit_url=f"{place.server_url}/{place.full_name}/commit/{{sha}}",
        emergency=wish.emergency,
    )
    body = promotion_body(asked, tracking, platform)
    pages = links(asked, tracking)
    title = f"{'EMERGENCY: promote' if wish.emergency else 'Promote'} {model.name} {version.number} to {stage}"
    return hub.open_or_update_pull(
        PullRequest(
            branch=branch_of(stage),
            title=title,
            body=f"{body}\n{pages}\n" if pages else body,
            files={PROMOTION_FILE: wanted.encode()},
            labels=(LABEL,),
        )
    )


def _require_stage(platform: PlatformSpec, stage: str) -> None:
    if stage not in platform.stage_names():
        known = ", ".join(platform.stage_names())
        msg = f"there is no stage {stage!r}"
        raise InputError(msg, fix=f"use one of {known}; platform.yaml lists them")


def _default_version(platform: PlatformSpec, now: PromotionSpec, stage: str) -> int:
    before = platform.stage_before(stage)
    if before is None:
        msg = f"{stage} is the first stage, so nothing says which version"
        raise InputError(msg, fix=f"mlp-ci promote {stage} --version NUMBER")
    if before.name not in now.stages:
        msg = f"{before.name} has no version that could go on to {stage}"
        raise InputError(msg, fix=f"mlp-ci promote {before.name} --version NUMBER, and merge that first")
    return now.stages[before.name].version


def _entry(gatherer: Gatherer, wish: Wish) -> StageEntry:
    """The entry that names a version; GateError or InputError where it can never be promoted."""
    version = wish.version
    if not version.digest:
        msg = f"version {version.number} of {version.model} has no digest: it was not made by `mlp-ci register`"
        raise InputError(msg, fix="train and register it through the workflow")
    bare = StageEntry(version=version.number, digest=version.digest)
    for rule in registry_rules(bare, gatherer.registered(bare)):
        if rule.outcome is Outcome.FAIL:
            raise GateError(rule.message, why="only versions that passed their gate are promoted", fix=rule.fix)
    return StageEntry(
        version=version.number, digest=version.digest, evidence=version.evidence, emergency=wish.emergency
    )


def _refuse_hopeless(platform: PlatformSpec, now: PromotionSpec, stage: str, entry: StageEntry) -> None:
    held = next((q for q in now.quarantine if q.digest == entry.digest), None)
    if held:
        msg = f"version {entry.version} is quarantined since {held.since:%Y-%m-%d}: {held.reason or 'no reason given'}"
        fix = f"promote another version, or open a pull request that takes it out of `quarantine` in {PROMOTION_FILE}"
        raise NotApproved(msg, why="these bytes were rolled back", fix=fix)
    if entry.emergency:
        if platform.emergency is None:
            msg = "the platform names nobody who may promote in an emergency"
            fix = "leave --emergency out, or have `emergency: {team: …}` put into the organisation's platform.yaml"
            raise NotApproved(msg, why="an emergency does without the usual approvals", fix=fix)
        return
    before = platform.stage_before(stage)
    if before and not entry.same(now.stages.get(before.name)):
        there = now.stages.get(before.name)
        has = f"version {there.version}" if there else "nothing"
        msg = f"{stage} only takes what {before.name} has, and {before.name} has {has}"
        fix = f"mlp-ci promote {before.name} --version {entry.version}, and merge that first"
        raise NotApproved(msg, why="a version proves itself in one stage before it goes on", fix=fix)
