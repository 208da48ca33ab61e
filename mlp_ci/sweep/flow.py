"""``mlp-ci sweep``: trials until the budget is used up, on one machine or several; and what ``train`` gets from it."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, TextIO

from mlp_ci.errors import InputError
from mlp_ci.spec import load_model
from mlp_ci.sweep import claims
from mlp_ci.sweep.budget import shown_seconds
from mlp_ci.sweep.job import Job, open_job
from mlp_ci.sweep.one import run_trial
from mlp_ci.sweep.telling import keep_page, report_of
from mlp_ci.sweep.trials import COMPLETE, FAILED, PARENT, PRUNED, RUNNING, best_of, shown_values
from mlp_ci.train import backends, preflight
from mlp_ci.train.flow import alone_here, connect_to
from mlp_ci.train.key import train_key
from mlp_ci.train.params import SWEEP_PARAMS, Chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.context import Context
    from mlp_ci.report import Report
    from mlp_ci.spec import ModelSpec
    from mlp_ci.sweep.trials import Trial
    from mlp_ci.tracking import Tracking
    from mlp_ci.train.key import TrainKey

WAIT_SECONDS = 3.0
# So many trials that all fail, and none that does not, are a fault of the command rather than of its parameters.
HOPELESS = 3


def sweep(ctx: Context, *, share: tuple[int, int] | None = None, log: TextIO | None = None) -> Report:
    """Run trials until the budget of train.sweep is used up, and say what came out.

    ``share`` is (job, of how many): such a job shares the trials with others and ends when none is left to begin;
    without it, trials of other machines are waited for. Raises InputError where no trial came to an end.
    """
    stream = log or sys.stdout
    spec = load_model(ctx.repo)
    with alone_here(ctx, stream):
        key = train_key(ctx, spec)
        backends.check_expected(ctx, key)
        if backends.elsewhere(ctx, spec):
            msg = f"a search on {spec.train.backend} runs inside of the training's own job there"
            raise InputError(msg, fix="run `mlp-ci train`: it searches, then trains the best", file="model.yaml")
        job = open_job(ctx, spec, key, connect_to(ctx), stream)
        trials = search(job, share)
        if share is None and best_of(trials, maximize=job.maximize) is None:
            raise _nothing(job, trials)
        page = keep_page(job, trials)
        return report_of(job, trials, page)


def best_parameters(ctx: Context, spec: ModelSpec, key: TrainKey, tracking: Tracking, log: TextIO) -> Chosen:
    """What ``train`` trains with: the parameters of the best trial, after the trials that are still missing."""
    job = open_job(ctx, spec, key, tracking, log)
    trials = search(job, None)
    keep_page(job, trials)
    best = best_of(trials, maximize=job.maximize)
    if best is None:
        raise _nothing(job, trials)
    job.say(f"the best of {len(trials)} trials is trial {best.number}: {shown_values(best.values)}; training with it")
    tags = {
        PARENT: job.run_id,
        "mlp.sweep_trial": str(best.number),
        "mlp.sweep_trial_run": best.run.run_id,
        "mlp.sweep_value": f"{job.sweep.metric} {best.value:.6g}",
        SWEEP_PARAMS: json.dumps(dict(best.values), sort_keys=True),
    }
    return Chosen(values=dict(best.values), tags=tags)


def search(job: Job, share: tuple[int, int] | None) -> list[Trial]:
    """Begin, resume and wait for trials until none is left; returns all of them."""
    trials = job.trials.read()
    _announce(job, trials, share)
    told = False
    if not job.budget.spent(trials):
        preflight.require(job.training)
    while True:
        _require_hope(job, trials)
        orphan = claims.abandoned(job, trials)
        if orphan:
            claimed = claims.take_over(job, orphan)
        elif job.budget.spent(trials) or (values := job.study.propose(trials)) is None:
            busy = sum(t.state == RUNNING for t in trials)
            if not busy or share:
                return trials
            if not told:
                job.say(f"no trial is left to begin; waiting for {busy} on other machines")
                told = True
            time.sleep(WAIT_SECONDS)
            claimed = None
        else:
            claimed = claims.begin(job, trials, values)
        if claimed:
            run_trial(job, claimed)
        trials = job.trials.read()
        if claimed:
            _tell(job, trials, claimed.number)


def _announce(job: Job, trials: Sequence[Trial], share: tuple[int, int] | None) -> None:
    budget, sweep_ = job.budget, job.sweep
    limits = [f"at most {budget.trials} trials"]
    if budget.seconds is not None:
        limits.append(f"{shown_seconds(budget.seconds)} of training")
    if budget.usd is not None:
        limits.append(f"${budget.usd:,.2f}")
    price = f" at ${budget.price:,.2f} an hour" if budget.price is not None else ""
    how = f"{len(job.folds)} folds each" if job.folds else "one training each"
    of = f", job {share[0]} of {share[1]}" if share else ""
    job.say(
        f"searching {', '.join(sweep_.parameters)} for the best {sweep_.metric}{of}: {', '.join(limits)}{price}; {how}"
    )
    if trials:
        job.say(f"so far: {budget.said(trials)}")


def _tell(job: Job, trials: Sequence[Trial], number: int) -> None:
    trial = next((t for t in trials if t.number == number), None)
    best = best_of(trials, maximize=job.maximize)
    if trial is None or trial.state == RUNNING:
        return
    came = {COMPLETE: "", PRUNED: f"ended early, {trial.reason}", FAILED: "failed"}[trial.state]
    if trial.state == COMPLETE and trial.value is not None:
        came = f"{job.sweep.metric} {trial.value:.4g}" + (f" ± {trial.spread:.2g}" if trial.spread is not None else "")
    ahead = f"; best: trial {best.number} with {best.value:.4g}" if best else ""
    job.say(f"trial {number}: {came}{ahead}. Used: {job.budget.said(trials)}")


def _require_hope(job: Job, trials: Sequence[Trial]) -> None:
    failed = [t for t in trials if t.state == FAILED]
    over = [t for t in trials if t.state != RUNNING]
    if failed and len(failed) == len(over) and (len(failed) >= HOPELESS or len(failed) >= job.budget.trials):
        raise _nothing(job, trials)


def _nothing(job: Job, trials: Sequence[Trial]) -> InputError:
    failed = [t for t in trials if t.state == FAILED]
    said = "\n".join(f"  trial {t.number} ({shown_values(t.values)}): {t.reason}" for t in failed[-5:])
    spent = job.budget.spent(trials)
    what = f"all {len(failed)} trials failed" if failed else f"no trial came to an end: {spent}"
    fix = "mend the command and commit: changed code begins a new search. To try the same again, delete the run of the "
    fix += f"sweep in MLflow ({job.tracking.run_page(job.run_id)})"
    return InputError(what, why=said or "without a finished trial there are no best parameters", fix=fix)
