"""Is this promotion approved? The verdict as a report, and in a job as a commit status and one comment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci.errors import EXIT_OK, InputError, NotApproved, OutsideError, SpecError
from mlp_ci.github import GitHubError, connect, policy_of
from mlp_ci.promote.gather import Gatherer, changed_stages, merged_result, model_at, promotion_at
from mlp_ci.promote.policy import APPROVALS, QUARANTINE, Verdict, decide
from mlp_ci.report import Finding, Outcome, Report, Table, markdown_cell, markdown_table
from mlp_ci.spec import MODEL_FILE, PROMOTION_FILE

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.github import Hub, PullDetail
    from mlp_ci.spec import PlatformSpec
    from mlp_ci.tracking import Tracking

STATUS = "mlp-ci/approvals"
MARKER = "mlp-ci approvals"
DEPLOY_WORKFLOW = "deploy.yml"


def approvals(ctx: Context, *, pr: int | None, commit: str | None) -> Report:
    """Judge a promotion pull request. In a job it sets the status and the comment and exits 0: the status says it."""
    hub = connect(ctx.require_github("judging a promotion"))
    pull = hub.pull(_number(ctx, hub, pr, commit))
    if PROMOTION_FILE not in pull.files:
        return _not_a_promotion(ctx, hub, pull)
    policy = policy_of(ctx)
    platform, source = policy.spec, policy.source
    try:
        verdicts = judge(ctx, hub, platform, pull)
    except OutsideError as error:
        if ctx.in_job:
            hub.set_status(pull.head_sha, "error", STATUS, f"could not be judged: {error.what}", hub.place.run_url)
        raise
    if not verdicts:
        return _not_a_promotion(ctx, hub, pull)
    report = _report(pull, verdicts, source)
    if ctx.in_job:
        _publish(hub, pull, verdicts, source)
        report.exit_code = EXIT_OK
        _merge_by_machine(ctx, hub, platform, pull, verdicts, report)
    elif report.outcome is Outcome.FAIL:
        report.exit_code = NotApproved.exit_code
    return report


def judge(ctx: Context, hub: Hub, platform: PlatformSpec, pull: PullDetail) -> list[Verdict]:
    """A verdict for every stage that the pull request changes; by the model's tier as the default branch has it."""

    def registry() -> Tracking:
        from mlp_ci.tracking import connect as connect_tracking

        return connect_tracking(ctx, platform)

    base = hub.head(hub.default_branch)
    if pull.state == "merged" and pull.merge_commit_sha:
        base = hub.commit(pull.merge_commit_sha).parents[0]
    if hub.read_file(MODEL_FILE, base) is None:
        return _founding(hub, pull)
    model = model_at(hub, base)
    try:
        now = promotion_at(hub, base, model.name)
        parted = promotion_at(hub, hub.merge_base(base, pull.head_sha), model.name)
        head = promotion_at(hub, pull.head_sha, model.name)
    except SpecError as error:
        return [_unreadable(pull, error)]
    gatherer = Gatherer(hub, platform, registry)
    after = merged_result(now, parted, head)
    stages = changed_stages(parted, head)
    return [decide(gatherer.case(pull, stage, model, (now, after))) for stage in stages]


def _founding(hub: Hub, pull: PullDetail) -> list[Verdict]:
    """The pull request that brings a repository its model: nothing is registered yet, so it may promote nothing."""
    try:
        promotion = promotion_at(hub, pull.head_sha, "new")
    except SpecError as error:
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


def _unreadable(pull: PullDetail, error: SpecError) -> Verdict:
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


def _title(verdict: Verdict) -> str:
    if verdict.stage in (QUARANTINE, PROMOTION_FILE):
        return verdict.stage
    return f"version {verdict.entry.version} to {verdict.stage}" if verdict.entry else f"{verdict.stage} to run nothing"


