"""One workflow run from its checkout to its conclusion: a fresh folder, act in it, every message told to the forge."""

from __future__ import annotations

import logging
import os
import shutil
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from mlp_ci import clock
from mlp_ci.errors import MlpError
from mlp_ci.sandbox import act, expressions, workflows
from mlp_ci.sandbox.preparation import check_out, contexts_of, from_fork, read_only, stage_actions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlp_ci.sandbox.workflows import Workflow

CHECK_EVERY_SECONDS = 0.5
_LOG = logging.getLogger(__name__)
# What a run gets of our own environment; everything else is named by whoever makes the Runner.
INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "UV_CACHE_DIR")


@dataclass(frozen=True)
class Event:
    """Something that may start workflows; ``ref`` and ``sha`` are what a run checks out (GITHUB_REF, GITHUB_SHA)."""

    id: int
    repository: str
    git_dir: Path
    default_branch: str
    event: str
    action: str
    payload: Mapping[str, Any]
    actor: str
    ref: str
    sha: str


@dataclass(frozen=True)
class Step:
    """A step of a job; instants are ISO 8601, ``conclusion`` is empty while it runs."""

    number: int
    name: str
    started_at: str
    completed_at: str = ""
    conclusion: str = ""


@dataclass(frozen=True)
class JobState:
    """What is known of a job now. ``status``: queued | in_progress | completed; ``conclusion`` as in GitHub's API."""

    id: str
    name: str
    labels: tuple[str, ...] = ()
    status: str = "queued"
    conclusion: str = ""
    started_at: str = ""
    completed_at: str = ""
    steps: tuple[Step, ...] = ()
    annotations: tuple[act.Annotation, ...] = ()
    summary: str = ""


@dataclass(frozen=True)
class Plan:
    """A run that is created in the forge and waits for its turn. ``group`` is empty without `concurrency`.

    ``machines`` are what it occupies while it goes on.
    """

    run: int
    number: int
    event: Event
    workflow: Workflow
    group: str = ""
    cancels: bool = False
    machines: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Place:
    """The machine the runs share: where they work, what they reach, what they find in their environment."""

    root: Path
    server_url: str
    api_url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    repositories: Mapping[str, Path] = field(default_factory=dict)

    @property
    def tracking(self) -> str:
        """What marks the processes of all runs of this place."""
        return f"github_{self.root.resolve()}"


class Forge(Protocol):
    """What a runner needs of a forge."""

    def recover(self) -> None:
        """The runner begins: what one before it had taken and not finished is to be taken again."""

    def take_events(self) -> Sequence[Event]:
        """Events nobody has taken, oldest first; they are the caller's from now on."""

    def finish_event(self, event: Event) -> None:
        """All runs that the event started have ended."""

    def create_run(self, event: Event, path: str, name: str, title: str) -> tuple[int, int] | None:
        """A queued run: its id and its number within the workflow; None if the event's run of this file has ended."""

    def start_run(self, run: int) -> None: ...

    def update_job(self, run: int, job: JobState) -> None:
        """Keep a job as it is now: in the run, and as a check run on the commit."""

    def finish_run(self, run: int, conclusion: str) -> None:
        """The run has ended; its token is worthless from now on."""

    def append_log(self, run: int, job: str, text: str) -> None:
        """Lines for the log of a job, or with ``job`` empty of the run."""

    def mint_run_token(self, run: int, permissions: Mapping[str, str] | None) -> str:
        """The run's GITHUB_TOKEN; without ``permissions`` it may read contents."""

    def secrets(self, repository: str) -> Mapping[str, str]: ...

    def variables(self, repository: str) -> Mapping[str, str]: ...

    def labels(self, repository: str) -> Sequence[str]:
        """The labels of the runners that the organisation has."""

    def cancel_requested(self, run: int) -> bool:
        """Whether somebody asked for this run to be cancelled."""


Claim: TypeAlias = Callable[[str, "Execution"], None]


