"""The command that makes images of versions: package."""

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
def package(
    version: Annotated[int, typer.Argument(envvar="MLP_CI_VERSION", help="Number of the registered version.")],
    base: Annotated[
        str, typer.Option("--base", envvar="MLP_CI_BASE", help="Image to begin with; wins over platform.yaml.")
    ] = "",
    no_push: Annotated[
        bool, typer.Option("--no-push", envvar="MLP_CI_NO_PUSH", help="Leave the image on the engine.")
    ] = False,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", envvar="MLP_CI_IMAGE_FILE", help="Also write the image here, as `docker load` reads it."
        ),
    ] = None,
    sbom: Annotated[
        Path | None, typer.Option("--sbom", envvar="MLP_CI_SBOM", help="Also write the bill of materials (CycloneDX).")
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option("--lock", envvar="MLP_CI_LOCK", help="Only these packages: the lock.txt of an earlier image."),
    ] = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Make the container image of a version, ask it what it must answer, and push it."""

    def flow() -> Report:
        from mlp_ci.serve.package.flow import Options
        from mlp_ci.serve.package.flow import package as run_package

        options = Options(base=base, push=not no_push, image=image, sbom=sbom, lock=lock)
        return run_package(context_of(path, platform), version, options)

    return Presenter("package", output_format, output)(flow)
