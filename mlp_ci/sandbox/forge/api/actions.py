"""Workflows, their dispatch, runs, jobs and logs; variables and the names of secrets."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from starlette.responses import RedirectResponse, Response

from mlp_ci.sandbox.forge import events, runs, shapes_checks
from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, Reply, page
from mlp_ci.sandbox.forge.records import Job, Run, Setting, Workflow
from mlp_ci.sandbox.forge.store import Refusal

group = Group()
_WORKFLOW = REPO + "/actions/workflows/{workflow_id}"
_RUN = REPO + "/actions/runs/{run_id}"
_JOB = REPO + "/actions/jobs/{job_id}"


@group("GET", REPO + "/actions/workflows", "actions")
def list_workflows(call: Call) -> Any:
    found = runs.workflows(call.forge, call.repo)
    return page(call, found, lambda flow: shapes_checks.workflow(call.forge, call.repo, flow), "workflows")


@group("GET", _WORKFLOW, "actions")
def get_workflow(call: Call) -> Any:
    return shapes_checks.workflow(call.forge, call.repo, _workflow(call))


@group("POST", _WORKFLOW + "/dispatches", "actions")
def dispatch(call: Call) -> Any:
    run = runs.dispatch(
        call.forge, call.repo, call.actor, _workflow(call), call.text("ref"), call.get("inputs", dict, {})
    )
    # Since API version 2026-03-10 the answer always names the run; before, only when asked to.
    if call.headers.get("x-github-api-version", "") < "2026-03-10" and not call.get("return_run_details", bool, False):
        return None
    shape = _shape(call, run)
    return {"workflow_run_id": run.id, "run_url": shape["url"], "html_url": shape["html_url"]}


@group("POST", REPO + "/dispatches", "contents")
def repository_dispatch(call: Call) -> Any:
    kind = call.text("event_type")
    events.repository_dispatched(call.forge, call.repo, call.actor, kind, call.get("client_payload", dict, {}))


@group("GET", _WORKFLOW + "/runs", "actions")
def workflow_runs(call: Call) -> Any:
    flow = _workflow(call)
    return _runs(call, [run for run in _all(call) if run.workflow_id == flow.id])


@group("GET", REPO + "/actions/runs", "actions")
def list_runs(call: Call) -> Any:
    return _runs(call, _all(call))


@group("GET", _RUN, "actions")
def get_run(call: Call) -> Any:
    return _shape(call, _run(call))


@group("POST", _RUN + "/cancel", "actions")
def cancel(call: Call) -> Any:
    run = _run(call)
    if run.status == "completed":
        raise Refusal(409, "Cannot cancel a workflow run that is completed.")
    runs.update_run(call.forge, run, "completed", "cancelled")
    return Reply({}, 202)


@group("GET", _RUN + "/jobs", "actions")
def list_jobs(call: Call) -> Any:
    run = _run(call)
    found = call.forge.store.find(Job, "run_id = ?", run.id)
    return page(call, found, lambda job: shapes_checks.job(call.forge, call.repo, job, run), "jobs")


@group("GET", _JOB, "actions")
def get_job(call: Call) -> Any:
    job, run = _job(call)
    return shapes_checks.job(call.forge, call.repo, job, run)


@group("GET", _JOB + "/logs", "actions")
def job_logs(call: Call) -> Any:
    job, run = _job(call)
    if "download" not in call.query:
        return RedirectResponse(f"{call.url}?download=1", 302)
    return runs.read_log(call.forge, run, job) or " "


@group("GET", _RUN + "/logs", "actions")
def run_logs(call: Call) -> Any:
    run = _run(call)
    if "download" not in call.query:
        return RedirectResponse(f"{call.url}?download=1", 302)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0_run.txt", runs.read_log(call.forge, run))
        for number, job in enumerate(call.forge.store.find(Job, "run_id = ?", run.id), 1):
            archive.writestr(f"{number}_{job.name.replace('/', '_')}.txt", runs.read_log(call.forge, run, job))
    return Response(packed.getvalue(), media_type="application/zip")


@group("GET", REPO + "/actions/variables", "actions_variables|actions")
def variables(call: Call) -> Any:
    return page(call, _own_settings(call, "variable"), lambda row: {"value": row.value, **_named(row)}, "variables")


@group("GET", REPO + "/actions/secrets", "secrets", "admin")
def secrets(call: Call) -> Any:
    return page(call, _own_settings(call, "secret"), _named, "secrets")


def _own_settings(call: Call, kind: str) -> list[Setting]:
    return [row for row in runs.settings_rows(call.forge, call.repo, kind) if row.repo_id == call.repo.id]


def _named(row: Setting) -> dict[str, str]:
    return {"name": row.name, "created_at": row.updated_at, "updated_at": row.updated_at}


def _workflow(call: Call) -> Workflow:
    """By id, or by file name."""
    key = call.params["workflow_id"]
    known = {flow.path.rpartition("/")[2]: flow for flow in runs.workflows(call.forge, call.repo)}
    if key in known:
        return known[key]
    return call.row(Workflow, "repo_id = ? AND id = ?", call.repo.id, call.number("workflow_id"))


def _run(call: Call) -> Run:
    return call.row(Run, "repo_id = ? AND id = ?", call.repo.id, call.number("run_id"))


def _job(call: Call) -> tuple[Job, Run]:
    job = call.row(Job, "id = ?", call.number("job_id"))
    return job, call.row(Run, "repo_id = ? AND id = ?", call.repo.id, job.run_id)


def _shape(call: Call, run: Run) -> dict[str, Any]:
    return shapes_checks.run(call.forge, call.repo, run, call.forge.git.commit(call.repo, run.head_sha))


def _all(call: Call) -> list[Run]:
    return call.forge.store.find(Run, "repo_id = ?", call.repo.id, order="id DESC")


def _runs(call: Call, found: list[Run]) -> Reply:
    filters = {"event": "event", "branch": "head_branch", "head_sha": "head_sha"}
    for key, name in filters.items():
        if call.query.get(key):
            found = [run for run in found if getattr(run, name) == call.query[key]]
    state = call.query.get("status")
    if state:
        found = [run for run in found if state in (run.status, run.conclusion)]
    return page(call, found, lambda run: _shape(call, run), "workflow_runs")
