"""Workflow runs, as the runner records them: runs, jobs, logs, and the check runs that pull requests show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from mlp_ci.sandbox.forge import access, checks, events, shapes
from mlp_ci.sandbox.forge.records import (
    CheckRun,
    CheckSuite,
    Event,
    Job,
    Log,
    Repo,
    Run,
    Setting,
    Token,
    User,
    Workflow,
)
from mlp_ci.sandbox.forge.repos import ZERO
from mlp_ci.sandbox.forge.store import Refusal, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.sandbox.forge.access import Actor, Forge

FOLDER = ".github/workflows"


def workflow_files(forge: Forge, repo: Repo, sha: str) -> dict[str, bytes]:
    """Path → content of the workflow files at a commit."""
    folder = forge.git.entry(repo, sha, FOLDER) if sha and sha != ZERO else None
    if folder is None or folder.kind != "tree":
        return {}
    names = [e for e in forge.git.ls(repo, folder.sha) if e.kind == "blob" and e.path.endswith((".yml", ".yaml"))]
    return {f"{FOLDER}/{e.path}": forge.git.blob(repo, e.sha) for e in names}


def changed_files(forge: Forge, repo: Repo, event: Event) -> list[str] | None:
    """The paths a push or pull request changed, for ``paths:`` filters; None where GitHub does not filter."""
    if event.event == "push":
        old, new = event.payload["before"], event.payload["after"]
        if ZERO in (old, new):
            return None
    elif event.number is not None and "pull_request" in event.payload:
        pull = event.payload["pull_request"]
        new = pull["head"]["sha"]
        old = forge.git.merge_base(repo, pull["base"]["sha"], new) or pull["base"]["sha"]
    else:
        return None
    return [path for c in forge.git.diff(repo, old, new, patch=False) for path in (c.path, c.previous) if path]


def workflows(forge: Forge, repo: Repo) -> list[Workflow]:
    """The workflow files of the default branch, each with its id."""
    tip = forge.git.resolve(repo, repo.default_branch) or ""
    return [
        workflow_of(forge, repo, path, _name(path, text)) for path, text in workflow_files(forge, repo, tip).items()
    ]


def workflow_of(forge: Forge, repo: Repo, path: str, name: str) -> Workflow:
    with forge.store.tx():
        found = forge.store.first(Workflow, "repo_id = ? AND path = ?", repo.id, path)
        if found is None:
            return forge.store.insert(Workflow, repo_id=repo.id, path=path, name=name, created_at=stamp())
        return found if found.name == name else forge.store.update(found, name=name)


def create_run(forge: Forge, event: Event, path: str, name: str, title: str = "") -> Run:
    """The run of one workflow file for one event: made the first time, found again every other time."""
    store = forge.store
    with store.tx():
        repo = store.get(Repo, event.repo_id)
        flow = workflow_of(forge, repo, path, name)
        found = store.first(Run, "event_id = ? AND workflow_id = ?", event.id, flow.id)
        if found is not None:
            return found
        actor = store.user(event.actor) or store.get(User, repo.owner_id)
        at = stamp()
        branch = _branch(event)
        suite = checks.suite_for(forge, repo, event.head_sha, checks.ACTIONS_APP, branch=branch, own=True)
        run = store.insert(
            Run, repo_id=repo.id, workflow_id=flow.id, event_id=event.id, suite_id=suite.id, name=name, path=path,
            title=title or _title(forge, repo, event, name), event=event.event, status="queued", head_branch=branch,
            run_number=store.count(Run, "workflow_id = ?", flow.id) + 1, head_sha=event.head_sha, actor_id=actor.id,
            created_at=at, updated_at=at,
        )  # fmt: skip
        store.update(suite, run_id=run.id)
        return run


def create_job(forge: Forge, run: Run, name: str, labels: Sequence[str] = ()) -> Job:
    """A queued job of a run and its check run on the head commit; the same name twice is the same job."""
    store = forge.store
    with store.tx():
        found = store.first(Job, "run_id = ? AND name = ?", run.id, name)
        if found is not None:
            return found
        repo = store.get(Repo, run.repo_id)
        check = checks.create_check(forge, store.get(CheckSuite, run.suite_id), name)
        job = store.insert(
            Job, run_id=run.id, check_run_id=check.id, name=name, labels=list(labels), status="queued", steps=[],
            created_at=stamp(),
        )  # fmt: skip
        page = f"{shapes.html_url(forge, repo)}/actions/runs/{run.id}/job/{job.id}"
        store.update(check, details_url=page, external_id=str(job.id))
        return job


def update_job(
    forge: Forge, job: Job, status: str, conclusion: str | None = None, steps: list[Any] | None = None
) -> Job:
    """Say how far a job is; ``conclusion`` (success | failure | cancelled | skipped | …) only when completed.

    ``steps``: GitHub's ``{name, status, conclusion, number, started_at, completed_at}``.
    """
    at = stamp()
    times: dict[str, str | None] = {}
    if status != "queued":
        times["started_at"] = job.started_at or at
    if status == "completed":
        times["completed_at"] = at
    with forge.store.tx():
        check = forge.store.get(CheckRun, job.check_run_id)
        forge.store.update(check, status=status, conclusion=conclusion, **times)
        kept = job.steps if steps is None else steps
        return forge.store.update(job, status=status, conclusion=conclusion, steps=kept, **times)


def update_run(forge: Forge, run: Run, status: str, conclusion: str | None = None) -> Run:
    """Say how far a run is. Completing it ends its tokens and whatever jobs were left open."""
    store = forge.store
    with store.tx():
        if status == "completed":
            store.delete(Token, "run_id = ?", run.id)
            for job in store.find(Job, "run_id = ? AND status != 'completed'", run.id):
                update_job(forge, job, "completed", "skipped" if conclusion == "success" else "cancelled")
            if conclusion not in checks.GOOD and not store.count(Job, "run_id = ?", run.id):
                # A workflow that fell over before its first job would otherwise leave no trace on the pull request.
                update_job(forge, create_job(forge, run, run.name), "completed", "failure")
        return store.update(run, status=status, conclusion=conclusion, updated_at=stamp())


def append_log(forge: Forge, run: Run, text: str, job: Job | None = None) -> None:
    """Add to the log of a run, or of one of its jobs. Secrets must be masked before they come here."""
    forge.store.insert(Log, run_id=run.id, job_id=job.id if job else None, text=text)


def read_log(forge: Forge, run: Run, job: Job | None = None) -> str:
    """The log of one job, or of the whole run in the order it was written."""
    where, args = ("run_id = ? AND job_id = ?", (run.id, job.id)) if job else ("run_id = ?", (run.id,))
    return "".join(log.text for log in forge.store.find(Log, where, *args))


def mint_run_token(forge: Forge, run: Run, permissions: Mapping[str, str]) -> str:
    """The GITHUB_TOKEN of a run, for its repository only, with the workflow's ``permissions:`` (scope → level)."""
    return access.issue_run_token(forge, run, permissions)


