"""Who trains a key: the run to reuse, to resume or to begin, and nobody else training it at the same time.

MLflow has no locks and no compare-and-swap. A new run is announced first (``claiming``) and the announcements of
others are read after that, so of two runners at least one sees the other, whatever their clocks say. A run that was
cut off is taken over by writing a name into its lease and reading, a moment later, whose name stands there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import OutsideError
from mlp_ci.train import lease
from mlp_ci.train.attempt import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.tracking import RunFact
    from mlp_ci.train.job import Job

CLAIMING = "claiming"
TRAINING = "training"
WAIT_SECONDS = 3.0
LOOK_AGAIN_SECONDS = 0.3
SETTLE_SECONDS = 1.0  # longer than a runner takes from reading a lease to writing it


def settled(job: Job) -> RunFact | None:
    """The run to reuse or resume, None to begin one; waits while another machine is training the same key."""
    deadline = time.monotonic() + job.spec.train.timeout.total_seconds() + lease.LEASE_SECONDS
    told = False
    while True:
        run = job.tracking.find_run(job.spec.name, job.key.digest)
        if run is None or run.trained or not job.leases.held_by_another(run):
            return run
        if time.monotonic() > deadline:
            msg = f"another runner has been training this key for longer than its timeout (run {run.run_id})"
            raise OutsideError(msg, fix="look at that job; delete its run in MLflow to train here")
        if not told:
            say(job.log, f"another runner is training this key (run {run.run_id}); waiting for it")
            told = True
        time.sleep(WAIT_SECONDS)


def claimed(job: Job, run: RunFact | None, experiment: str, tags: Mapping[str, str]) -> str | None:
    """The id of the run that is this runner's to train now; None when another runner has come first."""
    if run is not None:
        return run.run_id if _taken_over(job, run, tags) else None
    name = f"{tags['mlp.commit'][:7]}-{job.key.digest[:6]}"
    announced = {**tags, "mlp.status": CLAIMING, lease.TAG: job.leases.text()}
    run_id = job.tracking.start_run(experiment, name, announced, clock.now())
    if _is_ours(job, run_id):
        return run_id
    job.tracking.delete_run(run_id)
    return None


def _is_ours(job: Job, run_id: str) -> bool:
    """Give way to a runner that trains already, and to one that stands ahead; wait for those behind to give way."""
    while True:
        runs = job.tracking.find_runs(job.spec.name, job.key.digest)
        mine = next((r for r in runs if r.run_id == run_id), None)
        others = [r for r in runs if r.run_id != run_id and (r.trained or job.leases.held_by_another(r))]
        if mine is None:
            return False
        if not others:
            job.tracking.log(run_id, tags={"mlp.status": TRAINING})
            return True
        if any(r.trained or r.tags.get("mlp.status") != CLAIMING or _rank(r) < _rank(mine) for r in others):
            return False
        time.sleep(LOOK_AGAIN_SECONDS)


def _rank(run: RunFact) -> tuple[float, str]:
    return run.started.timestamp(), run.run_id


def _taken_over(job: Job, run: RunFact, tags: Mapping[str, str]) -> bool:
    """Put our name into the lease of a run that was cut off; whether it still stands there a moment later."""
    now = job.tracking.run(run.run_id)
    if now.trained or job.leases.held_by_another(now):
        return False
    job.tracking.log(run.run_id, tags={**tags, "mlp.status": TRAINING, lease.TAG: job.leases.text()})
    job.tracking.set_status(run.run_id, "RUNNING")
    time.sleep(SETTLE_SECONDS)
    return lease.holder_of(job.tracking.run(run.run_id)) == job.holder
