"""Starts a repository's own workflows when something happens in the forge, on this machine.

Where a run here differs from one on github.com, because act differs:

- Steps run in host mode, as the user who started the sandbox: there is no isolation. It is for one's own code.
- Jobs of one run share one GITHUB_TOKEN, with the union of their `permissions`.
- `actions/checkout` without `repository` or `ref` copies the work tree that is already here, with the whole history
  whatever `fetch-depth` says; credentials are never persisted. Any other action has to be among `repositories`.
- act copies a repository of actions whole for every step that uses it; a run gets one with its `actions/` only.
- Every runner label is this machine; a label that exists nowhere does not wait for a runner. A run (on GitHub: a job)
  waits while two others occupy a runner that it names, or, naming none of its own, one of GitHub's. So a deployment on
  a runner of its own never waits for trainings.
- act ignores `timeout-minutes` of a job (not of a step): the deadline is kept here, by ending the job's processes until
  act gives up on it; the job is then `timed_out`.
- act ignores `concurrency`: the workflow's is kept here, and of a job's what cancels the one in progress; none waits.
- A job's labels, limit and group that need another job's outputs are known here when it begins.
- act says nothing of jobs it skips; they are concluded here. The runs of a matrix count as one job.
- act masks whole secrets in messages only; every line that leaves here is masked again, line by line of each secret.
- act does not filter by branches, paths or types: workflows.py does, by GitHub's rules.
- As on a runner one hosts oneself, what a job leaves running is ended by its RUNNER_TRACKING_ID; a process that is to
  outlive its job (a served model) has to drop that variable.
- Steps have a terminal; TERM=dumb keeps programs from making use of it.
- Files of act's own (.env, .secrets, .actrc) in a repository are not read.
"""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import MlpError
from mlp_ci.git import git
from mlp_ci.sandbox import act, expressions, workflows
from mlp_ci.sandbox.execution import Event, Execution, Forge, Place, Plan
from mlp_ci.sandbox.preparation import contexts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.sandbox.workflows import Workflow

POLL_SECONDS = 0.05
ZERO = "0" * 40
FOLDER = ".github/workflows"
_LOG = logging.getLogger(__name__)


class Runner:
    """Takes events from ``forge`` and runs what they start in ``place``, in threads of its own until ``stop``."""

    def __init__(self, forge: Forge, place: Place, *, parallel: int = 2) -> None:
        self.forge = forge
        self.place = place
        self.parallel = parallel
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._waiting: list[Plan] = []
        self._active: dict[int, tuple[Execution, threading.Thread]] = {}
        self._open: dict[int, set[int]] = {}  # run → the runs of its event that have not ended
        self._planning = False
        self._stopping = threading.Event()
        self._dispatcher = threading.Thread(target=self._dispatch, name="runner", daemon=True)

    def start(self) -> None:
        """Clear away what a runner that was killed left behind, then begin to take events."""
        self.place.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        act.end_processes(f"{self.place.tracking}/", prefix=True)
        for left in self.place.root.glob("run-*"):
            shutil.rmtree(left, ignore_errors=True)
        self.forge.recover()
        self._dispatcher.start()

    def stop(self) -> None:
        """Cancel what runs, take nothing more, leave no process behind. What waits is cancelled too."""
        self._stopping.set()
        self._dispatcher.join()
        with self._lock:
            waiting, self._waiting = self._waiting, []
            active = list(self._active.values())
        for plan in waiting:
            self._drop(plan)
        for execution, _ in active:
            execution.cancel()
        for _, thread in active:
            thread.join()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no event, no waiting and no active run is left; False if ``timeout`` seconds were not enough."""
        with self._idle:
            return self._idle.wait_for(lambda: not (self._planning or self._waiting or self._active), timeout)

    def cancel(self, run: int) -> None:
        """Cancel a run that waits or is active; nothing happens for any other."""
        with self._lock:
            for plan in [plan for plan in self._waiting if plan.run == run]:
                self._waiting.remove(plan)
                self._drop(plan)
            if run in self._active:
                self._active[run][0].cancel()

    def _dispatch(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            with self._lock:
                self._planning = True  # before the events are taken, so that nobody sees idleness in between
            try:
                self._take()
            except Exception:
                # One event that cannot be handled must not stop all later ones; nobody waits on this thread.
                _LOG.exception("an event of the forge could not be handled")
            with self._idle:
                self._planning = False
                for plan in [plan for plan in self._waiting if self.forge.cancel_requested(plan.run)]:
                    self.cancel(plan.run)
                self._idle.notify_all()

    def _take(self) -> None:
        for event in self.forge.take_events():
            found = list(plans(self.forge, event))
            # The event is finished when its last run is: until then a crash must not lose what has not run yet.
            open_runs = {plan.run for plan in found}
            with self._lock:
                self._open.update(dict.fromkeys(open_runs, open_runs))
            for plan in found:
                self._enqueue(plan)
            if not found:
                self.forge.finish_event(event)

    def _enqueue(self, plan: Plan) -> None:
        """GitHub's rule: of one group one run is active and one waits; a newer one takes the waiting one's place."""
        with self._lock:
            if plan.group:
                for other in [other for other in self._waiting if other.group == plan.group]:
                    self._waiting.remove(other)
                    self._drop(other)
                for execution, _ in self._active.values():
                    if plan.cancels and execution.plan.group == plan.group:
                        execution.cancel()
            self._waiting.append(plan)
            self._fill()

    def _fill(self) -> None:
        with self._lock:
            for plan in list(self._waiting):
                if self._stopping.is_set():
                    return
                active = [execution.plan for execution, _ in self._active.values()]
                if plan.group and any(other.group == plan.group for other in active):
                    continue
                if any(sum(name in other.machines for other in active) >= self.parallel for name in plan.machines):
                    continue
                self._waiting.remove(plan)
                execution = Execution(self.forge, self.place, plan, self._claim)
                thread = threading.Thread(target=self._execute, args=(execution,), name=f"run-{plan.run}", daemon=True)
                self._active[plan.run] = (execution, thread)
                thread.start()

    def _execute(self, execution: Execution) -> None:
        try:
            execution.run()
        finally:
            self._ended(execution.plan)
            with self._idle:
                del self._active[execution.plan.run]
                self._fill()
                self._idle.notify_all()

    def _claim(self, group: str, by: Execution) -> None:
        """A job begins in a concurrency group that it wants for itself."""
        with self._lock:
            for execution, _ in self._active.values():
                if execution is not by:
                    execution.give_up(group)

    def _drop(self, plan: Plan) -> None:
        execution = Execution(self.forge, self.place, plan)
        execution.cancel()
        execution.run()
        self._ended(plan)

    def _ended(self, plan: Plan) -> None:
        with self._lock:
            open_runs = self._open.pop(plan.run)
            open_runs.discard(plan.run)
            if not open_runs:
                self.forge.finish_event(plan.event)


def plans(forge: Forge, event: Event) -> Iterator[Plan]:
    """Create a run for every workflow that ``event`` starts. A file that cannot be read becomes a run that failed."""
    trigger: workflows.Trigger | None = None
    for path, text in workflow_files(event):
        try:
            workflow = workflows.parse(path, text)
            if event.event not in workflow.on:
                continue
            trigger = trigger or trigger_of(event)
            if not workflows.starts(workflow, trigger):
                continue
            contexts = contexts_of(event, workflow, forge.variables(event.repository))
            plan = _plan(event, workflow, contexts)
            title = expressions.as_text(expressions.substitute(workflow.run_name, contexts)) or title_of(
                event, workflow
            )
        except MlpError as error:
            created = forge.create_run(event, path, path, path) if event.event == "push" else None
            if created:
                forge.append_log(created[0], "", f"##[error]{error}\n")
                forge.finish_run(created[0], "startup_failure")
            continue
        created = forge.create_run(event, path, workflow.name, title)
        if created:
            yield replace(plan, run=created[0], number=created[1])


def _plan(event: Event, workflow: Workflow, contexts: dict[str, Any]) -> Plan:
    group, cancels = workflows.concurrency_of(workflow.concurrency, contexts)
    key = f"{event.repository}\n{group}".lower() if group else ""
    return Plan(0, 0, event, workflow, key, cancels, workflows.machines(workflow, contexts))


def workflow_files(event: Event) -> Iterator[tuple[str, str]]:
    """Path and text of every workflow file at the event's commit."""
    listed = git(event.git_dir, "ls-tree", "-z", "--name-only", event.sha, f"{FOLDER}/").split("\0")
    for path in sorted(path for path in listed if path.endswith((".yml", ".yaml"))):
        yield path, git(event.git_dir, "show", f"{event.sha}:{path}")


