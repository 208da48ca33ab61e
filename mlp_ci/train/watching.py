"""What is done beside a training command while it runs: measuring it, saving its checkpoints, ending it when stuck."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlp_ci.train.attempt import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlp_ci.tracking import RunFact
    from mlp_ci.train.job import Job
    from mlp_ci.train.lease import Heartbeat


class Watching:
    """The watch of one attempt at ``run_id``; ``before`` is the run as earlier attempts left it."""

    def __init__(self, job: Job, run_id: str, before: RunFact | None) -> None:
        self._job = job
        self._run_id = run_id
        self._before = before.tags if before else {}
        self._started = time.monotonic()
        self.beat: Heartbeat | None = None

    @property
    def resumed(self) -> bool:
        """Whether an attempt before this one got anywhere."""
        return bool(self._before.get("mlp.train_seconds"))

    # ---------------------------------------------------------------- while the command runs

    def begin(self, roots: Callable[[], Sequence[int]]) -> None:
        self._started = time.monotonic()

    def look(self, quiet: float) -> str:
        if self.beat and self.beat.lost:
            return f"{self.beat.lost} took this run over while MLflow was out of reach, and trains it now"
        return ""

    def end(self) -> None:
        pass

    def tell(self) -> None:
        """Write what is known so far to the run."""
        self._job.tracking.log(self._run_id, tags=self.tags())

    # ---------------------------------------------------------------- before and after

    def tags(self, seconds: float | None = None) -> dict[str, str]:
        """What all attempts used together; ``seconds`` is what this one took, up to now if not given."""
        took = time.monotonic() - self._started if seconds is None else seconds
        return {"mlp.train_seconds": f"{float(self._before.get('mlp.train_seconds', 0)) + took:.3f}"}

    def bring_checkpoints(self, run: RunFact | None) -> None:
        """Checkpoints of an attempt on another machine; what lies here is newer and stays."""
        here = self._job.folders.checkpoints
        if run is None or (here.is_dir() and any(here.iterdir())):
            return
        if self._job.tracking.has_artifact(run.run_id, "checkpoints"):
            say(self._job.log, "fetching the checkpoints of the attempt before")
            self._job.tracking.download(run.run_id, "checkpoints", self._job.folders.root)

    def save_last(self) -> None:
        """Save the checkpoints as the command left them."""
        if any(self._job.folders.checkpoints.iterdir()):
            self._job.tracking.log_folder(self._run_id, self._job.folders.checkpoints, "checkpoints")

    def tidy(self) -> None:
        """Drop what only an unfinished training needs."""
