"""Is this promotion approved? The verdict as a report, and in a job as a commit status and one comment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci.errors import EXIT_OK, InputError, MlpError, NotApproved, SpecError
from mlp_ci.github import GitHubError, connect, policy_of
from mlp_ci.progress import doing
from mlp_ci.promote.case import Verdict
from mlp_ci.promote.files import changed_stages, merged_result, model_at, promotion_at
from mlp_ci.promote.gather import Gatherer
from mlp_ci.promote.guarded import guarded_changes
from mlp_ci.promote.intent import rollback_verdict
from mlp_ci.promote.telling import MARKER, STATUS, comment, explained, status_of, summary, title_of, verdict_table
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.spec import MODEL_FILE, PROMOTION_FILE

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.github import Hub, PullDetail
    from mlp_ci.tracking import Tracking

DEPLOY_WORKFLOW = "deploy.yml"
# Events that are about no pull request: then all that are open are judged.
UNASKED_EVENTS = ("schedule", "workflow_dispatch")


def approvals(
    ctx: Context, *, pr: int | None, commit: str | None, everything: bool = False, explain: bool = False
) -> Report:
    """Judge a promotion pull request. In a job it sets the status and the comment and exits 0: the status says it.

    ``everything`` (and a job that no pull request started) judges all that are open, so that a green status does not
    outlive what it was given for.
    """
    hub = connect(ctx.require_github("judging a promotion"))
    event = ctx.github.event_name if ctx.github else ""
    if everything or (pr is None and not commit and ctx.in_job and event in UNASKED_EVENTS):
        return _judge_all(ctx, hub)
    return _judge_one(ctx, hub, _number(ctx, hub, pr, commit), explain=explain)


def _judge_all(ctx: Context, hub: Hub) -> Report:
    """Every open pull request into the default branch, each on its own: one that fails leaves the others judged."""
    reports, failures = [], []
    for number in sorted(hub.open_pulls()):
        doing(f"judging #{number}")
        try:
            reports.append(_judge_one(ctx, hub, number))
        except MlpError as error:
            failures.append(_not_judged(error, number))
    judged = [r for r in reports if r.outcome is not Outcome.SKIP]
    approved = [r for r in judged if r.outputs["approved"] == "true"]
    headline = f"{len(judged)} open promotions judged, {len(approved)} approved"
    headline += f"; {len(failures)} could not be judged" if failures else ""
    return Report(
        command="approvals",
        headline=headline,
        outcome=Outcome.FAIL if failures else Outcome.PASS,
        findings=[*(f for r in judged for f in r.findings), *failures],
        tables=[t for r in judged for t in r.tables],
        outputs={"approved": "true" if len(approved) == len(judged) and not failures else "false"},
        data={"pull_requests": [r.data for r in judged]},
        links=[link for r in judged for link in r.links],
        exit_code=7 if failures else EXIT_OK,
    )


def _not_judged(error: MlpError, number: int) -> Finding:
    """An error about one pull request, as a finding among the others."""
    what = f"#{number} could not be judged: {error.what}"
    return Finding(check="judged", outcome=Outcome.FAIL, message=what, fix=error.fix, subject=f"#{number}")


def _judge_one(ctx: Context, hub: Hub, number: int, *, explain: bool = False) -> Report:
    pull = hub.pull(number)
    try:
        verdicts = judge(ctx, hub, pull)
    except MlpError as error:
        if ctx.in_job and PROMOTION_FILE in pull.files:
            hub.set_status(pull.head_sha, "error", STATUS, f"could not be judged: {error.what}", hub.place.run_url)
        raise
    if not verdicts:
        return _not_a_promotion(ctx, hub, pull)
    report = _report(pull, verdicts, explain=explain)
    if ctx.in_job:
        _publish(hub, pull, verdicts)
        report.exit_code = EXIT_OK
        _merge_by_machine(hub, pull, verdicts, report)
    elif report.outcome is Outcome.FAIL:
        report.exit_code = NotApproved.exit_code
    return report


def judge(ctx: Context, hub: Hub, pull: PullDetail) -> list[Verdict]:
    """A verdict for every stage that the pull request changes, and one if it changes what promotions rely on."""
    base = hub.head(hub.default_branch)
    if pull.state == "merged" and pull.merge_commit_sha:
        base = hub.commit(pull.merge_commit_sha).parents[0]
    name = model_at(hub, base).name if hub.read_file(MODEL_FILE, base) is not None else ""
    gatherer = Gatherer(ctx, hub, name or "new", lambda: _registry(ctx))
    verdicts: list[Verdict] = []
    if PROMOTION_FILE in pull.files:
        verdicts += _judge_promotion(gatherer, pull, base) if name else _founding(hub, pull)
    guarded = guarded_changes(hub, pull.files, base, pull.head_sha)
    if guarded and (name or PROMOTION_FILE not in pull.files):
        verdicts.append(gatherer.guarded_verdict(pull, guarded, base))
    return verdicts


def _registry(ctx: Context) -> Tracking:
    from mlp_ci.tracking import connect as connect_tracking

    return connect_tracking(ctx, policy_of(ctx).spec)


def _judge_promotion(gatherer: Gatherer, pull: PullDetail, base: str) -> list[Verdict]:
    hub, name = gatherer.hub, gatherer.model
    try:
        now = promotion_at(hub, base, name)
        parted = promotion_at(hub, hub.merge_base(base, pull.head_sha), name)
        head = promotion_at(hub, pull.head_sha, name)
    except (SpecError, InputError) as error:
        return [_unreadable(pull, error)]
    after = merged_result(now, parted, head)
    rollback = rollback_verdict(gatherer, policy_of(gatherer.ctx).spec, pull, (now, after), base)
    if rollback:
        return [rollback]
    return [gatherer.verdict(pull, stage, (now, after), base) for stage in changed_stages(parted, head)]


def _founding(hub: Hub, pull: PullDetail) -> list[Verdict]:
    """The pull request that brings a repository its model: nothing is registered yet, so it may promote nothing."""
    try:
        promotion = promotion_at(hub, pull.head_sha, "new")
    except (SpecError, InputError) as error:
        return [_unreadable(pull, error)]
    if not promotion.stages:
        return []
    finding = Finding(
        check="registered",
        outcome=Outcome.FAIL,
        message="the default branch has no model yet, so there is no version that could be promoted",
        fix=f"leave `stages: {{}}` in {PROMOTION_FILE}; the first promotion is proposed after the first registration",
    )
    return [Verdict(allowed=False, reasons=[finding], stage=PROMOTION_FILE, commit=pull.head_sha, pull=pull.number)]


def _number(ctx: Context, hub: Hub, pr: int | None, commit: str | None) -> int:
    if pr is not None:
        return pr
    if commit:
        sha = hub.commit(commit).sha
        numbers = [*hub.pulls_merged_as(sha), *hub.pulls_of_commit(sha)]
        if not numbers:
            msg = f"no pull request brought {sha[:12]}: it was pushed directly"
            raise NotApproved(msg, fix=f"git revert {sha[:12]}, and ask for the change with `mlp-ci promote`")
        return numbers[0]
    event = ctx.github.event if ctx.github else {}
    about = event.get("pull_request")
    number = (about.get("number") if isinstance(about, Mapping) else None) or event.get("number")
    if not isinstance(number, int):
        msg = "which pull request?"
        raise InputError(msg, fix="pass --pr NUMBER or --commit SHA; in a job, start it on pull_request_target")
    return number


def _not_a_promotion(ctx: Context, hub: Hub, pull: PullDetail) -> Report:
    headline = f"#{pull.number} promotes nothing"
    if ctx.in_job:
        hub.set_status(pull.head_sha, "success", STATUS, "changes no promotion", hub.place.run_url)
    return Report(command="approvals", headline=headline, outcome=Outcome.SKIP, outputs={"approved": "true"})


def _unreadable(pull: PullDetail, error: SpecError | InputError) -> Verdict:
    if not isinstance(error, SpecError):
        finding = Finding(check="readable", outcome=Outcome.FAIL, message=error.what, fix=error.fix)
        return Verdict(allowed=False, reasons=[finding], stage=PROMOTION_FILE, commit=pull.head_sha, pull=pull.number)
    problem = error.problems[0]
    finding = Finding(
        check="readable",
        outcome=Outcome.FAIL,
        message=f"{PROMOTION_FILE} cannot be read: {problem.what}",
        fix=problem.fix or "mend the file, or close this and run `mlp-ci promote` again",
        file=problem.file,
        line=problem.line,
        column=problem.column,
    )
    return Verdict(allowed=False, reasons=[finding], stage=PROMOTION_FILE, commit=pull.head_sha, pull=pull.number)


# ---------------------------------------------------------------- saying it


def _report(pull: PullDetail, verdicts: list[Verdict], *, explain: bool) -> Report:
    approved = all(v.allowed for v in verdicts)
    findings = []
    for verdict in verdicts:
        for reason in verdict.reasons:
            severity = "notice" if verdict.waiting and reason.outcome is Outcome.FAIL else reason.severity
            findings.append(replace(reason, subject=verdict.stage, severity=severity))
    titles = ", ".join(title_of(v) for v in verdicts)
    headline = f"#{pull.number} ({titles}) is {'approved' if approved else 'not approved'}: {summary(verdicts)}"
    tables = [verdict_table(v) for v in verdicts]
    return Report(
        command="approvals",
        headline=headline,
        outcome=Outcome.PASS if approved else Outcome.FAIL,
        findings=findings,
        tables=[*tables, *(explained(verdicts) if explain else [])],
        outputs={"approved": "true" if approved else "false"},
        data={
            "pull_request": pull.number,
            "head": pull.head_sha,
            "policy": verdicts[0].policy,
            "stages": {
                v.stage: {"allowed": v.allowed, "needed": v.needed, "approvers": list(v.approvers)} for v in verdicts
            },
        },
        links=[(f"pull request #{pull.number}", pull.url)],
    )


def _publish(hub: Hub, pull: PullDetail, verdicts: list[Verdict]) -> None:
    hub.set_status(pull.head_sha, status_of(verdicts), STATUS, summary(verdicts), hub.place.run_url or pull.url)
    hub.sticky_comment(pull.number, MARKER, comment(hub.place.run_url, pull, verdicts))


# ---------------------------------------------------------------- tier low


def _merge_by_machine(hub: Hub, pull: PullDetail, verdicts: list[Verdict], report: Report) -> None:
    """Merge what the policy lets a machine merge, and say so; being refused is news, not a failure."""
    ours = pull.head_repo.lower() == hub.place.full_name.lower()  # GitHub ignores case in names
    if not (ours and pull.state in ("open", "merged") and all(v.allowed and v.machine for v in verdicts)):
        return
    if pull.state == "merged":
        _finish(hub, pull, report)
        return
    said = "Approved and merged by mlp-ci: the tier lets a machine merge, and every gate passed."
    try:
        hub.approve(pull.number, pull.head_sha, said)
    except GitHubError as refusal:
        # GitHub lets nobody approve their own pull request, and an app opened this one; the policy asks for none.
        report.data["approval"] = refusal.what
    try:
        merged = hub.merge_pull(pull.number, pull.head_sha, title=f"{pull.title} (#{pull.number})")
    except GitHubError as refusal:
        fix = refusal.fix or "give the job `contents: write`, or merge by hand"
        said = refusal.what
        finding = Finding(check="machine-merge", outcome=Outcome.FAIL, severity="warning", message=said, fix=fix)
        report.findings.append(finding)
        return
    report.headline = f"#{pull.number} is approved and merged by the machine: its tier lets it, and every gate passed"
    report.findings.append(Finding(check="machine-merge", outcome=Outcome.PASS, message=f"merged as {merged[:12]}"))
    report.data["merged"] = merged
    _start_deploy(hub, report)


def _finish(hub: Hub, pull: PullDetail, report: Report) -> None:
    """A run that was killed right after it merged has not asked for the deployment yet."""
    try:
        if pull.merged_by.endswith("[bot]") and not hub.has_run(DEPLOY_WORKFLOW, pull.merged_at):
            _start_deploy(hub, report)
    except GitHubError as refusal:
        report.data["deploy"] = refusal.what


def _start_deploy(hub: Hub, report: Report) -> None:
    """A merge made with a job's own token starts no workflow, so the deployment is asked for by hand."""
    try:
        hub.dispatch_workflow(DEPLOY_WORKFLOW, hub.default_branch)
    except GitHubError as refusal:
        message = f"merged, but {DEPLOY_WORKFLOW} was not started: {refusal.what}"
        fix = "give the job `actions: write`, or start the workflow by hand"
        report.findings.append(
            Finding(check="deploy", outcome=Outcome.FAIL, severity="warning", message=message, fix=fix)
        )
