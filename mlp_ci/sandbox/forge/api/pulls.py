"""Pull requests, their reviews and their merge."""

from __future__ import annotations

from typing import Any

from starlette.responses import PlainTextResponse

from mlp_ci.sandbox.forge import access, merging, pulls, reviews, shapes, shapes_work
from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, Reply, page
from mlp_ci.sandbox.forge.records import Issue, Pull, Repo, Review
from mlp_ci.sandbox.forge.store import Refusal, invalid

group = Group()
_PULL = REPO + "/pulls/{pull_number}"
# GitHub lists no more than these, on however many pages; the pull request itself says how many there are.
_MOST_COMMITS = 250
_MOST_FILES = 3000
_REVIEW = _PULL + "/reviews/{review_id}"


@group("GET", REPO + "/pulls", "pull_requests")
def list_pulls(call: Call) -> Any:
    found = []
    for pull in call.forge.store.find(Pull, "repo_id = ?", call.repo.id):
        issue = call.forge.store.get(Issue, pull.id)
        if _wanted(call, pull, issue):
            found.append((pull, issue))
    by_update = call.query.get("sort") == "updated"
    order = call.query.get("direction", "asc" if call.query.get("sort") else "desc")
    found.sort(key=lambda pair: (pair[1].updated_at if by_update else "", pair[0].id), reverse=order != "asc")
    return page(call, found, lambda pair: shapes_work.pull_simple(call.forge, call.repo, pair[0]))


@group("POST", REPO + "/pulls", "pull_requests", "read")
def open_pull(call: Call) -> Any:
    ends = (call.text("head"), call.text("base"))
    title = call.text("title")
    draft = call.get("draft", bool, False)
    # With read access only, a pull request can come from a fork of one's own.
    from_fork = ":" in ends[0] and ends[0].partition(":")[0].lower() != call.repo.owner.lower()
    if not from_fork and not access.allowed(call.forge, call.actor, call.repo, "pull_requests", "write", "write"):
        raise Refusal(403, "Resource not accessible by personal access token")
    pull = pulls.open_pull(call.forge, call.repo, call.actor, ends, (title, call.get("body", str)), draft=draft)
    return Reply(shapes_work.pull(call.forge, call.repo, pull), 201)


@group("GET", _PULL, "pull_requests")
def get_pull(call: Call) -> Any:
    pull = _pull(call)
    accept = call.headers.get("accept", "")
    if ".diff" in accept or ".patch" in accept:
        files = pulls.diff(call.forge, call.repo, pull)
        return PlainTextResponse("".join(f"diff --git a/{f.path} b/{f.path}\n{f.patch or ''}\n" for f in files))
    return shapes_work.pull(call.forge, call.repo, pull)


@group("PATCH", _PULL, "pull_requests", "read")
def edit_pull(call: Call) -> Any:
    pull = _pull(call)
    _own_or_write(call, pull)
    state = call.choice("state", ("open", "closed"))
    title = call.get("title", str)
    if title == "":
        msg = "PullRequest"
        raise invalid(msg, "title", "missing_field")
    pull = pulls.edit(call.forge, call.repo, call.actor, pull, title, call.get("body", str))
    base = call.get("base", str, pull.base_ref)
    if base != pull.base_ref:
        pull = pulls.set_base(call.forge, call.repo, call.actor, pull, base)
    if state is not None:
        pull = pulls.set_state(call.forge, call.repo, call.actor, pull, state)
    return shapes_work.pull(call.forge, call.repo, pull)


@group("GET", _PULL + "/files", "pull_requests")
def files(call: Call) -> Any:
    pull = _pull(call)
    found = pulls.diff(call.forge, call.repo, pull)[:_MOST_FILES]
    return page(call, found, lambda file: shapes.changes(call.forge, call.repo, pull.head_sha, [file])[0])


