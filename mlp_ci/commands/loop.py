"""The commands that make a version: validate, train, evaluate, register."""

from __future__ import annotations

import sys
from dataclasses import replace
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
def plan(
    default_runner: Annotated[
        str,
        typer.Option(
            "--default-runner",
            envvar="MLP_CI_DEFAULT_RUNNER",
            help="Labels, separated by commas, where platform.yaml has no class `default`.",
        ),
    ] = "",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Say which jobs the workflow needs, on which machines, for how long and at which price, and what it skips."""

    def flow() -> Report:
        from mlp_ci.plan import plan as run_plan

        return run_plan(context_of(path, platform), default_runner=default_runner)

    return Presenter("plan", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def train(
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            envvar="MLP_CI_BACKEND",
            help="runner, docker, kubernetes or ray; wins over train.backend of model.yaml.",
        ),
    ] = "",
    manifest: Annotated[
        bool,
        typer.Option(
            "--manifest", envvar="MLP_CI_MANIFEST", help="Only show what would be asked of Kubernetes, as YAML."
        ),
    ] = False,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Run the training command under the training contract. The same code, data and params train once."""

    def flow() -> Report:
        from mlp_ci.sweep import best_parameters
        from mlp_ci.train import train as run_train

        ctx = replace(context_of(path, platform), backend=backend)
        if manifest:
            from mlp_ci.train.backends.kubernetes import show_manifests

            return show_manifests(ctx)
        log = sys.stderr if output_format == "json" else sys.stdout
        return run_train(ctx, log=log, search=best_parameters)

    return Presenter("train", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def sweep(
    job: Annotated[
        int, typer.Option("--job", min=1, envvar="MLP_CI_JOB", help="Which of several jobs this is, from 1.")
    ] = 1,
    of: Annotated[
        int, typer.Option("--of", min=1, envvar="MLP_CI_OF", help="How many jobs share the trials at the same time.")
    ] = 1,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Search for the best parameters (train.sweep). `train` does it by itself; several jobs do it faster."""

    def flow() -> Report:
        from mlp_ci.errors import InputError
        from mlp_ci.sweep import sweep as run_sweep

        if job > of:
            msg = f"--job {job} --of {of}: there are only {of} jobs"
            raise InputError(msg, fix="count the jobs from 1")
        log = sys.stderr if output_format == "json" else sys.stdout
        return run_sweep(context_of(path, platform), share=(job, of) if of > 1 else None, log=log)

    return Presenter("sweep", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def reproduce(
    version: Annotated[int, typer.Argument(envvar="MLP_CI_VERSION", help="Number of the registered version.")],
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", envvar="MLP_CI_TOLERANCE", help="Predictions this close together are the same."),
    ] = 1e-6,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Train a version again from its commit, data and environment; exit 3 when something else comes out."""

    def flow() -> Report:
        from mlp_ci.reproduce import reproduce as run_reproduce

        log = sys.stderr if output_format == "json" else sys.stdout
        return run_reproduce(context_of(path, platform), version, tolerance=tolerance, log=log)

    return Presenter("reproduce", output_format, output)(flow)


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
