"""``mlp-ci sandbox …``: the whole loop on this machine. Imports its parts only when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mlp_ci.report import Report

app = typer.Typer(
    no_args_is_help=True,
    help="The whole loop on this machine: GitHub's part played by a local forge, real git, act, MLflow and DVC; "
    "without Docker, without network.",
)

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", envvar="MLP_SANDBOX_HOME", help="Folder of the sandbox.", show_default="~/.local/state"),
]
FormatOption = Annotated[
    str, typer.Option("--format", envvar="MLP_CI_FORMAT", help="text for people, json for programs.")
]
RepoArgument = Annotated[str, typer.Argument(help="A repository of the sandbox, such as acme/flight-delay.")]


def _root(home: Path | None) -> Path:
    from mlp_ci.sandbox.home import default_root

    return (home or default_root()).expanduser().resolve()


def _run(command: str, output_format: str, flow: object) -> int:
    from mlp_ci.presenter import Presenter

    return Presenter(f"sandbox {command}", output_format, None)(flow)  # type: ignore[arg-type]


@app.command()
def up(
    clock: Annotated[
        str | None, typer.Option("--clock", help="Start at this time instead of the real one: 2013-04-01.")
    ] = None,
    home: HomeOption = None,
    output_format: FormatOption = "text",
) -> int:
    """Start the sandbox (or what of it does not run): organisation acme with alice, bob, carol and dave in it."""

    def flow() -> Report:
        from mlp_ci.clock import parse_instant
        from mlp_ci.sandbox import lifecycle, organisation

        instant = parse_instant(clock) if clock else None
        running = lifecycle.up(_root(home), instant=instant)
        return organisation.introduce(running)

    return _run("up", output_format, flow)


@app.command()
def down(home: HomeOption = None, output_format: FormatOption = "text") -> int:
    """Stop every process of the sandbox; what it remembers stays for the next `up`."""

    def flow() -> Report:
        from mlp_ci.sandbox import lifecycle

        return lifecycle.down(_root(home))

    return _run("down", output_format, flow)


@app.command()
def status(home: HomeOption = None, output_format: FormatOption = "text") -> int:
    """What runs and where to look."""

    def flow() -> Report:
        from mlp_ci.sandbox import lifecycle

        return lifecycle.status(_root(home))

    return _run("status", output_format, flow)


@app.command()
def create(
    repo: RepoArgument,
    folder: Annotated[Path, typer.Option("--path", "-C", help="Work tree to connect to it.")] = Path(),
    login: Annotated[str, typer.Option("--as", help="Who works there: alice, bob or carol.")] = "alice",
    home: HomeOption = None,
    output_format: FormatOption = "text",
) -> int:
    """Make an empty repository on the forge and connect a work tree to it: `git push -u origin main` comes next."""

    def flow() -> Report:
        from mlp_ci.sandbox import organisation

        return organisation.create_repository(_root(home), repo, folder, login)

    return _run("create", output_format, flow)


@app.command()
def tick(
    repo: RepoArgument,
    home: HomeOption = None,
    output_format: FormatOption = "text",
) -> int:
    """Let the scheduled workflows of a repository run now, as cron would."""

    def flow() -> Report:
        from mlp_ci.sandbox import organisation

        return organisation.tick(_root(home), repo)

    return _run("tick", output_format, flow)


@app.command("clock")
def move_clock(
    instant: Annotated[
        str | None, typer.Argument(help="An ISO date or instant; without it, say what time it is.")
    ] = None,
    home: HomeOption = None,
    output_format: FormatOption = "text",
) -> int:
    """Show the sandbox's clock, or move it; only a sandbox that was started with --clock has one of its own."""

    def flow() -> Report:
        from mlp_ci.sandbox import organisation

        return organisation.set_clock(_root(home), instant)

    return _run("clock", output_format, flow)


@app.command()
def env(
    login: Annotated[str, typer.Option("--as", help="Whose shell: alice, bob or carol.")] = "alice",
    home: HomeOption = None,
) -> int:
    """Print the environment of a person's shell, for `eval "$(mlp-ci sandbox env)"`."""
    import shlex
    import sys

    from mlp_ci.errors import MlpError
    from mlp_ci.report import print_error
    from mlp_ci.sandbox import home as homes
    from mlp_ci.sandbox.people import person

    try:
        shell = person(homes.read(_root(home)), login).environment()
    except MlpError as error:
        print_error(error)
        return error.exit_code
    wanted = ("GITHUB_", "GIT_", "MLFLOW_", "MLP_", "DVC_", "PATH")
    # HOME stays the user's own: this is their shell.
    for name, value in shell.items():
        if name.startswith(wanted) and name != "GIT_CONFIG_NOSYSTEM":
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    return 0


@app.command()
def demo(
    fast: Annotated[bool, typer.Option("--fast", help="Less traffic; for tests.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave all of it running for a look.")] = False,
    home: HomeOption = None,
    output_format: FormatOption = "text",
) -> int:
    """Watch a real model go round the whole loop: push, review, merge, traffic, drift, retraining, rollback."""

    def flow() -> Report:
        from mlp_ci.sandbox import demo as demos

        return demos.run(home, fast=fast, keep=keep, quiet=output_format == "json")

    return _run("demo", output_format, flow)
