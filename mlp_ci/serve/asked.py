"""What git asks for, and whether it may: one reading of the default branch, and the verdict on each stage's entry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, NotApproved, OutsideError
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome
from mlp_ci.serve.state import Place
from mlp_ci.serve.targets import Target, target_of
from mlp_ci.spec import MODEL_FILE, PROMOTION_FILE, ModelSpec, PlatformSpec, PromotionSpec, StageEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.context import Context
    from mlp_ci.github import Hub
    from mlp_ci.promote import Verdict
    from mlp_ci.serve.measured import LabelsOf
    from mlp_ci.tracking import Tracking


@dataclass
class Job:
    """One run of a command: what git asks for, and whom to ask. MLflow is only contacted when it is needed.

    ``watch`` is how long the command stays with a rollout whose steps take their time. ``labels`` finds
    whoever knows what labels say of versions.
    """

    ctx: Context
    platform: PlatformSpec
    hub: Hub | None
    model: ModelSpec
    promotion: PromotionSpec
    target: Target
    commit: str
    watch: timedelta = timedelta(0)
    labels: LabelsOf | None = None
    _tracking: Tracking | None = None

    @property
    def tracking(self) -> Tracking:
        if self._tracking is None:
            from mlp_ci.tracking import connect

            self._tracking = connect(self.ctx, self.platform)
        return self._tracking

    def place(self, stage: str) -> Place:
        return Place(self.ctx.serve_home, self.model.name, stage)


class Moved(OutsideError):
    """Git asks for something else than a moment ago. ``findings``: what was done and found until that was seen."""

    def __init__(self, what: str, *, why: str, fix: str, said: Sequence[Finding] = ()) -> None:
        super().__init__(what, why=why, fix=fix)
        self.findings = list(said)


class Refused(NotApproved):
    """A verdict with several reasons, all to be shown."""

    def __init__(self, stage: str, reasons: list[Finding]) -> None:
        failed = [r for r in reasons if r.outcome is Outcome.FAIL]
        first = failed[0] if failed else Finding(check="approval", outcome=Outcome.FAIL, message="it is not allowed")
        super().__init__(f"{stage}: {first.message}", fix=first.fix)
        self.reasons = reasons


# ---------------------------------------------------------------- what git asks for


def open_job(ctx: Context) -> Job:
    """What git asks for now; InputError when its files disagree."""
    from mlp_ci.github import policy_of

    platform = policy_of(ctx).spec
    if ctx.github is None:
        hub, commit, model, promotion = None, *_local_intent(ctx)
    else:
        hub, commit, model, promotion = _remote_intent(ctx)
    if promotion.model != model.name:
        msg = f"{PROMOTION_FILE} is about {promotion.model}, {MODEL_FILE} about {model.name}"
        raise InputError(msg, fix=f"write `model: {model.name}` in {PROMOTION_FILE}", file=PROMOTION_FILE)
    target = target_of(model.serve, platform)
    return Job(ctx, platform, hub, model, promotion, target, commit)


def _remote_intent(ctx: Context) -> tuple[Hub, str, ModelSpec, PromotionSpec]:
    from mlp_ci.github import connect
    from mlp_ci.promote.files import model_at, promotion_at

    hub = connect(ctx.require_github("deploying"))
    commit = hub.head(hub.default_branch)
    model = model_at(hub, commit)
    return hub, commit, model, promotion_at(hub, commit, model.name)


def _local_intent(ctx: Context) -> tuple[str, ModelSpec, PromotionSpec]:
    """Intent of a repository that is on no GitHub: what its HEAD has."""
    from mlp_ci import git
    from mlp_ci.spec import parse_model, parse_promotion

    git.require_repository(ctx.repo)
    commit = git.head(ctx.repo)
    described = git.file_at(ctx.repo, commit, MODEL_FILE)
    if described is None:
        msg = f"commit {commit[:12]} has no {MODEL_FILE}"
        raise InputError(msg, fix=f"git add {MODEL_FILE} && git commit, or pass the folder of the model with --path")
    model = parse_model(described)
    asked = git.file_at(ctx.repo, commit, PROMOTION_FILE)
    if asked is None:
        return commit, model, PromotionSpec(apiVersion="mlp-ci/v1", model=model.name)  # type: ignore[call-arg]
    return commit, model, parse_promotion(asked)


# ---------------------------------------------------------------- may it?


def judged(job: Job, stage: str) -> Verdict:
    """The verdict on what git asks for in a stage, as GitHub has it now; raises nothing when it is a no."""
    if job.hub is None:
        return _judged_alone(job, stage)
    from mlp_ci.promote import verify_intent

    verdict = verify_intent(job.ctx, job.hub, job.tracking, job.platform, stage)
    return replace(
        verdict,
        reasons=[replace(r, subject=r.subject or stage) for r in verdict.reasons],
        commit=verdict.commit or job.commit,
    )


def verified(job: Job, place: Place, entry: StageEntry) -> Verdict:
    """The verdict that lets the entry go live; raises NotApproved with the rules that do not hold."""
    doing(f"{place.stage}: verifying approvals and evidence")
    stage = place.stage
    held = next((h for h in job.target.held(place) if h.digest == entry.digest and not h.known), None)
    if held:
        msg = f"version {held.version} was rolled back in {stage}: {held.reason or 'no reason given'}"
        why = "git still asks for it; bringing it back would undo the rollback"
        fix = (
            f"merge the rollback's pull request (`mlp-ci rollback --stage {stage}` again opens it), or promote another"
        )
        raise NotApproved(msg, why=why, fix=fix)
    verdict = judged(job, stage)
    if not verdict.allowed:
        raise Refused(stage, verdict.reasons)
    if verdict.entry != entry:
        msg = f"{PROMOTION_FILE} changed while this ran"
        raise Moved(msg, why="what was verified is not what was read", fix="run `mlp-ci deploy` again")
    return verdict


def _undecided(job: Job, entry: StageEntry) -> bool:
    """Whether the held-out rows did not decide this version's gates, so that a person has to approve it."""
    from mlp_ci.promote.case import INCONCLUSIVE
    from mlp_ci.promote.gather import said_in

    version = job.tracking.find_version(job.model.name, entry.version)
    if version is None:
        return False
    try:
        shown, care = said_in(job.tracking.read_bytes(version.run_id, version.evidence_file))
    except InputError:
        return version.gate == INCONCLUSIVE  # that it has no evidence is said where it is fetched
    said = job.model.evaluate.on_inconclusive
    return INCONCLUSIVE in (version.gate, shown) and (care, said) != ("pass", "pass")


