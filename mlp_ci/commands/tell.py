"""The command that tells of what was judged: report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlp_ci.commands.options import LOOP, FormatOption, OutputOption, PathOption, PlatformOption, context_of
from mlp_ci.presenter import Presenter

if TYPE_CHECKING:
    from mlp_ci.report import Report

app = typer.Typer()


@app.command(rich_help_panel=LOOP)
def report(
    comment: Annotated[
        bool, typer.Option("--comment", envvar="MLP_CI_COMMENT", help="In a job: say it in one comment on the PR.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", envvar="MLP_CI_HTML", help="Write the report with its pictures here.")
    ] = None,
    card: Annotated[
        bool,
        typer.Option("--card", envvar="MLP_CI_CARD", help="Print the model card instead; the rest goes to stderr."),
    ] = False,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Tell of the newest evaluation: the verdict, against production, slices, pictures. It judges nothing itself."""

    def flow() -> Report:
        from mlp_ci.evaluate.telling.flow import Asked, tell

        return tell(context_of(path, platform), Asked(comment=comment, html=html, card=card))

    return Presenter("report", output_format, output)(flow)
