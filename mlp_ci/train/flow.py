"""``mlp-ci train``: the same code, data, params, environment and seed are trained once, and resumed if cut off."""

from __future__ import annotations

import contextlib
import fcntl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from mlp_ci import clock, dvc
from mlp_ci.errors import MlpError, OutsideError
from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.spec import load_model
from mlp_ci.tracking import RunFact, Tracking, connect
from mlp_ci.train import held_out, lease
from mlp_ci.train.attempt import Folders, Interrupted, Trained, already_here, attempt, failure, finished, say
from mlp_ci.train.command import Ended, stop_left_over
from mlp_ci.train.key import TrainKey, ignored, train_key, uncommitted, work_folder
from mlp_ci.train.record import hardware_tags, read_params, run_tags

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec

WAIT_SECONDS = 3.0


def train(ctx: Context, *, log: TextIO | None = None) -> Report:
    """Train what the working tree describes, unless it has been trained already.

    ``log`` takes the command's output as it comes (stdout, if not given). Raises InputError when the command breaks
    the training contract, GateError when it runs out of time, OutsideError when something outside ended it or MLflow
    fails; KeyboardInterrupt after SIGTERM or SIGINT, with the run left to be resumed.
    """
    stream = log or sys.stdout
    spec = load_model(ctx.repo)
    with _one_at_a_time(ctx.work, stream):
        for notes in ctx.work.iterdir():
            if stop_left_over(notes):
                say(stream, "ended a training command that had outlived the mlp-ci which started it")
        held_out.bring_back(ctx.repo, ctx.work)
        key = train_key(ctx, spec)
        tracking = connect_to(ctx)
        job = _Job(ctx=ctx, spec=spec, key=key, tracking=tracking, log=stream)
        run = _settled(job)
        if run and run.trained:
            return _report(job, run, None)
        run, trained = _train(job, run)
        return _report(job, run, trained)


