"""Reviews of pull requests: submitting, dismissing, asking for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.sandbox.forge import access, events, history, pulls
from mlp_ci.sandbox.forge.access import Actor, Forge
from mlp_ci.sandbox.forge.records import ActionsSettings, Issue, Pull, Repo, Review, ReviewRequest, Team
from mlp_ci.sandbox.forge.store import Refusal, stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

STATES = {"APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED", "COMMENT": "COMMENTED"}


def submit(forge: Forge, actor: Actor, pull: Pull, event: str, text: str = "", commit: str = "") -> Review:
    """Review the head (or ``commit``) of a pull request; ``event``: APPROVE | REQUEST_CHANGES | COMMENT.

    Nobody can approve or ask for changes on their own pull request: 422, as on github.com. There as here a pull request
    that is closed or merged can still be reviewed.
    """
    repo = forge.store.get(Repo, pull.repo_id)
    if event not in STATES:
        raise Refusal(422, "Unprocessable Entity", [f"Unknown event {event!r}"])
    if event != "COMMENT" and forge.store.get(Issue, pull.id).user_id == actor.user.id:
        what = "approve" if event == "APPROVE" else "request changes on"
        raise Refusal(422, "Unprocessable Entity", [f"Can not {what} your own pull request"])
    if event != "APPROVE" and not text:
        raise Refusal(422, "Unprocessable Entity", ["Body can't be blank"])
    if event == "APPROVE" and actor.quiet and not _runs_may_approve(forge, repo):
        raise Refusal(422, "Unprocessable Entity", ["GitHub Actions is not permitted to approve pull requests."])
    if commit and commit not in {known.sha for known in pulls.commits(forge, repo, pull)}:
        raise Refusal(422, "Unprocessable Entity", ["The commitOID is not part of the pull request"])
    with forge.store.tx():
        pull = forge.store.get(Pull, pull.id)
        review = forge.store.insert(
            Review, pull_id=pull.id, user_id=actor.user.id, state=STATES[event], body=text,
            commit_id=commit or pull.head_sha, submitted_at=stamp(),
        )  # fmt: skip
        forge.store.delete(ReviewRequest, "pull_id = ? AND user_id = ?", pull.id, actor.user.id)
        events.review_event(forge, repo, actor, pull, review, "submitted")
    return review


def dismiss(forge: Forge, repo: Repo, actor: Actor, review: Review, message: str) -> Review:
    """Take back what a review said; the message stands in the event of the dismissal, as on github.com."""
    if review.state not in ("APPROVED", "CHANGES_REQUESTED"):
        raise Refusal(422, "Unprocessable Entity", ["Can not dismiss a commented pull request review"])
    with forge.store.tx():
        review = history.dismiss(forge, repo, actor, review, message)
        events.review_event(forge, repo, actor, forge.store.get(Pull, review.pull_id), review, "dismissed")
    return review


def request(forge: Forge, repo: Repo, actor: Actor, pull: Pull, logins: Sequence[str], slugs: Sequence[str]) -> None:
    """Ask people and teams for a review; someone who cannot read the repository, or the author, is a 422."""
    author = forge.store.get(Issue, pull.id).user_id
    with forge.store.tx():
        for login in logins:
            user = forge.store.user(login)
            if user is None or user.type != "User" or not access.visible(forge, Actor(user), repo):
                raise Refusal(422, f"Reviews may only be requested from collaborators: {login}")
            if user.id == author:
                raise Refusal(422, "Review cannot be requested from pull request author.")
            if not forge.store.count(ReviewRequest, "pull_id = ? AND user_id = ?", pull.id, user.id):
                forge.store.insert(ReviewRequest, pull_id=pull.id, user_id=user.id)
        for slug in slugs:
            team = forge.store.first(Team, "org_id = ? AND slug = ?", repo.owner_id, slug)
            if team is None:
                raise Refusal(422, f"Could not resolve to a team: {slug}")
            if not forge.store.count(ReviewRequest, "pull_id = ? AND team_id = ?", pull.id, team.id):
                forge.store.insert(ReviewRequest, pull_id=pull.id, team_id=team.id)
        events.pull_event(forge, repo, actor, pull, "review_requested")


def withdraw(forge: Forge, repo: Repo, actor: Actor, pull: Pull, logins: Sequence[str], slugs: Sequence[str]) -> None:
    """Ask no longer."""
    with forge.store.tx():
        for login in logins:
            where = "pull_id = ? AND user_id = (SELECT id FROM users WHERE login = ? COLLATE NOCASE)"
            forge.store.delete(ReviewRequest, where, pull.id, login)
        for slug in slugs:
            where = "pull_id = ? AND team_id = (SELECT id FROM teams WHERE slug = ? AND org_id = ?)"
            forge.store.delete(ReviewRequest, where, pull.id, slug, repo.owner_id)
        events.pull_event(forge, repo, actor, pull, "review_request_removed")


def _runs_may_approve(forge: Forge, repo: Repo) -> bool:
    """The repository's setting of Actions; off unless somebody has turned it on."""
    row = forge.store.first(ActionsSettings, "repo_id = ?", repo.id)
    return row is not None and bool(row.workflow.get("can_approve_pull_request_reviews"))