def _judged_alone(job: Job, stage: str) -> Verdict:
    """Without GitHub nobody can have approved anything: only what needs no approval may go live."""
    from mlp_ci import clock
    from mlp_ci.promote import Verdict
    from mlp_ci.promote.requirement import requirement, tier_of

    entry = job.promotion.stages.get(stage)
    tier = tier_of(job.platform, job.model.name, job.model.tier)
    needs = requirement(job.platform, job.model.promote, tier, stage) if tier in job.platform.tiers else None
    if needs and entry and _undecided(job, entry):
        needs = needs.with_person()
    frozen = next((f for f in needs.freezes if f.end(clock.now())), None) if needs else None
    outcome, fix = Outcome.FAIL, ""
    if needs is None or needs.count:
        count = needs.count if needs else "an unknown number of"
        message = f"{stage} needs {count} approvals for tier {tier}, and this repository is on no GitHub"
        message += "; nobody can have approved it"
        fix = "push it to GitHub and promote by pull request"
    elif entry and entry.digest in {q.digest for q in job.promotion.quarantine}:
        message = f"version {entry.version} is quarantined"
        fix = "promote another version, or take it out of `quarantine` first"
    elif frozen:
        message, fix = f"nothing goes to {stage} now: {frozen.reason}", "wait until the freeze ends"
    else:
        outcome, message = Outcome.PASS, f"tier {tier} needs no approval here"
    reason = Finding(check="approvals", outcome=outcome, subject=stage, message=message, fix=fix)
    allowed = outcome is Outcome.PASS
    return Verdict(allowed=allowed, reasons=[reason], stage=stage, entry=entry, commit=job.commit)
