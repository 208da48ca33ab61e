"""Deployments and their statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.sandbox.forge import checks, shapes_checks
from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, Reply, page
from mlp_ci.sandbox.forge.records import Deployment, DeploymentStatus, Environment, Repo
from mlp_ci.sandbox.forge.store import Refusal, invalid, stamp

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.access import Forge

group = Group()
_DEPLOYMENT = REPO + "/deployments/{deployment_id}"
_STATES = ("error", "failure", "inactive", "in_progress", "queued", "pending", "success")


@group("GET", REPO + "/deployments", "deployments")
def list_deployments(call: Call) -> Any:
    found = [
        deployment
        for deployment in call.forge.store.find(Deployment, "repo_id = ?", call.repo.id, order="id DESC")
        if all(
            call.query.get(name, getattr(deployment, name)) == getattr(deployment, name)
            for name in ("environment", "ref", "sha", "task")
        )
    ]
    return page(call, found, lambda deployment: shapes_checks.deployment(call.forge, call.repo, deployment))


@group("POST", REPO + "/deployments", "deployments")
def create_deployment(call: Call) -> Any:
    ref = call.text("ref")
    sha = call.commit(ref)
    payload = call.body.get("payload", {})
    if not isinstance(payload, (dict, str)):
        msg = "Deployment"
        raise invalid(msg, "payload")
    required = call.get("required_contexts", list)
    known = checks.verdicts(call.forge, call.repo, sha)
    missing = [c for c in (known if required is None else required) if known.get(c) != "success"]
    if missing:
        raise Refusal(409, f"Conflict: Commit status checks failed for {ref}: {', '.join(map(str, missing))}")
    environment = call.get("environment", str, "production")
    _environment(call.forge, call.repo, environment)
    deployment = call.forge.store.insert(
        Deployment, repo_id=call.repo.id, sha=sha, ref=ref, environment=environment,
        task=call.get("task", str, "deploy"),
        description=call.get("description", str), payload=payload, creator_id=call.actor.user.id, created_at=stamp(),
        production=call.get("production_environment", bool, environment == "production"),
        transient=call.get("transient_environment", bool, False),
    )  # fmt: skip
    return Reply(shapes_checks.deployment(call.forge, call.repo, deployment), 201)


@group("GET", _DEPLOYMENT, "deployments")
def get_deployment(call: Call) -> Any:
    return shapes_checks.deployment(call.forge, call.repo, _deployment(call))


@group("GET", _DEPLOYMENT + "/statuses", "deployments")
def list_statuses(call: Call) -> Any:
    found = call.forge.store.find(DeploymentStatus, "deployment_id = ?", _deployment(call).id, order="id DESC")
    return page(call, found, lambda status: shapes_checks.deployment_status(call.forge, call.repo, status))


@group("POST", _DEPLOYMENT + "/statuses", "deployments")
def create_status(call: Call) -> Any:
    deployment = _deployment(call)
    state = call.choice("state", _STATES)
    if state is None:
        msg = "DeploymentStatus"
        raise invalid(msg, "state", "missing_field")
    values = {
        "description": call.get("description", str, ""),
        "environment": call.get("environment", str, deployment.environment),
        "environment_url": call.get("environment_url", str, ""),
        "log_url": call.get("log_url", str, call.get("target_url", str, "")),
    }
    retire = state == "success" and call.get("auto_inactive", bool, True) and not deployment.transient
    with call.forge.store.tx():
        if retire:
            _retire_others(call, deployment)
        status = _add(call, deployment, state, **values)
    return Reply(shapes_checks.deployment_status(call.forge, call.repo, status), 201)


@group("GET", _DEPLOYMENT + "/statuses/{status_id}", "deployments")
def get_status(call: Call) -> Any:
    where = "deployment_id = ? AND id = ?"
    status = call.row(DeploymentStatus, where, _deployment(call).id, call.number("status_id"))
    return shapes_checks.deployment_status(call.forge, call.repo, status)


def _environment(forge: Forge, repo: Repo, name: str) -> Environment:
    with forge.store.tx():
        found = forge.store.first(Environment, "repo_id = ? AND name = ? COLLATE NOCASE", repo.id, name)
        return found or forge.store.insert(Environment, repo_id=repo.id, name=name, created_at=stamp())


def _deployment(call: Call) -> Deployment:
    return call.row(Deployment, "repo_id = ? AND id = ?", call.repo.id, call.number("deployment_id"))


def _add(call: Call, deployment: Deployment, state: str, **values: str) -> DeploymentStatus:
    return call.forge.store.insert(
        DeploymentStatus,
        deployment_id=deployment.id,
        state=state,
        creator_id=call.actor.user.id,
        created_at=stamp(),
        **values,
    )


def _retire_others(call: Call, deployment: Deployment) -> None:
    """A success makes the earlier successes of the same environment inactive, as on github.com."""
    where = "repo_id = ? AND environment = ? AND id != ?"
    for other in call.forge.store.find(Deployment, where, call.repo.id, deployment.environment, deployment.id):
        last = call.forge.store.first(DeploymentStatus, "deployment_id = ?", other.id, order="id DESC")
        if last and last.state == "success":
            fields = {"description": "", "environment": other.environment, "environment_url": "", "log_url": ""}
            _add(call, other, "inactive", **fields)
