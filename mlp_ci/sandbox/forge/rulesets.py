"""Repository rulesets: which rules hold for a branch, who may pass them by, and what they refuse.

All active rulesets that name a branch hold together; a ruleset that lets somebody pass takes away nothing from another
that does not. One thing is stricter here than on github.com: a commit that already has the required checks cannot be
pushed straight to the branch either.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mlp_ci.doctor import codeowners
from mlp_ci.sandbox.forge import access, checks
from mlp_ci.sandbox.forge.records import Activity, Issue, OrgMember, Pull, Repo, Review, Ruleset, TeamMember, User

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.sandbox.forge.access import Actor, Forge

# The ids that GitHub gives the roles of a repository in `bypass_actors`.
ROLES = {1: "read", 2: "maintain", 3: "triage", 4: "write", 5: "admin"}
CLOSING = {
    "pull_request": "Changes must be made through a pull request.",
    "required_status_checks": "Required status checks are expected.",
    "update": "Cannot update this protected ref.",
}


def of_branch(forge: Forge, repo: Repo, branch: str) -> list[Ruleset]:
    """The active rulesets that hold for ``branch``, whether or not it exists."""
    found = forge.store.find(Ruleset, "repo_id = ? AND enforcement = 'active' AND target = 'branch'", repo.id)
    return [ruleset for ruleset in found if names(ruleset, repo, branch)]


def names(ruleset: Ruleset, repo: Repo, branch: str) -> bool:
    """Whether the conditions of a ruleset name a branch."""
    condition = (ruleset.conditions or {}).get("ref_name") or {}
    return _listed(condition.get("include", []), repo, branch) and not _listed(
        condition.get("exclude", []), repo, branch
    )


def rule(ruleset: Ruleset, kind: str) -> Mapping[str, Any] | None:
    """The parameters of the rule of a kind, or None where the ruleset has none."""
    for found in ruleset.rules:
        if found["type"] == kind:
            return dict(found.get("parameters") or {})
    return None


def may_bypass(forge: Forge, repo: Repo, ruleset: Ruleset, actor: Actor, *, merging: bool = False) -> str:
    """How ``actor`` may pass: the mode of the entry that lets them (always | pull_request | exempt), or ""."""
    for entry in ruleset.bypass_actors:
        mode = str(entry.get("bypass_mode") or "always")
        if (mode != "pull_request" or merging) and _is(forge, repo, actor, entry):
            return mode
    return ""


def closed_refs(forge: Forge, repo: Repo, actor: Actor) -> list[str]:
    """The branches that ``actor`` may not push to directly."""
    return _refs(forge, repo, actor, tuple(CLOSING))


def unforced_refs(forge: Forge, repo: Repo, actor: Actor) -> list[str]:
    return _refs(forge, repo, actor, ("non_fast_forward",))


def undeletable_refs(forge: Forge, repo: Repo, actor: Actor) -> list[str]:
    return _refs(forge, repo, actor, ("deletion",))


def dismisses_stale(forge: Forge, repo: Repo, branch: str) -> bool:
    """Whether a push takes away the approvals of a pull request into ``branch``."""
    asked = (rule(ruleset, "pull_request") or {} for ruleset in of_branch(forge, repo, branch))
    return any(parameters.get("dismiss_stale_reviews_on_push") for parameters in asked)


def blockers(
    forge: Forge, repo: Repo, pull: Pull, reviews: Mapping[str, Review], actor: Actor | None = None
) -> list[str]:
    """What the rulesets still ask for before this pull request may be merged (by ``actor``, who may pass some)."""
    found: list[str] = []
    for ruleset in of_branch(forge, repo, pull.base_ref):
        if actor is not None and may_bypass(forge, repo, ruleset, actor, merging=True):
            continue
        if rule(ruleset, "update") is not None:
            found.append(CLOSING["update"])
        asked = rule(ruleset, "pull_request")
        if asked is not None:
            found += _reviews_missing(forge, repo, pull, reviews, asked)
        wanted = rule(ruleset, "required_status_checks")
        if wanted is not None:
            found += _checks_missing(forge, repo, pull, wanted)
    return list(dict.fromkeys(found))


def _reviews_missing(
    forge: Forge, repo: Repo, pull: Pull, reviews: Mapping[str, Review], asked: Mapping[str, Any]
) -> list[str]:
    counted = {
        login: review.state
        for login, review in reviews.items()
        if (who := forge.store.user(login)) and access.at_least(access.role(forge, who, repo), "write")
    }
    approvers = [login for login, state in counted.items() if state == "APPROVED"]
    needed = int(asked.get("required_approving_review_count", 0))
    found = []
    if needed and "CHANGES_REQUESTED" in counted.values():
        found.append("Changes have been requested by a reviewer with write access.")
    if len(approvers) < needed:
        found.append(f"At least {needed} approving review is required by reviewers with write access.")
    if asked.get("require_code_owner_review") and not _owners_agree(forge, repo, pull, approvers):
        found.append("Waiting on code owner review.")
    if asked.get("require_last_push_approval") and not set(approvers) - {_last_pusher(forge, repo, pull)}:
        found.append("New changes require approval from someone other than the last pusher.")
    return found


def _owners_agree(forge: Forge, repo: Repo, pull: Pull, approvers: Sequence[str]) -> bool:
    """Whether of every changed file that has owners one has approved."""
    git = forge.git
    tip = git.refs(repo, f"refs/heads/{pull.base_ref}")[f"refs/heads/{pull.base_ref}"]
    text = next((data for place in codeowners.PLACES if (data := git.read(repo, tip, place)) is not None), None)
    if text is None:
        return True
    fork = git.merge_base(repo, pull.base_sha, pull.head_sha) or pull.base_sha
    changed = {path for c in git.diff(repo, fork, pull.head_sha, patch=False) for path in (c.path, c.previous) if path}
    owned = [codeowners.owners_of(text.decode(errors="replace"), path) for path in changed]
    author = forge.store.get(User, forge.store.get(Issue, pull.id).user_id).login
    agreed = {*approvers} - {author}
    return all(any(_owns(forge, repo, login, owners) for login in agreed) for owners in owned if owners)


def _owns(forge: Forge, repo: Repo, login: str, owners: Sequence[str]) -> bool:
    who = forge.store.user(login)
    if who is None:
        return False
    teams = forge.store.find(TeamMember, "user_id = ?", who.id)
    mine = {f"@{login}".lower(), (who.email or "-").lower(), *(_team_name(forge, repo, t.team_id) for t in teams)}
    return any(owner.lower() in mine for owner in owners)


def _team_name(forge: Forge, repo: Repo, team_id: int) -> str:
    from mlp_ci.sandbox.forge.records import Team

    return f"@{repo.owner}/{forge.store.get(Team, team_id).slug}".lower()


def _last_pusher(forge: Forge, repo: Repo, pull: Pull) -> str:
    """Who brought the head, by the server's record; the author where it does not say."""
    where = "repo_id = ? AND ref = ? AND after = ?"
    ref = f"refs/heads/{pull.head_ref}"
    last = forge.store.first(Activity, where, pull.head_repo_id, ref, pull.head_sha, order="id DESC")
    user = last.actor_id if last else forge.store.get(Issue, pull.id).user_id
    return forge.store.get(User, user).login


