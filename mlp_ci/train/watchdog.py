"""Decides when a training that goes nowhere is ended, and says what was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.spec import show_duration

if TYPE_CHECKING:
    from mlp_ci.spec.train import Watchdog as Rules
    from mlp_ci.train.usage import Sample

# Below this share of one processor a process only wakes up to see that there is nothing to do.
IDLE_SHARE = 0.01
IDLE_PERCENT = 1.0
# We were not running ourselves for so long (a laptop that slept, a machine that was moved): nothing counts as seen.
ABSENT_SECONDS = 30.0


class Watchdog:
    """The rules of ``train.watchdog`` over what is seen; ``gpus``: how many GPUs the training asked for."""

    def __init__(self, rules: Rules, gpus: int, began: float) -> None:
        self._stalled = rules.stalled.total_seconds()
        self._silent = rules.silent.total_seconds()
        self._gpu_idle = rules.gpu_idle.total_seconds() if gpus else 0.0
        self._gpus = gpus
        self._rules = rules
        self._looked = self._not_before = began
        self._busy = self._gpu_busy = began
        self._gpu_told = False
        self._sample: Sample | None = None

    @property
    def patience(self) -> float:
        """The shortest time after which something may be ended, in seconds; 0 when nothing ever is."""
        return min((t for t in (self._stalled, self._silent, self._gpu_idle) if t), default=0.0)

    def look(self, now: float, quiet: float, sample: Sample | None) -> str:
        """Why to end the command, or nothing. ``quiet``: seconds since its last output."""
        if now - self._looked > ABSENT_SECONDS:
            self._not_before = self._busy = self._gpu_busy = now
        self._looked = now
        if sample is not None and sample is not self._sample:
            self._take_in(sample)
        quiet = min(quiet, now - self._not_before)
        if self._silent and quiet >= self._silent:
            return f"it printed nothing for {show_duration(self._rules.silent)} (train.watchdog.silent)"
        if self._stalled and quiet >= self._stalled and now - self._busy >= self._stalled and self._sample is not None:
            gpu = ", nor the GPUs" if self._gpu_told else ""
            seen = f"it printed nothing and used no processor{gpu}"
            return f"{seen} for {show_duration(self._rules.stalled)} (train.watchdog.stalled)"
        if self._gpu_idle and self._gpu_told and now - self._gpu_busy >= self._gpu_idle:
            count = "the GPU stood" if self._gpus == 1 else f"all {self._gpus} GPUs stood"
            return f"{count} at 0 % for {show_duration(self._rules.gpu_idle)} (train.watchdog.gpu_idle)"
        return ""

    def _take_in(self, sample: Sample) -> None:
        before, self._sample = self._sample, sample
        used = sample.gpu_utilisation
        self._gpu_told = self._gpu_told or used is not None
        if used is not None and used >= IDLE_PERCENT:
            self._gpu_busy = self._busy = sample.at
        # Where no process can be seen (in another machine's container), nothing can be said of its processor.
        unknown = before is None or sample.processes == 0
        if before is None or unknown or sample.cpu_seconds - before.cpu_seconds >= IDLE_SHARE * (sample.at - before.at):
            self._busy = sample.at
