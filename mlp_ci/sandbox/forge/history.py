"""What happened, and who did it: the record of pushes, and the events of issues and pull requests.

The actor is always whom the server had authenticated. What a commit says of its author is only text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.sandbox.forge.records import Activity, IssueEvent, Pull, Repo, Review
from mlp_ci.sandbox.forge.repos import ZERO
from mlp_ci.sandbox.forge.store import stamp

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.access import Actor, Forge

KINDS = ("push", "force_push", "branch_creation", "branch_deletion", "pr_merge")


def moved(forge: Forge, repo: Repo, actor: Actor, ref: str, old: str, new: str) -> None:
    """Record that ``ref`` went from ``old`` to ``new``. Tags are not recorded, as on github.com."""
    if ref.startswith("refs/heads/"):
        kind = _kind(forge, repo, ref, old, new)
        forge.store.insert(
            Activity, repo_id=repo.id, ref=ref, kind=kind, actor_id=actor.user.id, before=old, after=new, at=stamp()
        )


def note(
    forge: Forge, repo: Repo, actor: Actor, issue_id: int, event: str, /, commit: str | None = None, **detail: Any
) -> None:
    """Record an event of an issue or pull request (they share their ids); ``detail`` is laid into its JSON."""
    forge.store.insert(
        IssueEvent, repo_id=repo.id, issue_id=issue_id, event=event, actor_id=actor.user.id, commit_id=commit,
        detail=detail, created_at=stamp(),
    )  # fmt: skip


def dismiss(forge: Forge, repo: Repo, actor: Actor, review: Review, said: str | None, commit: str = "") -> Review:
    """Make a review dismissed and record what it was; ``commit`` is the push that made it stale, if one did."""
    with forge.store.tx():
        told = {"state": review.state.lower(), "review_id": review.id, "dismissal_message": said}
        if commit:
            told["dismissal_commit_id"] = commit
        note(forge, repo, actor, review.pull_id, "review_dismissed", dismissed_review=told)
        return forge.store.update(review, state="DISMISSED")


def _kind(forge: Forge, repo: Repo, ref: str, old: str, new: str) -> str:
    if old == ZERO:
        return "branch_creation"
    if new == ZERO:
        return "branch_deletion"
    # The merge button says beforehand what it is about to push.
    branch = ref.removeprefix("refs/heads/")
    if forge.store.first(Pull, "repo_id = ? AND base_ref = ? AND intent_sha = ?", repo.id, branch, new):
        return "pr_merge"
    return "push" if forge.git.is_ancestor(repo, old, new) else "force_push"
