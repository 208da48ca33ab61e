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
        from mlp_ci.data.describe.flow_infer import Wanted, infer_file

        return infer_file(path, file, Wanted(margin=margin, sample=sample, write=write))

    return _run("infer", output_format, output, flow)


@app.command()
def diff(
    a: Annotated[
        str, typer.Argument(metavar="[A]", help="The version before: a file, or path@revision.", show_default=False)
    ] = "",
    b: Annotated[str, typer.Argument(metavar="[B]", help="The version now.", show_default=False)] = "",
    base: Annotated[
        str, typer.Option("--base", envvar="MLP_CI_BASE", help="Revision to compare with, where B is not given.")
    ] = "",
    key: Annotated[
        str, typer.Option("--key", envvar="MLP_CI_KEY", help="Columns that identify a row, separated by commas.")
    ] = "",
    comment: Annotated[
        bool, typer.Option("--comment", envvar="MLP_CI_COMMENT", help="In a job: say it in one comment on the PR.")
    ] = False,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
) -> int:
    """Say what changed between two versions of data: rows, columns, and what is in them.

    `mlp-ci data diff old.parquet new.parquet` compares two files. `mlp-ci data diff data/train.parquet@v1.2
    data/train.parquet` fetches the first through DVC. With one path, or none for all data of model.yaml, what lies
    here is compared with where this branch left the default one. That data changes is news, not a failure.
    """

    def flow() -> Report:
        from mlp_ci.context import load_context
        from mlp_ci.data.describe.flow_diff import Asked
        from mlp_ci.data.describe.flow_diff import diff as run_diff

        columns = tuple(name.strip() for name in key.split(",") if name.strip())
        return run_diff(load_context(path), Asked(a=a, b=b, base=base, key=columns, comment=comment))

    return _run("diff", output_format, output, flow)


@app.command()
def profile(
    file: FileArgument,
    report_file: Annotated[
        Path | None, typer.Option("--report", envvar="MLP_CI_REPORT", help="Also draw it as an HTML page, here.")
    ] = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
) -> int:
    """Show what a file holds: missing and distinct values, quantiles, small histograms, the most frequent values.

    `mlp-ci data profile data/train.parquet --report page.html` also draws it as one page that needs no network.
    """

    def flow() -> Report:
        from mlp_ci.data.describe.flow_profile import profile as run_profile

        return run_profile(path, file, report_file)

    return _run("profile", output_format, output, flow)


@app.command()
def check(
    source: Annotated[
        str, typer.Argument(help="A file, folder, glob or address, or table:schema.name.", show_default=False)
    ],
    engine: Annotated[
        str, typer.Option("--engine", envvar="MLP_CI_ENGINE", help="auto, duckdb, spark, or sql for a warehouse.")
    ] = "auto",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
) -> int:
    """Check any data by the rules of model.yaml, where it is: here, in Spark, or in a warehouse.

    `mlp-ci data check s3://bucket/new.parquet` judges a file before it is tracked. `mlp-ci data check
    table:sales.flights --engine sql` asks the warehouse at the address in MLP_CI_WAREHOUSE, an SQLAlchemy URL; it is
    read from the environment only, since it may hold a password.
    """

    def flow() -> Report:
        import os

        from mlp_ci.data.checks.flow_check import check as run_check

        return run_check(path.resolve(), source, engine, os.environ.get("MLP_CI_WAREHOUSE") or None)

    return _run("check", output_format, output, flow)