@group("GET", _PULL + "/commits", "pull_requests")
def commits(call: Call) -> Any:
    found = pulls.commits(call.forge, call.repo, _pull(call))[:_MOST_COMMITS]
    return page(call, found, lambda commit: shapes.commit(call.forge, call.repo, commit))


@group("GET", _PULL + "/merge", "pull_requests")
def is_merged(call: Call) -> Any:
    if not _pull(call).merged:
        raise Refusal(404, "Not Found")


@group("PUT", _PULL + "/merge", "contents")
def merge(call: Call) -> Any:
    wish = merging.Wish(
        call.get("merge_method", str, "merge"), call.get("sha", str, ""),
        call.get("commit_title", str, ""), call.get("commit_message", str, ""),
    )  # fmt: skip
    sha = merging.merge(call.forge, call.repo, call.actor, _pull(call), wish)
    return {"sha": sha, "merged": True, "message": "Pull Request successfully merged"}


@group("GET", _PULL + "/reviews", "pull_requests")
def list_reviews(call: Call) -> Any:
    found = call.forge.store.find(Review, "pull_id = ?", _pull(call).id)
    return page(call, found, lambda review: shapes_work.review(call.forge, call.repo, review))


@group("POST", _PULL + "/reviews", "pull_requests", "read")
def create_review(call: Call) -> Any:
    event = call.text("event")
    review = reviews.submit(
        call.forge, call.actor, _pull(call), event, call.get("body", str, ""), call.get("commit_id", str, "")
    )
    return shapes_work.review(call.forge, call.repo, review)


@group("GET", _REVIEW, "pull_requests")
def get_review(call: Call) -> Any:
    return shapes_work.review(call.forge, call.repo, _review(call))


@group("PUT", _REVIEW + "/dismissals", "pull_requests")
def dismiss_review(call: Call) -> Any:
    review = reviews.dismiss(call.forge, call.repo, call.actor, _review(call), call.text("message"))
    return shapes_work.review(call.forge, call.repo, review)


@group("GET", _PULL + "/requested_reviewers", "pull_requests")
def requested(call: Call) -> Any:
    users, teams = shapes_work.requested(call.forge, _pull(call))
    return {
        "users": [shapes.user(call.forge, user) for user in users],
        "teams": [shapes.team(call.forge, team) for team in teams],
    }


@group("POST", _PULL + "/requested_reviewers", "pull_requests")
def request_reviewers(call: Call) -> Any:
    pull = _pull(call)
    reviews.request(call.forge, call.repo, call.actor, pull, call.texts("reviewers"), call.texts("team_reviewers"))
    return Reply(shapes_work.pull_simple(call.forge, call.repo, pull), 201)


@group("DELETE", _PULL + "/requested_reviewers", "pull_requests")
def withdraw_reviewers(call: Call) -> Any:
    pull = _pull(call)
    reviews.withdraw(call.forge, call.repo, call.actor, pull, call.texts("reviewers"), call.texts("team_reviewers"))
    return shapes_work.pull_simple(call.forge, call.repo, pull)


def _pull(call: Call) -> Pull:
    return call.row(Pull, "repo_id = ? AND number = ?", call.repo.id, call.number("pull_number"))


def _review(call: Call) -> Review:
    return call.row(Review, "pull_id = ? AND id = ?", _pull(call).id, call.number("review_id"))


def _wanted(call: Call, pull: Pull, issue: Issue) -> bool:
    state = call.query.get("state", "open")
    head = call.query.get("head", "")
    owner = call.forge.store.get(Repo, pull.head_repo_id).owner
    return (
        state in ("all", issue.state)
        and call.query.get("base", pull.base_ref) == pull.base_ref
        and (not head or head == f"{owner}:{pull.head_ref}")
    )


def _own_or_write(call: Call, pull: Pull) -> None:
    own = call.forge.store.get(Issue, pull.id).user_id == call.actor.user.id
    if not own and not access.allowed(call.forge, call.actor, call.repo, "pull_requests", "write", "write"):
        raise Refusal(403, "Resource not accessible by personal access token")
