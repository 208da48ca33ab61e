"""What the policy relies on for a branch: that changes come by pull request, and that nobody is let past the rules.

All rules that hold for a branch hold together, so a rule is in force if any ruleset, or classic branch protection, has
it; and nobody gets past it if one of those that have it lets nobody pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.doctor import codeowners
from mlp_ci.doctor.settings import ADMINISTRATION, STATUS, Line, Setter, Unseen, advice, passed, unseen
from mlp_ci.report import Outcome

if TYPE_CHECKING:
    from mlp_ci.doctor.settings import Branch, Rules, Settings, Source

Test = Callable[[Mapping[str, Any]], bool]

PULL_REQUEST = "pull_request"
CHECKS = "required_status_checks"
FORCE = "non_fast_forward"
DELETION = "deletion"
CORE = (PULL_REQUEST, CHECKS, FORCE, DELETION)
# As our ruleset has it. No approvals are asked for here: how many it takes is the policy's, and a rollback takes none.
OUR_PULL_REQUEST = {
    "required_approving_review_count": 0,
    "dismiss_stale_reviews_on_push": True,
    "require_code_owner_review": True,
    "require_last_push_approval": False,
    "required_review_thread_resolution": False,
}
WORKFLOW = ".github/workflows/deploy.yml"  # for any workflow


@dataclass(frozen=True)
class Rule:
    """A rule as ours has it, and what another's has to fulfil to do as well."""

    kind: str
    ours: Mapping[str, Any]
    test: Test = lambda _: True


def default_branch(settings: Settings) -> list[Line]:
    """Everything about the default branch of a model's repository, or of the policy's."""
    branch = settings.branch
    lines = [_pull_requests(settings, branch)]
    if not settings.is_policy:
        lines += [_status(settings, branch), _bound(settings, branch)]
    lines += [_no_force(branch), _no_deletion(branch), _owners_review(branch), _codeowners(settings)]
    core = tuple(kind for kind in CORE if kind != CHECKS or not settings.is_policy)
    return [*lines, *_nobody_passes(branch, core, ours(settings)), *_helpful(settings, branch)]


def records_branch(settings: Settings) -> list[Line]:
    """Records of deployments chain to each other; a branch that cannot go back keeps the end of the chain, too."""
    branch = settings.records
    return [_no_force(branch), _no_deletion(branch), *_nobody_passes(branch, (FORCE, DELETION), ours(settings))]


def policy_branch(settings: Settings) -> list[Line]:
    """The organisation's policy, seen from a model's repository: anybody who reads it may see its rulesets."""
    why = "whoever may merge into the policy's repository decides how many approvals every model needs"
    setting, wanted = f"{settings.owner}/.github", "pull requests with an approval"
    if settings.policy is None:
        hidden = Unseen(
            "there is none that the token can see", f"`contents: read` on {setting}", "make it, with a platform.yaml"
        )
        return [unseen(setting, hidden, wanted, why)]
    if isinstance(settings.policy, Unseen):
        return [unseen(setting, settings.policy, wanted, why)]
    if _holders(settings.policy, PULL_REQUEST, _approvals):
        return [passed(setting, wanted, wanted, why)]
    if settings.policy.unseen:
        return [unseen(setting, settings.policy.unseen, wanted, why)]
    fix = f"run `mlp-ci doctor --github --fix` in a clone of {setting}"
    return [
        Line(setting=setting, now="changes need no approval", wanted=wanted, why=why, outcome=Outcome.FAIL, fix=fix)
    ]


def ours(settings: Settings) -> Rules:
    """The rules as our own ruleset has them."""
    count = 1 if settings.is_policy else 0
    check: dict[str, Any] = {"context": STATUS}
    if isinstance(settings.setter, Setter) and settings.setter.number is not None:
        check["integration_id"] = settings.setter.number
    return {
        PULL_REQUEST: {**OUR_PULL_REQUEST, "required_approving_review_count": count},
        CHECKS: {"required_status_checks": [check], "strict_required_status_checks_policy": False},
        FORCE: {},
        DELETION: {},
    }


# ---------------------------------------------------------------- one rule each


def _pull_requests(settings: Settings, branch: Branch) -> Line:
    count = 1 if settings.is_policy else 0
    wanted = "only by pull request" + (" with an approval" if count else "")
    why = "a direct push has nobody's approval: `deploy` refuses it, but only after the fact"
    if settings.is_policy:
        why = "one person alone could lower the number of approvals that every model needs"
    test = _approvals if count else _always
    rule = Rule(PULL_REQUEST, ours(settings)[PULL_REQUEST], test)
    return _rule_line(branch, f"changes of {branch.name}", wanted, why, rule)


