"""The command that stands in front of model servers: gateway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlp_ci.commands.options import PLATFORM
from mlp_ci.presenter import Presenter

if TYPE_CHECKING:
    from mlp_ci.report import Report

app = typer.Typer()


@app.command(rich_help_panel=PLATFORM)
def gateway(
    config: Annotated[
        Path | None, typer.Option("--config", envvar="MLP_CI_CONFIG", help="gateway.yaml: several models and tenants.")
    ] = None,
    upstream: Annotated[
        str, typer.Option("--upstream", envvar="MLP_CI_UPSTREAM", help="The one server to stand before, as a sidecar.")
    ] = "",
    model: Annotated[str, typer.Option("--model", envvar="MLP_CI_MODEL", help="Its name, with --upstream.")] = "model",
    stage: Annotated[str, typer.Option("--stage", envvar="MLP_CI_STAGE", help="Its stage.")] = "production",
    version: Annotated[int, typer.Option("--version", envvar="MLP_CI_VERSION", min=0, help="Its version.")] = 0,
    arm: Annotated[str, typer.Option("--arm", envvar="MLP_CI_ARM", help="Its role: stable, canary.")] = "stable",
    log: Annotated[
        Path | None, typer.Option("--log", envvar="MLP_CI_LOG", help="Folder of the prediction log.")
    ] = None,
    sample: Annotated[
        float, typer.Option("--sample", envvar="MLP_CI_SAMPLE", min=0, max=1, help="Share of requests to log.")
    ] = 1.0,
    columns: Annotated[
        str, typer.Option("--columns", envvar="MLP_CI_COLUMNS", help="Input columns to log: name:type,name:type.")
    ] = "",
    expose_measured: Annotated[
        bool,
        typer.Option("--expose-measured", envvar="MLP_CI_EXPOSE_MEASURED", help="Answer /measured without a token."),
    ] = False,
    host: Annotated[
        str, typer.Option("--host", envvar="MLP_CI_HOST", help="Address to listen on; 127.0.0.1 if nothing says so.")
    ] = "",
    port: Annotated[
        int | None,
        typer.Option("--port", envvar="MLP_CI_PORT", min=0, max=65535, help="Port; 8080 if nothing says so."),
    ] = None,
) -> int:
    """Route requests to model servers: one address for several models, or a sidecar that measures and logs."""

    def flow() -> Report:
        from mlp_ci.errors import InputError
        from mlp_ci.serve.gateway.config import Sidecar, foreground, from_file, sidecar

        if (config is None) == (not upstream):
            msg = "give either --config or --upstream"
            raise InputError(msg, fix="mlp-ci gateway --config gateway.yaml, or --upstream http://127.0.0.1:8081")
        if config is not None:
            return foreground(*from_file(config, host, port))
        given = Sidecar(
            upstream=upstream,
            model=model,
            stage=stage,
            version=version,
            arm=arm,
            log=log,
            sample=sample,
            columns=columns,
            measured=expose_measured,
        )
        return foreground(*sidecar(given, host or "127.0.0.1", 8080 if port is None else port))

    return Presenter("gateway", "text", None)(flow)
