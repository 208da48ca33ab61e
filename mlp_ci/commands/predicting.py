"""The command that predicts whole files: predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlp_ci.commands.options import LOOP, FormatOption, PathOption, PlatformOption, StageOption, context_of
from mlp_ci.presenter import Presenter

if TYPE_CHECKING:
    from mlp_ci.report import Report

app = typer.Typer()


@app.command(rich_help_panel=LOOP)
def predict(
    data: Annotated[
        str,
        typer.Option(
            "--input",
            envvar="MLP_CI_INPUT",
            help="Parquet or CSV: a file, folder, glob or address, or a path that DVC tracks.",
        ),
    ],
    predictions: Annotated[
        Path,
        typer.Option("--output", envvar="MLP_CI_OUTPUT", help="name.parquet or name.csv; other names make a folder."),
    ],
    version: Annotated[
        str,
        typer.Argument(
            envvar="MLP_CI_VERSION", help="Number of the version, or folder of a model.", show_default=False
        ),
    ] = "",
    stage: StageOption = None,
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            envvar="MLP_CI_KEEP",
            help="Columns to keep besides the key, separated by commas; all (but sensitive ones), or none.",
        ),
    ] = "",
    bad_rows: Annotated[
        str,
        typer.Option(
            "--bad-rows", envvar="MLP_CI_BAD_ROWS", help="fail at a row that the model cannot be given, or skip it."
        ),
    ] = "fail",
    parts: Annotated[
        str, typer.Option("--parts", envvar="MLP_CI_PARTS", help="What a folder's parts are: parquet or csv.")
    ] = "parquet",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, max=64, envvar="MLP_CI_WORKERS", help="Processes; one per processor if not given."
        ),
    ] = None,
    batch_rows: Annotated[
        int | None,
        typer.Option(
            "--batch-rows",
            min=1,
            max=1_000_000,
            envvar="MLP_CI_BATCH_ROWS",
            help="Most rows that the model is given at once; up to 16,384, by the number of columns, if not given.",
        ),
    ] = None,
    part_rows: Annotated[
        int,
        typer.Option(
            "--part-rows",
            min=1,
            envvar="MLP_CI_PART_ROWS",
            help="Rows of a part, about; sooner after a minute. A killed run goes on after its last part.",
        ),
    ] = 1_000_000,
    replace: Annotated[
        bool, typer.Option("--replace", envvar="MLP_CI_REPLACE", help="Replace an output made from something else.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", envvar="MLP_CI_REPORT", help="Also write the JSON report here.")
    ] = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    platform: PlatformOption = None,
) -> int:
    """Predict files of any size with a version, in constant memory. Killed anywhere, it goes on when run again."""

    def flow() -> Report:
        from mlp_ci.serve.batch.flow import Asked
        from mlp_ci.serve.batch.flow import predict as run_predict

        asked = Asked(
            version=version.strip(),
            stage=stage,
            input=data,
            output=predictions,
            keep=tuple(name.strip() for name in keep.split(",") if name.strip()),
            bad_rows=bad_rows,
            parts=parts,
            workers=workers,
            batch_rows=batch_rows,
            part_rows=part_rows,
            replace=replace,
        )
        return run_predict(context_of(path, platform), asked)

    return Presenter("predict", output_format, report)(flow)
