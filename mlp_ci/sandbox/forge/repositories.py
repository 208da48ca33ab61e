"""Making and changing repositories, and committing files to them without a clone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.sandbox.forge import pushes
from mlp_ci.sandbox.forge.access import Actor, Forge, email_of
from mlp_ci.sandbox.forge.objects import Person
from mlp_ci.sandbox.forge.records import Repo, User
from mlp_ci.sandbox.forge.repos import ZERO, valid_name
from mlp_ci.sandbox.forge.store import Refusal, invalid, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping


def create(forge: Forge, owner: User, name: str, *, private: bool = False, description: str | None = None) -> Repo:
    """A new, empty repository. A name that cannot be one, or is taken, is a 422."""
    if not valid_name(name) or not valid_name(owner.login):
        msg = "Repository"
        raise invalid(msg, "name")
    at = stamp()
    with forge.store.tx():
        if forge.store.repo(owner.login, name) is not None:
            msg = "Repository"
            raise invalid(msg, "name", "custom", "name already exists on this account")
        repo = forge.store.insert(
            Repo, owner_id=owner.id, owner=owner.login, name=name, private=private, description=description,
            default_branch="main", delete_branch_on_merge=False, writer_quiet=False, created_at=at, updated_at=at,
            pushed_at=at,
        )  # fmt: skip
        forge.git.create(repo)
    return repo


def fork(forge: Forge, source: Repo, owner: User) -> Repo:
    """A copy of ``source`` under ``owner``, to open pull requests from; an existing one is given as it is."""
    known = forge.store.first(Repo, "owner_id = ? AND fork_of = ?", owner.id, source.id)
    if known is not None:
        return known
    with forge.git.lock(source):
        made = create(forge, owner, source.name, private=source.private)
        made = forge.store.update(made, fork_of=source.id, default_branch=source.default_branch)
        forge.git.create(made, source)
    with pushes.writing(forge, made, Actor(owner)):
        forge.git.set_head(made, source.default_branch)
    return made


def edit(forge: Forge, repo: Repo, default_branch: str, values: Mapping[str, Any]) -> Repo:
    if default_branch != repo.default_branch:
        if f"refs/heads/{default_branch}" not in forge.git.refs(repo, "refs/heads"):
            raise Refusal(422, f"The branch {default_branch} was not found. Please push that ref first or create it.")
        forge.git.set_head(repo, default_branch)
    return forge.store.update(repo, default_branch=default_branch, updated_at=stamp(), **values)


def commit_files(
    forge: Forge, repo: Repo, actor: Actor, files: Mapping[str, bytes | None], message: str, branch: str = ""
) -> str:
    """Commit ``files`` (path → bytes, None to delete) on a branch, which is made if missing; gives the commit."""
    git = forge.git
    ref = f"refs/heads/{branch or repo.default_branch}"
    who = Person(actor.user.name or actor.user.login, email_of(actor.user))
    with git.lock(repo):
        tip = git.refs(repo, ref).get(ref)
        changes = {p: None if data is None else ("100644", git.write_blob(repo, data)) for p, data in files.items()}
        tree = git.write_tree(repo, tip, changes)
        new = git.commit_tree(repo, tree, [tip] if tip else [], message, (who, who))
        pushes.move(forge, repo, actor, ref, new, tip or ZERO)
    return new
