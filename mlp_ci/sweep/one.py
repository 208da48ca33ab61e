"""One trial: trained once on all training data, or once per fold and judged on what that fold left out."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import InputError, MlpError, OutsideError
from mlp_ci.sweep.reported import Reported
from mlp_ci.sweep.trials import COMPLETE, FAILED, PROGRESS, PRUNED, STATE, shown_values
from mlp_ci.train import held_out, lease
from mlp_ci.train.attempt import Interrupted, Trained, already_here, attempt, finished
from mlp_ci.train.ending import failure
from mlp_ci.train.params import write_merged
from mlp_ci.train.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlp_ci.sweep.folds import Fold
    from mlp_ci.sweep.job import Job, TrialJob
    from mlp_ci.sweep.trials import Trial
    from mlp_ci.tracking import RunFact

    Keep = Callable[[Mapping[int, float]], None]

# How old the picture of the other trials may be when a trial is held against them.
REFRESH_SECONDS = 10.0


class FellBehind(Exception):
    """The pruner gave a trial up."""


class NoMetric(InputError):
    """The command does not say what is searched for, so no trial of this code will."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out of a trial: the metric, over folds its mean and standard deviation, and what else it measured."""

    value: float
    spread: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def run_trial(job: Job, trial: Trial) -> None:
    """Do one claimed trial to its end and keep what came out of it with its run.

    Raises Interrupted (the trial goes on at the next start), NoMetric, and OutsideError where MLflow fails.
    """
    before, started = trial.seconds, time.monotonic()

    def used() -> dict[str, str]:
        return {"mlp.train_seconds": f"{before + time.monotonic() - started:.3f}"}

    def tell() -> None:
        job.tracking.log(trial.run.run_id, tags=used())

    again = " again" if trial.attempts > 1 else ""
    job.say(f"trial {trial.number}{again}: {shown_values(trial.values)}")
    error: MlpError | None = None
    with lease.Heartbeat(job.tracking, trial.run.run_id, job.leases, tell) as beat:
        try:
            result = _in_folds(job, trial) if job.folds else _once(job, trial)
            tags, status = _complete(result), "FINISHED"
        except FellBehind as behind:
            tags, status, result = {STATE: PRUNED, "mlp.reason": str(behind)}, "KILLED", None
        except Interrupted:
            attempts = str(max(0, trial.attempts - 1))  # asked to stop: that is no fault of the trial
            job.tracking.log(trial.run.run_id, tags=used() | {lease.TAG: "", "mlp.trial_attempts": attempts})
            raise
        except OutsideError as outside:
            job.tracking.log(trial.run.run_id, tags=used() | {lease.TAG: "", "mlp.reason": outside.what})
            job.say(f"trial {trial.number} was cut off: {outside.what}")
            return
        except MlpError as broken:
            error, result = broken, None
            tags, status = {STATE: FAILED, "mlp.reason": broken.what}, "FAILED"
    if beat.lost:
        job.say(f"trial {trial.number} was taken over by {beat.lost} while MLflow could not be reached")
        return
    metrics = {**result.metrics, **_named(job, result)} if result else {}
    _keep_log(job, trial)
    job.tracking.log(trial.run.run_id, tags=tags | used() | {lease.TAG: ""}, metrics=metrics)
    job.tracking.set_status(trial.run.run_id, status, clock.now())
    _tidy(job, trial.number)
    if isinstance(error, NoMetric):
        raise error
    if error:
        job.say(f"trial {trial.number} failed: {error.what}" + (f"\n{error.why}" if error.why else ""))


def _complete(result: Result) -> dict[str, str]:
    spread = "" if result.spread is None else repr(result.spread)
    tags = {STATE: COMPLETE, "mlp.trial_value": repr(result.value), "mlp.trial_spread": spread}
    return tags | {"mlp.reason": ""}


