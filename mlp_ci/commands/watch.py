"""The commands that watch what runs: monitor, cost, retrain."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlp_ci.commands.options import (
    LOOP,
    FormatOption,
    LookUntilOption,
    OutputOption,
    PathOption,
    PlatformOption,
    SinceOption,
    UntilOption,
    context_of,
)
from mlp_ci.presenter import Presenter

if TYPE_CHECKING:
    from mlp_ci.report import Report

app = typer.Typer()


@app.command(rich_help_panel=LOOP)
def monitor(
    stage: Annotated[str, typer.Option("--stage", envvar="MLP_CI_STAGE", help="Stage to look at.")] = "production",
    since: SinceOption = None,
    until: LookUntilOption = None,
    fail_on_drift: Annotated[
        bool, typer.Option("--fail-on-drift", envvar="MLP_CI_FAIL_ON_DRIFT", help="Exit 3 on an alarm.")
    ] = False,
    report_file: Annotated[
        Path | None, typer.Option("--report", envvar="MLP_CI_REPORT", help="Write the HTML report here.")
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option("--metrics", envvar="MLP_CI_METRICS", help="Write figures for Prometheus here, as NAME.prom."),
    ] = None,
    pushgateway: Annotated[
        str | None,
        typer.Option("--pushgateway", envvar="MLP_CI_PUSHGATEWAY", help="Push the figures to this Pushgateway."),
    ] = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Compare what came in with what the live version was trained on; an alarm is news, not a failure."""

    def flow() -> Report:
        from mlp_ci.monitor import Window
        from mlp_ci.monitor import monitor as run_monitor
        from mlp_ci.monitor.metrics import Export

        window = Window(stage=stage, since=since, until=until)
        to = Export.of(metrics, pushgateway, os.environ)
        return run_monitor(context_of(path, platform), window, report_file, fail_on_drift=fail_on_drift, to=to)

    return Presenter("monitor", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def cost(
    since: SinceOption = None,
    until: UntilOption = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Training minutes times runner price, and serving hours, per model, team and stage; against the budget."""

    def flow() -> Report:
        from mlp_ci.monitor import cost as run_cost

        return run_cost(context_of(path, platform), since, until)

    return Presenter("cost", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def retrain(
    stage: Annotated[
        str, typer.Option("--stage", envvar="MLP_CI_STAGE", help="Stage whose alarm counts.")
    ] = "production",
    force: Annotated[bool, typer.Option("--force", envvar="MLP_CI_FORCE", help="Propose it without an alarm.")] = False,
    reason: Annotated[str, typer.Option("--reason", envvar="MLP_CI_REASON", help="Why, for the body.")] = "",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Open (or update) the model's one retraining pull request: newer data, and the evidence in its body."""

    def flow() -> Report:
        from mlp_ci.monitor import retrain as run_retrain

        return run_retrain(context_of(path, platform), stage, force=force, reason=reason)

    return Presenter("retrain", output_format, output)(flow)
