"""``mlp-ci train``: the same code, data, params, environment and seed are trained once, and resumed if cut off."""

from __future__ import annotations

import contextlib
import fcntl
import sys
from typing import TYPE_CHECKING, TextIO

from mlp_ci import dvc
from mlp_ci.errors import InputError, MlpError, OutsideError
from mlp_ci.spec import load_model
from mlp_ci.tracking import Tracking, connect
from mlp_ci.train import backends, claim, held_out, lease, preflight
from mlp_ci.train.attempt import Interrupted, Trained, already_here, attempt, finished, say
from mlp_ci.train.backends import node
from mlp_ci.train.command import stop_left_over
from mlp_ci.train.ending import failure
from mlp_ci.train.job import Job
from mlp_ci.train.keeping import hand_over, keep_failure
from mlp_ci.train.key import ignored, train_key
from mlp_ci.train.params import Chosen, noted, write_merged
from mlp_ci.train.record import read_params, run_tags
from mlp_ci.train.summary import report_of
from mlp_ci.train.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.report import Report
    from mlp_ci.tracking import RunFact
    from mlp_ci.train.key import Marked
    from mlp_ci.train.params import Search


def train(
    ctx: Context, *, log: TextIO | None = None, search: Search | None = None, marked: Marked | None = None
) -> Report:
    """Train what the working tree describes, unless it has been trained already.

    ``search`` finds the parameters where model.yaml asks for a search (``train.sweep``). ``marked``: in a run beside
    the one that counts, which nobody finds by the train key.
    ``log`` takes the command's output as it comes (stdout, if not given). Raises InputError when the command breaks
    the training contract, GateError when it runs out of time or memory, OutsideError when something outside ended it,
    it got stuck or MLflow fails; KeyboardInterrupt after SIGTERM or SIGINT, with the run left to be resumed.
    """
    stream = log or sys.stdout
    spec = load_model(ctx.repo)
    with alone_here(ctx, stream):
        key = train_key(ctx, spec)
        backends.check_expected(ctx, key)
        if backends.is_worker(ctx):
            return node.work(ctx, spec, key, stream)
        key = marked.of(key) if marked else key
        job = Job(ctx=ctx, spec=spec, key=key, tracking=connect_to(ctx), log=stream)
        there = backends.elsewhere(ctx, spec)
        if there:
            return _train_elsewhere(job, there)
        run, trained = _train_here(job, search, marked.tags if marked else {})
        return report_of(job, run, trained)


def connect_to(ctx: Context) -> Tracking:
    """MLflow at the context's address; the platform is asked for it (over the network) only when there is none."""
    if ctx.tracking_uri:
        return connect(ctx)
    from mlp_ci.github import platform_of

    return connect(ctx, platform_of(ctx))


