"""Who does which trial: two workers that share a sweep never do one twice, and none is left undone.

MLflow has no locks. A new run is announced first (as being claimed), and the announcements of others are read after
that, so of two workers at least one sees the other, whatever their clocks say (as in :mod:`mlp_ci.train.claim`). A
trial whose worker is gone is taken over by writing a name into its lease and reading, a moment later, whose it is.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.sweep.trials import FAILED, PARENT, RUNNING, STATE, shown_values
from mlp_ci.train import lease

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlp_ci.spec.sweep import Scalar
    from mlp_ci.sweep.job import Job
    from mlp_ci.sweep.trials import Trial
    from mlp_ci.tracking import RunFact

CLAIMING = "claiming"
LOOK_AGAIN_SECONDS = 0.3
SETTLE_SECONDS = 1.0  # longer than a worker takes from reading a lease to writing it
# A trial whose command ended so often without a result, not even a failure, probably takes its machine down.
MOST_ATTEMPTS = 5


def abandoned(job: Job, trials: Sequence[Trial]) -> Trial | None:
    """The first unfinished trial that nobody is at."""
    return next((t for t in trials if t.state == RUNNING and not job.leases.held_by_another(t.run)), None)


def begin(job: Job, trials: Sequence[Trial], values: Mapping[str, Scalar]) -> Trial | None:
    """A new trial with the next number; None when another worker took it at this moment."""
    number = max((t.number for t in trials), default=0) + 1
    tags = {
        "mlflow.parentRunId": job.run_id,
        PARENT: job.run_id,
        "mlp.trial": str(number),
        STATE: CLAIMING,
        "mlp.trial_values": json.dumps(dict(values)),
        "mlp.status": "trial",
        lease.TAG: job.leases.text(),
        **_same_as_the_sweep(job),
    }
    run_id = job.tracking.start_run(job.experiment, f"trial {number}", tags, clock.now())

    def rivals() -> list[RunFact]:
        return [t.run for t in job.trials.read() if t.number == number]

    if not came_first(rivals, run_id, job.leases, STATE):
        job.tracking.delete_run(run_id)
        return None
    job.tracking.log(run_id, tags={STATE: RUNNING}, params=dict(values))
    return next((t for t in job.trials.read() if t.run.run_id == run_id), None)


def came_first(rivals: Callable[[], list[RunFact]], mine: str, leases: lease.Leases, tag: str) -> bool:
    """Whether the announced run ``mine`` stays, of all that want to be the same; ``tag`` says who is still claiming.

    Gives way to a run that is past claiming and to one that stands ahead; waits for those behind to give way.
    """
    while True:
        runs = rivals()
        others = [r for r in runs if r.run_id != mine and (r.tags.get(tag) != CLAIMING or leases.held_by_another(r))]
        if all(r.run_id != mine for r in runs):
            return False
        if not others:
            return True
        if any(r.tags.get(tag) != CLAIMING or r.run_id < mine for r in others):
            return False
        time.sleep(LOOK_AGAIN_SECONDS)


def take_over(job: Job, trial: Trial) -> Trial | None:
    """Go on with a trial that was cut off; None when another worker does, or when it is given up."""
    run_id = trial.run.run_id
    gone = job.budget.over(job.trials.read())
    if trial.attempts >= MOST_ATTEMPTS:
        gone = f"it ended {trial.attempts} times without a result"
    if gone:
        tags = {STATE: FAILED, "mlp.reason": f"cut off, and not done again: {gone}", lease.TAG: ""}
        job.tracking.log(run_id, tags=tags)
        job.tracking.set_status(run_id, "FAILED", clock.now())
        job.say(f"trial {trial.number} ({shown_values(trial.values)}) was cut off and is given up: {gone}")
        return None
    job.tracking.log(run_id, tags={lease.TAG: job.leases.text(), STATE: RUNNING})
    if lease.holder_of(trial.run) != job.leases.holder:  # nobody else thinks that it is theirs otherwise
        time.sleep(SETTLE_SECONDS)
    found = next((t for t in job.trials.read() if t.run.run_id == run_id), None)
    if found is None or found.state != RUNNING or lease.holder_of(found.run) != job.leases.holder:
        return None
    job.tracking.set_status(run_id, "RUNNING")
    return found


def _same_as_the_sweep(job: Job) -> dict[str, str]:
    """What the bill and a person who looks at one trial need to know."""
    parent = job.tracking.run(job.run_id).tags
    return {k: parent[k] for k in ("mlp.commit", "mlp.team", "mlp.runner", "mlp.seed", "mlp.env") if k in parent}
