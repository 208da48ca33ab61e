"""Who moved which branch, and what happened to an issue or pull request."""

from __future__ import annotations

import base64
import binascii
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from mlp_ci import clock
from mlp_ci.sandbox.forge import history, shapes, shapes_work
from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, Reply, page, page_size
from mlp_ci.sandbox.forge.records import Activity, Issue, IssueEvent
from mlp_ci.sandbox.forge.store import Refusal

group = Group()
_SCOPE = "issues|pull_requests"
_KINDS = (*history.KINDS, "merge_queue_merge")
_PERIODS = {"day": 1, "week": 7, "month": 30, "quarter": 91, "year": 365}


@group("GET", REPO + "/activity", "contents")
def activity(call: Call) -> Any:
    where, args = _wanted(call)
    newest_first = _choice(call, "direction", ("desc", "asc"), "desc") == "desc"
    after, before = (_cursor(call, name) for name in ("after", "before"))
    onwards, backwards = ("id < ?", "id > ?") if newest_first else ("id > ?", "id < ?")
    size = page_size(call)
    forward = before is None
    if after is not None:
        where, args = f"{where} AND {onwards}", [*args, after]
    elif before is not None:
        where, args = f"{where} AND {backwards}", [*args, before]
    order = "id DESC" if newest_first == forward else "id"
    # One more than asked for tells whether there is another page.
    rows = call.forge.store.find(Activity, where, *args, order=f"{order} LIMIT {size + 1}")
    more, rows = len(rows) > size, rows[:size]
    rows = rows if forward else rows[::-1]
    links = []
    if rows and (more if forward else True):
        links.append(_link(call, "next", "after", rows[-1].id))
    if rows and (after is not None or (not forward and more)):
        links.append(_link(call, "prev", "before", rows[0].id))
    data = [shapes.activity(call.forge, call.repo, row) for row in rows]
    return Reply(data, headers={"Link": ", ".join(links)} if links else {})


@group("GET", REPO + "/issues/{issue_number}/events", _SCOPE)
def issue_events(call: Call) -> Any:
    issue = call.row(Issue, "repo_id = ? AND number = ?", call.repo.id, call.number("issue_number"))
    found = call.forge.store.find(IssueEvent, "issue_id = ?", issue.id)
    return page(call, found, lambda event: shapes_work.issue_event(call.forge, call.repo, event))


@group("GET", REPO + "/issues/events/{event_id}", _SCOPE)
def issue_event(call: Call) -> Any:
    event = call.row(IssueEvent, "repo_id = ? AND id = ?", call.repo.id, call.number("event_id"))
    issue = shapes_work.issue(call.forge, call.repo, call.forge.store.get(Issue, event.issue_id))
    return {**shapes_work.issue_event(call.forge, call.repo, event), "issue": issue}


def _wanted(call: Call) -> tuple[str, list[Any]]:
    """The condition that the query's filters make, and its values."""
    where = "repo_id = ?"
    args: list[Any] = [call.repo.id]
    if ref := call.query.get("ref"):
        where, args = f"{where} AND ref = ?", [*args, f"refs/heads/{ref.removeprefix('refs/heads/')}"]
    if kind := _choice(call, "activity_type", _KINDS):
        where, args = f"{where} AND kind = ?", [*args, kind]
    if login := call.query.get("actor"):
        who = call.forge.store.user(login)
        where, args = f"{where} AND actor_id = ?", [*args, who.id if who else 0]
    if period := _choice(call, "time_period", tuple(_PERIODS)):
        since = clock.now() - timedelta(days=_PERIODS[period])
        where, args = f"{where} AND at >= ?", [*args, since.strftime("%Y-%m-%dT%H:%M:%SZ")]
    return where, args


def _choice(call: Call, name: str, options: tuple[str, ...], default: str = "") -> str:
    value = call.query.get(name, default)
    if value and value not in options:
        raise Refusal(422, f"Invalid value for {name}: {value}")
    return value


def _cursor(call: Call, name: str) -> int | None:
    text = call.query.get(name)
    if not text:
        return None
    try:
        return int(base64.urlsafe_b64decode(text).decode().removeprefix("activity:"))
    except (binascii.Error, ValueError) as error:
        raise Refusal(422, f"Invalid cursor: {text}") from error


def _link(call: Call, rel: str, name: str, at: int) -> str:
    query = {key: value for key, value in call.query.items() if key not in ("after", "before")}
    query[name] = base64.urlsafe_b64encode(f"activity:{at}".encode()).decode()
    return f'<{call.url}?{urlencode(query)}>; rel="{rel}"'