def _status(settings: Settings, branch: Branch) -> Line:
    why = "without it a promotion can be merged that nobody has approved; `deploy` refuses it, after the merge"
    return _rule_line(branch, "required status", STATUS, why, Rule(CHECKS, ours(settings)[CHECKS], _has_status))


def _bound(settings: Settings, branch: Branch) -> Line:
    setting = f"who may set {STATUS}"
    why = "anybody with a token that writes statuses could set it to green; bound to Actions, only a workflow still can"
    bound = [number for source in branch.sources for number in _numbers(source) if number is not None]
    setter = settings.setter
    if bound:
        now = f"the app {bound[0]} only"
        if isinstance(setter, Setter) and setter.number is not None and setter.number not in bound:
            fix = f"the last status came from {setter.login} ({setter.number}): find out which of the two is right"
            return advice(setting, now, f"the app {setter.number} only", why, fix)
        return passed(setting, now, "one app only", why)
    if not any(_has_status(source.rules.get(CHECKS, {})) for source in branch.sources) and branch.unseen:
        return unseen(setting, branch.unseen, "one app only", why)
    if isinstance(setter, Unseen):
        return unseen(setting, setter, "one app only", why)
    if setter is None:
        fix = "run this again after the first promotion: which app sets the status is seen from it"
        return advice(setting, "anybody who may write statuses", "one app only", why, fix)
    if setter.number is None:
        fix = f"{setter.login} set it last: let an app do it (step 4 of docs/how-to/adopt-in-your-organisation.md)"
        if setter.is_app:
            fix = f"in the ruleset choose {setter.login.removesuffix('[bot]')} as the source of the status"
        return advice(setting, "anybody who may write statuses", "one app only", why, fix)
    return Line(
        setting=setting,
        now="anybody who may write statuses",
        wanted=f"{setter.login} ({setter.number}) only",
        why=why,
        outcome=Outcome.FAIL,
        fix="`--fix` binds it in our ruleset",
        branch=branch.name,
        rules={CHECKS: ours(settings)[CHECKS]},
    )


def _no_force(branch: Branch) -> Line:
    why = "the history that approvals and deployments are proved from could be exchanged"
    return _rule_line(branch, f"force push to {branch.name}", "refused", why, Rule(FORCE, {}))


def _no_deletion(branch: Branch) -> Line:
    why = "a branch that is deleted and made again has any history that one likes"
    return _rule_line(branch, f"deletion of {branch.name}", "refused", why, Rule(DELETION, {}))


def _owners_review(branch: Branch) -> Line:
    why = "whoever merges a workflow decides what runs with the jobs' rights and secrets"
    return _rule_line(
        branch, "review by code owners", "required", why, Rule(PULL_REQUEST, OUR_PULL_REQUEST, _by_owners)
    )


def _codeowners(settings: Settings) -> Line:
    """By hand always: it is a file, and goes through a pull request as any other."""
    setting, why = "CODEOWNERS", "a review by code owners is asked for only where a file has owners"
    found = settings.owners
    if isinstance(found, Unseen):
        return unseen(setting, found, "workflows and policy have owners", why)
    place = found.path if found else codeowners.PLACES[0]
    paths = (WORKFLOW, place, "platform.yaml" if settings.is_policy else "model.yaml")
    wanted = f"owners of /.github/, /{paths[-1]} and itself"
    bare = [path for path in paths if not (found and codeowners.owners_of(found.text, path))]
    if bare:
        team = f"@{settings.owner}/{settings.team}"
        patterns = dict.fromkeys("/.github/" if path.startswith(".github/") else f"/{path}" for path in bare)
        lines = ", ".join(f"`{pattern} {team}`" for pattern in patterns)
        fix = f"a pull request that adds to {place}: {lines}"
        now = "does not exist" if found is None else f"nobody owns {', '.join(bare)}"
        return Line(setting=setting, now=now, wanted=wanted, why=why, outcome=Outcome.FAIL, fix=fix)
    if found and found.errors:
        fix = f"a pull request that mends {place}; GitHub passes over such lines in silence"
        now = ", ".join(found.errors)
        return Line(setting=setting, now=now, wanted=wanted, why=why, outcome=Outcome.FAIL, fix=fix)
    if found and not settings.is_policy and codeowners.owners_of(found.text, "promotion.yaml"):
        fix = f"end {place} with the line `/promotion.yaml` and no owner: the policy says who approves promotions"
        now = "promotion.yaml has owners, too: a rollback would wait for them"
        return advice(setting, now, wanted, why, fix)
    return passed(setting, wanted, wanted, why)


