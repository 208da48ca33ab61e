"""Pull requests: the list, the conversation with checks and merge, the files, and what a person does to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.sandbox.forge import access, checks, issues, merging, protection, reviews, shapes_work
from mlp_ci.sandbox.forge import pulls as rules
from mlp_ci.sandbox.forge.pages.diffs import file_diffs
from mlp_ci.sandbox.forge.pages.rendering import instant
from mlp_ci.sandbox.forge.pages.web import REPO, Group, Page, Visit, go
from mlp_ci.sandbox.forge.records import CheckRun, Comment, Event, Issue, Pull, Repo, Review, User
from mlp_ci.sandbox.forge.store import Refusal

if TYPE_CHECKING:
    from starlette.responses import Response

    from mlp_ci.sandbox.forge.access import Forge
    from mlp_ci.sandbox.forge.objects import Commit

group = Group()
PULL = REPO + "/pull/{number}"
REFRESH_SECONDS = 3


@dataclass(frozen=True)
class Row:
    """A pull request in a list. ``checks``: success | failure | pending, or None without any."""

    repo: Repo
    pull: Pull
    issue: Issue
    author: User
    checks: str | None
    reviews: str | None


@dataclass(frozen=True)
class Check:
    """A check run or a status as the merge box shows it."""

    name: str
    state: str
    detail: str
    address: str
    required: bool


def rows(forge: Forge, repo: Repo, state: str = "open") -> list[Row]:
    """Pull requests whose issue is open, closed or (``all``) either; the newest first."""
    found = []
    for issue in forge.store.find(Issue, "repo_id = ? AND is_pull = 1", repo.id, order="number DESC"):
        if state in ("all", issue.state):
            pull = forge.store.get(Pull, issue.id)
            author = forge.store.get(User, issue.user_id)
            found.append(Row(repo, pull, issue, author, _together(forge, repo, pull), _reviewed(forge, repo, pull)))
    return found


def state_of(pull: Pull, issue: Issue) -> str:
    """open | draft | merged | closed"""
    if pull.merged:
        return "merged"
    return "draft" if pull.draft and issue.state == "open" else issue.state


@group.get(REPO + "/pulls", "pull_requests")
def listing(visit: Visit) -> Page:
    state = visit.query.get("state", "open")
    found = rows(visit.forge, visit.repo, state if state in ("open", "closed", "all") else "open")
    return Page("pulls.html", {"rows": found, "state": state, "branches": _branches(visit)})


@group.post(REPO + "/pulls/new", "pull_requests", "read", back=listing)
def create(visit: Visit) -> Response:
    """Ask for a branch of this repository to be merged into the default branch."""
    title, head = visit.form.get("title", "").strip(), visit.form.get("head", "")
    if not title:
        raise Refusal(422, "A pull request needs a title")
    ends = (head, visit.repo.default_branch)
    text = (title, visit.form.get("body") or None)
    pull = rules.open_pull(visit.forge, visit.repo, visit.actor, ends, text, draft=False)
    return go(f"{visit.home}/pull/{pull.number}")


def _branches(visit: Visit) -> list[str]:
    """Branches that a pull request could be opened for."""
    names = [ref.removeprefix("refs/heads/") for ref in visit.forge.git.refs(visit.repo, "refs/heads")]
    asked = {row.pull.head_ref for row in rows(visit.forge, visit.repo)}
    return sorted(name for name in names if name != visit.repo.default_branch and name not in asked)


@group.get(PULL, "pull_requests")
def show(visit: Visit) -> Page:
    pull, values = _shell(visit)
    box = _merge_box(visit, pull)
    values |= {"timeline": _timeline(visit, pull), "box": box}
    busy = any(check.state in ("pending", "queued", "in_progress", "expected") for check in box["checks"])
    return Page("pull.html", values, refresh=REFRESH_SECONDS if busy or visit.stirring else 0)


@group.get(PULL + "/files", "pull_requests")
def files(visit: Visit) -> Page:
    pull, values = _shell(visit)
    return Page("pull_files.html", {**values, "files": file_diffs(rules.diff(visit.forge, visit.repo, pull))})


@group.post(PULL + "/review", "pull_requests", "read", back=show)
def review(visit: Visit) -> Response:
    """Comment, approve, or ask for changes; what is reviewed is the commit that the page showed."""
    pull = _pull(visit)
    text = visit.form.get("body", "").strip()
    event = visit.form.get("event", "")
    if event == "COMMENT":
        if not text:
            raise Refusal(422, "A comment needs some text")
        issue = visit.forge.store.get(Issue, pull.id)
        made = issues.add_comment(visit.forge, visit.repo, visit.actor, issue, text)
        return go(f"{_path(visit, pull)}#comment-{made.id}")
    if visit.form.get("head") != pull.head_sha:
        raise Refusal(409, "New commits have come since you opened this page: read them first, then review again")
    row = reviews.submit(visit.forge, visit.actor, pull, event, text, pull.head_sha)
    return go(f"{_path(visit, pull)}#review-{row.id}")


@group.post(PULL + "/merge", "contents", back=show)
def merge(visit: Visit) -> Response:
    pull = _pull(visit)
    wish = merging.Wish(method=visit.form.get("method", "merge"), sha=visit.form.get("head", ""))
    merging.merge(visit.forge, visit.repo, visit.actor, pull, wish)
    return go(_path(visit, pull))


@group.post(PULL + "/state", "pull_requests", "read", back=show)
def set_state(visit: Visit) -> Response:
    pull = _pull(visit)
    own = visit.forge.store.get(Issue, pull.id).user_id == visit.actor.user.id
    if not own and not visit.may("pull_requests", "write", "write"):
        raise Refusal(403, "Only its author, or somebody with write access, may close or reopen a pull request")
    state = visit.form.get("state", "")
    if state not in ("open", "closed"):
        raise Refusal(422, "A pull request is open or closed")
    rules.set_state(visit.forge, visit.repo, visit.actor, pull, state)
    return go(_path(visit, pull))


def _pull(visit: Visit) -> Pull:
    return visit.row(Pull, "repo_id = ? AND number = ?", visit.repo.id, visit.number("number"))


def _path(visit: Visit, pull: Pull) -> str:
    return f"{visit.home}/pull/{pull.number}"


def _shell(visit: Visit) -> tuple[Pull, dict[str, Any]]:
    """What both tabs of a pull request show."""
    pull = _pull(visit)
    store = visit.forge.store
    issue = store.get(Issue, pull.id)
    changes = visit.forge.git.diff(visit.repo, _start(visit, pull), pull.head_sha, patch=False)
    return pull, {
        "pull": pull,
        "issue": issue,
        "author": store.get(User, issue.user_id),
        "state": state_of(pull, issue),
        "merger": store.get(User, pull.merged_by) if pull.merged_by else None,
        "head_repo": store.get(Repo, pull.head_repo_id),
        "labels": shapes_work.labels_of(visit.forge, issue.id),
        "changed": len(changes),
        "additions": sum(change.additions for change in changes),
        "deletions": sum(change.deletions for change in changes),
        "here": _path(visit, pull),
    }


def _start(visit: Visit, pull: Pull) -> str:
    return visit.forge.git.merge_base(visit.repo, pull.base_sha, pull.head_sha) or pull.base_sha


def _timeline(visit: Visit, pull: Pull) -> list[dict[str, Any]]:
    """Comments, reviews and commits in the order they came."""
    store = visit.forge.store
    items: list[dict[str, Any]] = [
        {"kind": "commit", "at": at, "commit": commit, "who": commit.author.name} for commit, at in _pushed(visit, pull)
    ]
    items += [
        {"kind": "comment", "at": row.created_at, "comment": row, "who": store.get(User, row.user_id)}
        for row in store.find(Comment, "issue_id = ?", pull.id)
    ]
    items += [
        {"kind": "review", "at": row.submitted_at, "review": row, "who": store.get(User, row.user_id)}
        for row in store.find(Review, "pull_id = ?", pull.id)
    ]
    return sorted(items, key=lambda item: instant(item["at"]))


def _pushed(visit: Visit, pull: Pull) -> list[tuple[Commit, str]]:
    """The commits, each with the time it was pushed: its own date is whatever its author's clock said, or wished."""
    commits = rules.commits(visit.forge, visit.repo, pull)
    places = {commit.sha: number for number, commit in enumerate(commits)}
    times: list[str] = []
    where = "repo_id = ? AND number = ? AND event = 'pull_request' AND action IN ('opened', 'synchronize')"
    for event in visit.forge.store.find(Event, where, visit.repo.id, pull.number):
        count = places.get(event.head_sha, -1) + 1 - len(times)
        times += [event.created_at] * count
    times += [commit.committer.date for commit in commits[len(times) :]]
    return list(zip(commits, times, strict=True))


