"""The command line: one short function per command. With ``presenter`` the only place that catches MlpError.

Nothing heavy is imported on the way to ``--help``: each command imports its flow when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlp_ci import __version__
from mlp_ci.data.commands import app as data_app
from mlp_ci.errors import EXIT_INTERRUPTED, EXIT_OK, InputError
from mlp_ci.presenter import Presenter, bug
from mlp_ci.sandbox.commands import app as sandbox_app

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.report import Report

LOOP = "The loop"
WRITE = "Write and check"
PLATFORM = "Platform"

app = typer.Typer(
    name="mlp-ci",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="An ML platform that is a GitHub organisation. A data scientist writes [bold]model.yaml[/bold] and pushes; "
    "everything after that is a pull request.\n\nNew here? [cyan]mlp-ci sandbox demo[/cyan] shows the whole loop on "
    "this machine; [cyan]mlp-ci init my-model[/cyan] starts a model of your own.",
    epilog="Exit codes: 0 ok · 1 bug · 2 bad input · 3 gate or budget said no · 4 nothing to do · 5 not approved · "
    "6 rolled back · 7 outside system failed · 130 interrupted",
)

PathOption = Annotated[Path, typer.Option("--path", "-C", envvar="MLP_CI_PATH", help="Folder of the model repository.")]
FormatOption = Annotated[
    str, typer.Option("--format", envvar="MLP_CI_FORMAT", help="text for people, json for programs.")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", envvar="MLP_CI_OUTPUT", help="Also write the JSON report here.")
]
PlatformOption = Annotated[
    Path | None,
    typer.Option("--platform", envvar="MLP_CI_PLATFORM", help="platform.yaml, instead of the organisation's."),
]
StageOption = Annotated[str | None, typer.Option("--stage", envvar="MLP_CI_STAGE", help="Only this stage.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", envvar="MLP_CI_SINCE", help="Start, as 2026-01-31 or an ISO instant.")
]
UntilOption = Annotated[str | None, typer.Option("--until", envvar="MLP_CI_UNTIL", help="End; now, if not given.")]
LookUntilOption = Annotated[
    str | None,
    typer.Option(
        "--until", envvar="MLP_CI_UNTIL", help="End, or `now`; the last full hour, day or week, if not given."
    ),
]


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = app(args=list(argv), standalone_mode=False)
        return code if isinstance(code, int) else EXIT_OK
    except typer.Exit as done:
        return done.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        return _failed_early(error)


def _failed_early(error: Exception) -> int:
    """Usage errors of the command line itself; anything else here is a bug of ours."""
    if isinstance(error, typer.Abort):
        return EXIT_INTERRUPTED
    show = getattr(error, "show", None)  # typer keeps its usage errors private; all of them can show themselves
    if show is not None and hasattr(error, "format_message"):
        show()
        return InputError.exit_code
    return bug(error)


def _context(path: Path, platform: Path | None) -> Context:
    from mlp_ci.context import load_context

    return load_context(path, platform_file=platform)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"mlp-ci {__version__}")
        raise typer.Exit


# ---------------------------------------------------------------- write and check


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
    example: Annotated[str, typer.Option(help="What it starts with: flights (a real example) or blank.")] = "flights",
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
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Say what is missing on this machine or in this repository, and how to mend it."""

    def flow() -> Report:
        from mlp_ci.doctor import examine

        return examine(_context(path, platform))

    return Presenter("doctor", output_format, output)(flow)


