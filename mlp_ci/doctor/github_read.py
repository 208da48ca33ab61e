"""Reads from GitHub what is compared; what the token may not see is told apart from what is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.doctor import codeowners
from mlp_ci.doctor.settings import (
    ADMINISTRATION,
    POLICY_REPOSITORY,
    RECORDS,
    RECORDS_RULESET,
    RULESET,
    STATUS,
    Branch,
    Environment,
    Owners,
    Setter,
    Settings,
    Source,
    Unseen,
)
from mlp_ci.github import GitHubError
from mlp_ci.github.wire import repository_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.github import Hub
    from mlp_ci.spec import PlatformSpec

PULLS_LOOKED_AT = 10  # for who sets the status of approvals
_REFUSED = (403, 404, 409, 422)
_ROLES = {1: "readers", 2: "maintainers", 3: "triagers", 4: "writers", 5: "administrators"}


def read(hub: Hub, platform: PlatformSpec | Unseen) -> Settings:
    """Everything at once. Raises OutsideError when GitHub fails, GitHubError when the repository cannot be seen."""
    about = hub.wire.get(_path(hub), "read the repository")
    organisation = (about.get("owner") or {}).get("type") == "Organization"
    teams = Teams(hub)
    rulesets = _Rulesets(hub)
    stages = platform if isinstance(platform, Unseen) else tuple(platform.stage_names())
    team = "" if isinstance(platform, Unseen) else platform.platform_team
    model = hub.place.repo != POLICY_REPOSITORY
    default = str(about["default_branch"])
    private = bool(about.get("private"))
    permissions = _get(hub, "actions", "permissions")
    return Settings(
        owner=hub.place.owner,
        name=hub.place.repo,
        private=private,
        stages=stages if model else (),
        team=team or "platform",
        branch=_branch(hub, default, rulesets, teams),
        records=_branch(hub, RECORDS, rulesets, teams),
        policy=_policy(hub, organisation=organisation) if model else None,
        own=rulesets.ours(),
        setter=_setter(hub) if model else None,
        owners=_owners(hub, default),
        permissions=permissions,
        selected=_selected(hub, permissions),
        workflow=_get(hub, "actions", "permissions", "workflow"),
        forks=_get(hub, "actions", "permissions", _FORKS[private]),
        environments={} if isinstance(stages, Unseen) or not model else {s: _environment(hub, s) for s in stages},
        groups=_groups(hub) if organisation and model else None,
    )


_FORKS = {True: "fork-pr-workflows-private-repos", False: "fork-pr-contributor-approval"}


def _path(hub: Hub, *parts: str | int) -> str:
    return repository_path(hub.place.owner, hub.place.repo, *parts)


def _get(hub: Hub, *parts: str | int, needs: str = ADMINISTRATION) -> Any:
    """The answer, or Unseen where GitHub refuses it."""
    try:
        return hub.wire.get(_path(hub, *parts), "read " + " ".join(map(str, parts)))
    except GitHubError as refusal:
        return _hidden(refusal, needs)


def _hidden(refusal: GitHubError, needs: str) -> Unseen:
    if refusal.status not in _REFUSED:
        raise refusal
    return Unseen(refusal.why or refusal.what, needs)


# ---------------------------------------------------------------- branches


class _Rulesets:
    """The rulesets of a repository, with their rules and (for administrators) their exceptions; read when asked for."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._full: dict[int, Mapping[str, Any]] = {}

    def full(self, number: int) -> Mapping[str, Any]:
        """The whole ruleset; empty where it is not shown."""
        if number not in self._full:
            found = _get(self._hub, "rulesets", number)
            self._full[number] = {} if isinstance(found, Unseen) else found
        return self._full[number]

    def ours(self) -> dict[str, Mapping[str, Any]]:
        """Our own ones by name, whether they are in force or not."""
        try:
            listed = self._hub.wire.pages(_path(self._hub, "rulesets"), "list the rulesets")
        except GitHubError as refusal:
            _hidden(refusal, ADMINISTRATION)
            return {}
        found = (
            self.full(short["id"])
            for short in listed
            if short["name"] in (RULESET, RECORDS_RULESET) and short.get("source_type", "Repository") == "Repository"
        )
        return {full["name"]: full for full in found if full}