def trigger_of(event: Event) -> workflows.Trigger:
    """What of ``event`` the filters of a workflow look at."""
    payload = event.payload
    pull = payload.get("pull_request") or {}
    ref = f"refs/heads/{pull['base']['ref']}" if pull else str(payload.get("ref") or event.ref)
    deleted = event.event == "push" and payload.get("after") == ZERO
    return workflows.Trigger(
        event="delete" if deleted else event.event,
        action=event.action,
        ref=ref if ref.startswith("refs/") else f"refs/heads/{ref}",
        paths=changed_paths(event),
        cron=str(payload.get("schedule") or ""),
        workflow=str(payload.get("workflow") or ""),
        message=git(event.git_dir, "show", "-s", "--format=%B", (pull.get("head") or {}).get("sha") or event.sha),
    )


def changed_paths(event: Event) -> list[str]:
    """The files that `paths` filters look at: a push against what was there before, a pull request against its base."""
    pull = event.payload.get("pull_request")
    if pull:
        span = f"{pull['base']['sha']}...{pull['head']['sha']}"
    elif event.event == "push":
        before, after = str(event.payload.get("before") or ZERO), str(event.payload.get("after") or event.sha)
        if after == ZERO:
            return []
        if before == ZERO or not _known(event, before):
            new = f"refs/heads/{event.default_branch}" != event.payload.get("ref")
            if not new:
                return [path for path in git(event.git_dir, "ls-tree", "-rz", "--name-only", after).split("\0") if path]
            span = f"refs/heads/{event.default_branch}...{after}"
        else:
            span = f"{before}..{after}"
    else:
        return []
    return [path for path in git(event.git_dir, "diff", "--name-only", "--no-renames", "-z", span).split("\0") if path]


def title_of(event: Event, workflow: Workflow) -> str:
    """What GitHub calls a run without `run-name`: the pull request's title, the commit's, or the workflow's name."""
    if event.payload.get("pull_request"):
        return str(event.payload["pull_request"].get("title") or workflow.name)
    if event.event == "push":
        return git(event.git_dir, "show", "-s", "--format=%s", event.sha) or workflow.name
    return workflow.name


def _known(event: Event, sha: str) -> bool:
    """Whether the commit is in the repository; after a forced push the one before may be gone."""
    try:
        git(event.git_dir, "cat-file", "-e", f"{sha}^{{commit}}")
    except MlpError:
        return False
    return True
