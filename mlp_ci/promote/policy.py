"""May this promotion go ahead? A pure function from what is known to a verdict with a reason for every rule.

No clock, no network, no file: everything it may know is in the :class:`Case`. The rules, for one stage entry that a
pull request changes:

- the pull request comes from a branch of this repository, is open or merged, goes to the default branch, is no draft,
  changes promotion.yaml alone, and in it one stage's entry (or lifts a quarantine);
- GitHub knows everybody who worked on it: author, committer and co-authors of every commit, and who pushed them;
- enough people approved exactly this head, since it was last reopened or got another base, and each team that the
  policy names is among them. A person counts when they may write to the repository, are no bot, may approve, and did
  not work on it. Of each person only the latest review with a verdict counts: a dismissed review is no approval, and
  it never brings an older one back;
- nobody with write access has asked for changes as their latest word, unless an admin dismissed that;
- the version exists, passed its gate, has the digest and the evidence that the file names, and a complete lineage;
- where the held-out rows did not decide its gate, at least one person approved it, in whatever tier and stage; the
  platform, or model.yaml, may also let no such version on;
- the digest is not quarantined, and if it once was, the lift was approved in a pull request of its own;
- in every stage but the first, the version and its digest are what the stage before has, and have been for its soak;
- no freeze holds.

In an emergency somebody of the emergency team may do without approvals, order, soak and freezes; nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci.github.facts import WEB_FLOW
from mlp_ci.promote.case import EMERGENCY, GUARDED, PROMOTION, QUARANTINE, Case, Verdict, failed, passed
from mlp_ci.promote.people import counted_approvers, members, own_people, people_rules
from mlp_ci.promote.requirement import Requirement, requirement, tier_of
from mlp_ci.promote.version_rules import care_of, entry_rules
from mlp_ci.report import Finding, Outcome
from mlp_ci.spec import PROMOTION_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator


def decide(case: Case) -> Verdict:
    """The verdict on one stage entry of one pull request."""
    needs, unknown = needed(case)
    approvers = counted_approvers(case, needs)
    emergency = case.entry.emergency if case.entry and case.stage != QUARANTINE else ""
    waived = f"waived in an emergency: {emergency}" if emergency else ""
    reasons = [*unknown, *_pull_rules(case), *_author_rules(case)]
    if emergency:
        reasons.append(_emergency_rule(case, approvers))
    reasons += people_rules(case, needs, approvers, waived=waived)
    reasons += [Finding(check="stricter", outcome=Outcome.SKIP, message=m, severity="notice") for m in needs.laxer]
    if case.stage != QUARANTINE and not unknown:
        reasons += entry_rules(case, needs, waived=waived)
    return _verdict(case, needs, reasons, approvers, EMERGENCY if emergency else PROMOTION)


def decide_guarded(case: Case) -> Verdict:
    """The verdict on a pull request that changes what promotions rely on: the platform team has to approve it."""
    team = case.platform.platform_team
    if team is None:
        shown = ", ".join(case.guarded[:3])
        what = f"it changes {shown}, and platform.yaml names no platform_team that would have to approve that"
        reason = Finding(check="guarded-files", outcome=Outcome.SKIP, message=what, severity="warning")
        return _verdict(case, Requirement(tier=case.tier, count=0), [reason], ())
    needs = Requirement(
        tier=case.tier,
        count=1,
        teams=(team,),
        cannot_approve=frozenset(who.lower() for who in (*case.platform.cannot_approve, *case.own.cannot_approve)),
    )
    approvers = counted_approvers(case, needs)
    reasons = [passed("guarded-files", f"it changes {', '.join(case.guarded[:5])}"), *_place_rules(case)]
    reasons += [*_author_rules(case), *people_rules(case, needs, approvers)]
    return _verdict(case, needs, reasons, approvers)


def strictest(verdicts: list[Verdict]) -> Verdict:
    """One verdict of several on the same case by different policies: all have to allow it."""
    refused = sorted((v for v in verdicts if not v.allowed), key=lambda v: v.waiting)  # what waits comes last
    chosen = refused[0] if refused else verdicts[-1]
    if len(verdicts) == 1:
        return chosen
    what = f"the policy changed while this was open; both have to allow it, and by {chosen.policy} it is "
    what += "not allowed" if refused else "allowed too"
    note = Finding(check="policy", outcome=Outcome.SKIP, message=what, severity="notice")
    machine, count = all(v.machine for v in verdicts), max(v.needed for v in verdicts)
    return replace(chosen, reasons=[*chosen.reasons, note], machine=machine, needed=count)


def needed(case: Case) -> tuple[Requirement, list[Finding]]:
    """What the policy asks for; with a finding where it does not know the tier or the stage."""
    tier, platform = tier_of(case.platform, case.before.model, case.tier), case.platform
    if tier not in platform.tiers:
        known = ", ".join(platform.tiers)
        what = f"the platform has no tier {tier}; it has {known}"
        return Requirement(tier=tier, count=1), [failed("tier", what, fix="mend tier in model.yaml")]
    if case.stage not in platform.stage_names() and case.stage not in (QUARANTINE, GUARDED):
        known = ", ".join(platform.stage_names())
        what = f"the platform has no stage {case.stage}; it has {known}"
        return Requirement(tier=tier, count=1), [failed("stage", what, fix=f"use one of {known}")]
    needs = requirement(platform, case.own, tier, case.stage)
    asks = case.entry is not None and case.stage != QUARANTINE
    if asks and case.registered.undecided and care_of(case) != "pass":
        needs = needs.with_person()
    return needs, []


def _verdict(
    case: Case, needs: Requirement, reasons: list[Finding], approvers: tuple[str, ...], kind: str = PROMOTION
) -> Verdict:
    return Verdict(
        allowed=all(r.outcome is not Outcome.FAIL for r in reasons),
        reasons=reasons,
        stage=case.stage,
        entry=case.entry,
        commit=case.pull.head_sha,
        pull=case.pull.number,
        needed=0 if kind == EMERGENCY else needs.count,
        approvers=approvers,
        author=case.pull.author,
        merged_by=case.pull.merged_by,
        kind=kind,
        machine=needs.machine and kind == PROMOTION and case.entry is not None,
    )


# ---------------------------------------------------------------- the pull request


def _pull_rules(case: Case) -> Iterator[Finding]:
    pull = case.pull
    others = [f for f in pull.files if f != PROMOTION_FILE]
    if not pull.files:
        yield failed("one-file", "it changes no file", fix=_FRESH)
    elif others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        fix = f"move {shown} to a pull request of its own"
        yield failed("one-file", f"a promotion changes {PROMOTION_FILE} alone; this one also changes {shown}", fix=fix)
    else:
        yield passed("one-file", f"it changes {PROMOTION_FILE} alone")
    yield from _place_rules(case)
    stages = {*case.before.stages, *case.after.stages}
    also = [s for s in sorted(stages) if s != case.stage and case.before.stages.get(s) != case.after.stages.get(s)]
    if case.stage != QUARANTINE and _lifts(case):
        also.append("what is quarantined")
    if also:
        fix = "promote to one stage at a time, and lift a quarantine in a pull request of its own"
        yield failed("one-entry", f"it also changes {', '.join(also)}", fix=fix)
    if case.after.model != case.before.model:
        what = f"it changes the model's name from {case.before.model} to {case.after.model}"
        yield failed("model", what, fix=f"keep `model: {case.before.model}`")


def _lifts(case: Case) -> bool:
    return bool({q.digest for q in case.before.quarantine} - {q.digest for q in case.after.quarantine})


def _place_rules(case: Case) -> Iterator[Finding]:
    """Where it comes from, where it goes, and whether GitHub shows all of it."""
    pull = case.pull
    if not pull.complete:
        yield failed("whole", "GitHub does not list all commits and files of this pull request", fix=_FRESH)
    if pull.head_repo.lower() != case.repository.lower():
        what = f"it comes from {pull.head_repo or 'a repository that is gone'}, where GitHub does not record who pushed"
        yield failed("same-repository", what, fix=f"push the branch to {case.repository}, and open it from there")
    if pull.base_ref != case.default_branch:
        fix = f"change its base to {case.default_branch}"
        yield failed("base", f"it goes to {pull.base_ref}; only {case.default_branch} is deployed", fix=fix)
    if pull.state == "closed":
        yield failed("state", "it was closed without a merge", fix="reopen it, or run `mlp-ci promote` again")
    if pull.draft:
        yield failed("state", "it is a draft", fix="mark it as ready for review")


def _author_rules(case: Case) -> Iterator[Finding]:
    """GitHub knows everybody who worked on it; somebody unknown could be one of those who approve."""
    # What people commit on GitHub's pages has them as author; an author web-flow is an address that somebody typed.
    unknown = [c.sha[:12] for c in case.pull.commits if c.author in ("", WEB_FLOW) or not c.committer]
    fix = "commit with an address of your GitHub account, or run `mlp-ci promote` again"
    if unknown:
        yield failed("commit-authors", f"GitHub does not know who wrote {', '.join(unknown)}", fix=fix)
    elif case.pull.commits:
        people = ", ".join(sorted({c.author for c in case.pull.commits}))
        yield passed("commit-authors", f"its commits are by {people}")
    else:
        yield failed("commit-authors", "it has no commits", fix=_FRESH)
    if case.history.unresolved:
        what = f"GitHub does not know the co-author of {', '.join(case.history.unresolved[:3])}"
        yield failed("co-authors", what, fix=fix)
    if not case.history.push_known:
        what = f"GitHub has no record of who pushed {case.pull.head_sha[:12]}"
        yield failed("pushers", what, fix="wait a minute and judge it again; if it stays so, push a new commit")
    else:
        yield passed("pushers", f"pushed by {', '.join(case.history.pushers)}")


def _emergency_rule(case: Case, approvers: tuple[str, ...]) -> Finding:
    """Somebody of the emergency team stands for it: all who worked on it are of the team, or one of it approved.

    A bot is of no team, and so no exception: anybody who may push a workflow can have a bot push to a member's branch.
    """
    role = case.platform.emergency
    if role is None:
        fix = "name a team: `emergency: {team: …}` in platform.yaml; or promote without `emergency`"
        return failed("emergency", "the platform names nobody who may promote in an emergency", fix=fix)
    team = members(case, role.team)
    vouched = [who for who in approvers if who.lower() in team]
    own = own_people(case)
    if vouched:
        return passed("emergency", f"{', '.join(vouched)} of the team {role.team} approved it as an emergency")
    if own and own <= team and not case.pull.author_bot:
        return passed("emergency", f"{', '.join(sorted(own))} of the team {role.team} asked for it as an emergency")
    fix = f"ask somebody of the team {role.team} to approve it"
    return failed("emergency", f"only the team {role.team} may promote in an emergency", fix=fix)


_FRESH = "close it and run `mlp-ci promote` again"