class Execution:
    """Runs one plan. ``run`` blocks until it has ended; ``cancel`` may come from any thread."""

    def __init__(self, forge: Forge, place: Place, plan: Plan, claim: Claim = lambda group, by: None) -> None:
        self.forge = forge
        self.place = place
        self.plan = plan
        self._claim = claim
        self._contexts: dict[str, Any] = {}
        self._groups: dict[str, str] = {}  # job → its concurrency group, while it runs
        self._given_up: set[str] = set()  # groups that somebody newer has claimed
        self._outputs: dict[str, dict[str, dict[str, str]]] = {}  # job → step → its outputs
        self.folder = place.root / f"run-{plan.run}"
        self.jobs = {job.id: JobState(job.id, job.name) for job in plan.workflow.jobs}
        self._deadlines: dict[str, tuple[float, float]] = {}  # job → when its time is over, and its minutes
        self._lines: list[tuple[str, str]] = []
        self._cancelled = threading.Event()
        self._checked = 0.0

    def cancel(self) -> None:
        self._cancelled.set()

    def give_up(self, group: str) -> None:
        """End the job that runs in this concurrency group, if there is one; may come from any thread."""
        self._given_up.add(group)

    def run(self) -> str:
        """Do the run, tell the forge, leave nothing behind; return the conclusion."""
        if self.forge.cancel_requested(self.plan.run):
            self.cancel()
        self.forge.start_run(self.plan.run)
        try:
            conclusion = self._run()
        except (MlpError, OSError) as error:
            self._lines.append(("", f"##[error]{error}"))
            conclusion = "startup_failure"
        except Exception as error:
            # A thread of its own runs this, so a bug has to be told here: to the log of the run and to ours.
            _LOG.exception("run %s failed inside the runner", self.plan.run)
            self._lines.append(("", f"##[error]This is a bug in mlp-ci's runner: {error!r}"))
            conclusion = "startup_failure"
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._settle(conclusion)
        self.forge.finish_run(self.plan.run, conclusion)
        return conclusion

    def _run(self) -> str:
        if self._cancelled.is_set():
            return "cancelled"
        self.folder.mkdir(mode=0o700, parents=True)
        contexts = contexts_of(self.plan.event, self.plan.workflow, self.forge.variables(self.plan.event.repository))
        self._contexts = contexts
        for job in self.plan.workflow.jobs:
            name = expressions.as_text(expressions.substitute(job.name, contexts))
            self._put(replace(self.jobs[job.id], name=name, labels=tuple(workflows.runs_on(job, contexts))))
        running = act.Act(self._invocation(contexts))
        try:
            for message in running.messages(lambda: self._watch(running)):
                self._tell(message)
        finally:
            running.stop()
        if self._cancelled.is_set():
            return "cancelled"
        # A job whose needs failed, or whose `if` was false, is not mentioned by act.
        ended = [job for job in self.jobs.values() if job.status == "completed"]
        wrong = {job.conclusion for job in ended} - {"success", "skipped"}
        if wrong == {"cancelled"}:
            return "cancelled"
        if wrong or (running.failed and ended):
            return "failure"
        return "startup_failure" if running.failed else "success" if ended else "skipped"

    def _invocation(self, contexts: Mapping[str, Any]) -> act.Invocation:
        plan, event, place = self.plan, self.plan.event, self.place
        inside = not from_fork(event)
        permissions = plan.workflow.permissions
        if not inside:  # as on GitHub: the code of a fork reads, and gets no secret
            permissions = read_only(permissions)
        token = self.forge.mint_run_token(plan.run, permissions)
        return act.Invocation(
            folder=self.folder,
            workspace=check_out(event, self.folder, place.server_url),
            workflow=plan.workflow.path,
            event=event.event,
            actor=event.actor,
            payload=contexts["github"]["event"],
            settings=_settings(plan, place, contexts["github"]),
            environment=self._environment(),
            secrets={**(self.forge.secrets(event.repository) if inside else {}), "GITHUB_TOKEN": token},
            variables=contexts["vars"],
            labels=workflows.labels(plan.workflow, contexts, self.forge.labels(event.repository)),
            repositories={name: stage_actions(path, self.folder) for name, path in place.repositories.items()},
        )

    def _environment(self) -> dict[str, str]:
        """The machine as a job finds it: a home of its own, a cache that stays, as on a runner one hosts oneself."""
        home = self.folder / "home"
        home.mkdir()
        own = {name: os.environ[name] for name in INHERITED if name in os.environ}
        path = f"{sysconfig.get_path('scripts')}{os.pathsep}{own.get('PATH', os.defpath)}"
        cache = {"HOME": str(home), "XDG_CACHE_HOME": str(self.place.root / "cache")}
        # act gives every step a terminal, GitHub none: without these, git would page and progress bars would dance.
        quiet = {"TERM": "dumb", "PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0"}
        return {**own, **cache, **quiet, "PATH": path, **self.place.environment}

    def _watch(self, running: act.Act) -> None:
        self._flush()
        if time.monotonic() - self._checked < CHECK_EVERY_SECONDS and not self._cancelled.is_set():
            return
        self._checked = time.monotonic()
        if self._cancelled.is_set() or self.forge.cancel_requested(self.plan.run):
            self._cancelled.set()
            for job in self.jobs.values():  # before act, whose jobs fail when they are stopped
                self.jobs[job.id] = replace(job, conclusion=job.conclusion or "cancelled")
            running.stop()
        for id, (deadline, minutes) in self._deadlines.items():
            if self._checked > deadline:
                text = f"The job has exceeded the maximum execution time of {minutes:g} minutes."
                self._end_job(running, id, "timed_out", text)
        for id, group in self._groups.items():
            if group in self._given_up:
                text = "Canceling since a higher priority waiting request for this concurrency group exists."
                self._end_job(running, id, "cancelled", text)

    def _end_job(self, running: act.Act, id: str, conclusion: str, text: str) -> None:
        job = self.jobs[id]
        if job.status != "in_progress":
            return
        if not job.conclusion:
            self._lines.append((id, f"##[error]{text}"))
            self.jobs[id] = replace(job, conclusion=conclusion)
        running.stop_job(id)

    def _begun(self, job: JobState) -> JobState:
        """What can be said of a job only now, because other jobs had to end before."""
        declared = next(each for each in self.plan.workflow.jobs if each.id == job.id)
        needs = {id: {"result": self.jobs[id].conclusion, "outputs": self._outputs_of(id)} for id in declared.needs}
        contexts = {**self._contexts, "needs": needs}
        minutes = workflows.minutes(declared, contexts)
        self._deadlines[job.id] = time.monotonic() + minutes * 60, minutes
        group, cancels = workflows.concurrency_of(declared.concurrency, contexts)
        if group and cancels:
            self._groups[job.id] = f"{self.plan.event.repository}\n{group}".lower()
            self._claim(self._groups[job.id], self)
        return replace(job, status="in_progress", labels=tuple(workflows.runs_on(declared, contexts)))

    def _outputs_of(self, id: str) -> dict[str, str]:
        declared = next((each.outputs for each in self.plan.workflow.jobs if each.id == id), {})
        steps = {step: {"outputs": outputs} for step, outputs in self._outputs.get(id, {}).items()}
        contexts = {**self._contexts, "steps": steps}
        return {name: expressions.as_text(expressions.substitute(text, contexts)) for name, text in declared.items()}

    def _tell(self, message: act.Message) -> None:
        if isinstance(message, act.Line):
            self._lines.append((message.job, message.text))
            return
        if message.job not in self.jobs:
            return
        if isinstance(message, act.Output):
            self._outputs.setdefault(message.job, {}).setdefault(message.step, {})[message.name] = message.value
            return
        job, now = self.jobs[message.job], clock.now().isoformat()
        match message:
            case act.JobStarted():
                job = replace(self._begun(job), started_at=now)
            case act.StepStarted():
                job = replace(job, steps=(*job.steps, Step(len(job.steps) + 1, message.name, now)))
            case act.StepEnded() if job.steps and not job.steps[-1].conclusion:
                ended = replace(job.steps[-1], completed_at=now, conclusion=message.result)
                job = replace(job, steps=(*job.steps[:-1], ended))
            case act.Annotation():
                job = replace(job, annotations=(*job.annotations, message))
            case act.Summary():
                job = replace(job, summary=f"{job.summary}{message.markdown.rstrip()}\n\n")
            case act.JobEnded():
                self._flush()
                self._groups.pop(job.id, None)
                conclusion = job.conclusion or message.result
                job = replace(job, status="completed", conclusion=conclusion, completed_at=now)
        self._put(job)

    def _settle(self, conclusion: str) -> None:
        """Conclude the jobs that act said nothing of, or was stopped in."""
        now = clock.now().isoformat()
        for job in [job for job in self.jobs.values() if job.status != "completed"]:
            stopped = job.status == "in_progress" or self._cancelled.is_set() or conclusion == "startup_failure"
            reached = ("cancelled" if conclusion != "startup_failure" else "failure") if stopped else "skipped"
            self._put(replace(job, status="completed", conclusion=reached, completed_at=now))
        self._flush()

    def _put(self, job: JobState) -> None:
        self.jobs[job.id] = job
        self.forge.update_job(self.plan.run, job)

    def _flush(self) -> None:
        """Lines go to the forge in batches, one per job, in order: a transaction per line would slow training down."""
        lines, self._lines = self._lines, []
        while lines:
            job = lines[0][0]
            count = next((at for at, line in enumerate(lines) if line[0] != job), len(lines))
            self.forge.append_log(self.plan.run, job, "".join(f"{text}\n" for _, text in lines[:count]))
            del lines[:count]


def _settings(plan: Plan, place: Place, github: Mapping[str, Any]) -> dict[str, str]:
    names = ("repository", "repository_owner", "ref", "ref_name", "ref_type", "head_ref", "base_ref")
    return {
        **{f"GITHUB_{name.upper()}": str(github[name]) for name in names},
        "SHA_REF": plan.event.sha,  # act's name for what it makes GITHUB_SHA of
        "GITHUB_SERVER_URL": place.server_url,
        "GITHUB_API_URL": place.api_url,
        "GITHUB_GRAPHQL_URL": f"{place.api_url.removesuffix('/v3')}/graphql",
        "GITHUB_RUN_ID": str(plan.run),
        "GITHUB_RUN_NUMBER": str(plan.number),
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_TRIGGERING_ACTOR": plan.event.actor,
        "RUNNER_NAME": "sandbox",
        "RUNNER_ENVIRONMENT": "self-hosted",
        "RUNNER_TRACKING_ID": f"{place.tracking}/{plan.run}",
    }