# ---------------------------------------------------------------- the loop


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

        return run_validate(_context(path, platform))

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

        return run_train(_context(path, platform), log=sys.stderr if output_format == "json" else sys.stdout)

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

        return run_evaluate(_context(path, platform))

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

        return run_register(_context(path, platform), promote=not no_promote)

    return Presenter("register", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def promote(
    stage: Annotated[str, typer.Argument(help="Stage to promote to.")],
    version: Annotated[
        int | None, typer.Option("--version", help="Version; by default the one in the stage before.")
    ] = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Open the pull request that asks for a version in a stage, with its evidence in the body."""

    def flow() -> Report:
        from mlp_ci.promote import promote as run_promote

        return run_promote(_context(path, platform), stage, version)

    return Presenter("promote", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def approvals(
    pr: Annotated[
        int | None, typer.Option("--pr", envvar="MLP_CI_PR", help="Pull request; in a job, the event's.")
    ] = None,
    commit: Annotated[
        str | None, typer.Option("--commit", envvar="MLP_CI_COMMIT", help="A commit on the default branch instead.")
    ] = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Say whether a promotion is approved, with a reason for every rule; in a job also as status and comment."""

    def flow() -> Report:
        from mlp_ci.promote import approvals as run_approvals

        return run_approvals(_context(path, platform), pr=pr, commit=commit)

    return Presenter("approvals", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def deploy(
    stage: StageOption = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Make the serving target run what the default branch's promotion.yaml says, if it is approved."""

    def flow() -> Report:
        from mlp_ci.serve import deploy as run_deploy

        return run_deploy(_context(path, platform), stage)

    return Presenter("deploy", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def rollback(
    stage: Annotated[str, typer.Option("--stage", envvar="MLP_CI_STAGE", help="Stage to roll back.")] = "production",
    to: Annotated[
        str, typer.Option("--to", envvar="MLP_CI_TO", help="`previous`, or the number of a version that ran here.")
    ] = "previous",
    reason: Annotated[str, typer.Option("--reason", envvar="MLP_CI_REASON", help="Why; goes into git.")] = "",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Put all traffic back on an earlier version at once, then record it in git and quarantine the newer one."""

    def flow() -> Report:
        from mlp_ci.serve import rollback as run_rollback

        return run_rollback(_context(path, platform), stage, to=to, reason=reason)

    return Presenter("rollback", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def monitor(
    stage: Annotated[str, typer.Option("--stage", envvar="MLP_CI_STAGE", help="Stage to look at.")] = "production",
    since: SinceOption = None,
    until: LookUntilOption = None,
    fail_on_drift: Annotated[
        bool, typer.Option("--fail-on-drift", envvar="MLP_CI_FAIL_ON_DRIFT", help="Exit 3 on an alarm.")
    ] = False,
    report_file: Annotated[
        Path | None, typer.Option("--report", envvar="MLP_CI_REPORT", help="Write the HTML report here.")
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option("--metrics", envvar="MLP_CI_METRICS", help="Write figures for Prometheus here, as NAME.prom."),
    ] = None,
    pushgateway: Annotated[
        str | None,
        typer.Option("--pushgateway", envvar="MLP_CI_PUSHGATEWAY", help="Push the figures to this Pushgateway."),
    ] = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Compare what came in with what the live version was trained on; an alarm is news, not a failure."""

    def flow() -> Report:
        from mlp_ci.monitor import Window
        from mlp_ci.monitor import monitor as run_monitor
        from mlp_ci.monitor.metrics import Export

        window = Window(stage=stage, since=since, until=until)
        to = Export.of(metrics, pushgateway, os.environ)
        return run_monitor(_context(path, platform), window, report_file, fail_on_drift=fail_on_drift, to=to)

    return Presenter("monitor", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def cost(
    since: SinceOption = None,
    until: UntilOption = None,
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Training minutes times runner price, and serving hours, per model, team and stage; against the budget."""

    def flow() -> Report:
        from mlp_ci.monitor import cost as run_cost

        return run_cost(_context(path, platform), since, until)

    return Presenter("cost", output_format, output)(flow)


@app.command(rich_help_panel=LOOP)
def retrain(
    stage: Annotated[
        str, typer.Option("--stage", envvar="MLP_CI_STAGE", help="Stage whose alarm counts.")
    ] = "production",
    force: Annotated[bool, typer.Option("--force", envvar="MLP_CI_FORCE", help="Propose it without an alarm.")] = False,
    reason: Annotated[str, typer.Option("--reason", envvar="MLP_CI_REASON", help="Why, for the body.")] = "",
    path: PathOption = Path(),
    output_format: FormatOption = "text",
    output: OutputOption = None,
    platform: PlatformOption = None,
) -> int:
    """Open (or update) the model's one retraining pull request: newer data, and the evidence in its body."""

    def flow() -> Report:
        from mlp_ci.monitor import retrain as run_retrain

        return run_retrain(_context(path, platform), stage, force=force, reason=reason)

    return Presenter("retrain", output_format, output)(flow)


app.add_typer(data_app, name="data", rich_help_panel=WRITE)
app.add_typer(sandbox_app, name="sandbox", rich_help_panel=PLATFORM)
