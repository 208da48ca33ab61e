"""The commands that write and check files: lint, schema, init, doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlp_ci.commands.options import WRITE, FormatOption, OutputOption, PathOption, PlatformOption, context_of
from mlp_ci.errors import EXIT_OK
from mlp_ci.presenter import Presenter

if TYPE_CHECKING:
    from mlp_ci.report import Report

app = typer.Typer()


@app.command(rich_help_panel=WRITE)
def lint(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files to check; by default all that the repository has.")
    ] = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
) -> int:
    """Check model.yaml, promotion.yaml and platform.yaml: every problem at once, with its place and its cure."""

    def flow() -> Report:
        from mlp_ci.lint import lint_files

        return lint_files(path, files or [])

    return Presenter("lint", output_format, output)(flow)


@app.command(rich_help_panel=WRITE)
def schema(
    kind: Annotated[str, typer.Argument(help="model, promotion or platform.")],
    output_format: Annotated[str, typer.Option("--format", help="text or json; a schema is JSON either way.")] = "json",
) -> int:
    """Print the JSON Schema of a file, for editors: `mlp-ci schema model > model.schema.json`."""
    if output_format not in ("text", "json"):
        msg = f"--format is text or json, not {output_format!r}"
        raise typer.BadParameter(msg)
    from mlp_ci.spec.load import KINDS
    from mlp_ci.spec.schema import schema_text

    if kind not in KINDS:
        msg = f"{kind!r} is none of {', '.join(KINDS)}"
        raise typer.BadParameter(msg, param_hint="kind")
    sys.stdout.write(schema_text(kind))
    return EXIT_OK


@app.command(rich_help_panel=WRITE)
def init(
    destination: Annotated[Path, typer.Argument(help="Folder of the new model repository.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; the folder's name, if not given.")] = None,
    team: Annotated[str, typer.Option(help="Team that owns the model.")] = "my-team",
    owner: Annotated[str, typer.Option(help="GitHub organisation.")] = "my-org",
    example: Annotated[
        str,
        typer.Option(
            help="What it starts with: flights (real data), blank, xgboost, lightgbm, pytorch, onnx, anything."
        ),
    ] = "flights",
    platform_ref: Annotated[
        str, typer.Option(help="The organisation's mlp-ci, as owner/repository@ref; OWNER/mlp-ci@v1, if not given.")
    ] = "",
    runner: Annotated[str, typer.Option(help="Runner class that trains, or labels separated by commas.")] = "default",
    remote: Annotated[str, typer.Option(help="Address of the DVC remote for the data.")] = "",
    no_git: Annotated[bool, typer.Option("--no-git", help="Start no git repository and commit nothing.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Bring an existing repository up to the newest template.")
    ] = False,
    output_format: FormatOption = "text",
    output: OutputOption = None,
) -> int:
    """Start a model repository from the template, or bring one up to date with --update."""

    def flow() -> Report:
        from mlp_ci import scaffold

        if update:
            return scaffold.update(destination)
        choices = scaffold.Choices(
            example=example, platform_ref=platform_ref, runner=runner, remote=remote, commit=not no_git
        )
        shown = name or destination.resolve().name
        return scaffold.init(destination, name=shown, team=team, owner=owner, choices=choices)

    return Presenter("init", output_format, output)(flow)


@app.command(rich_help_panel=WRITE)
def doctor(
    github: Annotated[
        bool, typer.Option("--github", help="Compare the settings of the repository on GitHub with what is relied on.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="With --github: set what is missing; without it, nothing is changed.")
    ] = False,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Say what is missing on this machine, in this repository or in its settings on GitHub, and how to mend it."""

    def flow() -> Report:
        from mlp_ci.doctor import examine

        return examine(context_of(path, platform), github=github, fix=fix)

    return Presenter("doctor", output_format, output)(flow)