def _merge_box(visit: Visit, pull: Pull) -> dict[str, Any]:
    forge, repo = visit.forge, visit.repo
    issue = forge.store.get(Issue, pull.id)
    rule = protection.rule_of(forge, repo, pull.base_ref)
    verdicts = protection.verdict_reviews(forge, pull)
    waiting, teams = shapes_work.requested(forge, pull)
    may_merge = visit.may("contents", "write", "write")
    return {
        "checks": merge_checks(forge, repo, pull),
        "reviews": [
            {
                "login": login,
                "state": row.state,
                "old": row.commit_id != pull.head_sha,
                "counts": _counts(forge, repo, login),
            }
            for login, row in verdicts.items()
        ],
        "asked": [user.login for user in waiting] + [team.slug for team in teams],
        "needed": rule.approvals if rule else 0,
        "blockers": protection.blockers(forge, repo, pull) if issue.state == "open" else [],
        "bypass": bool(rule and protection.may_bypass(forge, repo, rule, visit.actor)),
        "mergeable": protection.mergeable_state(forge, repo, pull),
        "may_merge": may_merge,
        "may_close": may_merge or issue.user_id == visit.actor.user.id,
        "own": issue.user_id == visit.actor.user.id,
    }


def _counts(forge: Forge, repo: Repo, login: str) -> bool:
    """Whether somebody's review counts for branch protection."""
    who = forge.store.user(login)
    return who is not None and access.at_least(access.role(forge, who, repo), "write")


