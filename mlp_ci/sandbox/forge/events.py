"""The queue of things that may start workflows, with payloads as GitHub's webhooks carry them.

An event stays ``new`` until the runner takes it, ``taken`` until the runner says it is done; after a crash the
taken ones are handed out again, and because a run is unique per event and workflow file, nothing starts twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.sandbox.forge import shapes, shapes_work
from mlp_ci.sandbox.forge.access import ACTIONS_BOT, Actor, Forge, email_of
from mlp_ci.sandbox.forge.records import Comment, Event, Issue, Pull, Repo, Review, User
from mlp_ci.sandbox.forge.repos import ZERO
from mlp_ci.sandbox.forge.store import Refusal, Store, stamp

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.objects import Commit

# These start workflows even when a run's own token causes them, as on github.com.
ALWAYS_LOUD = ("workflow_dispatch", "repository_dispatch")
_COMMITS_SHOWN = 20


def take_events(store: Store, limit: int = 50) -> list[Event]:
    """Hand out new events that may start workflows, oldest first; they are ``taken`` from now on."""
    with store.tx():
        new = store.find(Event, "state = 'new' AND suppressed = 0", order=f"id LIMIT {int(limit)}")
        return [store.update(event, state="taken") for event in new]


def finish_event(store: Store, event: Event) -> None:
    """Say that an event's runs have all been created, run and recorded (or that it starts none)."""
    store.update(event, state="done")


def release_events(store: Store) -> int:
    """Put events that were taken but not finished back into the queue; the runner calls it when it starts."""
    with store.tx():
        return len([store.update(e, state="new") for e in store.find(Event, "state = 'taken'")])


def enqueue(forge: Forge, repo: Repo, actor: Actor, event: str, payload: dict[str, Any], **facts: Any) -> Event:
    """Record an event; ``facts``: ref, sha and head_sha (see ``records.Event``), number for a pull request or issue."""
    quiet = actor.quiet and event not in ALWAYS_LOUD
    full = {**payload, "repository": shapes.repository(forge, repo), "sender": shapes.user(forge, actor.user)}
    owner = forge.store.get(User, repo.owner_id)
    if owner.type == "Organization":
        full["organization"] = shapes.organization(forge, owner)
    return forge.store.insert(
        Event,
        repo_id=repo.id,
        event=event,
        action=payload.get("action"),
        payload=full,
        actor=actor.user.login,
        state="done" if quiet else "new",
        suppressed=quiet,
        created_at=stamp(),
        **facts,
    )


def pushed(forge: Forge, repo: Repo, actor: Actor, ref: str, old: str, new: str) -> Event:
    """``ref`` went from ``old`` to ``new`` (ZERO: it is new, or gone)."""
    git = forge.git
    commits: list[Commit] = []
    if new != ZERO and git.kind(repo, new) == "commit":
        others = [sha for name, sha in git.refs(repo, "refs/heads").items() if name != ref]
        known = ["--not", *others] if old == ZERO else [f"^{old}"]
        commits = list(reversed(git.log(repo, f"--max-count={_COMMITS_SHOWN}", new, *known)))
    head = git.commit(repo, new) if new != ZERO else None
    html = shapes.html_url(forge, repo)
    span = f"{old[:12]}...{new[:12]}" if ZERO not in (old, new) else new[:12]
    payload = {
        "ref": ref,
        "before": old,
        "after": new,
        "created": old == ZERO,
        "deleted": new == ZERO,
        "forced": ZERO not in (old, new) and not git.is_ancestor(repo, old, new),
        "base_ref": None,
        "compare": f"{html}/compare/{span}",
        "commits": [_pushed_commit(forge, repo, commit) for commit in commits],
        "head_commit": _pushed_commit(forge, repo, head) if head else None,
        "pusher": {"name": actor.user.login, "email": email_of(actor.user)},
    }
    return enqueue(forge, repo, actor, "push", payload, ref=ref, sha=new, head_sha=new)


def _pushed_commit(forge: Forge, repo: Repo, commit: Commit) -> dict[str, Any]:
    git = forge.git
    parent = commit.parents[0] if commit.parents else None
    files = git.diff(repo, parent, commit.sha, patch=False) if parent else []
    paths: dict[str, list[str]] = {"added": [], "removed": [], "modified": []}
    for file in files:
        paths.get(file.status, paths["modified"]).append(file.path)
    if parent is None:
        paths["added"] = [e.path for e in git.ls(repo, commit.tree, recursive=True) if e.kind == "blob"]
    return {
        **shapes.simple_commit(commit),
        "distinct": True,
        "url": f"{shapes.html_url(forge, repo)}/commit/{commit.sha}",
        **paths,
    }


