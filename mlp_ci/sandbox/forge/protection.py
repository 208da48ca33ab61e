"""Branch protection: what stands between a pull request and its merge, and who may push directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.sandbox.forge import access, checks, rulesets
from mlp_ci.sandbox.forge.records import Protection, Pull, Repo, Review, User

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlp_ci.sandbox.forge.access import Actor, Forge


def rule_of(forge: Forge, repo: Repo, branch: str) -> Protection | None:
    return forge.store.first(Protection, "repo_id = ? AND branch = ?", repo.id, branch)


def verdict_reviews(forge: Forge, pull: Pull) -> dict[str, Review]:
    """Login → the review that counts: the latest that approves, asks for changes or was dismissed (no mere comment)."""
    latest: dict[str, Review] = {}
    for review in forge.store.find(Review, "pull_id = ? AND state != 'COMMENTED'", pull.id):
        latest[forge.store.get(User, review.user_id).login] = review
    return latest


def blockers(forge: Forge, repo: Repo, pull: Pull) -> list[str]:
    """What protection and rulesets still ask for before this pull request may be merged, in GitHub's words."""
    rule = rule_of(forge, repo, pull.base_ref)
    ruled = rulesets.blockers(forge, repo, pull, verdict_reviews(forge, pull))
    return [*(_asked(forge, repo, pull, rule) if rule else []), *ruled]


def refusals(forge: Forge, repo: Repo, pull: Pull, actor: Actor) -> list[str]:
    """The same for ``actor``, who may pass some of it by."""
    rule = rule_of(forge, repo, pull.base_ref)
    asked = [] if rule is None or may_bypass(forge, repo, rule, actor) else _asked(forge, repo, pull, rule)
    return [*asked, *rulesets.blockers(forge, repo, pull, verdict_reviews(forge, pull), actor)]


def dismisses_stale(forge: Forge, repo: Repo, branch: str) -> bool:
    rule = rule_of(forge, repo, branch)
    return bool(rule and rule.dismiss_stale) or rulesets.dismisses_stale(forge, repo, branch)


def _asked(forge: Forge, repo: Repo, pull: Pull, rule: Protection) -> list[str]:
    found = []
    if rule.approvals:
        states = [
            review.state
            for login, review in verdict_reviews(forge, pull).items()
            if (who := forge.store.user(login)) and access.at_least(access.role(forge, who, repo), "write")
        ]
        if "CHANGES_REQUESTED" in states:
            found.append("Changes have been requested by a reviewer with write access.")
        missing = rule.approvals - states.count("APPROVED")
        if missing > 0:
            found.append(f"At least {rule.approvals} approving review is required by reviewers with write access.")
    known = checks.verdicts(forge, repo, pull.head_sha)
    waiting = [name for name in rule.required_checks if known.get(name) != "success"]
    found += [f'Required status check "{name}" is {known.get(name, "expected")}.' for name in waiting]
    if rule.strict and not forge.git.is_ancestor(repo, _tip(forge, repo, pull.base_ref), pull.head_sha):
        found.append("The head branch is not up to date with the base branch.")
    return found


def may_bypass(forge: Forge, repo: Repo, rule: Protection, actor: Actor) -> bool:
    if actor.user.login in rule.bypass:
        return True
    return not rule.enforce_admins and access.role(forge, actor.user, repo) == "admin" and not actor.quiet


def closed_refs(forge: Forge, repo: Repo, actor: Actor) -> list[str]:
    """The branches that ``actor`` may not push to directly."""
    rules = forge.store.find(Protection, "repo_id = ? AND block_pushes = 1", repo.id)
    own = [f"refs/heads/{rule.branch}" for rule in rules if not may_bypass(forge, repo, rule, actor)]
    return [*own, *rulesets.closed_refs(forge, repo, actor)]


def unforced_refs(forge: Forge, repo: Repo, actor: Actor) -> list[str]:
    """The branches that ``actor`` may not take commits away from."""
    return [*_protected(forge, repo), *rulesets.unforced_refs(forge, repo, actor)]


def undeletable_refs(forge: Forge, repo: Repo, actor: Actor) -> list[str]:
    return [*_protected(forge, repo), *rulesets.undeletable_refs(forge, repo, actor)]


def _protected(forge: Forge, repo: Repo) -> list[str]:
    return [f"refs/heads/{rule.branch}" for rule in forge.store.find(Protection, "repo_id = ?", repo.id)]


def mergeable_state(forge: Forge, repo: Repo, pull: Pull) -> str:
    """GitHub's word: clean | dirty | draft | blocked | unstable | unknown."""
    if pull.merged or pull.mergeable is None:
        return "unknown"
    if not pull.mergeable:
        return "dirty"
    if pull.draft:
        return "draft"
    if blockers(forge, repo, pull):
        return "blocked"
    return "clean" if _all_good(checks.verdicts(forge, repo, pull.head_sha).values()) else "unstable"


def _all_good(states: Iterable[str]) -> bool:
    return all(state == "success" for state in states)


def _tip(forge: Forge, repo: Repo, branch: str) -> str:
    return forge.git.refs(repo, f"refs/heads/{branch}").get(f"refs/heads/{branch}", "")


def protect(forge: Forge, repo: Repo, branch: str, **values: object) -> Protection:
    """Put rules on a branch (see ``records.Protection``); what is not given is off."""
    full = {
        "required_checks": [], "strict": False, "approvals": 0, "dismiss_stale": False, "enforce_admins": False,
        "block_pushes": False, "bypass": [], **values,
    }  # fmt: skip
    with forge.store.tx():
        rule = rule_of(forge, repo, branch)
        if rule is not None:
            return forge.store.update(rule, **full)
        return forge.store.insert(Protection, repo_id=repo.id, branch=branch, **full)
