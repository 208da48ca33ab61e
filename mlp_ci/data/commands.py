"""``mlp-ci data …``: look at data before anybody has to trust it. Imports its parts only when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mlp_ci.report import Report

app = typer.Typer(
    no_args_is_help=True,
    help="Look at data: describe it for model.yaml, say what changed between versions, draw its profile, check it.\n\n"
    "A file is Parquet, CSV, JSON lines or Arrow; a folder, a glob or an s3://, gs:// or https:// address of such "
    "files will do as well.",
)

PathOption = Annotated[Path, typer.Option("--path", "-C", envvar="MLP_CI_PATH", help="Folder of the model repository.")]
FormatOption = Annotated[
    str, typer.Option("--format", envvar="MLP_CI_FORMAT", help="text for people, json for programs.")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", envvar="MLP_CI_OUTPUT", help="Also write the JSON report here.")
]
FileArgument = Annotated[str, typer.Argument(help="A file, folder, glob or address.", show_default=False)]


def _run(command: str, output_format: str, output: Path | None, flow: object) -> int:
    from mlp_ci.presenter import Presenter

    return Presenter(f"data {command}", output_format, output)(flow)  # type: ignore[arg-type]


@app.command()
def infer(
    file: FileArgument,
    margin: Annotated[
        float, typer.Option("--margin", help="Room around what was seen: 0 none, 0.1 a tenth of the range.")
    ] = 0.1,
    sample: Annotated[
        int | None, typer.Option("--sample", help="Look at this many random rows only.", show_default="all rows")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Renew data.columns in model.yaml; comments and the rest of it stay.")
    ] = False,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
) -> int:
    """Write the `columns:` block for model.yaml that a careful person would, each line with its reason.

    `mlp-ci data infer data/train.parquet` prints it; with --write it goes into model.yaml. Read every line: the file
    says what was, and you know what may be. What looks like personal data is marked `sensitive`.
    """

    def flow() -> Report:
        from mlp_ci.data.flow_infer import Wanted, infer_file

        return infer_file(path, file, Wanted(margin=margin, sample=sample, write=write))

    return _run("infer", output_format, output, flow)
