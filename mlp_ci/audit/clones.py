"""A clone that has a branch as GitHub has it now: the model repository's own where it will do, else one fetched.

One fetch instead of a request per record: a job's token has a thousand requests an hour, a chain may have more files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci import git
from mlp_ci.progress import doing

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.github import Hub

STORE = "audit.git"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A repository on this machine that has the branch. ``before``: what it knew of the branch until now."""

    repo: Path
    tip: str
    before: str | None


def fetched(ctx: Context, hub: Hub, branch: str) -> Fetched | None:
    """The branch, whole; None where GitHub has none of that name."""
    tip = hub.trees.head(branch)
    own = ctx.repo if git.is_repository(ctx.repo) else None
    names = (f"refs/remotes/origin/{branch}", f"refs/heads/{branch}")
    before = git.commit_of(own, *names) if own else None
    if tip is None:
        return None
    if own and before == tip and not git.is_shallow(own):
        return Fetched(repo=own, tip=tip, before=before)
    doing(f"fetching {branch}")
    store, place = ctx.work / STORE, hub.place
    known = git.commit_of(store, f"refs/heads/{branch}") if (store / "HEAD").is_file() else None
    url = f"{place.server_url}/{place.full_name}.git"
    return Fetched(repo=store, tip=git.fetch_branch(store, url, branch, place.token), before=known or before)
