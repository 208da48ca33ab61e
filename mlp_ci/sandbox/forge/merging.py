"""Merging pull requests by real git: merge commit, squash or rebase, under the rules of branch protection."""

from __future__ import annotations

from dataclasses import dataclass

from mlp_ci.sandbox.forge import protection, pulls, pushes
from mlp_ci.sandbox.forge.access import Actor, Forge, email_of
from mlp_ci.sandbox.forge.objects import Person
from mlp_ci.sandbox.forge.pulls import WEB_FLOW
from mlp_ci.sandbox.forge.records import Issue, Pull, Repo, User
from mlp_ci.sandbox.forge.repos import ZERO
from mlp_ci.sandbox.forge.store import Refusal

METHODS = ("merge", "squash", "rebase")


@dataclass(frozen=True)
class Wish:
    """How to merge. ``sha``: only if this still is the head; empty title and message: GitHub's own."""

    method: str = "merge"
    sha: str = ""
    title: str = ""
    message: str = ""


def merge(forge: Forge, repo: Repo, actor: Actor, pull: Pull, wish: Wish) -> str:
    """Merge; gives the new commit on the base branch. 405: not mergeable or not allowed; 409: the head has moved."""
    git, store = forge.git, forge.store
    with pushes.writing(forge, repo, actor):
        pull = store.get(Pull, pull.id)
        _check(forge, repo, actor, pull, wish)
        ref = f"refs/heads/{pull.base_ref}"
        tip = git.refs(repo, ref)[ref]
        new = _commit(forge, repo, actor, pull, tip, wish)
        # Written first: if the server dies after the ref has moved, the next start knows what the move meant.
        store.update(pull, intent_sha=new, intent_user=actor.user.id, base_sha=tip)
        if not git.update_ref(repo, ref, new, tip):
            store.update(pull, intent_sha=None, intent_user=None)
            raise Refusal(405, "Base branch was modified. Review and try the merge again.")
    if repo.delete_branch_on_merge and pull.head_repo_id == repo.id:
        pulls.retarget(forge, repo, actor, pull.head_ref, pull.base_ref)
        pushes.move(forge, repo, actor, f"refs/heads/{pull.head_ref}", ZERO, pull.head_sha)
    return new


def _check(forge: Forge, repo: Repo, actor: Actor, pull: Pull, wish: Wish) -> None:
    if wish.method not in METHODS:
        raise Refusal(
            422, "Validation Failed", [{"resource": "PullRequest", "field": "merge_method", "code": "invalid"}]
        )
    if pull.merged or forge.store.get(Issue, pull.id).state != "open":
        raise Refusal(405, "Pull Request is not mergeable")
    if pull.draft:
        raise Refusal(405, "Pull Request is still a draft")
    if wish.sha and wish.sha != pull.head_sha:
        raise Refusal(409, "Head branch was modified. Review and try the merge again.")
    if not pull.mergeable:
        raise Refusal(405, "Pull Request has merge conflicts")
    missing = protection.refusals(forge, repo, pull, actor)
    if missing:
        raise Refusal(405, " ".join(missing))


def _commit(forge: Forge, repo: Repo, actor: Actor, pull: Pull, tip: str, wish: Wish) -> str:
    git = forge.git
    issue = forge.store.get(Issue, pull.id)
    if wish.method == "rebase":
        new = git.replay(repo, tip, pull.head_sha, WEB_FLOW)
        if new is None:
            raise Refusal(405, "This branch can't be rebased")
        return new
    tree = git.merge_tree(repo, tip, pull.head_sha)
    if tree is None:
        raise Refusal(405, "Pull Request has merge conflicts")
    if wish.method == "squash":
        author = _person(forge.store.get(User, issue.user_id))
        listed = "\n".join(f"* {c.message}\n" for c in pulls.commits(forge, repo, pull))
        message = _message(wish.title or f"{issue.title} (#{pull.number})", wish.message or listed)
        return git.commit_tree(repo, tree, [tip], message, (author, WEB_FLOW))
    head = f"{forge.store.get(Repo, pull.head_repo_id).owner}/{pull.head_ref}"
    title = wish.title or f"Merge pull request #{pull.number} from {head}"
    message = _message(title, wish.message or issue.title)
    return git.commit_tree(repo, tree, [tip, pull.head_sha], message, (_person(actor.user), WEB_FLOW))


def _person(user: User) -> Person:
    return Person(user.name or user.login, email_of(user))


def _message(title: str, body: str) -> str:
    return f"{title}\n\n{body}".strip()