def merge_checks(forge: Forge, repo: Repo, pull: Pull) -> list[Check]:
    """Every check run and status of the head, and the required ones that nobody has reported yet."""
    rule = protection.rule_of(forge, repo, pull.base_ref)
    required = list(rule.required_checks) if rule else []
    found = [
        Check(run.name, run.conclusion or run.status, _said(run), run.details_url or "", run.name in required)
        for run in checks.check_runs(forge, repo, pull.head_sha)
    ]
    found += [
        Check(row.context, row.state, row.description or "", row.target_url or "", row.context in required)
        for row in checks.latest_statuses(forge, repo, pull.head_sha)
    ]
    names = {check.name for check in found}
    return found + [Check(name, "expected", "", "", True) for name in required if name not in names]


def _said(run: CheckRun) -> str:
    return str((run.output or {}).get("title") or "")


def _together(forge: Forge, repo: Repo, pull: Pull) -> str | None:
    states = set(checks.verdicts(forge, repo, pull.head_sha).values())
    return next((state for state in ("failure", "pending", "success") if state in states), None)


def _reviewed(forge: Forge, repo: Repo, pull: Pull) -> str | None:
    """What the reviews say together, of those by people with write access."""
    verdicts = protection.verdict_reviews(forge, pull)
    states = {row.state for login, row in verdicts.items() if _counts(forge, repo, login)}
    return next((state for state in ("CHANGES_REQUESTED", "APPROVED") if state in states), None)
