"""What is done beside a training command while it runs: measuring it, saving its checkpoints, ending it when stuck."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from mlp_ci.errors import MlpError
from mlp_ci.train import checkpoints, memory
from mlp_ci.train.ending import Evidence
from mlp_ci.train.gpus import Gpus
from mlp_ci.train.usage import SAMPLE_SECONDS, Sampler, tree
from mlp_ci.train.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlp_ci.tracking import RunFact
    from mlp_ci.train.job import Job
    from mlp_ci.train.lease import Heartbeat


class Watching:
    """The watch of one attempt at ``run_id``; ``before`` is the run as earlier attempts left it."""

    def __init__(self, job: Job, run_id: str, before: RunFact | None) -> None:
        self._job = job
        self._run_id = run_id
        self._before: Mapping[str, str] = before.tags if before else {}
        self._started = time.monotonic()
        self._kills = memory.kills()
        self._gpus = Gpus(os.environ)
        self._dog = Watchdog(job.spec.train.watchdog, job.gpus, self._started)
        pause = min(SAMPLE_SECONDS, self._dog.patience / 4) if self._dog.patience else SAMPLE_SECONDS
        self.sampler = Sampler(self._gpus, job.ctx.work, number(self._before, "mlp.train_seconds"), max(pause, 0.1))
        set_before = self._before.get(checkpoints.TAG, "")
        self._store = checkpoints.store_of(job, run_id, set_before)
        self._saver = checkpoints.Saver(job, self._store, set_before, self._announce)
        self.beat: Heartbeat | None = None
        self.ended_tags: Mapping[str, str] = {}  # what the back end has to say of the attempt

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return int(number(self._before, "mlp.attempts")) + 1

    @property
    def resumed(self) -> bool:
        """Whether an attempt before this one got anywhere."""
        return bool(self._before.get("mlp.train_seconds"))

    # ---------------------------------------------------------------- while the command runs

    def begin(self, roots: Callable[[], Sequence[int]]) -> None:
        self._started = time.monotonic()
        self.sampler.begin(roots)
        self._saver.begin(lambda: [process.pid for process in tree(roots())])

    def look(self, quiet: float) -> str:
        if self.beat and self.beat.lost:
            return f"{self.beat.lost} took this run over while MLflow was out of reach, and trains it now"
        return self._dog.look(time.monotonic(), quiet, self.sampler.latest)

    def end(self) -> None:
        self._saver.stop()
        self.sampler.end()

    def tell(self) -> None:
        """Write what is known so far to the run."""
        self._job.tracking.log(self._run_id, tags=self.tags())
        self.write_points()

    def write_points(self) -> None:
        """Write what was measured and not yet written."""
        points = self.sampler.points()
        self._job.tracking.log_points(self._run_id, points)
        self.sampler.written(points)

    # ---------------------------------------------------------------- before and after

    def bring_checkpoints(self, run: RunFact | None) -> None:
        """Checkpoints of an attempt on another machine that got further than what lies here."""
        checkpoints.bring(self._job, self._store, run.tags.get(checkpoints.TAG, "") if run else "")

    def save_last(self) -> None:
        """Save the checkpoints as the command left them."""
        self._saver.save_last()

    def tidy(self) -> None:
        """Drop the checkpoints of a training that is done: the model is what was wanted."""
        with suppress(MlpError):
            if self._before.get(checkpoints.TAG) or self._saver.saved_something:
                self._store.clear()
                self._job.tracking.log(self._run_id, tags={checkpoints.TAG: ""})
        self._saver.forget()

    def evidence(self) -> Evidence:
        """What an end for lack of memory shows in."""
        now = memory.kills()
        kills = memory.Kills(ours=now.ours - self._kills.ours, machine=now.machine - self._kills.machine)
        gpus = self._gpus.gpus
        return Evidence(
            peak=self.sampler.peak_memory(),
            limit=memory.limit(),
            gpu_peak=self.sampler.totals.gpu_peak_memory,
            gpu_memory=max((gpu.memory for gpu in gpus), default=0),
            gpu=gpus[0].name if gpus else "",
            kills=kills,
        )

    # ---------------------------------------------------------------- what it used

    def tags(self, seconds: float | None = None) -> dict[str, str]:
        """What all attempts used together; ``seconds`` is what this one took, up to now if not given."""
        took = time.monotonic() - self._started if seconds is None else seconds
        used, before = self.sampler.totals, self._before
        all_seconds = number(before, "mlp.train_seconds") + took
        tags = {
            "mlp.train_seconds": f"{all_seconds:.3f}",
            "mlp.attempts": str(self.attempt),
            "mlp.cpu_seconds": f"{number(before, 'mlp.cpu_seconds') + used.cpu_seconds:.1f}",
            "mlp.peak_memory_mb": f"{max(number(before, 'mlp.peak_memory_mb'), self.sampler.peak_memory() / 1e6):.0f}",
        }
        if used.gpu_utilisation is not None:
            tags["mlp.gpu_utilization"] = f"{used.gpu_utilisation:.1f}"
            most = max(number(before, "mlp.gpu_peak_memory_mb"), used.gpu_peak_memory / 1e6)
            tags["mlp.gpu_peak_memory_mb"] = f"{most:.0f}"
        if used.energy_wh is not None:
            tags["mlp.energy_wh"] = f"{number(before, 'mlp.energy_wh') + used.energy_wh:.3f}"
        price = self._job.usd_per_hour
        if price is not None:
            tags |= {"mlp.usd_per_hour": f"{price:g}", "mlp.cost_usd": f"{all_seconds / 3600 * price:.4f}"}
        return tags

    def _announce(self, tags: dict[str, str]) -> None:
        if not (self.beat and self.beat.lost):
            self._job.tracking.log(self._run_id, tags={**self.tags(), **tags})


def number(tags: Mapping[str, str], name: str) -> float:
    """A tag as a number; 0 where there is none."""
    try:
        return float(tags.get(name) or 0)
    except ValueError:
        return 0.0
