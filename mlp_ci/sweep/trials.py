"""Trials as MLflow remembers them: child runs of one run, the sweep's. There is no other memory of a search.

So it goes on wherever it was cut off, on any machine that reaches MLflow, and two machines share it without a database
of its own; see docs/decisions/0018-trials-are-child-runs.md.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.spec.sweep import Scalar
    from mlp_ci.tracking import RunFact, Tracking

RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"
KEY, PARENT = "mlp.sweep_key", "mlp.sweep"
STATE = "mlp.trial_state"
PROGRESS = "progress"  # the metric of intermediate values


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial. ``value`` is its metric, ``folds`` that of each fold so far, ``spread`` their standard deviation,
    ``curve`` its intermediate values by step, ``rungs`` what the pruner noted about it, ``seconds`` all attempts."""

    run: RunFact
    number: int
    state: str
    values: Mapping[str, Scalar]
    value: float | None = None
    spread: float | None = None
    folds: tuple[float, ...] = ()
    curve: Mapping[int, float] = field(default_factory=dict)
    rungs: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0

    @property
    def seconds(self) -> float:
        return _number(self.run.tags.get("mlp.train_seconds")) or 0.0

    @property
    def reason(self) -> str:
        return self.run.tags.get("mlp.reason", "")


class Trials:
    """The trials of one sweep, read anew each time; curves of finished trials are read once."""

    def __init__(self, tracking: Tracking, experiment: str, sweep_run: str, *, curves: bool) -> None:
        self._tracking = tracking
        self._experiment = experiment
        self._sweep_run = sweep_run
        self._curves = curves
        self._known: dict[str, dict[int, float]] = {}

    def read(self) -> list[Trial]:
        """All trials, by number; of one number the one with the lowest run id first."""
        runs = self._tracking.tagged(self._experiment, PARENT, self._sweep_run)
        found = [self._trial(run) for run in runs if "mlp.trial" in run.tags]
        return sorted(found, key=lambda t: (t.number, t.run.run_id))

    def _trial(self, run: RunFact) -> Trial:
        tags = run.tags
        try:
            number, values = int(tags["mlp.trial"]), json.loads(tags["mlp.trial_values"])
            folds = tuple(float(v) for v in json.loads(tags.get("mlp.trial_folds") or "[]"))
            rungs = json.loads(tags.get("mlp.trial_rungs") or "{}")
            attempts = int(tags.get("mlp.trial_attempts") or 0)
        except (ValueError, KeyError, TypeError) as error:
            msg = f"run {run.run_id} is a trial whose tags cannot be read: {error}"
            raise InputError(msg, fix="delete that run in MLflow: the trial is then done again") from error
        value = _number(tags.get("mlp.trial_value"))
        state = tags.get(STATE, RUNNING)
        if state not in (COMPLETE, PRUNED, FAILED) or (state == COMPLETE and value is None):
            state = RUNNING  # or not even that: still being claimed
        return Trial(
            run=run,
            number=number,
            state=state,
            values=values,
            value=value,
            spread=_number(tags.get("mlp.trial_spread")),
            folds=folds,
            curve=self._curve(run, state),
            rungs=rungs,
            attempts=attempts,
        )

    def _curve(self, run: RunFact, state: str) -> dict[int, float]:
        if not self._curves or PROGRESS not in run.metrics:
            return {}
        if run.run_id not in self._known or state == RUNNING:
            self._known[run.run_id] = self._tracking.curve(run.run_id, PROGRESS)
        return self._known[run.run_id]


def best_of(trials: Sequence[Trial], *, maximize: bool) -> Trial | None:
    """The complete trial with the best value, of equal ones the first; None where none is complete."""
    complete = [t for t in trials if t.state == COMPLETE and t.value is not None]
    return min(complete, key=lambda t: (-t.value if maximize else t.value, t.number), default=None)  # type: ignore[operator]


def shown_values(values: Mapping[str, Scalar]) -> str:
    """For people: ``depth 3, rate 0.0123``."""
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is None or math.isfinite(value) else None