def _branch(hub: Hub, name: str, rulesets: _Rulesets, teams: Teams) -> Branch:
    try:
        rules = hub.wire.pages(_path(hub, "rules", "branches", name), "read the rules of a branch")
    except GitHubError as refusal:
        return Branch(name=name, unseen=_hidden(refusal, ADMINISTRATION))
    grouped: dict[int, dict[str, Mapping[str, Any]]] = {}
    for rule in rules:
        grouped.setdefault(rule.get("ruleset_id") or 0, {})[rule["type"]] = rule.get("parameters") or {}
    sources = []
    for number, found in grouped.items():
        full = rulesets.full(number)
        actors = full.get("bypass_actors")
        passers = None if actors is None else tuple(_passer(actor, teams) for actor in actors)
        sources.append(Source(name=f'ruleset "{full.get("name", number)}"', rules=found, passers=passers))
    classic = _classic(hub, name)
    if isinstance(classic, Unseen):
        return Branch(name=name, sources=tuple(sources), unseen=classic)
    return Branch(name=name, sources=(*sources, *([classic] if classic else [])))


def _passer(actor: Mapping[str, Any], teams: Teams) -> str:
    """One entry of a ruleset's exceptions, for people."""
    kind, number = actor.get("actor_type"), actor.get("actor_id")
    said = {
        "OrganizationAdmin": "owners of the organisation",
        "RepositoryRole": _ROLES.get(number or 0, f"the role {number}"),
        "Team": f"the team {teams.slug(number)}",
        "Integration": f"the app {number}",
        "DeployKey": "deploy keys",
        "User": f"the user {number}",
    }
    only = " (on pull requests)" if actor.get("bypass_mode") == "pull_request" else ""
    return said.get(str(kind), str(kind)) + only


