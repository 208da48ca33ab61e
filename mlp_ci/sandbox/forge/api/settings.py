"""Settings of Actions and of its runners: what workflows may use and do, what forks may, who may use which runners."""

from __future__ import annotations

from typing import Any

from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, page
from mlp_ci.sandbox.forge.records import ActionsSettings, OrgMember, Repo, RunnerGroup, User
from mlp_ci.sandbox.forge.shapes_checks import app as app_shape
from mlp_ci.sandbox.forge.store import Refusal, invalid

group = Group()
_ACTIONS = REPO + "/actions/permissions"
_GROUPS = "/orgs/{org}/actions/runner-groups"
_APPROVALS = ("first_time_contributors_new_to_github", "first_time_contributors", "all_external_contributors")
# A new repository of an organisation that nobody has hardened.
DEFAULTS: dict[str, Any] = {
    "permissions": {"enabled": True, "allowed_actions": "all", "sha_pinning_required": False},
    "selected": {"github_owned_allowed": True, "verified_allowed": False, "patterns_allowed": []},
    "workflow": {"default_workflow_permissions": "write", "can_approve_pull_request_reviews": False},
    "forks": {"approval_policy": "first_time_contributors"},
    "private_forks": {
        "run_workflows_from_fork_pull_requests": False,
        "send_write_tokens_to_workflows": False,
        "send_secrets_and_variables": False,
        "require_approval_for_fork_pr_workflows": False,
    },
}


@group("GET", _ACTIONS, "administration", "admin")
def get_permissions(call: Call) -> Any:
    return _settings(call).permissions


@group("PUT", _ACTIONS, "administration", "admin")
def put_permissions(call: Call) -> Any:
    if not isinstance(call.body.get("enabled"), bool):
        _refuse("enabled", "missing_field")
    call.choice("allowed_actions", ("all", "local_only", "selected"))
    call.get("sha_pinning_required", bool)
    _set(call, "permissions")


@group("GET", _ACTIONS + "/selected-actions", "administration", "admin")
def get_selected(call: Call) -> Any:
    if _settings(call).permissions["allowed_actions"] != "selected":
        raise Refusal(409, "Conflict")
    return _settings(call).selected


@group("PUT", _ACTIONS + "/selected-actions", "administration", "admin")
def put_selected(call: Call) -> Any:
    if _settings(call).permissions["allowed_actions"] != "selected":
        raise Refusal(409, "Conflict")
    call.texts("patterns_allowed")
    for name in ("github_owned_allowed", "verified_allowed"):
        call.get(name, bool)
    _set(call, "selected")


@group("GET", _ACTIONS + "/workflow", "administration", "admin")
def get_workflow(call: Call) -> Any:
    return _settings(call).workflow


@group("PUT", _ACTIONS + "/workflow", "administration", "admin")
def put_workflow(call: Call) -> Any:
    call.choice("default_workflow_permissions", ("read", "write"))
    call.get("can_approve_pull_request_reviews", bool)
    _set(call, "workflow")


@group("GET", _ACTIONS + "/fork-pr-contributor-approval", "administration", "admin")
def get_forks(call: Call) -> Any:
    return _settings(call).forks


@group("PUT", _ACTIONS + "/fork-pr-contributor-approval", "administration", "admin")
def put_forks(call: Call) -> Any:
    if call.choice("approval_policy", _APPROVALS) is None:
        _refuse("approval_policy", "missing_field")
    _set(call, "forks")


@group("GET", _ACTIONS + "/fork-pr-workflows-private-repos", "administration", "admin")
def get_private_forks(call: Call) -> Any:
    _only_private(call)
    return _settings(call).private_forks


@group("PUT", _ACTIONS + "/fork-pr-workflows-private-repos", "administration", "admin")
def put_private_forks(call: Call) -> Any:
    _only_private(call)
    for name in DEFAULTS["private_forks"]:
        call.get(name, bool)
    _set(call, "private_forks")


