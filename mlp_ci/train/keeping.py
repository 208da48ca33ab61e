"""What a run keeps of an attempt: the model and the facts of one that ended well, the reason of one that did not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import MlpError, OutsideError
from mlp_ci.train import lease
from mlp_ci.train.attempt import say
from mlp_ci.train.record import hardware_tags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.train.attempt import Trained
    from mlp_ci.train.command import Ended
    from mlp_ci.train.job import Job
    from mlp_ci.train.watching import Watching


def keep_failure(job: Job, run_id: str, error: MlpError, ended: Ended, watching: Watching) -> None:
    """Leave with the run what the next attempt and a person will want; MLflow failing must not hide ``error``.

    In the order in which it is missed if this machine goes away before the end: the checkpoints, that the run may be
    taken over, the log.
    """
    goes_on = ended.why == "interrupted" or isinstance(error, OutsideError)
    tags = {
        **ended.tags,
        **watching.tags(),
        "mlp.status": "interrupted" if goes_on else "failed",
        "mlp.reason": error.what,
        lease.TAG: "",
    }
    try:
        watching.save_last()
        job.tracking.log(run_id, tags=tags)
        job.tracking.log_file(run_id, job.folders.log)
        watching.tell()
        if not goes_on:
            job.tracking.set_status(run_id, "FAILED", clock.now())
    except MlpError as second:
        say(job.log, f"the end of this attempt could not be recorded: {second.what}")


def hand_over(job: Job, run_id: str, trained: Trained, known: Mapping[str, str]) -> None:
    """Store the model, the log and the facts with the run, then say that it is whole: in this order."""
    tags = {
        **hardware_tags(),
        **known,
        "mlp.digest": trained.digest,
        "mlp.flavors": ",".join(trained.output.flavors),
        "mlp.reason": "",
    }
    # Uploading may take longer than a lease: without renewing it, another runner would train the same key again.
    beat = lease.Heartbeat(job.tracking, run_id, job.leases)
    try:
        with beat, ThreadPoolExecutor(max_workers=2) as pool:
            uploads = [
                pool.submit(job.tracking.log_folder, run_id, trained.output.model, "model"),
                pool.submit(job.tracking.log, run_id, tags=tags, metrics=trained.output.metrics),
            ]
            if job.folders.log.exists():
                job.tracking.log_file(run_id, job.folders.log)
            for upload in uploads:
                upload.result()
        job.tracking.log(run_id, tags={"mlp.status": "trained", lease.TAG: ""})
        job.tracking.set_status(run_id, "FINISHED", clock.now())
    except MlpError as error:
        error.why = f"the trained model is kept in {trained.output.model}, nothing is lost"
        again = "run `mlp-ci train` again: it stores that model without training again"
        error.fix = f"see that MLflow and its store of artefacts can be written to, then {again}"
        raise
