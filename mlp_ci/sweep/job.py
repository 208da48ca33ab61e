"""One sweep as every step of it needs it: what is searched, for which metric, on which data, and where it is kept."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mlp_ci import clock, dvc
from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import METRICS, Metric, metric_called
from mlp_ci.printable import in_one_line, printable
from mlp_ci.report import commands_stopped
from mlp_ci.sweep import claims
from mlp_ci.sweep.budget import Budget
from mlp_ci.sweep.study import Study
from mlp_ci.sweep.trials import KEY, Trials
from mlp_ci.train import lease
from mlp_ci.train.attempt import say
from mlp_ci.train.job import Folders
from mlp_ci.train.job import Job as TrainJob
from mlp_ci.train.key import ignored
from mlp_ci.train.params import write_merged
from mlp_ci.train.record import run_tags

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.spec.platform import PlatformSpec
    from mlp_ci.spec.sweep import Sweep
    from mlp_ci.sweep.folds import Fold
    from mlp_ci.tracking import RunFact, Tracking
    from mlp_ci.train.key import TrainKey

# What decides the result of a trial. The budget and the sampler only decide which trials there are, so that a longer
# search goes on with the trials of a shorter one.
DECIDES_TRIALS = {"parameters", "metric", "direction", "folds", "pruner"}


@dataclass(frozen=True, kw_only=True)
class TrialJob(TrainJob):
    """A part of ``whole`` whose folders lie below ``root``, because many of one train key are made."""

    root: Path
    whole: TrainJob

    @cached_property
    def platform(self) -> PlatformSpec | None:
        """Asked for once, not for each trial."""
        return self.whole.platform

    @cached_property
    def folders(self) -> Folders:
        return Folders(root=self.root)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One sweep. ``training`` is what it is for, ``digest`` names it, ``run_id`` is its run, the parent of all trials;
    ``data`` is the training file."""

    training: TrainJob
    sweep: Sweep
    digest: str
    experiment: str
    run_id: str
    data: Path
    maximize: bool
    folds: tuple[Fold, ...] = ()
    task: str = ""

    @property
    def ctx(self) -> Context:
        return self.training.ctx

    @property
    def spec(self) -> ModelSpec:
        return self.training.spec

    @property
    def key(self) -> TrainKey:
        return self.training.key

    @property
    def tracking(self) -> Tracking:
        return self.training.tracking

    @property
    def log(self) -> TextIO:
        return self.training.log

    @cached_property
    def study(self) -> Study:
        return Study(self.sweep, maximize=self.maximize, seed=self.spec.train.seed)

    @cached_property
    def trials(self) -> Trials:
        return Trials(self.tracking, self.spec.name, self.run_id, curves=self.sweep.pruner != "none")

    @cached_property
    def leases(self) -> lease.Leases:
        return lease.Leases(self.tracking, lease.holder_name(self.ctx.work))

    @property
    def budget(self) -> Budget:
        time_limit = self.sweep.time.total_seconds() if self.sweep.time else None
        most = int(min(self.sweep.trials, self.study.size))
        return Budget(trials=most, seconds=time_limit, usd=self.sweep.budget_usd, price=self.training.usd_per_hour)

    def within(self, number: int, fold: int = 0) -> TrialJob:
        """A trial, or one fold of it, as a training of its own on this machine."""
        name = f"sweep-{self.digest[:12]}-{number:04}" + (f"-fold-{fold}" if fold else "")
        root = ignored(self.ctx.work) / name
        root.mkdir(exist_ok=True)
        whole = self.training
        return TrialJob(
            ctx=whole.ctx,
            spec=whole.spec,
            key=whole.key,
            tracking=whole.tracking,
            log=whole.log,
            root=root,
            whole=whole,
        )

    def say(self, text: str, detail: str = "") -> None:
        """One line of ours; ``detail``, which may hold what the command said, below it."""
        say(self.log, in_one_line(text))
        if detail:
            with commands_stopped(self.log, in_job=self.ctx.in_job):
                self.log.write(f"{printable(detail)}\n")
                self.log.flush()


def open_job(ctx: Context, spec: ModelSpec, key: TrainKey, tracking: Tracking, log: TextIO) -> Job:
    """Check what can be checked before anything is trained; find the sweep's run, or make it."""
    sweep = spec.train.sweep
    if sweep is None or spec.train.params is None:
        msg = "model.yaml describes no search"
        fix = "add `sweep` to train: which parameters of the params file take which values"
        raise InputError(msg, fix=fix, file="model.yaml")
    maximize = _maximize(sweep)
    training = TrainJob(ctx=ctx, spec=spec, key=key, tracking=tracking, log=log)
    _require_price(training, sweep)
    _require_parameters(ctx, spec.train.params, Study(sweep, maximize=maximize, seed=spec.train.seed))
    data = dvc.pull(ctx.repo, [spec.data.train])[spec.data.train]
    task, folds = _folds(spec, sweep, data)
    digest = sweep_digest(key, sweep)
    experiment = tracking.experiment(spec.name, create=True) or ""
    return Job(
        training=training,
        sweep=sweep,
        digest=digest,
        experiment=experiment,
        run_id=_parent(ctx, spec, key, tracking, digest),
        data=data,
        maximize=maximize,
        folds=folds,
        task=task,
    )