def _checks_missing(forge: Forge, repo: Repo, pull: Pull, wanted: Mapping[str, Any]) -> list[str]:
    found = []
    for check in wanted.get("required_status_checks", []):
        known = checks.verdicts(forge, repo, pull.head_sha, check.get("integration_id"))
        state = known.get(check["context"], "expected")
        if state != "success":
            found.append(f'Required status check "{check["context"]}" is {state}.')
    if wanted.get("strict_required_status_checks_policy"):
        ref = f"refs/heads/{pull.base_ref}"
        if not forge.git.is_ancestor(repo, forge.git.refs(repo, ref).get(ref, ""), pull.head_sha):
            found.append("The head branch is not up to date with the base branch.")
    return found


def _refs(forge: Forge, repo: Repo, actor: Actor, kinds: Sequence[str]) -> list[str]:
    """The branches there are for which a rule of one of ``kinds`` holds that ``actor`` cannot pass."""
    where = "repo_id = ? AND enforcement = 'active' AND target = 'branch'"
    binding = [
        ruleset
        for ruleset in forge.store.find(Ruleset, where, repo.id)
        if any(rule(ruleset, kind) is not None for kind in kinds) and not may_bypass(forge, repo, ruleset, actor)
    ]
    if not binding:
        return []
    refs = forge.git.refs(repo, "refs/heads")
    return [ref for ref in refs if any(names(r, repo, ref.removeprefix("refs/heads/")) for r in binding)]


def _listed(patterns: Sequence[str], repo: Repo, branch: str) -> bool:
    return any(
        pattern == "~ALL"
        or (pattern == "~DEFAULT_BRANCH" and branch == repo.default_branch)
        or re.fullmatch(_expression(pattern), f"refs/heads/{branch}") is not None
        for pattern in patterns
    )


def _expression(pattern: str) -> str:
    """GitHub matches as Ruby's ``File.fnmatch`` with FNM_PATHNAME: ``*`` stays within a part, ``**/`` does not."""
    parts = re.split(r"(\*\*/|\*+|\?)", pattern)
    said = {"**/": "(?:.*/)?", "?": "[^/]"}
    return "".join(said.get(p, "[^/]*" if p.startswith("*") else re.escape(p)) for p in parts)


def _is(forge: Forge, repo: Repo, actor: Actor, entry: Mapping[str, Any]) -> bool:
    """Whether ``actor`` is one of those that an entry of ``bypass_actors`` means."""
    kind, number = entry["actor_type"], entry.get("actor_id")
    store, user = forge.store, actor.user
    if kind == "Integration":
        return user.type == "Bot" and checks.app_number(forge, user.login) == number
    if actor.quiet or user.type == "Bot":
        return False
    if kind == "OrganizationAdmin":
        return store.count(OrgMember, "org_id = ? AND user_id = ? AND role = 'admin'", repo.owner_id, user.id) > 0
    if kind == "RepositoryRole":
        return access.at_least(access.role(forge, user, repo), ROLES.get(number or 0, "admin"))
    if kind == "Team":
        return store.count(TeamMember, "team_id = ? AND user_id = ?", number, user.id) > 0
    return kind == "User" and user.id == number
