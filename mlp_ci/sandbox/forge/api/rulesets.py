"""Rulesets of a repository, the rules that hold for a branch, and what is wrong with the CODEOWNERS file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from mlp_ci.doctor import codeowners
from mlp_ci.sandbox.forge import access, rulesets, shapes
from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, Reply, page
from mlp_ci.sandbox.forge.records import Ruleset, Team, TeamRepo
from mlp_ci.sandbox.forge.store import Refusal, invalid, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

group = Group()
_RULESETS = REPO + "/rulesets"
_RULESET = _RULESETS + "/{ruleset_id}"
LARGEST_ID = 2**53
_MOST_APPROVALS = 10
_ENFORCEMENTS = ("disabled", "active", "evaluate")
_ACTORS = ("Integration", "OrganizationAdmin", "RepositoryRole", "Team", "DeployKey", "User")
# Type of rule → the parameters that GitHub insists on, by JSON type.
_RULES: Mapping[str, Mapping[str, type]] = {
    "creation": {},
    "deletion": {},
    "non_fast_forward": {},
    "required_linear_history": {},
    "required_signatures": {},
    "update": {},
    "pull_request": {
        "dismiss_stale_reviews_on_push": bool,
        "require_code_owner_review": bool,
        "require_last_push_approval": bool,
        "required_approving_review_count": int,
        "required_review_thread_resolution": bool,
    },
    "required_status_checks": {"required_status_checks": list, "strict_required_status_checks_policy": bool},
}


@group("GET", _RULESETS)
def list_rulesets(call: Call) -> Any:
    found = call.forge.store.find(Ruleset, "repo_id = ?", call.repo.id)
    return page(call, found, lambda ruleset: _summary(call, ruleset))


@group("POST", _RULESETS, "administration", "admin")
def create_ruleset(call: Call) -> Any:
    call.text("name")
    if "enforcement" not in call.body:
        _refuse("enforcement", "missing_field")
    at = stamp()
    blank = Ruleset(0, call.repo.id, "", "branch", "active", [], {}, [], at, at)
    values = {**_given(call, blank), "created_at": at, "updated_at": at}
    return Reply(_shape(call, call.forge.store.insert(Ruleset, repo_id=call.repo.id, **values)), 201)


@group("GET", _RULESET)
def get_ruleset(call: Call) -> Any:
    return _shape(call, _ruleset(call))


@group("PUT", _RULESET, "administration", "admin")
def put_ruleset(call: Call) -> Any:
    """What is not given stays as it is."""
    ruleset = _ruleset(call)
    return _shape(call, call.forge.store.update(ruleset, **_given(call, ruleset), updated_at=stamp()))


@group("DELETE", _RULESET, "administration", "admin")
def delete_ruleset(call: Call) -> Any:
    call.forge.store.delete(Ruleset, "id = ?", _ruleset(call).id)


@group("GET", REPO + "/rules/branches/{branch}")
def rules_of_branch(call: Call) -> Any:
    """The branch need not exist."""
    source = {"ruleset_source_type": "Repository", "ruleset_source": call.repo.full_name}
    found = [
        {**rule, **source, "ruleset_id": ruleset.id}
        for ruleset in rulesets.of_branch(call.forge, call.repo, call.params["branch"])
        for rule in ruleset.rules
    ]
    return page(call, found, lambda rule: rule)


@group("GET", REPO + "/codeowners/errors", "contents")
def codeowners_errors(call: Call) -> Any:
    """Owners who do not exist or may not write here; GitHub ignores them in silence when it asks for reviews."""
    git = call.forge.git
    sha = git.resolve(call.repo, call.query.get("ref", call.repo.default_branch))
    place = next((p for p in codeowners.PLACES if sha and git.entry(call.repo, sha, p)), None)
    if sha is None or place is None:
        raise Refusal(404, "Not Found")
    text = (git.read(call.repo, sha, place) or b"").decode(errors="replace")
    errors = []
    for number, line in enumerate(text.splitlines(), 1):
        pattern, *owners = line.partition("#")[0].split() or [""]
        for owner in owners:
            if pattern and not _may_own(call, owner):
                message = f"Unknown owner on line {number}: make sure {owner} exists and has write access\n\n  {line}"
                column = line.index(owner) + 1
                errors.append(
                    {"line": number, "column": column, "kind": "Unknown owner", "source": line, "suggestion": None,
                     "message": message, "path": place}
                )  # fmt: skip
    return {"errors": errors}


def _may_own(call: Call, owner: str) -> bool:
    store, repo = call.forge.store, call.repo
    login, slash, slug = owner.removeprefix("@").partition("/")
    if slash:
        team = store.first(Team, "org_id = ? AND slug = ?", repo.owner_id, slug)
        if team is None or login.lower() != repo.owner.lower():
            return False
        link = store.first(TeamRepo, "team_id = ? AND repo_id = ?", team.id, repo.id)
        return link is not None and access.at_least(link.permission, "write")
    user = store.user(login) if owner.startswith("@") else access.by_email(call.forge, owner)
    return user is not None and access.at_least(access.role(call.forge, user, repo), "write")


def _ruleset(call: Call) -> Ruleset:
    return call.row(Ruleset, "repo_id = ? AND id = ?", call.repo.id, call.number("ruleset_id"))


def _given(call: Call, now: Ruleset) -> dict[str, Any]:
    """The columns as the body asks for them; what it leaves out as it is ``now``."""
    name = call.get("name", str, now.name)
    where = "repo_id = ? AND name = ? AND id != ?"
    if call.forge.store.count(Ruleset, where, call.repo.id, name, now.id):
        raise Refusal(422, "Validation Failed", ["Name must be unique"])
    values = {
        "name": name,
        "target": call.choice("target", ("branch", "tag", "push"), now.target),
        "enforcement": call.choice("enforcement", _ENFORCEMENTS, now.enforcement),
        "bypass_actors": [_actor(entry) for entry in call.get("bypass_actors", list, now.bypass_actors)],
        "conditions": call.get("conditions", dict, now.conditions),
        "rules": [_rule(entry) for entry in call.get("rules", list, now.rules)],
    }
    kinds = [rule["type"] for rule in values["rules"]]
    named = values["conditions"].get("ref_name", {}) if values["conditions"] else {}
    if len(set(kinds)) < len(kinds) or not isinstance(named, dict):
        _refuse("rules" if isinstance(named, dict) else "conditions")
    for key in ("include", "exclude"):
        if not isinstance(named.get(key, []), list) or not all(isinstance(p, str) for p in named.get(key, [])):
            _refuse("conditions")
    return values


def _actor(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or entry.get("actor_type") not in _ACTORS:
        _refuse("bypass_actors")
    mode, number = entry.get("bypass_mode", "always"), entry.get("actor_id")
    if mode not in ("always", "pull_request", "exempt") or not isinstance(number, int | None):
        _refuse("bypass_actors")
    if number is not None and not 0 < number <= LARGEST_ID:
        _refuse("bypass_actors")
    return {"actor_id": number, "actor_type": entry["actor_type"], "bypass_mode": mode}


def _rule(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or entry.get("type") not in tuple(_RULES):  # a tuple: it may be of any JSON type
        _refuse("rules")
    wanted = _RULES[entry["type"]]
    parameters = entry.get("parameters")
    if not isinstance(parameters, dict | None) or (wanted and parameters is None):
        _refuse("rules")
    given = parameters or {}
    if any(not isinstance(given.get(name), kind) for name, kind in wanted.items()):
        _refuse("rules")
    count = "required_approving_review_count"
    if count in wanted and not 0 <= given[count] <= _MOST_APPROVALS:
        _refuse("rules")
    for check in given["required_status_checks"] if "required_status_checks" in wanted else []:
        if not isinstance(check, dict) or not isinstance(check.get("context"), str):
            _refuse("rules")
        if not isinstance(check.get("integration_id"), int | None):
            _refuse("rules")
    return {"type": entry["type"], **({"parameters": given} if given else {})}


def _summary(call: Call, ruleset: Ruleset) -> dict[str, Any]:
    url = f"{shapes.repo_url(call.forge, call.repo)}/rulesets/{ruleset.id}"
    html = f"{shapes.html_url(call.forge, call.repo)}/rules/{ruleset.id}"
    return {
        "id": ruleset.id, "name": ruleset.name, "target": ruleset.target, "source_type": "Repository",
        "source": call.repo.full_name, "enforcement": ruleset.enforcement, "node_id": shapes.node_id(ruleset),
        "_links": {"self": {"href": url}, "html": {"href": html}},
        "created_at": ruleset.created_at, "updated_at": ruleset.updated_at,
    }  # fmt: skip


def _shape(call: Call, ruleset: Ruleset) -> dict[str, Any]:
    """With the rules. Who may pass them is shown to those who may change it, as on github.com."""
    mode = rulesets.may_bypass(call.forge, call.repo, ruleset, call.actor, merging=True)
    words = {"": "never", "pull_request": "pull_requests_only"}
    shape = {
        **_summary(call, ruleset),
        "conditions": ruleset.conditions,
        "rules": ruleset.rules,
        "current_user_can_bypass": words.get(mode, mode),
    }
    if access.allowed(call.forge, call.actor, call.repo, "administration", "write", "admin"):
        shape["bypass_actors"] = ruleset.bypass_actors
    return shape


def _refuse(field: str, code: str = "invalid") -> NoReturn:
    msg = "Ruleset"
    raise invalid(msg, field, code)
