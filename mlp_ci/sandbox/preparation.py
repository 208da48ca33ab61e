"""What a run gets before its first job: its work tree, the actions it may use, its token's rights, its contexts."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import mlp_ci
from mlp_ci.git import git

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.sandbox.execution import Event
    from mlp_ci.sandbox.workflows import Workflow


def stage_actions(source: Path, folder: Path) -> Path:
    """Copy what a run needs of a repository of actions; act copies all of it for every step, and a checkout is large.

    The version beside the actions is that of this installation, so that install.sh takes the mlp-ci on PATH.
    """
    stage = Path(mkdtemp(prefix="actions-", dir=folder))
    shutil.copytree(source / "actions", stage / "actions")
    (stage / "mlp_ci").mkdir()
    shutil.copy(mlp_ci.__file__, stage / "mlp_ci")
    return stage


def check_out(event: Event, folder: Path, server_url: str) -> Path:
    """Clone the event's repository into ``folder`` at its commit, the way actions/checkout leaves a work tree."""
    tree = folder / event.repository.rpartition("/")[2]
    # --shared: the objects stay where they are, so a large repository costs a checkout and nothing more.
    git(folder, "clone", "--quiet", "--shared", "--no-checkout", str(event.git_dir), str(tree))
    branch = event.ref.removeprefix("refs/heads/")
    where = ["-B", branch] if branch != event.ref else ["--detach"]
    git(tree, "checkout", "--quiet", "--force", *where, event.sha)
    git(tree, "remote", "set-url", "origin", f"{server_url}/{event.repository}.git")
    return tree


def read_only(permissions: Mapping[str, str] | None) -> Mapping[str, str]:
    """The same without writing. What was not granted stays so; an identity can only be written, so it goes."""
    if permissions is None:
        return {"contents": "read"}
    return {scope: "read" for scope, level in permissions.items() if level != "none" and scope != "id-token"}


def from_fork(event: Event) -> bool:
    """Whether the event runs the code of another repository."""
    if event.event not in ("pull_request", "pull_request_review"):
        return False
    head = (event.payload.get("pull_request") or {}).get("head") or {}
    return ((head.get("repo") or {}).get("full_name") or "").lower() != event.repository.lower()


def contexts_of(event: Event, workflow: Workflow, variables: Mapping[str, str]) -> dict[str, Any]:
    """The contexts `github`, `inputs` and `vars` as they are before a job starts."""
    declared = (
        (workflow.on.get("workflow_dispatch") or {}).get("inputs") or {} if event.event == "workflow_dispatch" else {}
    )
    given = event.payload.get("inputs") or {}
    inputs = {name: given.get(name, (about or {}).get("default", "")) for name, about in declared.items()}
    payload = {**event.payload, **({"inputs": inputs} if event.event == "workflow_dispatch" else {})}
    pull = event.payload.get("pull_request") or {}
    github = {
        "event": payload,
        "event_name": event.event,
        "repository": event.repository,
        "repository_owner": event.repository.partition("/")[0],
        "actor": event.actor,
        "workflow": workflow.name,
        "ref": event.ref,
        "ref_name": event.ref.removeprefix("refs/heads/").removeprefix("refs/tags/").removeprefix("refs/pull/"),
        "ref_type": "tag" if event.ref.startswith("refs/tags/") else "branch",
        "sha": event.sha,
        "head_ref": (pull.get("head") or {}).get("ref", "") if event.event.startswith("pull_request") else "",
        "base_ref": (pull.get("base") or {}).get("ref", "") if event.event.startswith("pull_request") else "",
    }
    return {"github": github, "inputs": inputs, "vars": dict(variables)}