def _named(job: Job, result: Result) -> dict[str, float]:
    name = job.sweep.metric
    return {name: result.value} | ({} if result.spread is None else {f"{name}_std": result.spread})


# ---------------------------------------------------------------- without folds


def _once(job: Job, trial: Trial) -> Result:
    metrics = _trained(job, trial, job.within(trial.number), trial.run, job.data).output.metrics
    name = job.sweep.metric
    if name not in metrics:
        written = ", ".join(sorted(metrics)[:8]) if metrics else "nothing"
        msg = f"the training command wrote no {name} to $MLP_OUTPUT/metrics.json, and train.sweep looks for it"
        fix = f'write {{"{name}": 0.87}} there, measured on rows that did not train; or give train.sweep `folds`'
        raise NoMetric(msg, why=f"it wrote {written}; without it no trial is better than another", fix=fix)
    return Result(value=metrics[name], metrics=metrics)


def _trained(job: Job, trial: Trial, place: TrialJob, run: RunFact, data: Path) -> Trained:
    """A model that an attempt before this one finished, or the training command's, with the values of the trial."""
    folders = place.folders
    found = already_here(folders)
    if found:
        return found
    progress = folders.progress
    params = write_merged(job.ctx.repo, str(job.spec.train.params), trial.values, folders.root / "params")
    variables = {
        "MLFLOW_TRACKING_URI": job.tracking.uri,
        "MLFLOW_RUN_ID": run.run_id,
        "MLFLOW_EXPERIMENT_ID": job.experiment,
        "MLP_DATA_TRAIN": str(data),
        "MLP_PARAMS": str(params),
        "MLP_SEED": str(job.spec.train.seed),
        "MLP_OUTPUT": str(folders.output),
        "MLP_CHECKPOINTS": str(folders.checkpoints),
        "MLP_PROGRESS": str(progress),
        "MLP_ENVIRONMENT": job.key.parts["environment"],
    }
    progress.touch()
    watching = Watching(place, run.run_id, run)
    watching.bring_checkpoints(run)
    keep: Keep = partial(job.tracking.log_curve, run.run_id, PROGRESS)
    watch = Reported(progress, keep, _Rivals(job, trial).judge, beside=watching)
    with contextlib.ExitStack() as stack:
        if data != job.data:  # a fold: the rows that judge it must not lie where the command could read them
            stack.enter_context(held_out.out_of_reach(job.ctx.repo, job.ctx.work, [job.spec.data.train]))
        ended, mask = attempt(job.ctx, job.spec, folders, variables, job.log, watch)
    if watch.curve.bad:
        job.say(f'a line in $MLP_PROGRESS is not {{"step": 1, "value": 0.5}}: {watch.curve.bad}')
    if ended.why == "exit" and ended.code == 0:
        return finished(job.spec, folders, ended)
    if ended.why == "watchdog" and watch.verdict:
        raise FellBehind(watch.verdict)
    if ended.why == "interrupted":
        with contextlib.suppress(MlpError):
            watching.save_last()
        raise Interrupted
    error = failure(job.spec, ended, folders.log)
    error.why = mask(error.why)
    raise error


class _Rivals:
    """The other trials, against which one is held while it runs."""

    def __init__(self, job: Job, trial: Trial) -> None:
        self._job = job
        self._trial = trial
        self._others: list[Trial] = []
        self._read_at = -REFRESH_SECONDS

    def judge(self, curve: Mapping[int, float]) -> str:
        """Why the trial should be ended, or an empty text. With folds only whole folds are compared."""
        if self._job.sweep.pruner == "none" or self._job.folds:
            return ""
        return self.held_against(curve)

    def held_against(self, curve: Mapping[int, float]) -> str:
        if time.monotonic() - self._read_at >= REFRESH_SECONDS:
            self._others, self._read_at = self._job.trials.read(), time.monotonic()
        self._trial = replace(self._trial, curve=dict(curve))
        behind, rungs = self._job.study.falls_behind(self._others, self._trial)
        if rungs != self._trial.rungs:
            self._trial = replace(self._trial, rungs=rungs)
            self._job.tracking.log(self._trial.run.run_id, tags={"mlp.trial_rungs": json.dumps(rungs)})
        step = max(curve)
        return f"{curve[step]:.4g} at step {step}: behind the trials before it" if behind else ""


