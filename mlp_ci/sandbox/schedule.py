"""The ``schedule`` trigger: scheduled workflows run when their hour comes, by the sandbox's own clock.

As on GitHub they run on the default branch, and what was missed (the sandbox was down, or its clock was moved) is
dropped and not made up for: commands look at windows of time, not at "since the last run".
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import MlpError
from mlp_ci.sandbox.forge import events, runs
from mlp_ci.sandbox.forge.records import Repo
from mlp_ci.sandbox.workflows import parse

if TYPE_CHECKING:
    from threading import Event

    from mlp_ci.sandbox.forge.access import Forge

EVERY_SECONDS = 5.0
# A longer gap between two looks is a clock that was moved, or a machine that slept.
LONGEST_GAP = timedelta(minutes=10)
_log = logging.getLogger(__name__)


class Scheduler:
    """Looks every few seconds which hours have come since its last look."""

    def __init__(self, forge: Forge) -> None:
        self._forge = forge
        self._last = clock.now()

    def run(self, stop: Event) -> None:
        """Look until ``stop`` is set."""
        while not stop.wait(EVERY_SECONDS):
            try:
                self.look(clock.now())
            except Exception:  # one bad look must not end all schedules
                _log.exception("schedules could not be looked at")

    def look(self, now: datetime) -> list[tuple[str, str]]:
        """Start what came due since the last look; (repository, cron) of each."""
        since, self._last = self._last, now
        if not timedelta(0) < now - since <= LONGEST_GAP:
            return []
        started = []
        for repo in self._forge.store.find(Repo):
            for cron in crons_of(self._forge, repo):
                if is_due(cron, since, now):
                    events.scheduled(self._forge, repo, cron)
                    started.append((repo.full_name, cron))
        return started


def crons_of(forge: Forge, repo: Repo) -> list[str]:
    """The schedules of a repository's workflows, as its default branch has them; none where it is empty."""
    sha = forge.git.refs(repo, "refs/heads").get(f"refs/heads/{repo.default_branch}")
    found: set[str] = set()
    for path, text in (runs.workflow_files(forge, repo, sha) if sha else {}).items():
        try:
            found |= {str(entry["cron"]) for entry in parse(path, text.decode()).on.get("schedule") or ()}
        except (MlpError, UnicodeDecodeError, TypeError, KeyError):
            _log.warning("%s: %s cannot be read, so its schedule does not run", repo.full_name, path)
    return sorted(found)


def is_due(cron: str, since: datetime, until: datetime) -> bool:
    """Whether a cron expression (UTC) names an instant after ``since`` and not after ``until``."""
    from cronsim import CronSim, CronSimError

    try:
        return bool(next(CronSim(cron, since)) <= until)
    except (CronSimError, StopIteration):
        return False
