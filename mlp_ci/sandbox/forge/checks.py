"""Commit statuses and check runs: writing them, and what they say together about a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.sandbox.forge.records import CheckRun, CheckSuite, Repo, Status, User
from mlp_ci.sandbox.forge.store import stamp

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.access import Forge

GOOD = ("success", "neutral", "skipped")
ACTIONS_APP = "github-actions"
ACTIONS_APP_NUMBER = 15368  # as on github.com


def set_status(forge: Forge, repo: Repo, sha: str, creator: User, **values: Any) -> Status:
    """Add a commit status; ``values``: context, state, description, target_url. The latest of a context counts."""
    return forge.store.insert(Status, repo_id=repo.id, sha=sha, creator_id=creator.id, created_at=stamp(), **values)


def statuses(forge: Forge, repo: Repo, sha: str) -> list[Status]:
    """All statuses of a commit, newest first."""
    return forge.store.find(Status, "repo_id = ? AND sha = ?", repo.id, sha, order="id DESC")


def latest_statuses(forge: Forge, repo: Repo, sha: str) -> list[Status]:
    """The newest status of each context, in the order the contexts came."""
    newest: dict[str, Status] = {}
    for status in reversed(statuses(forge, repo, sha)):
        newest[status.context] = status
    return list(newest.values())


def combined_state(latest: list[Status]) -> str:
    states = {status.state for status in latest}
    if states & {"failure", "error"}:
        return "failure"
    return "success" if states == {"success"} else "pending"


def suite_for(
    forge: Forge, repo: Repo, sha: str, app: str, *, branch: str | None = None, own: bool = False
) -> CheckSuite:
    """The check suite of ``app`` on a commit; ``own`` makes a new one (every workflow run has its own)."""
    with forge.store.tx():
        where = "repo_id = ? AND sha = ? AND app = ? AND run_id IS NULL"
        found = None if own else forge.store.first(CheckSuite, where, repo.id, sha, app)
        return found or forge.store.insert(
            CheckSuite, repo_id=repo.id, sha=sha, app=app, branch=branch, created_at=stamp()
        )


def create_check(forge: Forge, suite: CheckSuite, name: str, **values: Any) -> CheckRun:
    """Add a check run; ``values`` as in ``records.CheckRun`` (status, conclusion, details_url, output, …)."""
    fields = {"status": "queued", "output": {}, **values}
    return forge.store.insert(CheckRun, repo_id=suite.repo_id, suite_id=suite.id, sha=suite.sha, name=name, **fields)


def check_runs(forge: Forge, repo: Repo, sha: str) -> list[CheckRun]:
    """The check runs of a commit; of those with the same name in the same app only the newest."""
    newest: dict[tuple[str, str], CheckRun] = {}
    for check in forge.store.find(CheckRun, "repo_id = ? AND sha = ?", repo.id, sha):
        newest[forge.store.get(CheckSuite, check.suite_id).app, check.name] = check
    return list(newest.values())


def verdicts(forge: Forge, repo: Repo, sha: str, app: int | None = None) -> dict[str, str]:
    """Status context or check run name → success | failure | pending; with ``app``, only what this app said."""
    store = forge.store
    found = {
        check.name: _verdict(check)
        for check in check_runs(forge, repo, sha)
        if app is None or app_number(forge, store.get(CheckSuite, check.suite_id).app) == app
    }
    said = [
        status
        for status in reversed(statuses(forge, repo, sha))
        if app is None or app_number(forge, store.get(User, status.creator_id).login) == app
    ]
    return {**found, **{status.context: combined_state([status]) for status in said}}


def app_number(forge: Forge, name: str) -> int | None:
    """The id of the app with this slug or of whose bot this is the login; None for people."""
    slug = name.removesuffix("[bot]")
    if slug == ACTIONS_APP:
        return ACTIONS_APP_NUMBER
    bot = forge.store.user(f"{slug}[bot]")
    return bot.id if bot is not None and name in (slug, bot.login) and forge.store.user(slug) is None else None


def suite_state(forge: Forge, suite: CheckSuite) -> tuple[str, str | None]:
    """Status and conclusion of a suite, from its check runs."""
    runs = forge.store.find(CheckRun, "suite_id = ?", suite.id)
    if not runs or any(c.status != "completed" for c in runs):
        started = any(c.status != "queued" for c in runs)
        return ("in_progress" if started else "queued"), None
    conclusions = [c.conclusion or "neutral" for c in runs]
    bad = [c for c in conclusions if c not in GOOD]
    return "completed", bad[0] if bad else "success"


def _verdict(check: CheckRun) -> str:
    if check.status != "completed":
        return "pending"
    return "success" if check.conclusion in GOOD else "failure"
