"""``mlp-ci cost``: training hours times the runner's price, serving hours times theirs, against the budget.

Facts come from MLflow (seconds of all attempts of a run, runner class) and from the serving target (which version ran
when); prices from platform.yaml. Nothing is estimated but the projection to a month, which is labelled as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.data.words import round_share
from mlp_ci.errors import InputError
from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.spec import load_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.context import Context
    from mlp_ci.serve import Interval
    from mlp_ci.spec import ModelSpec, PlatformSpec
    from mlp_ci.tracking import RunFact

DAYS_PER_MONTH = 30.4375
BAR = 20


@dataclass(frozen=True, kw_only=True)
class Span:
    """The time that is looked at, ``[since, until)``; ``whole_month`` when it is the running month so far."""

    since: datetime
    until: datetime
    whole_month: bool

    @property
    def months(self) -> float:
        return (self.until - self.since).total_seconds() / 86400 / DAYS_PER_MONTH


@dataclass(frozen=True, kw_only=True)
class Item:
    """One line of the bill: ``hours`` at ``usd_per_hour``; what it was for, and in which stage."""

    what: str
    stage: str
    count: int
    hours: float
    usd_per_hour: float

    @property
    def usd(self) -> float:
        return self.hours * self.usd_per_hour


def cost(ctx: Context, since: str | None, until: str | None) -> Report:
    """What the model cost from ``since`` to ``until`` (by default: this month so far); outcome fail over the budget.

    The budget of a month holds whole for the running month, and pro rata for a window that is given.
    """
    from mlp_ci.github import platform_of
    from mlp_ci.serve import history
    from mlp_ci.tracking import connect

    spec = load_model(ctx.repo)
    span = span_of(since, until, clock.now())
    platform = platform_of(ctx)
    runs = connect(ctx, platform).runs(spec.name, span.since, span.until)
    training, unpriced = training_items(runs, platform)
    items = [*training, *serving_items(history(ctx, spec), span, platform.serving.usd_per_hour)]
    return bill(spec, span, items, unpriced)


def span_of(since: str | None, until: str | None, now: datetime) -> Span:
    """What was given, else from the first of the month until now. InputError when it ends before it starts."""
    end = clock.parse_instant(until) if until else now
    first = end.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = clock.parse_instant(since) if since else first
    if start == end:  # the very first instant of a month: there is no time to look at yet
        end = start + timedelta(seconds=1)
    if start > end:
        msg = f"the window ends ({end:%Y-%m-%d}) before it starts ({start:%Y-%m-%d})"
        raise InputError(msg, fix="give --since before --until")
    return Span(since=start, until=end, whole_month=since is None and until is None)


def training_items(runs: Sequence[RunFact], platform: PlatformSpec) -> tuple[list[Item], list[str]]:
    """One line per runner class, failed attempts included; and the classes that platform.yaml has no price for."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        seconds.setdefault(run.tags.get("mlp.runner") or "unknown", []).append(_seconds(run))
    items, unpriced = [], []
    for runner, used in sorted(seconds.items()):
        price = price_of(runner, platform)
        if price is None:
            unpriced.append(runner)
        items.append(
            Item(
                what=f"training on {runner}",
                stage="training",
                count=len(used),
                hours=sum(used) / 3600,
                usd_per_hour=price or 0.0,
            )
        )
    return items, unpriced


def price_of(runner: str, platform: PlatformSpec) -> float | None:
    """The price of a runner class, or of the class with these labels (``a,b``); None when there is none."""
    name = platform.class_called(runner) or platform.class_called(tuple(runner.split(",")))
    return platform.runners[name].usd_per_hour if name else None


def _seconds(run: RunFact) -> float:
    try:
        return max(0.0, float(run.tags.get("mlp.train_seconds") or 0))
    except ValueError:
        return 0.0


def serving_items(intervals: Sequence[Interval], span: Span, price: float) -> list[Item]:
    """One line per stage: the hours within the span that versions had its traffic."""
    hours: dict[str, float] = {}
    versions: Mapping[str, set[int]] = {i.stage: set() for i in intervals}
    for interval in intervals:
        start, end = max(interval.started, span.since), min(interval.ended or span.until, span.until)
        if end > start:
            hours[interval.stage] = hours.get(interval.stage, 0.0) + (end - start).total_seconds() / 3600
            versions[interval.stage].add(interval.version)
    return [
        Item(what="serving", stage=stage, count=len(versions[stage]), hours=used, usd_per_hour=price)
        for stage, used in sorted(hours.items())
    ]