def secrets(forge: Forge, repo: Repo) -> dict[str, str]:
    """Name → value of the repository's and its organisation's secrets. For the runner only: no API gives them."""
    return _settings(forge, repo, "secret")


def variables(forge: Forge, repo: Repo) -> dict[str, str]:
    return _settings(forge, repo, "variable")


def set_setting(forge: Forge, kind: str, name: str, value: str, *, owner: User, repo: Repo | None = None) -> None:
    """Write a secret or a variable (``kind``) of a repository, or of the whole organisation."""
    store = forge.store
    with store.tx():
        where = "kind = ? AND owner_id = ? AND repo_id IS ? AND name = ?"
        found = store.first(Setting, where, kind, owner.id, repo.id if repo else None, name)
        if found:
            store.update(found, value=value, updated_at=stamp())
        else:
            store.insert(
                Setting, kind=kind, owner_id=owner.id, repo_id=repo.id if repo else None, name=name, value=value,
                updated_at=stamp(),
            )  # fmt: skip


def settings_rows(forge: Forge, repo: Repo, kind: str) -> list[Setting]:
    """Settings that a repository sees; its own come after (and win over) its organisation's."""
    where = "kind = ? AND owner_id = ? AND (repo_id IS NULL OR repo_id = ?)"
    return forge.store.find(Setting, where, kind, repo.owner_id, repo.id, order="repo_id IS NOT NULL, name")


def _settings(forge: Forge, repo: Repo, kind: str) -> dict[str, str]:
    return {row.name: row.value for row in settings_rows(forge, repo, kind)}


def _name(path: str, text: bytes) -> str:
    try:
        parsed = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError):
        return path  # a broken file still is a workflow; GitHub calls it by its path too
    name = parsed.get("name") if isinstance(parsed, dict) else None
    return str(name) if name else path


def _branch(event: Event) -> str | None:
    pull = event.payload.get("pull_request")
    if pull:
        return str(pull["head"]["ref"])
    return event.ref.removeprefix("refs/heads/") if event.ref.startswith("refs/heads/") else None


def _title(forge: Forge, repo: Repo, event: Event, name: str) -> str:
    pull = event.payload.get("pull_request")
    if pull:
        return str(pull["title"])
    if event.event == "push" and event.sha != ZERO:
        return forge.git.commit(repo, event.sha).title
    return name


def dispatch(forge: Forge, repo: Repo, actor: Actor, flow: Workflow, ref: str, inputs: Mapping[str, Any]) -> Run:
    """Start a workflow by hand: check its inputs against the file at ``ref``, queue the event, give the queued run."""
    sha = forge.git.resolve(repo, ref)
    text = forge.git.read(repo, sha, flow.path) if sha else None
    if text is None:
        raise Refusal(422, f"No ref found for: {ref}" if sha is None else f"{flow.path} does not exist at {ref}")
    full = _inputs(text, inputs)
    with forge.store.tx():
        event = events.dispatched(forge, repo, actor, flow.path, ref, full)
        return create_run(forge, event, flow.path, flow.name)


def _inputs(text: bytes, given: Mapping[str, Any]) -> dict[str, Any]:
    parsed = yaml.safe_load(text) if text else {}
    # YAML 1.1 reads the bare key `on` as true.
    triggers = parsed.get("on", parsed.get(True)) if isinstance(parsed, dict) else None
    names = [triggers] if isinstance(triggers, str) else triggers or []
    if "workflow_dispatch" not in names:
        raise Refusal(422, "Workflow does not have 'workflow_dispatch' trigger")
    spec = (triggers.get("workflow_dispatch") or {}) if isinstance(triggers, dict) else {}
    known: dict[str, Any] = spec.get("inputs") or {}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise Refusal(422, f"Unexpected inputs provided: {unknown}")
    full = {name: (about or {}).get("default") for name, about in known.items()} | dict(given)
    for name, about in known.items():
        if (about or {}).get("required") and full[name] in (None, ""):
            raise Refusal(422, f"Required input '{name}' not provided")
    return {name: value for name, value in full.items() if value is not None}