def pull_event(forge: Forge, repo: Repo, actor: Actor, pull: Pull, action: str, **extra: Any) -> Event:
    """A ``pull_request`` event; ``pull_request_target`` workflows start from the same one.

    ``sha`` is the test merge; it is empty while the branches conflict, and then ``pull_request`` starts nothing.
    """
    payload = {"action": action, "number": pull.number, "pull_request": _pull_payload(forge, repo, pull), **extra}
    return enqueue(forge, repo, actor, "pull_request", payload, **_pull_facts(repo, pull))


def review_event(forge: Forge, repo: Repo, actor: Actor, pull: Pull, review: Review, action: str) -> Event:
    shape = {
        **shapes_work.review(forge, repo, review),
        "state": review.state.lower(),
        "updated_at": review.submitted_at,
    }
    payload = {"action": action, "review": shape, "pull_request": _pull_payload(forge, repo, pull)}
    return enqueue(forge, repo, actor, "pull_request_review", payload, **_pull_facts(repo, pull))


def _pull_payload(forge: Forge, repo: Repo, pull: Pull) -> dict[str, Any]:
    return shapes_work.pull(forge, repo, pull)


def _pull_facts(repo: Repo, pull: Pull) -> dict[str, Any]:
    ref = f"refs/heads/{pull.base_ref}" if pull.merged else f"refs/pull/{pull.number}/merge"
    return {"ref": ref, "sha": pull.merge_sha or "", "head_sha": pull.head_sha, "number": pull.number}


def issue_event(forge: Forge, repo: Repo, actor: Actor, issue: Issue, action: str, **extra: Any) -> Event:
    payload = {"action": action, "issue": shapes_work.issue(forge, repo, issue), **extra}
    return enqueue(forge, repo, actor, "issues", payload, number=issue.number, **_default_facts(forge, repo))


def comment_event(forge: Forge, repo: Repo, actor: Actor, comment: Comment, action: str) -> Event:
    issue = forge.store.get(Issue, comment.issue_id)
    payload = {
        "action": action,
        "issue": shapes_work.issue(forge, repo, issue),
        "comment": shapes_work.comment(forge, repo, comment),
    }
    return enqueue(forge, repo, actor, "issue_comment", payload, number=issue.number, **_default_facts(forge, repo))


def dispatched(forge: Forge, repo: Repo, actor: Actor, path: str, ref: str, inputs: dict[str, Any]) -> Event:
    """``workflow_dispatch`` of the workflow file ``path`` on a branch or tag; an unknown ref is a 422."""
    sha = forge.git.resolve(repo, ref)
    full = _full_ref(forge, repo, ref)
    if sha is None or full is None:
        raise Refusal(422, f"No ref found for: {ref}")
    payload = {"inputs": inputs or None, "ref": full, "workflow": path}
    return enqueue(forge, repo, actor, "workflow_dispatch", payload, ref=full, sha=sha, head_sha=sha)


def repository_dispatched(forge: Forge, repo: Repo, actor: Actor, kind: str, client: dict[str, Any]) -> Event:
    payload = {"action": kind, "branch": repo.default_branch, "client_payload": client}
    return enqueue(forge, repo, actor, "repository_dispatch", payload, **_default_facts(forge, repo))


def scheduled(forge: Forge, repo: Repo, cron: str) -> Event:
    """The hour of a ``schedule`` trigger has come: on the default branch, in the name of the Actions bot."""
    bot = forge.store.user(ACTIONS_BOT) or forge.store.get(User, repo.owner_id)
    return enqueue(forge, repo, Actor(bot), "schedule", {"schedule": cron}, **_default_facts(forge, repo))


def _default_facts(forge: Forge, repo: Repo) -> dict[str, str]:
    sha = forge.git.resolve(repo, repo.default_branch) or ""
    return {"ref": f"refs/heads/{repo.default_branch}", "sha": sha, "head_sha": sha}


def _full_ref(forge: Forge, repo: Repo, ref: str) -> str | None:
    known = forge.git.refs(repo)
    return next((name for name in (ref, f"refs/heads/{ref}", f"refs/tags/{ref}") if name in known), None)
