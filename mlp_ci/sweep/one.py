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
from mlp_ci.errors import GateError, InputError, MlpError, OutsideError
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
    from mlp_ci.train.command import Ended
    from mlp_ci.train.job import Folders

    Keep = Callable[[Mapping[int, float]], None]

# How old the picture of the other trials may be when a trial is held against them.
REFRESH_SECONDS = 10.0


class FellBehind(Exception):
    """The pruner gave a trial up."""


class NoMetric(InputError):
    """The command does not say what is searched for, so no trial of this code will."""


class CutOff(OutsideError):
    """Something ended the command of a trial that was not the command."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a trial ended: MLflow's status, and what is kept with its run."""

    status: str
    tags: dict[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: MlpError | None = None


def run_trial(job: Job, trial: Trial) -> None:
    """Do one claimed trial to its end and keep what came out of it with its run.

    Raises Interrupted and OutsideError (the trial goes on at the next start), and NoMetric.
    """
    doing = Doing(job, trial)
    job.say(f"trial {trial.number}{' again' if trial.attempts else ''}: {shown_values(trial.values)}")
    with doing.beat:
        try:
            end = _in_folds(doing) if job.folds else _once(doing)
        except (Interrupted, OutsideError) as gone:
            if not doing.beat.lost:
                doing.give_back(gone)
            if isinstance(gone, CutOff):
                job.say(f"trial {trial.number} was cut off: {gone.what}", gone.why)
                return
            raise
        except FellBehind as behind:
            end = End(status="KILLED", tags={STATE: PRUNED, "mlp.reason": str(behind)})
        except (InputError, GateError) as error:
            end = End(status="FAILED", tags={STATE: FAILED, "mlp.reason": error.what}, error=error)
    if doing.beat.lost:
        job.say(f"trial {trial.number} was taken over by {doing.beat.lost} while MLflow could not be reached")
        return
    doing.keep(end)
    if isinstance(end.error, NoMetric):
        raise end.error
    if end.error:
        job.say(f"trial {trial.number} failed: {end.error.what}", end.error.why)


class Doing:
    """One trial while it is done: who holds it, and what it has used so far."""

    def __init__(self, job: Job, trial: Trial) -> None:
        self.job = job
        self.trial = trial
        self._started = time.monotonic()
        self._attempts = trial.attempts
        self.watched: list[Watching] = []
        self.beat = lease.Heartbeat(job.tracking, trial.run.run_id, job.leases, self._tell)

    def _used(self) -> dict[str, str]:
        return {"mlp.train_seconds": f"{self.trial.seconds + time.monotonic() - self._started:.3f}"}

    def _tell(self) -> None:
        self.job.tracking.log(self.trial.run.run_id, tags=self._used())

    def begins(self) -> None:
        """The command starts: from now on the trial may take its machine down."""
        if self._attempts == self.trial.attempts:
            self._attempts += 1
            self.job.tracking.log(self.trial.run.run_id, tags={"mlp.trial_attempts": str(self._attempts)})

    def give_back(self, gone: BaseException) -> None:
        """Leave the trial to whoever goes on. An attempt counts only where the trial itself may be to blame."""
        tags = self._used() | {lease.TAG: "", "mlp.trial_attempts": str(self.trial.attempts)}
        if isinstance(gone, CutOff):
            tags |= {"mlp.trial_attempts": str(self._attempts), "mlp.reason": gone.what}
        with contextlib.suppress(MlpError):  # where MLflow is the trouble, the lease runs out by itself
            self.job.tracking.log(self.trial.run.run_id, tags=tags)

    def keep(self, end: End) -> None:
        """Store what came out, then say that the trial is over; a model per trial would fill the disk, so none stays.

        The best parameters are trained again, with the record of a training.
        """
        job, run_id = self.job, self.trial.run.run_id
        log = job.within(self.trial.number).folders.log
        if log.exists():
            job.tracking.log_file(run_id, log)
        job.tracking.log(run_id, tags=end.tags | self._used() | {lease.TAG: ""}, metrics=end.metrics)
        job.tracking.set_status(run_id, end.status, clock.now())
        for watching in self.watched:
            watching.tidy()
        for fold in range(len(job.folds) + 1):
            shutil.rmtree(job.within(self.trial.number, fold).folders.root, ignore_errors=True)


def _complete(name: str, value: float, spread: float | None, metrics: Mapping[str, float]) -> End:
    tags = {STATE: COMPLETE, "mlp.trial_value": repr(value), "mlp.reason": ""}
    found = {**metrics, name: value}
    if spread is not None:
        tags["mlp.trial_spread"] = repr(spread)
        found[f"{name}_std"] = spread
    return End(status="FINISHED", tags=tags, metrics=found)


# ---------------------------------------------------------------- without folds


def _once(doing: Doing) -> End:
    job, trial = doing.job, doing.trial
    metrics = _trained(doing, job.within(trial.number), trial.run, job.data).output.metrics
    name = job.sweep.metric
    if name not in metrics:
        written = ", ".join(sorted(metrics)[:8]) if metrics else "nothing"
        msg = f"the training command wrote no {name} to $MLP_OUTPUT/metrics.json, and train.sweep looks for it"
        fix = f'write {{"{name}": 0.87}} there, measured on rows that did not train; or give train.sweep `folds`'
        raise NoMetric(msg, why=f"it wrote {written}; without it no trial is better than another", fix=fix)
    return _complete(name, metrics[name], None, metrics)


def _trained(doing: Doing, place: TrialJob, run: RunFact, data: Path) -> Trained:
    """A model that an attempt before this one finished, or the training command's, with the values of the trial."""
    job, trial, folders = doing.job, doing.trial, place.folders
    found = already_here(folders)
    if found:
        return found
    folders.progress.touch()
    watching = Watching(place, run.run_id, run)
    watching.beat = doing.beat
    doing.watched.append(watching)
    watching.bring_checkpoints(run)
    keep: Keep = partial(job.tracking.log_curve, run.run_id, PROGRESS)
    watch = Reported(folders.progress, keep, _Rivals(job, trial).judge, beside=watching)
    doing.begins()
    with contextlib.ExitStack() as stack:
        if data != job.data:  # a fold: the rows that judge it must not lie where the command could read them
            stack.enter_context(held_out.out_of_reach(job.ctx.repo, job.ctx.work, [job.spec.data.train]))
        ended, mask = attempt(job.ctx, job.spec, folders, _variables(doing, folders, run.run_id, data), job.log, watch)
    if watch.curve.bad:
        job.say(f'a line in $MLP_PROGRESS is not {{"step": 1, "value": 0.5}}: {mask(watch.curve.bad)}')
    trouble = _trouble(job, ended, folders.log, watch, watching)
    if isinstance(trouble, MlpError):
        trouble.why = mask(trouble.why)
    if isinstance(trouble, Interrupted | CutOff):
        with contextlib.suppress(MlpError):
            watching.save_last()
    if trouble:
        raise trouble
    return finished(job.spec, folders, ended)


def _variables(doing: Doing, folders: Folders, run_id: str, data: Path) -> dict[str, str]:
    """The variables of the training contract."""
    job = doing.job
    values = doing.trial.values
    return {
        "MLFLOW_TRACKING_URI": job.tracking.uri,
        "MLFLOW_RUN_ID": run_id,
        "MLFLOW_EXPERIMENT_ID": job.experiment,
        "MLP_DATA_TRAIN": str(data),
        "MLP_PARAMS": str(write_merged(job.ctx.repo, str(job.spec.train.params), values, folders.root / "params")),
        "MLP_SEED": str(job.spec.train.seed),
        "MLP_OUTPUT": str(folders.output),
        "MLP_CHECKPOINTS": str(folders.checkpoints),
        "MLP_PROGRESS": str(folders.progress),
        "MLP_ENVIRONMENT": job.key.parts["environment"],
    }


def _trouble(job: Job, ended: Ended, log: Path, watch: Reported, watching: Watching) -> BaseException | None:
    """What to raise about a command that did not end well; None where it did."""
    if ended.why == "exit" and ended.code == 0:
        return None
    if ended.why == "interrupted":
        return Interrupted()
    if ended.why == "watchdog" and watch.verdict:
        return FellBehind(watch.verdict)
    error = failure(job.spec, ended, log, watching.evidence())
    return CutOff(error.what, why=error.why, fix=error.fix) if isinstance(error, OutsideError) else error


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


def _in_folds(doing: Doing) -> End:
    """Folds that an earlier attempt finished are not repeated."""
    job, trial = doing.job, doing.trial
    values = list(trial.folds)
    rivals = _Rivals(job, trial)
    for number, fold in enumerate(job.folds[len(values) :], start=len(values) + 1):
        values.append(_fold(doing, number, fold))
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
    return _complete(job.sweep.metric, statistics.fmean(values), statistics.stdev(values), {})


def _fold(doing: Doing, number: int, fold: Fold) -> float:
    """Train on one part and judge on the other, in a run of its own below the trial's."""
    from mlp_ci.sweep.folds import write_rows
    from mlp_ci.sweep.judging import judge

    job, trial = doing.job, doing.trial
    place = job.within(trial.number, number)
    folders, run_id = place.folders, _fold_run(job, trial, number)
    part = folders.root / "data" / job.data.name
    write_rows(job.data, fold.train, part)
    trained = _trained(doing, place, job.tracking.run(run_id), part)
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