def bill(spec: ModelSpec, span: Span, items: Sequence[Item], unpriced: Sequence[str]) -> Report:
    """The items, their sum, and what the budget says to it."""
    total = sum(i.usd for i in items)
    projected = total / span.months if not span.whole_month else _projected(total, span)
    report = Report(command="cost", headline=f"{spec.name} cost ${total:,.2f} {_window(span)}")
    report.findings = _unpriced(unpriced)
    if spec.cost:
        finding = _budget(float(spec.cost.budget_usd_per_month), total, projected, span)
        report.findings.insert(0, finding)
        report.outcome = finding.outcome if finding.severity == "error" else Outcome.PASS
    report.tables = [_table(spec, items, total)]
    report.outputs = {"total-usd": f"{total:.2f}"}
    report.data = {
        "model": spec.name,
        "team": spec.team,
        "since": span.since.isoformat(),
        "until": span.until.isoformat(),
        "total_usd": round(total, 4),
        "projected_usd_per_month": round(projected, 4),
        "items": [
            {
                "what": i.what,
                "stage": i.stage,
                "count": i.count,
                "hours": round(i.hours, 4),
                "usd_per_hour": i.usd_per_hour,
                "usd": round(i.usd, 4),
            }
            for i in items
        ],
    }
    return report


def _projected(total: float, span: Span) -> float:
    """This month's spending if it goes on as it did so far."""
    following = (span.since + timedelta(days=32)).replace(day=1)
    return total * (following - span.since) / (span.until - span.since)


def _budget(budget: float, total: float, projected: float, span: Span) -> Finding:
    limit = budget if span.whole_month else budget * span.months
    share = total / limit if limit else 0.0
    message = (
        f"{_bar(share)} ${total:,.2f} of ${limit:,.2f} ({round_share(share)}); ${projected:,.2f} a month at this rate"
    )
    if total > limit:
        outcome, severity = Outcome.FAIL, "error"
        fix = "train less often or on a cheaper runner, or raise cost.budget_usd_per_month in a reviewed pull request"
    elif projected > budget:
        outcome, severity = Outcome.FAIL, "warning"
        fix = "the budget still holds; at this rate it will not for a whole month"
    else:
        outcome, severity, fix = Outcome.PASS, "error", ""
    return Finding(check="budget", outcome=outcome, severity=severity, message=message, fix=fix)


def _bar(share: float) -> str:
    filled = min(BAR, round(share * BAR))
    return "█" * filled + "░" * (BAR - filled)


def _unpriced(runners: Sequence[str]) -> list[Finding]:
    return [
        Finding(
            check="price",
            subject=runner,
            outcome=Outcome.FAIL,
            severity="warning",
            message="platform.yaml has no price for this runner; its hours are counted at $0",
            fix=f"add it: `runners: {{{runner}: {{labels: [...], usd_per_hour: ...}}}}`",
        )
        for runner in runners
    ]


def _table(spec: ModelSpec, items: Sequence[Item], total: float) -> Table:
    biggest = max((i.usd for i in items), default=0.0)
    rows: list[tuple[str | int, ...]] = [
        (
            *(spec.name, spec.team, i.stage, i.what, i.count),
            *(f"{i.hours:,.2f}", f"{i.usd_per_hour:,.2f}", f"{i.usd:,.2f}"),
            _bar(i.usd / biggest) if biggest else "",
        )
        for i in items
    ]
    rows.append((spec.name, spec.team, "", "total", "", "", "", f"{total:,.2f}", ""))
    columns = ("model", "team", "stage", "what", "runs or versions", "hours", "$ per hour", "$", "share")
    return Table(title="", columns=columns, rows=tuple(rows))


def _window(span: Span) -> str:
    if span.whole_month:
        return f"in {span.since:%B %Y} so far"
    return f"from {span.since:%Y-%m-%d} to {span.until:%Y-%m-%d}"
