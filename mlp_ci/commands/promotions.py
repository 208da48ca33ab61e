"""The commands that say which version runs where: promote, approvals, deploy, rollback, history, audit."""

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
    duration_of,
)
from mlp_ci.presenter import Presenter

if TYPE_CHECKING:
    from mlp_ci.report import Report
    from mlp_ci.serve.measured import Labels
    from mlp_ci.spec.model import ModelSpec

app = typer.Typer()


@app.command(rich_help_panel=LOOP)
def promote(
    stage: Annotated[str, typer.Argument(help="Stage to promote to.")],
    version: Annotated[
        int | None, typer.Option("--version", help="Version; by default the one in the stage before.")
    ] = None,
    emergency: Annotated[
        str, typer.Option("--emergency", metavar="REASON", help="Why it cannot wait for approvals; for a named team.")
    ] = "",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Open the pull request that asks for a version in a stage, with its evidence in the body."""

    def flow() -> Report:
        from mlp_ci.promote import promote as run_promote

        return run_promote(context_of(path, platform), stage, version, emergency)

    return Presenter("promote", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def approvals(
    pr: Annotated[
        int | None, typer.Option("--pr", envvar="MLP_CI_PR", help="Pull request; in a job, the event's.")
    ] = None,
    commit: Annotated[
        str | None, typer.Option("--commit", envvar="MLP_CI_COMMIT", help="A commit on the default branch instead.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--open", envvar="MLP_CI_OPEN", help="All open pull requests; what a schedule does.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", envvar="MLP_CI_EXPLAIN", help="Also say what each rule is for, and what mends those that fail."
        ),
    ] = False,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Say whether a promotion is approved, with a reason for every rule; in a job also as status and comment."""

    def flow() -> Report:
        from mlp_ci.promote import approvals as run_approvals

        return run_approvals(context_of(path, platform), pr=pr, commit=commit, everything=everything, explain=explain)

    return Presenter("approvals", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def deploy(
    stage: StageOption = None,
    watch: Annotated[
        str,
        typer.Option(
            "--watch",
            envvar="MLP_CI_WATCH",
            help="Stay with a rollout for so long, as 10m; a later deploy goes on.",
        ),
    ] = "0s",
    plan: Annotated[
        bool, typer.Option("--plan", envvar="MLP_CI_PLAN", help="Only say what would change; change nothing.")
    ] = False,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Make the serving target run what the default branch's promotion.yaml says, if it is approved."""

    def flow() -> Report:
        from mlp_ci.serve import deploy as run_deploy
        from mlp_ci.serve import plan as run_plan

        if plan:
            return run_plan(context_of(path, platform), stage)
        context = context_of(path, platform)
        return run_deploy(context, stage, watch=duration_of("--watch", watch), labels=_labels)

    return Presenter("deploy", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def rollback(
    stage: Annotated[str, typer.Option("--stage", envvar="MLP_CI_STAGE", help="Stage to roll back.")] = "production",
    to: Annotated[
        str, typer.Option("--to", envvar="MLP_CI_TO", help="`previous`, or the number of a version that ran here.")
    ] = "previous",
    reason: Annotated[str, typer.Option("--reason", envvar="MLP_CI_REASON", help="Why; goes into git.")] = "",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Put all traffic back on an earlier version at once, then record it in git and quarantine the newer one."""

    def flow() -> Report:
        from mlp_ci.serve import rollback as run_rollback

        return run_rollback(context_of(path, platform), stage, to=to, reason=reason)

    return Presenter("rollback", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def history(
    stage: StageOption = None,
    at: Annotated[
        str | None,
        typer.Option("--at", envvar="MLP_CI_AT", help="What was live at this instant, as 2026-01-31 or in ISO form."),
    ] = None,
    path: PathOption = Path(),
    output_format: Annotated[
        str,
        typer.Option("--format", envvar="MLP_CI_FORMAT", help="text for people, json for programs, csv for sheets."),
    ] = "text",
    output: OutputOption = None,
) -> int:
    """Say what was live when, who asked, who approved, on what evidence; from git alone, also without a network."""
    as_csv = output_format == "csv"

    def flow() -> Report:
        from mlp_ci.promote.what_was_live import what_was_live

        return what_was_live(context_of(path, None), stage, at, as_csv=as_csv)

    return Presenter("history", "text" if as_csv else output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def audit(
    repair: Annotated[
        bool,
        typer.Option("--repair", envvar="MLP_CI_REPAIR", help="Put right what serves and the aliases; never git."),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", envvar="MLP_CI_SINCE", help="Approvals since then only: 30d, or an instant."),
    ] = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Hold records, approvals, guarded files, MLflow and what serves against git; exit 3 where one does not agree."""

    def flow() -> Report:
        from mlp_ci.audit.flow import audit as run_audit

        return run_audit(context_of(path, platform), since=since, repair=repair)

    return Presenter("audit", output_format, output)(flow)


def _labels(repo: Path, spec: ModelSpec, log: Path) -> Labels | None:
    """Who knows how good versions are by the labels that come; nobody where the model names none."""
    if spec.monitor.labels is None:
        return None
    from mlp_ci.monitor.arms import source

    return source(repo, spec, log)
