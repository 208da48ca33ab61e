"""Every change of a branch or tag (by git, API or merge) is announced here: push events, pull requests that follow.

The table ``refs`` holds what was announced last. A change is found by comparing it with git, so a server killed between
moving a ref and announcing it does so when it starts again, in the name of whoever was writing.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlp_ci.sandbox.forge import events, history, pulls
from mlp_ci.sandbox.forge.access import Actor, Forge
from mlp_ci.sandbox.forge.records import Ref, Repo, Token, User
from mlp_ci.sandbox.forge.repos import ZERO
from mlp_ci.sandbox.forge.store import Refusal, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def writing(forge: Forge, repo: Repo, actor: Actor) -> Iterator[None]:
    """Hold the repository while its refs change; afterwards all that changed is announced as ``actor``'s doing."""
    with forge.git.lock(repo):
        announce(forge, repo)
        forge.store.update(repo, writer_id=actor.user.id, writer_quiet=actor.quiet)
        try:
            yield
        finally:
            announce(forge, repo, actor)
    if repo.fork_of is not None:
        pulls.follow_fork(forge, repo, actor)


def move(forge: Forge, repo: Repo, actor: Actor, ref: str, new: str, old: str) -> None:
    """Put ``ref`` from ``old`` to ``new`` and announce it; 409 when somebody else was faster."""
    with writing(forge, repo, actor):
        if not forge.git.update_ref(repo, ref, new, old):
            raise Refusal(409, f"is at {forge.git.resolve(repo, ref) or 'nothing'} but expected {old}")


def announce(forge: Forge, repo: Repo, actor: Actor | None = None) -> None:
    """Tell what has changed since the last time. The caller holds the lock of ``repo``."""
    store = forge.store
    rows = {row.ref: row for row in store.find(Ref, "repo_id = ?", repo.id)}
    actual = forge.git.refs(repo)
    moved = {
        ref: (rows[ref].sha if ref in rows else ZERO, actual.get(ref, ZERO))
        for ref in sorted({*rows, *actual})
        if (rows[ref].sha if ref in rows else ZERO) != actual.get(ref, ZERO)
    }
    with store.tx():
        repo = store.get(Repo, repo.id)
        who = actor or _last_writer(forge, repo)
        for ref, (old, new) in moved.items():
            if new == ZERO:
                store.delete(Ref, "id = ?", rows[ref].id)
            elif old == ZERO:
                store.insert(Ref, repo_id=repo.id, ref=ref, sha=new)
            else:
                store.update(rows[ref], sha=new)
            history.moved(forge, repo, who, ref, old, new)
            events.pushed(forge, repo, who, ref, old, new)
        if moved:
            pulls.follow(forge, repo, who, moved)
            store.update(repo, pushed_at=stamp())
        store.update(repo, writer_id=None, writer_quiet=False)


def recover(forge: Forge) -> None:
    """After a start: announce what a killed server left unannounced, in every repository."""
    for repo in forge.store.find(Repo):
        with forge.git.lock(repo):
            announce(forge, repo)
        if repo.fork_of is not None:
            pulls.follow_fork(forge, repo, _last_writer(forge, repo))


def _last_writer(forge: Forge, repo: Repo) -> Actor:
    if repo.writer_id is None:
        return Actor(forge.store.get(User, repo.owner_id))
    user = forge.store.get(User, repo.writer_id)
    token = Token(0, "", user.id, "run", repo.id, None, {}) if repo.writer_quiet else None
    return Actor(user, token)
