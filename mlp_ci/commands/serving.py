"""The command that serves one version in the foreground: serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlp_ci.commands.options import PLATFORM, PathOption, PlatformOption, context_of
from mlp_ci.presenter import Presenter

if TYPE_CHECKING:
    from mlp_ci.report import Report

app = typer.Typer()


@app.command(rich_help_panel=PLATFORM)
def serve(
    version: Annotated[str, typer.Argument(help="Number of a registered version, or the folder of an MLflow model.")],
    port: Annotated[
        int, typer.Option("--port", envvar="MLP_CI_PORT", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8080,
    host: Annotated[
        str, typer.Option("--host", envvar="MLP_CI_HOST", help="Address to listen on; 0.0.0.0 is everybody's.")
    ] = "127.0.0.1",
    workers: Annotated[
        int | None,
        typer.Option("--workers", envvar="MLP_CI_WORKERS", min=1, max=64, help="Processes; as model.yaml says."),
    ] = None,
    drain: Annotated[
        float,
        typer.Option(
            "--drain", envvar="MLP_CI_DRAIN", min=0, help="Seconds to answer on, not ready, once asked to end."
        ),
    ] = 0.0,
    path: PathOption = Path(),
    platform: PlatformOption = None,
) -> int:
    """Serve one version on this machine, in the foreground: MLflow's protocol, and the Open Inference Protocol."""

    def flow() -> Report:
        from mlp_ci.serve.foreground import Wanted, serve_in_foreground

        wanted = Wanted(version=version, host=host, port=port, workers=workers, drain=drain)
        serve_in_foreground(context_of(path, platform), wanted)

    return Presenter("serve", "text", None)(flow)