def sweep_digest(key: TrainKey, sweep: Sweep) -> str:
    """The same for all searches whose trials can be told from each other only by their parameters."""
    parts = {k: v for k, v in key.parts.items() if k != "sweep"}
    parts["sweep"] = sweep.model_dump_json(include=DECIDES_TRIALS)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _maximize(sweep: Sweep) -> bool:
    known: Metric | None = metric_called(sweep.metric) if sweep.folds else METRICS.get(sweep.metric)
    if sweep.folds and known and known.values is None:
        msg = f"{sweep.metric} is measured on a machine, not computed from the predictions of a fold"
        raise InputError(msg, fix="search for another metric, and make this one a gate", file="model.yaml")
    if sweep.direction is None and known is None:
        msg = f"nobody knows whether a higher {sweep.metric} is better"
        raise InputError(msg, fix="add `direction: maximize` (or minimize) to train.sweep", file="model.yaml")
    if sweep.direction is None:
        return bool(known and known.higher_is_better)
    maximize = sweep.direction == "maximize"
    if sweep.folds and known and known.higher_is_better != maximize:
        better = "maximize" if known.higher_is_better else "minimize"
        msg = f"train.sweep would {sweep.direction} {sweep.metric}, whose better values lie on the other side"
        raise InputError(msg, fix=f"write `direction: {better}`, or leave it out", file="model.yaml")
    return maximize


def _require_price(training: TrainJob, sweep: Sweep) -> None:
    """A budget in money needs the price of the runner class."""
    if sweep.budget_usd is not None and not training.usd_per_hour:
        runner = training.spec.train.runner if isinstance(training.spec.train.runner, str) else "with these labels"
        msg = f"train.sweep.budget_usd needs the price of the runner {runner}, and platform.yaml gives none"
        fix = f"add `usd_per_hour` to the runner class {runner} in platform.yaml, or limit trials or time instead"
        raise InputError(msg, fix=fix, file="model.yaml")


def _require_parameters(ctx: Context, path: str, study: Study) -> None:
    """Every searched parameter stands in the params file."""
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        write_merged(ctx.repo, path, study.propose([]) or {}, Path(scratch))


def _folds(spec: ModelSpec, sweep: Sweep, data: Path) -> tuple[str, tuple[Fold, ...]]:
    """The task and the folds of the training data; nothing where trials are not cross-validated."""
    if sweep.folds is None:
        return "", ()
    from mlp_ci.evaluate.rows import read_frame
    from mlp_ci.evaluate.targets import NUMBERS, task_of
    from mlp_ci.sweep.folds import readable, split

    if not readable(data):
        msg = f"{spec.data.train} cannot be parted into folds"
        why = "folds are written in the format of the training data: one Parquet, CSV or JSON-lines file"
        raise InputError(msg, why=why, fix="keep the training data in such a file, or search without folds")
    frame = read_frame(data, spec.data.columns)
    if spec.data.target not in frame.columns:
        msg = f"{spec.data.train} has no column {spec.data.target!r}, the target"
        raise InputError(msg, fix=f"its columns are {', '.join(map(str, frame.columns))}", file="model.yaml")
    target = frame[spec.data.target]
    task = task_of(target.dropna(), spec)
    metric_called(sweep.metric, task)
    classes = None if task in NUMBERS or task == "multilabel" else target.astype(str).to_numpy()
    return task, tuple(split(sweep.folds, frame, classes, spec.data.time, spec.train.seed))


def _parent(ctx: Context, spec: ModelSpec, key: TrainKey, tracking: Tracking, digest: str) -> str:
    """The run of the sweep: an earlier one, or a new one; two machines that begin together agree on one."""
    status, leases = "mlp.status", lease.Leases(tracking, lease.holder_name(ctx.work))

    def known() -> list[RunFact]:
        return tracking.tagged(spec.name, KEY, digest)

    while True:
        made = sorted(run.run_id for run in known() if run.tags.get(status) != claims.CLAIMING)
        if made:
            return made[0]
        tags = {k: v for k, v in run_tags(ctx, spec, key).items() if k not in ("mlp.train_key", "mlp.key_parts")}
        tags |= {KEY: digest, status: claims.CLAIMING, lease.TAG: leases.text()}
        experiment = tracking.experiment(spec.name, create=True) or ""
        mine = tracking.start_run(experiment, f"sweep-{digest[:6]}", tags, clock.now())
        if claims.came_first(known, mine, leases, status):
            tracking.log(mine, tags={status: "sweep", lease.TAG: ""})
        else:
            tracking.delete_run(mine)
            time.sleep(claims.LOOK_AGAIN_SECONDS)