class Teams:
    """The organisation's teams by id; asked for once, when a rule names one."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._slugs: dict[int, str] | None = None

    def slug(self, number: Any) -> str:
        if self._slugs is None:
            try:
                found = self._hub.wire.pages(f"/orgs/{self._hub.place.owner}/teams", "list the teams")
            except GitHubError:
                found = []
            self._slugs = {team["id"]: team["slug"] for team in found}
        return self._slugs.get(number, str(number))


def _classic(hub: Hub, branch: str) -> Source | Unseen | None:
    """Classic branch protection, in the words of rulesets."""
    try:
        raw = hub.wire.get(_path(hub, "branches", branch, "protection"), "read the branch protection")
    except GitHubError as refusal:
        hidden = _hidden(refusal, ADMINISTRATION)
        # Somebody who may not see the protection can still see that there is none, or no such branch.
        if refusal.status == 404 and "ranch not" in hidden.why:
            return None
        about = _get(hub, "branches", branch)
        missing = isinstance(about, Unseen) and "ranch not" in about.why
        free = not isinstance(about, Unseen) and about.get("protected") is False
        return None if missing or free else hidden
    rules: dict[str, Mapping[str, Any]] = {}
    passers = [] if (raw.get("enforce_admins") or {}).get("enabled") else ["administrators"]
    if not (raw.get("allow_force_pushes") or {}).get("enabled"):
        rules["non_fast_forward"] = {}
    if not (raw.get("allow_deletions") or {}).get("enabled"):
        rules["deletion"] = {}
    reviews = raw.get("required_pull_request_reviews")
    if reviews:
        allowed = reviews.get("bypass_pull_request_allowances") or {}
        passers += [str(one.get("login") or one.get("slug")) for some in allowed.values() for one in some]
        rules["pull_request"] = {
            "required_approving_review_count": reviews.get("required_approving_review_count", 0),
            "dismiss_stale_reviews_on_push": reviews.get("dismiss_stale_reviews"),
            "require_code_owner_review": reviews.get("require_code_owner_reviews"),
            "require_last_push_approval": reviews.get("require_last_push_approval"),
        }
    checks = raw.get("required_status_checks")
    if checks:
        listed = checks.get("checks") or [{"context": context} for context in checks.get("contexts") or []]
        # -1 is GitHub's word for any app.
        apps = [(c["context"], c.get("app_id")) for c in listed]
        wanted = [{"context": name, "integration_id": None if app == -1 else app} for name, app in apps]
        rules["required_status_checks"] = {"required_status_checks": wanted}
    return Source(name="branch protection", rules=rules, passers=tuple(passers))


def _policy(hub: Hub, *, organisation: bool) -> Branch | Unseen | None:
    there = hub.of(POLICY_REPOSITORY)
    about = _get(there, needs="`metadata: read`")
    if isinstance(about, Unseen):
        return None if "404" in about.why or not organisation else about
    return _branch(there, str(about["default_branch"]), _Rulesets(there), Teams(there))


# ---------------------------------------------------------------- the rest


def _setter(hub: Hub) -> Setter | Unseen | None:
    """Who set the status of approvals last, seen from the newest pull requests."""
    try:
        return _last_setter(hub)
    except GitHubError as refusal:
        return _hidden(refusal, "`pull-requests: read` and `statuses: read`")


def _last_setter(hub: Hub) -> Setter | None:
    purpose = "list the pull requests"
    order = {"state": "all", "sort": "updated", "direction": "desc"}
    pulls = hub.wire.pages(_path(hub, "pulls"), purpose, limit=PULLS_LOOKED_AT, **order)
    for pull in pulls[:PULLS_LOOKED_AT]:
        statuses = hub.wire.pages(_path(hub, "commits", pull["head"]["sha"], "statuses"), "read the statuses")
        newest = next((s for s in statuses if s["context"] == STATUS), None)
        if newest is None:
            continue
        creator = newest.get("creator") or {}
        login = str(creator.get("login", "somebody"))
        if creator.get("type") != "Bot":
            return Setter(login=login, is_app=False)
        try:
            app = hub.wire.get(f"/apps/{login.removesuffix('[bot]')}", "read an app")
        except GitHubError as refusal:
            _hidden(refusal, "")
            return Setter(login=login, is_app=True)
        return Setter(login=login, is_app=True, number=int(app["id"]))
    return None


def _owners(hub: Hub, branch: str) -> Owners | Unseen | None:
    for place in codeowners.PLACES:
        try:
            data = hub.read_file(place, branch)
        except GitHubError as refusal:
            return _hidden(refusal, "`contents: read`")
        if data is not None:
            said = _get(hub, "codeowners", "errors", needs="`contents: read`")
            errors = [] if isinstance(said, Unseen) else said.get("errors") or []
            told = tuple(f"line {e['line']}: {e['kind']}" for e in errors)
            return Owners(path=place, text=data.decode(errors="replace"), errors=told)
    return None


def _selected(hub: Hub, permissions: Any) -> Any:
    if isinstance(permissions, Unseen) or permissions.get("allowed_actions") != "selected":
        return None
    return _get(hub, "actions", "permissions", "selected-actions")


def _environment(hub: Hub, stage: str) -> Environment | Unseen | None:
    try:
        raw = hub.wire.get(_path(hub, "environments", stage), "read an environment")
    except GitHubError as refusal:
        hidden = _hidden(refusal, "`actions: read`")
        return None if refusal.status == 404 else hidden
    kept: dict[str, Any] = {}
    for rule in raw.get("protection_rules") or []:
        if rule["type"] == "wait_timer":
            kept["wait_timer"] = rule.get("wait_timer", 0)
        if rule["type"] == "required_reviewers":
            who = [{"type": r["type"], "id": r["reviewer"]["id"]} for r in rule.get("reviewers") or []]
            kept |= {"prevent_self_review": bool(rule.get("prevent_self_review")), "reviewers": who}
    policy = raw.get("deployment_branch_policy")
    if policy is None or policy.get("protected_branches"):
        return Environment(branches=None, protected=policy is not None, kept=kept)
    path = _path(hub, "environments", stage, "deployment-branch-policies")
    try:
        found = hub.wire.pages(path, "list the branches of an environment", item="branch_policies")
    except GitHubError as refusal:
        return _hidden(refusal, "`actions: read`")
    shown = (p["name"] if p.get("type", "branch") == "branch" else f"tag {p['name']}" for p in found)
    return Environment(branches=tuple(shown), kept=kept)


def _groups(hub: Hub) -> tuple[Mapping[str, Any], ...] | Unseen:
    path, purpose = f"/orgs/{hub.place.owner}/actions/runner-groups", "list the runner groups"
    try:
        found = hub.wire.pages(path, purpose, item="runner_groups", visible_to_repository=hub.place.repo)
    except GitHubError as refusal:
        return _hidden(refusal, "`organization self-hosted runners: read`")
    return tuple(found)
