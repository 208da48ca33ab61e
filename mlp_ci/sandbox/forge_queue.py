"""The forge as the runner sees it: its queue of events, its runs, jobs and logs; values here, records there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.errors import MlpError
from mlp_ci.sandbox.execution import Event
from mlp_ci.sandbox.forge import checks, events, runs
from mlp_ci.sandbox.forge import records as rows
from mlp_ci.spec import PLATFORM_FILE, default_platform, parse_platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.sandbox.execution import JobState
    from mlp_ci.sandbox.forge.access import Forge


class ForgeQueue:
    """Implements ``execution.Forge`` on the real forge's store."""

    def __init__(self, forge: Forge) -> None:
        self.forge = forge
        self._open: dict[int, int] = {}  # event id → how many of the events made of it are not finished
        self._jobs: dict[tuple[int, str], rows.Job] = {}

    def recover(self) -> None:
        """Events that a killed runner had in its hands are new again."""
        events.release_events(self.forge.store)

    def take_events(self) -> Sequence[Event]:
        if not self.forge.store.count(rows.Event, "state = 'new' AND suppressed = 0"):
            return []  # asked many times a second: do not take the write lock for nothing
        taken = []
        for row in events.take_events(self.forge.store):
            made = self._events(row)
            self._open[row.id] = len(made)
            taken += made
            if not made:
                events.finish_event(self.forge.store, row)
        return taken

    def finish_event(self, event: Event) -> None:
        self._open[event.id] -= 1
        if self._open[event.id] == 0:
            del self._open[event.id]
            events.finish_event(self.forge.store, self.forge.store.get(rows.Event, event.id))

    def create_run(self, event: Event, path: str, name: str, title: str) -> tuple[int, int] | None:
        run = runs.create_run(self.forge, self.forge.store.get(rows.Event, event.id), path, name, title)
        if run.title != title:  # a dispatched run is made by the API, which evaluates no `run-name`
            self.forge.store.update(run, title=title)
        return None if run.status == "completed" else (run.id, run.run_number)

    def start_run(self, run: int) -> None:
        runs.update_run(self.forge, self._run(run), "in_progress")

    def finish_run(self, run: int, conclusion: str) -> None:
        runs.update_run(self.forge, self._run(run), "completed", conclusion)
        self._jobs = {key: job for key, job in self._jobs.items() if key[0] != run}

    def update_job(self, run: int, job: JobState) -> None:
        with self.forge.store.tx():
            kept = self._jobs.get((run, job.id)) or runs.create_job(self.forge, self._run(run), job.name, job.labels)
            if list(kept.labels) != list(job.labels):  # those that an earlier job decided
                kept = self.forge.store.update(kept, labels=list(job.labels))
            kept = runs.update_job(self.forge, kept, job.status, job.conclusion or None, _steps(job))
            self._jobs[run, job.id] = kept
            check = self.forge.store.get(rows.CheckRun, kept.check_run_id)
            self.forge.store.update(check, output=_output(job))

    def append_log(self, run: int, job: str, text: str) -> None:
        runs.append_log(self.forge, self._run(run), text, self._jobs.get((run, job)))

    def mint_run_token(self, run: int, permissions: Mapping[str, str] | None) -> str:
        return runs.mint_run_token(
            self.forge, self._run(run), {"contents": "read"} if permissions is None else permissions
        )

    def secrets(self, repository: str) -> Mapping[str, str]:
        return runs.secrets(self.forge, self._repo(repository))

    def variables(self, repository: str) -> Mapping[str, str]:
        return runs.variables(self.forge, self._repo(repository))

    def labels(self, repository: str) -> Sequence[str]:
        """Those of the runner classes in the organisation's platform.yaml; none where it has none or a broken one."""
        shared = self.forge.store.repo(repository.partition("/")[0], ".github")
        tip = self.forge.git.resolve(shared, shared.default_branch) if shared else None
        raw = self.forge.git.read(shared, tip, PLATFORM_FILE) if shared and tip else None
        try:
            platform = parse_platform(raw) if raw else default_platform()
        except MlpError:
            return []
        return sorted({label for about in platform.runners.values() for label in about.labels})

    def cancel_requested(self, run: int) -> bool:
        """Somebody concluded the run, by the API or its page, while it is still going on here."""
        return self._run(run).conclusion == "cancelled"

    def _events(self, row: rows.Event) -> list[Event]:
        """A ``pull_request`` starts two kinds of workflows: the merge's own, and the default branch's on its behalf."""
        repo = self.forge.store.get(rows.Repo, row.repo_id)
        if repo.fork_of is not None:
            return []  # GitHub leaves Actions off in a fork until its owner turns them on, which nobody can here
        made = [self._event(row, row.event, row.ref, row.sha)]
        if row.event == "pull_request":
            tip = self.forge.git.resolve(repo, repo.default_branch) or ""
            made.append(self._event(row, "pull_request_target", f"refs/heads/{repo.default_branch}", tip))
        # Without a commit there is nothing to run: a deleted branch, a pull request that conflicts with its base.
        return [event for event in made if event.sha.strip("0")]

    def _event(self, row: rows.Event, name: str, ref: str, sha: str) -> Event:
        repo = self.forge.store.get(rows.Repo, row.repo_id)
        return Event(
            id=row.id,
            repository=repo.full_name,
            git_dir=self.forge.git.path(repo),
            default_branch=repo.default_branch,
            event=name,
            action=row.action or "",
            payload=row.payload,
            actor=row.actor,
            ref=ref,
            sha=sha,
        )

    def _run(self, run: int) -> rows.Run:
        return self.forge.store.get(rows.Run, run)

    def _repo(self, full_name: str) -> rows.Repo:
        owner, _, name = full_name.partition("/")
        repo = self.forge.store.repo(owner, name)
        if repo is None:
            raise KeyError(full_name)
        return repo


def _steps(job: JobState) -> list[dict[str, Any]]:
    return [
        {
            "name": step.name,
            "number": step.number,
            "status": "completed" if step.conclusion else "in_progress",
            "conclusion": step.conclusion or None,
            "started_at": step.started_at,
            "completed_at": step.completed_at or None,
        }
        for step in job.steps
    ]


def _output(job: JobState) -> dict[str, Any]:
    """The check run's output: the job summary, and the annotations as a list below it."""
    notes = [f"- **{note.level}**{_place(note.where)}: {note.message}" for note in job.annotations]
    bad = job.conclusion and job.conclusion not in checks.GOOD
    title = next((note.where.get("title") or note.message for note in job.annotations if note.level == "error"), None)
    return {"title": title if bad else None, "summary": job.summary or None, "text": "\n".join(notes) or None}


def _place(where: Mapping[str, str]) -> str:
    place = ":".join(where[key] for key in ("file", "line", "col") if where.get(key))
    return f" {place}" if place else ""