def _report(pull: PullDetail, verdicts: list[Verdict], source: str) -> Report:
    approved = all(v.allowed for v in verdicts)
    findings = []
    for verdict in verdicts:
        for reason in verdict.reasons:
            severity = "notice" if verdict.waiting and reason.check == APPROVALS else reason.severity
            findings.append(replace(reason, subject=verdict.stage, severity=severity))
    titles = ", ".join(_title(v) for v in verdicts)
    headline = f"#{pull.number} ({titles}) is {'approved' if approved else 'not approved'}: {summary(verdicts)}"
    return Report(
        command="approvals",
        headline=headline,
        outcome=Outcome.PASS if approved else Outcome.FAIL,
        findings=findings,
        tables=[_table(v) for v in verdicts],
        outputs={"approved": "true" if approved else "false"},
        data={
            "pull_request": pull.number,
            "head": pull.head_sha,
            "policy": source,
            "stages": {
                v.stage: {"allowed": v.allowed, "needed": v.needed, "approvers": list(v.approvers)} for v in verdicts
            },
        },
        links=[(f"pull request #{pull.number}", pull.url)],
    )


def summary(verdicts: list[Verdict]) -> str:
    """One line for a commit status."""
    failed = [r for v in verdicts for r in v.reasons if r.outcome is Outcome.FAIL]
    if failed:
        # What nobody can approve away comes first.
        failed.sort(key=lambda r: r.check == APPROVALS)
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return failed[0].message + more
    people = list(dict.fromkeys(a for v in verdicts for a in v.approvers))
    return f"approved by {', '.join(people)}" if people else "all rules hold; no approval needed"


def _table(verdict: Verdict) -> Table:
    rows = tuple((r.check, r.outcome, r.message) for r in verdict.reasons)
    return Table(title=_title(verdict), columns=("rule", "result", "reason"), rows=rows)


def _publish(hub: Hub, pull: PullDetail, verdicts: list[Verdict], source: str) -> None:
    if all(v.allowed for v in verdicts):
        state = "success"
    elif all(v.allowed or v.waiting for v in verdicts):
        state = "pending"
    else:
        state = "failure"
    hub.set_status(pull.head_sha, state, STATUS, summary(verdicts), hub.place.run_url or pull.url)
    hub.sticky_comment(pull.number, MARKER, comment(hub, pull, verdicts, source))


def comment(hub: Hub, pull: PullDetail, verdicts: list[Verdict], source: str) -> str:
    """The one comment: the verdict, who still has to approve what, and every rule."""
    lines = []
    for verdict in verdicts:
        said = "approved" if verdict.allowed else "waiting" if verdict.waiting else "not allowed"
        symbol = "✅" if verdict.allowed else "⏳" if verdict.waiting else "❌"
        lines += [f"### {symbol} {_title(verdict)}: {said}", ""]
        lines += [f"- **{r.check}**: {markdown_cell(r.message)}" for r in verdict.reasons if r.outcome is Outcome.FAIL]
        lines += [f"  → {markdown_cell(r.fix)}" for r in verdict.reasons if r.outcome is Outcome.FAIL and r.fix][:1]
        table = markdown_table(replace(_table(verdict), title=""))
        lines += ["", "<details><summary>Every rule</summary>", "", table, "", "</details>", ""]
    run = f" · [run]({hub.place.run_url})" if hub.place.run_url else ""
    lines.append(
        f"<sub>For commit {pull.head_sha[:12]}, by the policy of {markdown_cell(source)}. An approval counts for this "
        f"commit only. `mlp-ci deploy` checks the same again after the merge.{run}</sub>"
    )
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- tier low


def _merge_by_machine(
    ctx: Context, hub: Hub, platform: PlatformSpec, pull: PullDetail, verdicts: list[Verdict], report: Report
) -> None:
    """Merge what the policy lets a machine merge, and say so; being refused is news, not a failure."""
    model = model_at(hub, hub.default_branch)
    policy = platform.tiers.get(model.tier)
    ours = pull.head_repo.lower() == hub.place.full_name.lower()  # GitHub ignores case in names
    machine = policy is not None and policy.merge == "machine" and ours and pull.state == "open"
    if not machine or QUARANTINE in [v.stage for v in verdicts] or not all(v.allowed for v in verdicts):
        return
    said = f"Approved and merged by mlp-ci: tier {model.tier} lets a machine merge, and every gate passed."
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
    report.headline = f"#{pull.number} is approved and merged by the machine: tier {model.tier}, every gate passed"
    report.findings.append(Finding(check="machine-merge", outcome=Outcome.PASS, message=f"merged as {merged[:12]}"))
    report.data["merged"] = merged
    _start_deploy(hub, report)


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