# ---------------------------------------------------------------- with folds


def _in_folds(job: Job, trial: Trial) -> Result:
    """Folds that an earlier attempt finished are not repeated."""
    values = list(trial.folds)
    rivals = _Rivals(job, trial)
    for number, fold in enumerate(job.folds[len(values) :], start=len(values) + 1):
        values.append(_fold(job, trial, number, fold))
        curve = {i: statistics.fmean(values[:i]) for i in range(1, len(values) + 1)}
        job.tracking.log(
            trial.run.run_id,
            tags={"mlp.trial_folds": json.dumps(values)},
            metrics={f"{job.sweep.metric}_fold_{number}": values[-1]},
        )
        job.tracking.log_curve(trial.run.run_id, PROGRESS, {number: curve[number]})
        job.say(f"trial {trial.number}, fold {number} of {len(job.folds)}: {job.sweep.metric} {values[-1]:.4g}")
        if job.sweep.pruner != "none" and number < len(job.folds) and (why := rivals.held_against(curve)):
            raise FellBehind(why)
    return Result(value=statistics.fmean(values), spread=statistics.stdev(values))


def _fold(job: Job, trial: Trial, number: int, fold: Fold) -> float:
    """Train on one part and judge on the other, in a run of its own below the trial's."""
    from mlp_ci.sweep.folds import write_rows
    from mlp_ci.sweep.judging import judge

    place = job.within(trial.number, number)
    folders, run_id = place.folders, _fold_run(job, trial, number)
    part = folders.root / "data" / job.data.name
    write_rows(job.data, fold.train, part)
    trained = _trained(job, trial, place, job.tracking.run(run_id), part)
    rest = folders.root / "judge" / job.data.name
    write_rows(job.data, fold.judge, rest)
    value = judge(job, trained.output.model, rest, f"fold {number} of {job.spec.data.train}")
    job.tracking.log(run_id, metrics={**trained.output.metrics, job.sweep.metric: value})
    if folders.log.exists():
        job.tracking.log_file(run_id, folders.log)
    job.tracking.set_status(run_id, "FINISHED", clock.now())
    shutil.rmtree(folders.root, ignore_errors=True)
    return value


def _fold_run(job: Job, trial: Trial, number: int) -> str:
    """The run of a fold that was cut off, or a new one: a command may log other params for each fold."""
    noted, _, run_id = trial.run.tags.get("mlp.trial_fold_run", "").partition(" ")
    if noted == str(number) and run_id:
        return run_id
    tags = {"mlflow.parentRunId": trial.run.run_id, "mlp.fold": str(number), "mlp.status": "fold"}
    tags |= {k: v for k, v in trial.run.tags.items() if k in ("mlp.commit", "mlp.team", "mlp.runner")}
    run_id = job.tracking.start_run(job.experiment, f"trial {trial.number}, fold {number}", tags, clock.now())
    job.tracking.log(run_id, params=dict(trial.values))
    job.tracking.log(trial.run.run_id, tags={"mlp.trial_fold_run": f"{number} {run_id}"})
    return run_id


# ---------------------------------------------------------------- afterwards


def _keep_log(job: Job, trial: Trial) -> None:
    log = job.within(trial.number).folders.log
    if log.exists():
        job.tracking.log_file(trial.run.run_id, log)


def _tidy(job: Job, number: int) -> None:
    """A model per trial would fill the disk; the best parameters are trained again, with the record of a training."""
    for fold in range(len(job.folds) + 1):
        shutil.rmtree(job.within(number, fold).folders.root, ignore_errors=True)