def _nobody_passes(branch: Branch, core: tuple[str, ...], rules: Rules) -> list[Line]:
    """Whether every rule there is has one source that lets nobody pass; nothing to say where there are no rules."""
    setting, wanted = f"who may pass the rules of {branch.name}", "nobody, admins neither"
    why = "one stolen or careless admin token would be enough to put anything live"
    soft: dict[str, Mapping[str, Any]] = {}
    who: dict[str, None] = {}
    hidden = False
    for kind in core:
        holders = _holders(branch, kind, _has_status if kind == CHECKS else _always)
        if not holders or any(source.passers == () for source in holders):
            continue
        hidden |= any(source.passers is None for source in holders)
        soft[kind] = rules[kind]
        who |= dict.fromkeys(name for source in holders for name in source.passers or ())
    if not any(kind in source.rules for source in branch.sources for kind in core):
        return [unseen(setting, branch.unseen, wanted, why)] if branch.unseen else []
    if not soft:
        return [passed(setting, "nobody", wanted, why)]
    if hidden:
        return [unseen(setting, Unseen("only an administrator sees who may", ADMINISTRATION), wanted, why)]
    fix = "`--fix` adds the same rules without exceptions"
    line = Line(
        setting=setting, now=", ".join(who), wanted=wanted, why=why, outcome=Outcome.FAIL, fix=fix,
        branch=branch.name, rules=soft,
    )  # fmt: skip
    return [line]


def _helpful(settings: Settings, branch: Branch) -> list[Line]:
    """What the policy checks by itself as well."""
    stale = bool(_holders(branch, PULL_REQUEST, lambda p: bool(p.get("dismiss_stale_reviews_on_push"))))
    last = bool(_holders(branch, PULL_REQUEST, lambda p: bool(p.get("require_last_push_approval"))))
    words = {True: "yes", False: "no"}
    why = "an approval counts for the commit it was given to; the policy sees to that itself"
    found = [
        passed("a push dismisses approvals", "yes", "yes", why)
        if stale
        else advice("a push dismisses approvals", "no", "yes", why, "tick it in the ruleset, so that people see it too")
    ]
    if settings.is_policy:
        return found
    why = "it would also stop rollbacks and tier low, which need no approval; the policy counts no pusher anyway"
    setting = "approval of the last push"
    if last:
        return [*found, advice(setting, words[last], "no", why, "leave it off: rollbacks wait for somebody otherwise")]
    return [*found, passed(setting, words[last], "either", why)]


# ---------------------------------------------------------------- reading rules


def _rule_line(branch: Branch, setting: str, wanted: str, why: str, rule: Rule) -> Line:
    holders = _holders(branch, rule.kind, rule.test)
    if holders:
        return passed(setting, f"{wanted} ({holders[0].name})", wanted, why)
    if branch.unseen:
        return unseen(setting, branch.unseen, wanted, why)
    return Line(
        setting=setting,
        now="not so",
        wanted=wanted,
        why=why,
        outcome=Outcome.FAIL,
        fix="`--fix` adds it to our ruleset",
        branch=branch.name,
        rules={rule.kind: rule.ours},
    )


def _holders(branch: Branch, kind: str, test: Test) -> list[Source]:
    return [source for source in branch.sources if kind in source.rules and test(source.rules[kind])]


def _always(_: Mapping[str, Any]) -> bool:
    return True


def _approvals(parameters: Mapping[str, Any]) -> bool:
    return int(parameters.get("required_approving_review_count") or 0) > 0


def _by_owners(parameters: Mapping[str, Any]) -> bool:
    return bool(parameters.get("require_code_owner_review"))


def _has_status(parameters: Mapping[str, Any]) -> bool:
    return STATUS in [check.get("context") for check in parameters.get("required_status_checks") or []]


def _numbers(source: Source) -> list[int | None]:
    checks = source.rules.get(CHECKS, {}).get("required_status_checks") or []
    return [check.get("integration_id") for check in checks if check.get("context") == STATUS]