@contextlib.contextmanager
def alone_here(ctx: Context, log: TextIO) -> Iterator[None]:
    """One training per working tree, which is put in order first; the system frees the lock however this ends."""
    with (ignored(ctx.work) / "train.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(log, "another mlp-ci train is at work here; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        for notes in ctx.work.iterdir():
            if stop_left_over(notes):
                say(log, "ended a training command that had outlived the mlp-ci which started it")
        held_out.bring_back(ctx.repo, ctx.work)
        yield


def _train_elsewhere(job: Job, there: backends.Elsewhere) -> Report:
    """Have a cluster train, where mlp-ci does what it does here; what it made stands in MLflow."""
    found = job.tracking.find_run(job.spec.name, job.key.digest)
    before = found is not None and found.trained
    if not before:
        there.train(job.key, job.log)
        found = job.tracking.find_run(job.spec.name, job.key.digest)
    if found is None or not found.trained:
        msg = f"the job on {job.spec.train.backend} ended well, and MLflow has no trained run of this key"
        fix = "see that the job speaks to the same MLflow as this machine, then run `mlp-ci train` again"
        raise OutsideError(msg, fix=fix)
    report = report_of(job, found, None)
    if not before:
        report.headline = f"trained {job.spec.name} on {backends.name_of(job.ctx, job.spec)}"
        report.outputs["trained"] = "true"
    return report


def _train_here(job: Job, search: Search | None, marks: Mapping[str, str]) -> tuple[RunFact, Trained | None]:
    """Train in a new run or one that was cut off; None for what had been trained, here or by another runner.

    ``marks`` are further tags of the run.
    """
    chosen: Chosen | None = None
    while True:
        run = claim.settled(job)
        if run and run.trained:
            return run, None
        if chosen is None:
            chosen, searched = _chosen(job, run, search)
            if searched:
                continue  # hours may have passed: see again who trains
        params_file = _params_file(job, chosen)
        params = read_params(params_file.parent, params_file.name) if params_file else {}
        trained = already_here(job.folders)
        if trained is None:
            preflight.require(job)
        data = dvc.pull(job.ctx.repo, [job.spec.data.train])[job.spec.data.train]
        experiment = job.tracking.experiment(job.spec.name, create=True) or ""
        run_id = claim.claimed(job, run, experiment, {**run_tags(job.ctx, job.spec, job.key), **chosen.tags, **marks})
        if run_id is None:
            continue  # another runner came first: wait for it
        # MLflow refuses to change a param, so only those are written that a resumed run does not have.
        new_params = {k: v for k, v in params.items() if run is None or k not in run.params}
        watching = Watching(job, run_id, run)
        job.tracking.log(run_id, params=new_params, tags={"mlp.attempts": str(watching.attempt)})
        if trained:
            say(job.log, "the model was trained here before and is handed over now")
        else:
            watching.bring_checkpoints(run)
            variables = {
                "MLFLOW_EXPERIMENT_ID": experiment,
                "MLP_DATA_TRAIN": str(data),
                "MLP_PARAMS": str(params_file or ""),
            }
            trained = _attempt(job, run_id, variables, watching)
        with contextlib.suppress(MlpError):  # measurements are not worth a model
            watching.write_points()
        hand_over(job, run_id, trained, {**watching.ended_tags, **watching.tags(trained.seconds)})
        watching.tidy()
        return job.tracking.run(run_id), trained


def _chosen(job: Job, run: RunFact | None, search: Search | None) -> tuple[Chosen, bool]:
    """The values that a search chose, for a run that goes on those it began with; and whether it was searched now."""
    if job.spec.train.sweep is None:
        return Chosen(values={}), False
    before = noted(run.tags) if run else None
    if before:
        return before, False
    if search is None:
        msg = "model.yaml asks for a search of parameters (train.sweep), and nothing here can search"
        raise InputError(msg, fix="run `mlp-ci train`, or give the values of an earlier search", file="model.yaml")
    return search(job.ctx, job.spec, job.key, job.tracking, job.log), True


def _params_file(job: Job, chosen: Chosen) -> Path | None:
    """What the command gets as MLP_PARAMS: the team's file, or a copy with the chosen values."""
    path = job.spec.train.params
    if path is None:
        return None
    if not chosen.values:
        return job.ctx.repo / path
    return write_merged(job.ctx.repo, path, chosen.values, job.folders.root / "params")


def _attempt(job: Job, run_id: str, variables: dict[str, str], watching: Watching) -> Trained:
    """Run the command once; on failure the run keeps log, checkpoints and reason, and the error is raised."""
    variables |= {
        "MLFLOW_TRACKING_URI": job.tracking.uri,
        "MLFLOW_RUN_ID": run_id,
        "MLP_SEED": str(job.spec.train.seed),
        "MLP_OUTPUT": str(job.folders.output),
        "MLP_CHECKPOINTS": str(job.folders.checkpoints),
        "MLP_PROGRESS": str(job.folders.progress),
        "MLP_ENVIRONMENT": job.key.parts["environment"],
    }
    job.folders.root.mkdir(parents=True, exist_ok=True)
    job.folders.progress.touch()
    say(job.log, f"training {job.spec.name}{' again' if watching.resumed else ''}: {job.spec.train.command}")
    with lease.Heartbeat(job.tracking, run_id, job.leases, watching.tell) as beat:
        watching.beat = beat
        ended, mask = attempt(job.ctx, job.spec, job.folders, variables, job.log, watching)
    try:
        watching.ended_tags = ended.tags
        if ended.why == "exit" and ended.code == 0:
            return finished(job.spec, job.folders, ended)
        error = failure(job.spec, ended, job.folders.log, watching.evidence())
    except MlpError as broken:
        error = broken
    error.why = mask(error.why)
    keep_failure(job, run_id, error, ended, watching)
    if ended.why == "interrupted":
        say(job.log, f"stopped after {ended.seconds:.0f} s; the same command goes on with run {run_id}")
        raise Interrupted
    raise error