def connect_to(ctx: Context) -> Tracking:
    """MLflow at the context's address; the platform is asked for it (over the network) only when there is none."""
    if ctx.tracking_uri:
        return connect(ctx)
    from mlp_ci.github import platform_of

    return connect(ctx, platform_of(ctx))


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What every step of one training needs."""

    ctx: Context
    spec: ModelSpec
    key: TrainKey
    tracking: Tracking
    log: TextIO

    @property
    def folders(self) -> Folders:
        return Folders(root=work_folder(self.ctx, self.key))

    @property
    def holder(self) -> str:
        return lease.holder_name(self.ctx.work)


@contextlib.contextmanager
def _one_at_a_time(work: Path, log: TextIO) -> Iterator[None]:
    """One training per working tree; the system frees the lock however this process ends."""
    with (ignored(work) / "train.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(log, "another mlp-ci train is at work here; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _settled(job: _Job) -> RunFact | None:
    """The run to reuse or resume; waits while another machine is training the same key."""
    deadline = time.monotonic() + job.spec.train.timeout.total_seconds() + lease.LEASE_SECONDS
    told = False
    while True:
        run = job.tracking.find_run(job.spec.name, job.key.digest)
        if run is None or run.trained or not lease.held_by_another(run, job.holder):
            return run
        if time.monotonic() > deadline:
            msg = f"another runner has been training this key for longer than its timeout (run {run.run_id})"
            raise OutsideError(msg, fix="look at that job; delete its run in MLflow to train here")
        if not told:
            say(job.log, f"another runner is training this key (run {run.run_id}); waiting for it")
            told = True
        time.sleep(WAIT_SECONDS)


def _train(job: _Job, run: RunFact | None) -> tuple[RunFact, Trained | None]:
    """Train in ``run`` or in a new one; None when another runner turned out to have begun first."""
    params = read_params(job.ctx.repo, job.spec.train.params)
    data = dvc.pull(job.ctx.repo, [job.spec.data.train])[job.spec.data.train]
    experiment = job.tracking.experiment(job.spec.name, create=True) or ""
    tags = run_tags(job.ctx, job.spec, job.key) | {lease.TAG: lease.first_lease(job.holder)}
    if run is None:
        name = f"{tags['mlp.commit'][:7]}-{job.key.digest[:6]}"
        run_id = job.tracking.start_run(experiment, name, tags, clock.now())
        ahead = job.tracking.find_runs(job.spec.name, job.key.digest)[0]
        if ahead.run_id != run_id and (ahead.trained or lease.held_by_another(ahead, job.holder)):
            job.tracking.delete_run(run_id)
            settled = _settled(job)
            if settled and settled.trained:
                return settled, None
            return _train(job, settled)
    else:
        run_id = run.run_id
        job.tracking.set_status(run_id, "RUNNING")
        job.tracking.log(run_id, tags=tags)
    seconds_before = float(run.tags.get("mlp.train_seconds", 0)) if run else 0.0
    job.tracking.log(run_id, params=_new_params(params, run))
    trained = already_here(job.folders)
    if trained:
        say(job.log, "the model was trained here before and is handed over now")
    else:
        _fetch_checkpoints(job, run)
        trained = _attempt(job, run_id, experiment, data, seconds_before)
    _hand_over(job, run_id, trained, seconds_before + trained.seconds)
    return job.tracking.run(run_id), trained


def _new_params(params: dict[str, object], run: RunFact | None) -> dict[str, object]:
    """MLflow refuses to change a param, so only those are written that a resumed run does not have."""
    return {k: v for k, v in params.items() if run is None or k not in run.params}


def _fetch_checkpoints(job: _Job, run: RunFact | None) -> None:
    """Checkpoints of an attempt on another machine; what lies here is newer and stays."""
    here = job.folders.checkpoints
    if run is None or (here.is_dir() and any(here.iterdir())):
        return
    if job.tracking.has_artifact(run.run_id, "checkpoints"):
        say(job.log, "fetching the checkpoints of the attempt before")
        job.tracking.download(run.run_id, "checkpoints", job.folders.root)


def _attempt(job: _Job, run_id: str, experiment: str, data: Path, seconds_before: float) -> Trained:
    """Run the command once; on failure the run keeps log, checkpoints and reason, and the error is raised."""
    variables = {
        "MLFLOW_TRACKING_URI": job.tracking.uri,
        "MLFLOW_RUN_ID": run_id,
        "MLFLOW_EXPERIMENT_ID": experiment,
        "MLP_DATA_TRAIN": str(data),
        "MLP_PARAMS": str(job.ctx.repo / job.spec.train.params) if job.spec.train.params else "",
        "MLP_SEED": str(job.spec.train.seed),
        "MLP_OUTPUT": str(job.folders.output),
        "MLP_CHECKPOINTS": str(job.folders.checkpoints),
        "MLP_ENVIRONMENT": job.key.parts["environment"],
    }
    resumed = " again" if seconds_before else ""
    say(job.log, f"training {job.spec.name}{resumed}: {job.spec.train.command}")
    with lease.Heartbeat(job.tracking, run_id, job.holder, seconds_before):
        ended, mask = attempt(job.ctx, job.spec, job.folders, variables, job.log)
    try:
        error = None if ended.why == "exit" and ended.code == 0 else failure(job.spec, ended, job.folders.log)
        if error is None:
            return finished(job.folders, ended)
    except MlpError as broken:
        error = broken
    error.why = mask(error.why)
    _keep_failure(job, run_id, error, ended, seconds_before + ended.seconds)
    if ended.why == "interrupted":
        say(job.log, f"stopped after {ended.seconds:.0f} s; the same command goes on with run {run_id}")
        raise Interrupted
    raise error


def _keep_failure(job: _Job, run_id: str, error: MlpError, ended: Ended, seconds: float) -> None:
    """Leave with the run what the next attempt and a person will want; MLflow failing must not hide ``error``."""
    goes_on = ended.why == "interrupted" or isinstance(error, OutsideError)
    status = "interrupted" if goes_on else "failed"
    tags = {"mlp.status": status, "mlp.reason": error.what, "mlp.train_seconds": f"{seconds:.3f}", lease.TAG: ""}
    try:
        job.tracking.log(run_id, tags=tags)
        job.tracking.log_file(run_id, job.folders.log)
        if any(job.folders.checkpoints.iterdir()):
            job.tracking.log_folder(run_id, job.folders.checkpoints, "checkpoints")
        if not goes_on:
            job.tracking.set_status(run_id, "FAILED", clock.now())
    except MlpError as second:
        say(job.log, f"the end of this attempt could not be recorded: {second.what}")


def _hand_over(job: _Job, run_id: str, trained: Trained, seconds: float) -> None:
    """Store the model, the log and the facts with the run, then say that it is whole: in this order."""
    tags = {
        **hardware_tags(),
        "mlp.digest": trained.digest,
        "mlp.flavors": ",".join(trained.output.flavors),
        "mlp.train_seconds": f"{seconds:.3f}",
        "mlp.reason": "",
    }
    # Uploading may take longer than a lease: without renewing it, another runner would train the same key again.
    beat = lease.Heartbeat(job.tracking, run_id, job.holder, None)
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


def _report(job: _Job, run: RunFact, trained: Trained | None) -> Report:
    seconds = float(run.tags.get("mlp.train_seconds", 0))
    if trained:
        headline = f"trained {job.spec.name} in {trained.seconds:.1f} s"
    else:
        headline = f"{job.spec.name} is trained already: the same code, data, params and environment, {seconds:.1f} s"
    report = Report(command="train", headline=headline)
    report.outputs = {"run-id": run.run_id, "train-key": job.key.digest, "trained": str(trained is not None).lower()}
    report.links = [("MLflow run", job.tracking.run_page(run.run_id))]
    tags = run.tags
    facts = {
        "train key": job.key.digest[:16],
        "commit": tags.get("mlp.commit", "")[:12] + (" (dirty)" if tags.get("mlp.dirty") == "true" else ""),
        "model digest": run.digest,
        "environment": tags.get("mlp.env", ""),
        "machine": f"{tags.get('mlp.cpus')} CPUs, {tags.get('mlp.memory_gb')} GB, GPU: {tags.get('mlp.gpu')}",
        "seed": job.spec.train.seed,
        "seconds, all attempts": seconds,
    }
    metrics = {k: v for k, v in run.metrics.items() if trained is None or k in trained.output.metrics}
    rows = (*facts.items(), *((f"metric {k}", v) for k, v in sorted(metrics.items()) if not k.startswith("test_")))
    report.tables = [Table(title="", columns=("what", "value"), rows=tuple(rows))]
    report.data = {"run_id": run.run_id, "train_key": job.key.digest, "key_parts": dict(job.key.parts), **facts}
    dirty = uncommitted(job.ctx.repo, job.spec)
    if dirty:
        report.findings = [_dirty(dirty)]
    return report


def _dirty(paths: list[str]) -> Finding:
    shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    return Finding(
        check="committed",
        outcome=Outcome.FAIL,
        severity="warning",
        message=f"not committed: {shown}; register takes only what a commit describes",
        fix="git add and commit, or add files that training writes to .gitignore",
    )
