"""Workflow runs: the list, starting one by hand, and one run with its jobs, steps, summaries and logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from starlette.responses import PlainTextResponse

from mlp_ci.sandbox.forge import runs
from mlp_ci.sandbox.forge.pages import logs
from mlp_ci.sandbox.forge.pages.web import REPO, Group, Page, Visit, go
from mlp_ci.sandbox.forge.records import CheckRun, Event, Job, Log, Repo, Run, User, Workflow
from mlp_ci.sandbox.forge.store import Refusal

if TYPE_CHECKING:
    from starlette.responses import Response

    from mlp_ci.sandbox.forge.access import Forge

group = Group()
ACTIONS = REPO + "/actions"
RUN = ACTIONS + "/runs/{run}"
REFRESH_SECONDS = 2
_PER_PAGE = 50
_PREFIX = "input."


@dataclass(frozen=True)
class RunRow:
    repo: Repo
    run: Run
    actor: User


@dataclass(frozen=True)
class Input:
    """An input of a workflow_dispatch workflow. ``kind``: string | number | boolean | choice | environment."""

    name: str
    about: str
    kind: str
    default: str
    required: bool
    options: tuple[str, ...]


@dataclass(frozen=True)
class Startable:
    """A workflow that can be started by hand, with what it asks for."""

    flow: Workflow
    inputs: tuple[Input, ...]


def rows(forge: Forge, repo: Repo, limit: int = _PER_PAGE, where: str = "1", *args: Any) -> list[RunRow]:
    """The latest runs."""
    found = forge.store.find(Run, f"repo_id = ? AND {where}", repo.id, *args, order=f"id DESC LIMIT {int(limit)}")
    return [RunRow(repo, run, forge.store.get(User, run.actor_id)) for run in found]


@group.get(ACTIONS, "actions")
def listing(visit: Visit) -> Page:
    flows = runs.workflows(visit.forge, visit.repo)
    chosen = next((flow for flow in flows if str(flow.id) == visit.query.get("workflow")), None)
    found = (
        rows(visit.forge, visit.repo, _PER_PAGE, "workflow_id = ?", chosen.id)
        if chosen
        else rows(visit.forge, visit.repo)
    )
    values = {
        "flows": flows,
        "chosen": chosen,
        "rows": found,
        "startable": _startable(visit, flows) if visit.may("actions", "write", "write") else [],
        "branches": [ref.removeprefix("refs/heads/") for ref in visit.forge.git.refs(visit.repo, "refs/heads")],
    }  # fmt: skip
    busy = visit.stirring or any(row.run.status != "completed" for row in found)
    return Page("actions.html", values, refresh=REFRESH_SECONDS if busy else 0)


@group.post(ACTIONS + "/workflows/{workflow}/dispatch", "actions", back=listing)
def dispatch(visit: Visit) -> Response:
    flow = visit.row(Workflow, "repo_id = ? AND id = ?", visit.repo.id, visit.number("workflow"))
    given = {name.removeprefix(_PREFIX): v for name, v in visit.form.items() if name.startswith(_PREFIX)}
    try:
        run = runs.dispatch(visit.forge, visit.repo, visit.actor, flow, visit.form.get("ref", ""), given)
    except yaml.YAMLError as error:
        raise Refusal(422, f"{flow.path} is not valid YAML there: {error}") from error
    return go(f"{visit.home}/actions/runs/{run.id}")


@group.get(RUN, "actions")
def show(visit: Visit) -> Page:
    run = _run(visit)
    store = visit.forge.store
    event = store.get(Event, run.event_id)
    values = {
        "run": run,
        "actor": store.get(User, run.actor_id),
        "number": event.number if event.payload.get("pull_request") else None,
        "jobs": [_job(visit, run, job) for job in store.find(Job, "run_id = ?", run.id)],
        "log": logs.parts(_own_log(visit, run), [])[0],
    }
    return Page("run.html", values, refresh=0 if run.status == "completed" else REFRESH_SECONDS)


@group.get(RUN + "/job/{job}", "actions")
def show_job(visit: Visit) -> Response:
    """Where check runs point to: the job's place on its run's page."""
    run = _run(visit)
    job = visit.row(Job, "run_id = ? AND id = ?", run.id, visit.number("job"))
    return go(f"{visit.home}/actions/runs/{run.id}#job-{job.id}")


@group.get(RUN + "/log", "actions")
def whole_log(visit: Visit) -> Response:
    """The log as it was written."""
    return PlainTextResponse(runs.read_log(visit.forge, _run(visit)))


@group.post(RUN + "/cancel", "actions", back=show)
def cancel(visit: Visit) -> Response:
    run = _run(visit)
    if run.status == "completed":
        raise Refusal(409, "Cannot cancel a workflow run that is completed.")
    runs.update_run(visit.forge, run, "completed", "cancelled")
    return go(f"{visit.home}/actions/runs/{run.id}")


def _run(visit: Visit) -> Run:
    return visit.row(Run, "repo_id = ? AND id = ?", visit.repo.id, visit.number("run"))


def _job(visit: Visit, run: Run, job: Job) -> dict[str, Any]:
    output = visit.forge.store.get(CheckRun, job.check_run_id).output or {}
    found, left_out = logs.parts(runs.read_log(visit.forge, run, job), job.steps)
    return {"job": job, "output": output, "parts": found, "left_out": left_out}


def _own_log(visit: Visit, run: Run) -> str:
    """What the runner said of the run as a whole, outside any job."""
    return "".join(row.text for row in visit.forge.store.find(Log, "run_id = ? AND job_id IS NULL", run.id))


def _startable(visit: Visit, flows: list[Workflow]) -> list[Startable]:
    tip = visit.forge.git.resolve(visit.repo, visit.repo.default_branch) or ""
    files = runs.workflow_files(visit.forge, visit.repo, tip)
    found = []
    for flow in flows:
        inputs = inputs_of(files.get(flow.path, b""))
        if inputs is not None:
            found.append(Startable(flow, inputs))
    return found


def inputs_of(text: bytes) -> tuple[Input, ...] | None:
    """The inputs of a workflow file's ``workflow_dispatch``, or None when it cannot be started by hand."""
    try:
        parsed = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    # YAML 1.1 reads the bare key `on` as true.
    triggers = parsed.get("on", parsed.get(True)) if isinstance(parsed, dict) else None
    if "workflow_dispatch" not in ([triggers] if isinstance(triggers, str) else triggers or []):
        return None
    spec = triggers.get("workflow_dispatch") if isinstance(triggers, dict) else None
    known = spec.get("inputs") if isinstance(spec, dict) else None
    return tuple(_input(str(name), about) for name, about in known.items()) if isinstance(known, dict) else ()


def _input(name: str, about: Any) -> Input:
    facts = about if isinstance(about, dict) else {}
    default = facts.get("default", "")
    text = str(default).lower() if isinstance(default, bool) else str(default)
    kind, options = str(facts.get("type", "string")), tuple(str(option) for option in facts.get("options") or ())
    return Input(name, str(facts.get("description") or ""), kind, text, bool(facts.get("required")), options)
