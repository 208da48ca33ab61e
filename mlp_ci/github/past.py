"""What happened to a pull request, from the records that GitHub's servers keep of it.

Git itself can be made to say anything: author, committer and date are what whoever pushed wrote. Who pushed, who took
a review back and when, that only GitHub knows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlp_ci.github.facts import DismissalFact, PullHistory, dismissal_fact, login_of
from mlp_ci.github.graphql import ask
from mlp_ci.github.wire import GitHubError, repository_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlp_ci.github.facts import CommitFact, PullDetail
    from mlp_ci.github.wire import Wire

# What makes GitHub look at a pull request anew. `automatic_base_change_succeeded`: its base branch was deleted.
RESTARTS = {"reopened", "base_ref_changed", "automatic_base_change_succeeded"}
# How far back pushes to other branches are read: before the pull request was opened, and how many at most.
BEFORE = timedelta(days=90)
PUSHES_READ = 3_000
AUTHORS = 100  # that one question asks for; GitHub gives no more
AUTHORS_QUERY = """\
query($owner: String!, $name: String!, $oid: GitObjectID!) {
  repository(owner: $owner, name: $name) {
    object(oid: $oid) { ... on Commit { authors(first: 100) { nodes { name email user { login } } } } }
  }
}
"""
_TRAILER = re.compile(r"^[ \t]*co-authored-by:[ \t]*(?P<name>[^<\n]*)<(?P<mail>[^>\n]*)>", re.IGNORECASE | re.MULTILINE)
# The address of an app's account. No person has a login with brackets, so nobody can hide behind one.
_APP = re.compile(r"(?:\d+\+)?(?P<login>[\w-]+\[bot\])@users\.noreply\.[\w.-]+", re.IGNORECASE)


def pull_history(wire: Wire, pull: PullDetail) -> PullHistory:
    """Who pushed it, who took reviews back, when it was reopened, whom its commits name as co-authors."""
    dismissals, restarted = _events(wire, pull)
    pushers, known = _pushers(wire, pull)
    co_authors: dict[str, tuple[str, ...]] = {}
    unresolved: list[str] = []
    for commit in pull.commits:
        if "co-authored-by:" in commit.message.lower():
            logins, strangers = _authors(wire, commit)
            co_authors[commit.sha] = logins
            unresolved += strangers
    return PullHistory(
        pushers=pushers,
        push_known=known,
        dismissals=dismissals,
        restarted=restarted,
        co_authors=co_authors,
        unresolved=tuple(dict.fromkeys(unresolved)),
    )


def _events(wire: Wire, pull: PullDetail) -> tuple[tuple[DismissalFact, ...], str]:
    place = wire.place
    path = repository_path(place.owner, place.repo, "issues", pull.number, "events")
    events = wire.pages(path, f"read what happened to pull request #{pull.number}")
    dismissed = [dismissal_fact(e) for e in events if e.get("event") == "review_dismissed"]
    restarts = [str(e.get("created_at") or "") for e in events if e.get("event") in RESTARTS]
    return tuple(sorted(dismissed, key=lambda d: (d.at, d.review))), max(restarts, default="")


def _pushers(wire: Wire, pull: PullDetail) -> tuple[tuple[str, ...], bool]:
    """Who pushed the commits, to whatever branch, and whether the push that brought the head is on record.

    A commit may have come to the repository on another branch than the pull request's, by somebody else. The record
    is that of the repository the branch is in. GitHub answers 404 where the token may not see it (the fork of a
    stranger): then nothing is known, which the policy refuses. A branch that is gone may be in the whole record only.
    """
    ours = {c.sha for c in pull.commits} | {pull.head_sha}
    whole = _recent(wire, pull) if pull.head_repo else None
    if whole is None:
        return (), False
    record, to_the_end = whole
    older = [] if to_the_end else _listed(pushes(wire, pull.head_repo, pull.head_ref)) or []
    found = [a for a in (*record, *older) if a["after"] in ours]
    who = dict.fromkeys(login_of(a.get("actor")) for a in found)
    brought = [a for a in found if a["after"] == pull.head_sha and a.get("ref") == f"refs/heads/{pull.head_ref}"]
    return tuple(login for login in who if login), any(login_of(a.get("actor")) for a in brought)


def _listed(record: Iterator[Mapping[str, Any]]) -> list[Mapping[str, Any]] | None:
    """All of a record; None where the token may not read it."""
    try:
        return list(record)
    except GitHubError as refusal:
        if refusal.status in (403, 404, 422):
            return None
        raise


def _recent(wire: Wire, pull: PullDetail) -> tuple[list[Mapping[str, Any]], bool] | None:
    """The pushes to all branches, back to some time before the pull request was opened; and whether these are all."""
    since = datetime.fromisoformat(pull.created_at) - BEFORE if pull.created_at else datetime.min.replace(tzinfo=UTC)
    cut = False

    def recent() -> Iterator[Mapping[str, Any]]:
        nonlocal cut
        for push in pushes(wire, pull.head_repo):
            if cut := datetime.fromisoformat(push["timestamp"]) < since:
                return
            yield push

    found = _listed(islice(recent(), PUSHES_READ))
    return None if found is None else (found, not cut and len(found) < PUSHES_READ)


def pushes(wire: Wire, repo: str, branch: str = "") -> Iterator[Mapping[str, Any]]:
    """GitHub's own record of what moved a branch (or any branch) of ``owner/name``, newest first; read lazily."""
    path = repository_path(*repo.split("/", 1), "activity")
    only = {"ref": f"refs/heads/{branch}"} if branch else {}
    return wire.each(path, f"read who pushed to {branch or repo}", **only)


def _authors(wire: Wire, commit: CommitFact) -> tuple[tuple[str, ...], list[str]]:
    """Logins of all who wrote a commit by its trailers too, and those of them whom GitHub does not know."""
    place, short = wire.place, commit.sha[:12]
    variables = {"owner": place.owner, "name": place.repo, "oid": commit.sha}
    answer = ask(wire, AUTHORS_QUERY, variables, f"read the authors of {short}")
    found = ((answer.get("repository") or {}).get("object") or {}).get("authors")
    if found is None:
        return (), [f"{short}: GitHub does not say who wrote it"]
    nodes: list[dict[str, Any]] = [n for n in found.get("nodes") or [] if n]
    logins = dict.fromkeys(login for n in nodes if (login := _login(n)))
    # The first is git's own author, whom the commit's facts already have. Everybody else must be known.
    strangers = [_shown(short, n.get("name"), n.get("email")) for n in nodes[1:] if not _login(n)]
    listed = {str(n.get("email") or "").strip().lower() for n in nodes}
    for name, mail in _TRAILER.findall(commit.message):
        if mail.strip().lower() not in listed and not _APP.fullmatch(mail.strip()):
            strangers.append(_shown(short, name, mail))
    if len(nodes) >= AUTHORS:
        strangers.append(f"{short}: names more authors than GitHub lists")
    return tuple(logins), strangers


def _login(node: dict[str, Any]) -> str:
    login = login_of(node.get("user"))
    app = _APP.fullmatch(str(node.get("email") or "").strip())
    return login or (app["login"] if app else "")


def _shown(short: str, name: object, mail: object) -> str:
    return f"{short}: {' '.join(str(name or '').split())} <{str(mail or '').strip()}>"
