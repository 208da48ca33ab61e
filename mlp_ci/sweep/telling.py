"""What a sweep has to say: its best trials, how much each parameter mattered, and a page with the history."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci import __version__
from mlp_ci.drawing.axes import Axis, Tick, axis_over, line
from mlp_ci.drawing.template import fill
from mlp_ci.report import Report, Table
from mlp_ci.sweep.budget import shown_seconds
from mlp_ci.sweep.trials import COMPLETE, RUNNING, best_of, shown_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.sweep.job import Job
    from mlp_ci.sweep.trials import Trial

TEMPLATE = Path(__file__).parent / "sweep.html.jinja"
PAGE = "sweep.html"
MOST_ROWS, MOST_ON_PAGE = 10, 500
WIDTH, HEIGHT = 1000.0, 220.0


@dataclass(frozen=True, kw_only=True)
class History:
    """Values over trials, and the best so far, in units of the drawing."""

    dots: str
    pruned: str
    best: str
    ticks: tuple[Tick, ...]
    first: int
    last: int


def report_of(job: Job, trials: Sequence[Trial], page: str) -> Report:
    """The report of the command; ``page`` says where the page was kept."""
    best = best_of(trials, maximize=job.maximize)
    report = Report(command="sweep", headline=_headline(job, trials))
    report.tables = [_table(job, trials)]
    shares = job.study.importances(trials)
    if shares:
        rows = tuple((name, share) for name, share in shares.items())
        report.tables.append(Table(title="How much each parameter mattered", columns=("parameter", "share"), rows=rows))
    report.outputs = {"sweep-run": job.run_id, "trials": str(len(trials))}
    if best:
        report.outputs |= {"best-trial": str(best.number), "best-value": repr(best.value)}
    report.links = [("MLflow run", job.tracking.run_page(job.run_id)), ("page", page)]
    report.data = {
        "run_id": job.run_id,
        "metric": job.sweep.metric,
        "direction": "maximize" if job.maximize else "minimize",
        "best": best.number if best else None,
        "budget": job.budget.said(trials),
        "importances": shares,
        "trials": [_plain(t) for t in trials],
    }
    return report


def _headline(job: Job, trials: Sequence[Trial]) -> str:
    best = best_of(trials, maximize=job.maximize)
    used = job.budget.said(trials)
    if best is None or best.value is None:
        return f"{job.spec.name}: no trial is complete yet ({used})"
    found = f"{job.sweep.metric} {_value(best)}"
    return f"{job.spec.name}: trial {best.number} is the best, {found} with {shown_values(best.values)} ({used})"


def _value(trial: Trial) -> str:
    if trial.value is None:
        return ""
    return f"{trial.value:.4g}" + (f" ± {trial.spread:.2g}" if trial.spread is not None else "")


def _ordered(job: Job, trials: Sequence[Trial]) -> list[Trial]:
    """The best first; those without a value last, by number."""
    sign = -1 if job.maximize else 1

    def rank(trial: Trial) -> tuple[bool, float, int]:
        complete = trial.state == COMPLETE and trial.value is not None
        return (not complete, sign * (trial.value or 0.0) if complete else 0.0, trial.number)

    return sorted(trials, key=rank)


def _table(job: Job, trials: Sequence[Trial]) -> Table:
    rows = tuple(
        (t.number, *(t.values.get(p) for p in job.sweep.parameters), _value(t) or t.state, shown_seconds(t.seconds))
        for t in _ordered(job, trials)[:MOST_ROWS]
    )
    columns = ("trial", *job.sweep.parameters, job.sweep.metric, "took")
    return Table(title=f"The best of {len(trials)} trials", columns=columns, rows=rows)


def _plain(trial: Trial) -> dict[str, object]:
    return {
        "number": trial.number,
        "run_id": trial.run.run_id,
        "state": trial.state,
        "params": dict(trial.values),
        "value": trial.value,
        "spread": trial.spread,
        "folds": list(trial.folds),
        "seconds": round(trial.seconds, 3),
        "attempts": trial.attempts,
        "reason": trial.reason,
    }


# ---------------------------------------------------------------- the page


def keep_page(job: Job, trials: Sequence[Trial]) -> str:
    """Write the page to the run of the sweep; returns what to call it."""
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        file = Path(scratch) / PAGE
        file.write_text(render(job, trials, job.study.importances(trials)), encoding="utf-8")
        job.tracking.log_file(job.run_id, file)
    if all(t.state != RUNNING for t in trials):
        job.tracking.set_status(job.run_id, "FINISHED")
    return f"{PAGE} of run {job.run_id}"


def render(job: Job, trials: Sequence[Trial], shares: Mapping[str, float]) -> str:
    """The whole page, which needs no network."""
    values = {
        "model": job.spec.name,
        "sentence": _headline(job, trials),
        "metric": job.sweep.metric,
        "better": "higher" if job.maximize else "lower",
        "best": best_of(trials, maximize=job.maximize),
        "counts": Counter(t.state for t in trials),
        "used": job.budget.said(trials),
        "took": shown_seconds(sum(t.seconds for t in trials)),
        "folds": len(job.folds),
        "history": history(trials, maximize=job.maximize),
        "size": (WIDTH, HEIGHT),
        "shares": list(shares.items()),
        "parameters": list(job.sweep.parameters),
        "rows": [(t, _value(t), shown_seconds(t.seconds)) for t in _ordered(job, trials)[:MOST_ON_PAGE]],
        "hidden": max(0, len(trials) - MOST_ON_PAGE),
        "run_id": job.run_id,
        "program": __version__,
    }
    return fill(TEMPLATE, {}, values)


def history(trials: Sequence[Trial], *, maximize: bool) -> History | None:
    """Where the trials stand in the drawing; None before any has a value."""
    ordered = sorted(trials, key=lambda t: t.number)
    known = [(t.number, t.value) for t in ordered if t.state == COMPLETE and t.value is not None]
    pruned = [(t.number, t.curve[max(t.curve)]) for t in ordered if t.state != COMPLETE and t.curve]
    if not known:
        return None
    across = Axis(low=min(t.number for t in ordered) - 0.5, high=max(t.number for t in ordered) + 0.5, length=WIDTH)
    upward = axis_over([v for _, v in known], HEIGHT)

    def at(number: float, value: float) -> tuple[float, float]:
        return across.place(number), HEIGHT - upward.place(value)

    steps, best = list[tuple[float, float]](), known[0][1]
    for number, value in known:
        better = max(best, value) if maximize else min(best, value)
        steps += [at(number, best), at(number, better)]
        best = better
    steps.append(at(across.high, best))
    return History(
        dots=_dots([at(n, v) for n, v in known]),
        pruned=_dots([at(n, v) for n, v in pruned]),
        best=line(steps),
        ticks=tuple(Tick(text=t.text, at=100 - t.at) for t in upward.ticks()),
        first=ordered[0].number,
        last=ordered[-1].number,
    )


def _dots(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
