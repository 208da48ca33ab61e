"""The commands that make a version: validate, train, evaluate, register."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlp_ci.commands.options import LOOP, FormatOption, OutputOption, PathOption, PlatformOption, context_of
from mlp_ci.presenter import Presenter

if TYPE_CHECKING:
    from mlp_ci.report import Report

app = typer.Typer()


@app.command(rich_help_panel=LOOP)
def validate(
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Fetch the data that model.yaml names and check it: types, nulls, ranges, sets, keys, rows, freshness."""

    def flow() -> Report:
        from mlp_ci.data import validate as run_validate

        return run_validate(context_of(path, platform))

    return Presenter("validate", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def train(
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Run the training command under the training contract. The same code, data and params train once."""

    def flow() -> Report:
        from mlp_ci.train import train as run_train

        return run_train(context_of(path, platform), log=sys.stderr if output_format == "json" else sys.stdout)

    return Presenter("train", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def evaluate(
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Predict the held-out data, compute metrics, judge the gates, and store the evidence with the run."""

    def flow() -> Report:
        from mlp_ci.evaluate import evaluate as run_evaluate

        return run_evaluate(context_of(path, platform))

    return Presenter("evaluate", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def register(
    no_promote: Annotated[
        bool, typer.Option("--no-promote", envvar="MLP_CI_NO_PROMOTE", help="Open no promotion pull request.")
    ] = False,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Register a version whose evidence passed, and open the promotion pull request for the first stage."""

    def flow() -> Report:
        from mlp_ci.register import register as run_register

        return run_register(context_of(path, platform), promote=not no_promote)

    return Presenter("register", output_format, output)(flow)
