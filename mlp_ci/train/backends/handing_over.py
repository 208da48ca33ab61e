"""What every cluster is given: the commit, the variables that tell its mlp-ci what is meant; and what its end means."""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci import git
from mlp_ci.errors import GateError, InputError, MlpError, OutsideError
from mlp_ci.github import platform_of
from mlp_ci.train.key import uncommitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec, PlatformSpec
    from mlp_ci.train.key import TrainKey

LINES_SHOWN = 20
# How long a job may take beyond train.timeout: for data, environment and uploads.
EXTRA_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Order:
    """One training that a cluster is to do; ``folder`` is the model's, relative to the top of the repository."""

    name: str
    model: str
    commit: str
    folder: str
    variables: dict[str, str]
    seconds: float


def order(ctx: Context, spec: ModelSpec, key: TrainKey, platform: PlatformSpec) -> Order:
    """What to ask a cluster for. Raises InputError when it could not train just that."""
    changed = uncommitted(ctx.repo, spec)
    if changed:
        msg = f"not committed: {', '.join(changed[:5])}"
        why = "a cluster trains what a commit describes, not what lies here"
        raise InputError(msg, why=why, fix="git add and commit, then run `mlp-ci train` again")
    commit = git.head(ctx.repo)
    if not commit:
        msg = "the repository has no commit yet"
        raise InputError(msg, why="a cluster trains what a commit describes", fix="git add and commit")
    return Order(
        name=job_name(key),
        model=spec.name,
        commit=commit,
        folder=git.git(ctx.repo, "rev-parse", "--show-prefix").rstrip("/") or ".",
        variables=variables(ctx, spec, key, platform),
        seconds=spec.train.timeout.total_seconds() + EXTRA_SECONDS,
    )


def job_name(key: TrainKey) -> str:
    """The job of a train key: the same for everybody, so that who asks again finds the one that runs."""
    return f"mlp-ci-{key.digest[:24]}"


def variables(ctx: Context, spec: ModelSpec, key: TrainKey, platform: PlatformSpec) -> dict[str, str]:
    """The variables of the job. No secret is among them: clusters show them to whoever may look at a job."""
    address = ctx.tracking_uri or (platform.tracking.uri if platform.tracking else "")
    if not address.startswith(("http://", "https://")):
        msg = f"a cluster cannot reach MLflow at {address or 'no address'}"
        raise InputError(msg, fix="run an MLflow server, and set MLFLOW_TRACKING_URI=http://…")
    given = {
        "MLFLOW_TRACKING_URI": re.sub(r"//[^/@]*@", "//", address),
        "MLP_CI_BACKEND": "runner",
        "MLP_CI_EXPECTED_KEY": key.digest,
        "MLP_CI_EXPECTED_PARTS": json.dumps(dict(key.parts), sort_keys=True),
        "MLP_CI_PLATFORM": "built-in",  # the policy is no matter of training, and needs a token
        "PYTHONUNBUFFERED": "1",
    }
    if spec.train.environment.image:
        given["MLP_CI_IMAGE"] = spec.train.environment.image
    if ctx.github:
        given["GITHUB_REPOSITORY"] = ctx.github.full_name
        given["GITHUB_SERVER_URL"] = ctx.github.server_url
        given["GITHUB_API_URL"] = ctx.github.api_url
        given |= {"GITHUB_RUN_ID": ctx.github.run_id} if ctx.github.run_id else {}
    return given


def platform_for(ctx: Context) -> PlatformSpec:
    """The platform.yaml that says where the clusters are."""
    return platform_of(ctx)


def pack_commit(ctx: Context, commit: str, target: Path) -> Path:
    """Write a tar with a clone of this one commit, without its files: git makes those where it is unpacked."""
    bare = target.with_suffix(".git")
    top = git.git(ctx.repo, "rev-parse", "--show-toplevel")
    bare.mkdir()
    git.git(bare, "init", "--quiet")
    git.git(bare, "fetch", "--quiet", "--depth", "1", Path(top).as_uri(), "HEAD")
    git.git(bare, "update-ref", "--no-deref", "HEAD", commit)
    found = git.origin(ctx.repo)
    if found:
        git.git(bare, "remote", "add", "origin", f"{found[0]}/{found[1]}")
    with tarfile.open(target, "w") as archive:
        archive.add(bare / ".git", ".git")
    return target


def outcome_error(where: str, code: int | None, said: Sequence[str]) -> MlpError:
    """What a job that ended badly means here: its exit codes are those of mlp-ci, so they mean what they mean."""
    lines = [line.rstrip() for line in said if line.strip()][-LINES_SHOWN:]
    told = "the end of its log:\n" + "\n".join(f"  {line}" for line in lines) if lines else "it printed nothing"
    what = f"the training on {where} failed" + (f" with exit code {code}" if code is not None else "")
    match code:
        case 2:
            return InputError(what, why=told, fix="mend what it says, commit, and run `mlp-ci train` again")
        case 3:
            return GateError(what, why=told, fix="mend what it says; the same key goes on from its checkpoints")
        case 127 | 126:
            fix = "the job's image (or the cluster's Python) must have mlp-ci and git: `pip install mlp-ci[train]`"
            return OutsideError(what, why=told, fix=fix)
    fix = "run `mlp-ci train` again: it resumes the same run from its checkpoints"
    return OutsideError(what, why=told, fix=fix)