@group("GET", "/apps/{app_slug}")
def get_app(call: Call) -> Any:
    slug = call.params["app_slug"]
    if call.forge.store.user(f"{slug}[bot]") is None:
        raise Refusal(404, "Not Found")
    owner = call.forge.store.first(User, "type = 'Organization'")
    return app_shape(call.forge, slug, owner or call.actor.user)


# --- runner groups


@group("GET", _GROUPS)
def list_groups(call: Call) -> Any:
    org = _own_org(call)
    found = call.forge.store.find(RunnerGroup, "org_id = ?", org.id)
    wanted = call.query.get("visible_to_repository")
    if wanted:
        repo = call.forge.store.repo(org.login, wanted)
        found = [row for row in found if repo is not None and _reaches(row, repo)]
    return page(call, found, lambda row: _group(call, row), "runner_groups")


@group("PATCH", _GROUPS + "/{runner_group_id}")
def patch_group(call: Call) -> Any:
    row = call.row(RunnerGroup, "org_id = ? AND id = ?", _own_org(call).id, call.number("runner_group_id"))
    values = {
        "name": call.text("name"),
        "visibility": call.choice("visibility", ("selected", "all", "private"), row.visibility),
        "public": call.get("allows_public_repositories", bool, row.public),
        "restricted": call.get("restricted_to_workflows", bool, row.restricted),
        "workflows": call.texts("selected_workflows") if "selected_workflows" in call.body else row.workflows,
    }
    if any("@" not in workflow for workflow in values["workflows"]):
        _refuse("selected_workflows")
    return _group(call, call.forge.store.update(row, **values))


def _own_org(call: Call) -> User:
    """The organisation, if the actor is one of its owners."""
    org = call.row(User, "login = ? COLLATE NOCASE AND type = 'Organization'", call.params["org"])
    where = "org_id = ? AND user_id = ? AND role = 'admin'"
    if call.actor.quiet or not call.forge.store.count(OrgMember, where, org.id, call.actor.user.id):
        raise Refusal(403, "Must have admin rights to Organization.")
    return org


def _reaches(row: RunnerGroup, repo: Repo) -> bool:
    """Whether jobs of a repository may run in the group, as far as repositories go."""
    open_to = row.visibility == "all" or (row.visibility == "private" and repo.private) or repo.id in row.repositories
    return open_to and (repo.private or row.public)


def _group(call: Call, row: RunnerGroup) -> dict[str, Any]:
    url = f"{call.forge.api}/orgs/{call.params['org']}/actions/runner-groups/{row.id}"
    return {
        "id": row.id, "name": row.name, "visibility": row.visibility, "default": row.standard, "inherited": False,
        "runners_url": f"{url}/runners", "hosted_runners_url": f"{url}/hosted-runners",
        **({"selected_repositories_url": f"{url}/repositories"} if row.visibility == "selected" else {}),
        "allows_public_repositories": row.public, "workflow_restrictions_read_only": False,
        "restricted_to_workflows": row.restricted, "selected_workflows": row.workflows,
    }  # fmt: skip


def _settings(call: Call) -> ActionsSettings:
    found = call.forge.store.first(ActionsSettings, "repo_id = ?", call.repo.id)
    return found or ActionsSettings(0, call.repo.id, **DEFAULTS)


def _set(call: Call, column: str) -> None:
    """Merge what the body gives of a column's keys into the repository's row."""
    store = call.forge.store
    given = {key: call.body[key] for key in DEFAULTS[column] if call.body.get(key) is not None}
    with store.tx():
        row = store.first(ActionsSettings, "repo_id = ?", call.repo.id)
        row = row or store.insert(ActionsSettings, repo_id=call.repo.id, **DEFAULTS)
        store.update(row, **{column: {**getattr(row, column), **given}})


def _only_private(call: Call) -> None:
    if not call.repo.private:
        raise Refusal(403, "This setting is for private repositories.")


def _refuse(field: str, code: str = "invalid") -> None:
    msg = "Settings"
    raise invalid(msg, field, code)
