"""Environments: who has to agree to a deployment, and from which branches there may be one."""

from __future__ import annotations

import re
from typing import Any

from mlp_ci.sandbox.forge import shapes, shapes_checks
from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, page
from mlp_ci.sandbox.forge.api.rulesets import LARGEST_ID
from mlp_ci.sandbox.forge.records import BranchPolicy, Environment, EnvironmentRules, Team, User
from mlp_ci.sandbox.forge.store import Refusal, invalid, stamp

group = Group()
_ENVIRONMENT = REPO + "/environments/{environment_name}"
_POLICIES = _ENVIRONMENT + "/deployment-branch-policies"
_MOST_REVIEWERS = 6
_LONGEST_WAIT = 43_200  # minutes: 30 days


@group("GET", REPO + "/environments", "actions|deployments")
def environments(call: Call) -> Any:
    found = call.forge.store.find(Environment, "repo_id = ?", call.repo.id, order="name")
    return page(call, found, lambda env: _shape(call, env), "environments")


@group("GET", _ENVIRONMENT, "actions|deployments")
def get_environment(call: Call) -> Any:
    return _shape(call, _named(call))


@group("PUT", _ENVIRONMENT, "administration", "admin")
def put_environment(call: Call) -> Any:
    """Sets all of it: what is not given is off afterwards."""
    store, name = call.forge.store, call.params["environment_name"]
    if not re.fullmatch(r"[^\x00-\x1f]{1,255}", name):
        _refuse("name")
    values = {
        "wait_timer": call.get("wait_timer", int, 0),
        "prevent_self_review": call.get("prevent_self_review", bool, False),
        "reviewers": [_reviewer(call, entry) for entry in call.get("reviewers", list, [])],
        "branch_policy": _switches(call.get("deployment_branch_policy", dict)),
    }
    if not 0 <= values["wait_timer"] <= _LONGEST_WAIT:
        _refuse("wait_timer")
    if len(values["reviewers"]) > _MOST_REVIEWERS:
        raise Refusal(422, f"At most {_MOST_REVIEWERS} reviewers")
    with store.tx():
        where = "repo_id = ? AND name = ? COLLATE NOCASE"
        found = store.first(Environment, where, call.repo.id, name)
        found = found or store.insert(Environment, repo_id=call.repo.id, name=name, created_at=stamp())
        rules = store.first(EnvironmentRules, "environment_id = ?", found.id)
        if rules is None:
            store.insert(EnvironmentRules, environment_id=found.id, **values)
        else:
            store.update(rules, **values)
        if not (values["branch_policy"] or {}).get("custom_branch_policies"):
            store.delete(BranchPolicy, "environment_id = ?", found.id)
    return _shape(call, found)


@group("GET", _POLICIES, "actions")
def branch_policies(call: Call) -> Any:
    found = call.forge.store.find(BranchPolicy, "environment_id = ?", _named(call).id)
    return page(call, found, _policy, "branch_policies")


@group("POST", _POLICIES, "administration", "admin")
def add_branch_policy(call: Call) -> Any:
    found = _named(call)
    rules = call.forge.store.first(EnvironmentRules, "environment_id = ?", found.id)
    if rules is None or not (rules.branch_policy or {}).get("custom_branch_policies"):
        raise Refusal(404, "Not Found")
    name, kind = call.text("name"), call.choice("type", ("branch", "tag"), "branch")
    where = "environment_id = ? AND name = ? AND kind = ?"
    known = call.forge.store.first(BranchPolicy, where, found.id, name, kind)
    return _policy(known or call.forge.store.insert(BranchPolicy, environment_id=found.id, name=name, kind=kind))


def _named(call: Call) -> Environment:
    where = "repo_id = ? AND name = ? COLLATE NOCASE"
    return call.row(Environment, where, call.repo.id, call.params["environment_name"])


def _switches(given: Any) -> dict[str, bool] | None:
    """GitHub takes the two switches only when exactly one is on."""
    if given is None:
        return None
    switches = {name: given.get(name) for name in ("protected_branches", "custom_branch_policies")}
    if sorted(map(str, switches.values())) != ["False", "True"]:
        raise Refusal(422, "protected_branches and custom_branch_policies cannot have the same value")
    return switches


def _reviewer(call: Call, entry: Any) -> dict[str, Any]:
    kind = entry.get("type") if isinstance(entry, dict) else None
    if kind not in ("User", "Team") or not isinstance(entry.get("id"), int) or not 0 < entry["id"] <= LARGEST_ID:
        _refuse("reviewers")
    if call.forge.store.first(User if kind == "User" else Team, "id = ?", entry["id"]) is None:
        _refuse("reviewers")
    return {"type": kind, "id": entry["id"]}


def _policy(row: BranchPolicy) -> dict[str, Any]:
    return {"id": row.id, "node_id": shapes.node_id(row), "name": row.name, "type": row.kind}


def _shape(call: Call, environment: Environment) -> dict[str, Any]:
    forge = call.forge
    shape = shapes_checks.environment(forge, call.repo, environment)
    rules = forge.store.first(EnvironmentRules, "environment_id = ?", environment.id)
    if rules is None:
        return shape
    found: list[dict[str, Any]] = []
    if rules.wait_timer:
        found.append({"type": "wait_timer", "wait_timer": rules.wait_timer})
    if rules.reviewers:
        who = [
            {"type": r["type"], "reviewer": shapes.user(forge, forge.store.get(User, r["id"])) if r["type"] == "User"
             else shapes.team(forge, forge.store.get(Team, r["id"]))}
            for r in rules.reviewers
        ]  # fmt: skip
        found.append({"type": "required_reviewers", "prevent_self_review": rules.prevent_self_review, "reviewers": who})
    if rules.branch_policy:
        found.append({"type": "branch_policy"})
    numbered = [{"id": rules.id * 10 + n, "node_id": f"GA{rules.id}{n}", **rule} for n, rule in enumerate(found)]
    return {**shape, "protection_rules": numbered, "deployment_branch_policy": rules.branch_policy}


def _refuse(field: str) -> None:
    msg = "Environment"
    raise invalid(msg, field)
