"""The command line: puts the commands together, runs one and gives its exit code.

With ``presenter`` the only place that catches MlpError.

Nothing heavy is imported on the way to ``--help``: each command imports its flow when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mlp_ci import __version__
from mlp_ci.commands.gateways import app as gateways_app
from mlp_ci.commands.loop import app as loop_app
from mlp_ci.commands.options import PLATFORM, WRITE
from mlp_ci.commands.packaging import app as packaging_app
from mlp_ci.commands.predicting import app as predicting_app
from mlp_ci.commands.promotions import app as promotions_app
from mlp_ci.commands.rollouts import app as rollouts_app
from mlp_ci.commands.serving import app as serving_app
from mlp_ci.commands.tell import app as tell_app
from mlp_ci.commands.watch import app as watch_app
from mlp_ci.commands.write import app as write_app
from mlp_ci.data.commands import app as data_app
from mlp_ci.errors import EXIT_INTERRUPTED, EXIT_OK, InputError
from mlp_ci.presenter import bug
from mlp_ci.sandbox.commands import app as sandbox_app

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


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"mlp-ci {__version__}")
        raise typer.Exit


app.add_typer(write_app)
app.add_typer(loop_app)
app.add_typer(packaging_app)
app.add_typer(predicting_app)
app.add_typer(rollouts_app)
app.add_typer(serving_app)
app.add_typer(gateways_app)
app.add_typer(tell_app)
app.add_typer(promotions_app)
app.add_typer(watch_app)
app.add_typer(data_app, name="data", rich_help_panel=WRITE)
app.add_typer(sandbox_app, name="sandbox", rich_help_panel=PLATFORM)
