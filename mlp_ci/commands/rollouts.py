"""``mlp-ci rollout …``: how a rollout goes, and a person's word in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlp_ci.commands.options import (
    LOOP,
    FormatOption,
    OutputOption,
    PathOption,
    PlatformOption,
    StageOption,
    context_of,
)
from mlp_ci.presenter import Presenter

if TYPE_CHECKING:
    from mlp_ci.report import Report

app = typer.Typer()
rollout = typer.Typer(no_args_is_help=True, help="See how a new version gets its traffic, and have a say in it.")
app.add_typer(rollout, name="rollout", rich_help_panel=LOOP)

OneStage = Annotated[str, typer.Option("--stage", envvar="MLP_CI_STAGE", help="Stage of the rollout.")]
Reason = Annotated[str, typer.Option("--reason", envvar="MLP_CI_REASON", help="Why; others will read it.")]


@rollout.command()
def status(
    stage: StageOption = None,
    html: Annotated[
        Path | None, typer.Option("--html", envvar="MLP_CI_HTML", help="Write a page with its pictures here.")
    ] = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Say where each rollout stands, what was measured, what it needs, and what comes next."""

    def flow() -> Report:
        from mlp_ci.serve.flow_rollout import status as run_status

        return run_status(context_of(path, platform), stage, html)

    return Presenter("rollout status", output_format, output)(flow)


@rollout.command()
def pause(
    stage: OneStage = "production",
    reason: Reason = "",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Leave the traffic as it is until somebody resumes; a version that fails is still taken away."""

    def flow() -> Report:
        from mlp_ci.serve.flow_rollout import pause as run_pause

        return run_pause(context_of(path, platform), stage, reason)

    return Presenter("rollout pause", output_format, output)(flow)


@rollout.command()
def resume(
    stage: OneStage = "production",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Go on with a rollout that is paused."""

    def flow() -> Report:
        from mlp_ci.serve.flow_rollout import resume as run_resume

        return run_resume(context_of(path, platform), stage)

    return Presenter("rollout resume", output_format, output)(flow)


@rollout.command()
def promote(
    stage: OneStage = "production",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Give the new version all traffic without the steps that are left, at the next deploy."""

    def flow() -> Report:
        from mlp_ci.serve.flow_rollout import promote as run_promote

        return run_promote(context_of(path, platform), stage)

    return Presenter("rollout promote", output_format, output)(flow)


@rollout.command()
def abort(
    stage: OneStage = "production",
    reason: Reason = "",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Put all traffic back on the old version at once, record it in git and quarantine the new one."""

    def flow() -> Report:
        from mlp_ci.serve.flow_rollout import abort as run_abort

        return run_abort(context_of(path, platform), stage, reason)

    return Presenter("rollout abort", output_format, output)(flow)


@rollout.command()
def retry(
    stage: OneStage = "production",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Let the next deploy begin an aborted rollout anew, where git still asks for that version."""

    def flow() -> Report:
        from mlp_ci.serve.flow_rollout import retry as run_retry

        return run_retry(context_of(path, platform), stage)

    return Presenter("rollout retry", output_format, output)(flow)


@rollout.command()
def steer(
    action: Annotated[
        str, typer.Argument(envvar="MLP_CI_ACTION", help="pause, resume, promote, abort or retry.", show_default=False)
    ],
    stage: OneStage = "production",
    reason: Reason = "",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Do one of the others, whose name is given: for a workflow where a person chooses."""

    def flow() -> Report:
        from mlp_ci.serve.flow_rollout import steer as run_steer

        return run_steer(context_of(path, platform), action, stage, reason)

    return Presenter("rollout steer", output_format, output)(flow)
