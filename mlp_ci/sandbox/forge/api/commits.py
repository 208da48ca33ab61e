"""Commits: their history, one of them, comparisons, statuses and checks on them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mlp_ci.sandbox.forge import access, checks, shapes, shapes_checks, shapes_work
from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, Reply, page
from mlp_ci.sandbox.forge.records import CheckRun, CheckSuite, Pull
from mlp_ci.sandbox.forge.repos import EMPTY_TREE
from mlp_ci.sandbox.forge.store import Refusal, invalid, parse_date, stamp

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.objects import Commit

group = Group()
_CHECK_STATES = ("queued", "in_progress", "completed", "waiting", "requested", "pending")
_CONCLUSIONS = ("success", "failure", "neutral", "cancelled", "skipped", "timed_out", "action_required")


@group("GET", REPO + "/commits", "contents")
def commits(call: Call) -> Any:
    if not call.forge.git.refs(call.repo, "refs/heads"):
        raise Refusal(409, "Git Repository is empty.")
    rev = call.query.get("sha") or call.repo.default_branch
    sha = call.forge.git.resolve(call.repo, rev)
    if sha is None:
        raise Refusal(404, f"No commit found for SHA: {rev}")
    options = [f"--{key}={parse_date(call.query[key])}" for key in ("since", "until") if call.query.get(key)]
    author = call.query.get("author")
    if author:
        who = call.forge.store.user(author)
        options += ["--fixed-strings", f"--author=<{access.email_of(who) if who else author}>"]
    found = call.forge.git.log(call.repo, *options, sha, path=call.query.get("path", "").strip("/"))
    return page(call, found, lambda commit: shapes.commit(call.forge, call.repo, commit))


@group("GET", REPO + "/commits/{ref}", "contents")
def commit(call: Call) -> Any:
    sha = call.commit(call.params["ref"])
    found = call.forge.git.commit(call.repo, sha)
    files = call.forge.git.diff(call.repo, found.parents[0] if found.parents else EMPTY_TREE, sha)
    added, removed = sum(f.additions for f in files), sum(f.deletions for f in files)
    return {
        **shapes.commit(call.forge, call.repo, found),
        "stats": {"additions": added, "deletions": removed, "total": added + removed},
        "files": shapes.changes(call.forge, call.repo, sha, files),
    }


@group("GET", REPO + "/commits/{commit_sha}/pulls", "pull_requests|contents")
def pulls(call: Call) -> Any:
    sha = call.commit(call.params["commit_sha"])
    found = [
        p for p in call.forge.store.find(Pull, "repo_id = ?", call.repo.id, order="id DESC") if _holds(call, p, sha)
    ]
    return page(call, found, lambda pull: shapes_work.pull_simple(call.forge, call.repo, pull))


@group("GET", REPO + "/compare/{basehead}", "contents")
def compare(call: Call) -> Any:
    git = call.forge.git
    parts = re.split(r"\.\.\.?", call.params["basehead"], maxsplit=1)
    ends = [git.resolve(call.repo, part.rpartition(":")[2]) for part in parts]
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        raise Refusal(404, "Not Found")
    base, head = ends[0], ends[1]
    fork = git.merge_base(call.repo, base, head)
    if fork is None:
        raise Refusal(404, f"No common ancestor between {parts[0]} and {parts[1]}.")
    ahead = git.log(call.repo, "--reverse", "--topo-order", f"{base}..{head}")
    behind = git.count(call.repo, head, base)
    word = {(False, False): "identical", (True, False): "ahead", (False, True): "behind"}
    html = f"{shapes.html_url(call.forge, call.repo)}/compare/{call.params['basehead']}"
    return {
        "url": call.url,
        "html_url": html,
        "permalink_url": f"{shapes.html_url(call.forge, call.repo)}/compare/{base}...{head}",
        "diff_url": f"{html}.diff",
        "patch_url": f"{html}.patch",
        "base_commit": _shape(call, git.commit(call.repo, base)),
        "merge_base_commit": _shape(call, git.commit(call.repo, fork)),
        "status": word.get((bool(ahead), bool(behind)), "diverged"),
        "ahead_by": len(ahead),
        "behind_by": behind,
        "total_commits": len(ahead),
        "commits": [_shape(call, c) for c in ahead[:250]],
        "files": shapes.changes(call.forge, call.repo, head, git.diff(call.repo, fork, head)),
    }


# --- statuses


@group("POST", REPO + "/statuses/{sha}", "statuses")
def create_status(call: Call) -> Any:
    sha = call.commit(call.params["sha"])
    state = call.choice("state", ("error", "failure", "pending", "success"))
    if state is None:
        msg = "Status"
        raise invalid(msg, "state", "missing_field")
    description = call.get("description", str)
    if description and len(description) > 140:
        msg = "Status"
        raise invalid(msg, "description", "custom", "description is too long (maximum is 140 characters)")
    status = checks.set_status(
        call.forge, call.repo, sha, call.actor.user, state=state, description=description,
        context=call.get("context", str, "default"), target_url=call.get("target_url", str),
    )  # fmt: skip
    return Reply(shapes_checks.status(call.forge, call.repo, status), 201)


@group("GET", REPO + "/commits/{ref}/statuses", "statuses")
def statuses(call: Call) -> Any:
    found = checks.statuses(call.forge, call.repo, call.commit(call.params["ref"]))
    return page(call, found, lambda status: shapes_checks.status(call.forge, call.repo, status))


@group("GET", REPO + "/commits/{ref}/status", "statuses")
def combined_status(call: Call) -> Any:
    sha = call.commit(call.params["ref"])
    latest = checks.latest_statuses(call.forge, call.repo, sha)
    api = f"{shapes.repo_url(call.forge, call.repo)}/commits/{sha}"
    reply = page(call, latest, lambda status: shapes_checks.status(call.forge, call.repo, status), "statuses")
    reply.data |= {
        "state": checks.combined_state(latest),
        "sha": sha,
        "repository": shapes.minimal_repository(call.forge, call.repo),
        "commit_url": api,
        "url": f"{api}/status",
    }
    return reply


# --- check runs


@group("POST", REPO + "/check-runs", "checks")
def create_check(call: Call) -> Any:
    app = _app(call)
    sha = call.commit(call.text("head_sha"))
    suite = checks.suite_for(call.forge, call.repo, sha, app)
    check = checks.create_check(call.forge, suite, call.text("name"), **_check_values(call, None))
    return Reply(shapes_checks.check_run(call.forge, call.repo, check), 201)


@group("GET", REPO + "/check-runs/{check_run_id}", "checks")
def get_check(call: Call) -> Any:
    return shapes_checks.check_run(call.forge, call.repo, _check(call))


@group("PATCH", REPO + "/check-runs/{check_run_id}", "checks")
def update_check(call: Call) -> Any:
    check = _check(call)
    if call.forge.store.get(CheckSuite, check.suite_id).app != _app(call):
        raise Refusal(403, "Invalid app_id - check run can only be modified by the GitHub App that created it.")
    name = call.get("name", str, check.name)
    check = call.forge.store.update(check, name=name, **_check_values(call, check))
    return shapes_checks.check_run(call.forge, call.repo, check)


@group("GET", REPO + "/commits/{ref}/check-runs", "checks")
def check_runs(call: Call) -> Any:
    found = checks.check_runs(call.forge, call.repo, call.commit(call.params["ref"]))
    if call.query.get("check_name"):
        found = [check for check in found if check.name == call.query["check_name"]]
    if call.query.get("status"):
        found = [check for check in found if check.status == call.query["status"]]
    return page(call, found, lambda check: shapes_checks.check_run(call.forge, call.repo, check), "check_runs")


@group("GET", REPO + "/commits/{ref}/check-suites", "checks")
def check_suites(call: Call) -> Any:
    sha = call.commit(call.params["ref"])
    found = call.forge.store.find(CheckSuite, "repo_id = ? AND sha = ?", call.repo.id, sha)
    at = call.forge.git.commit(call.repo, sha)
    return page(call, found, lambda suite: shapes_checks.check_suite(call.forge, call.repo, suite, at), "check_suites")


def _app(call: Call) -> str:
    """The app that asks; a run's token is that of GitHub's own app for Actions."""
    token = call.actor.token
    if token is None or token.kind == "user":
        raise Refusal(403, "You must authenticate via a GitHub App.")
    return checks.ACTIONS_APP if token.kind == "run" else call.actor.user.login.removesuffix("[bot]")


def _check(call: Call) -> CheckRun:
    return call.row(CheckRun, "repo_id = ? AND id = ?", call.repo.id, call.number("check_run_id"))


def _check_values(call: Call, old: CheckRun | None) -> dict[str, Any]:
    conclusion = call.choice("conclusion", _CONCLUSIONS, old.conclusion if old else None)
    given = call.choice("status", _CHECK_STATES, old.status if old else "queued")
    state = "completed" if call.body.get("conclusion") else given
    if state == "completed" and conclusion is None:
        msg = "CheckRun"
        raise invalid(msg, "conclusion", "missing_field")
    output = call.get("output", dict, old.output if old else {})
    if any(not isinstance(output.get(key, ""), (str, type(None))) for key in ("title", "summary", "text")):
        msg = "CheckRun"
        raise invalid(msg, "output")
    started = call.get("started_at", str, (old.started_at if old else None) or stamp())
    completed = call.get("completed_at", str, stamp()) if state == "completed" else None
    return {
        "status": state,
        "conclusion": conclusion if state == "completed" else None,
        "details_url": call.get("details_url", str, old.details_url if old else None),
        "external_id": call.get("external_id", str, old.external_id if old else None),
        "output": {key: output.get(key) for key in ("title", "summary", "text")},
        "started_at": parse_date(started),
        "completed_at": parse_date(completed) if completed else None,
    }


def _holds(call: Call, pull: Pull, sha: str) -> bool:
    """Whether the commit is one of the pull request's, or of those that merging it (by rebase, say) has made."""
    git = call.forge.git
    merged = pull.merge_sha if pull.merged else None
    if sha in (pull.head_sha, merged):
        return True
    if merged and git.is_ancestor(call.repo, sha, merged) and not git.is_ancestor(call.repo, sha, pull.base_sha):
        return True
    return git.is_ancestor(call.repo, sha, pull.head_sha) and not git.is_ancestor(call.repo, sha, pull.base_sha)


def _shape(call: Call, commit: Commit) -> dict[str, Any]:
    return shapes.commit(call.forge, call.repo, commit)
