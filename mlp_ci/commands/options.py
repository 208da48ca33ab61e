"""The options that several commands share, and the headings under which ``--help`` lists commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datetime import timedelta

    from mlp_ci.context import Context

LOOP = "The loop"
WRITE = "Write and check"
PLATFORM = "Platform"

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


def context_of(path: Path, platform: Path | None) -> Context:
    from mlp_ci.context import load_context

    return load_context(path, platform_file=platform)


def duration_of(option: str, text: str) -> timedelta:
    """The time that an option was given as, such as 10m; nothing is no time at all."""
    from mlp_ci.errors import InputError
    from mlp_ci.spec.quantities import parse_duration

    try:
        given: timedelta = parse_duration(text or "0s")
    except ValueError as error:
        msg = f"{option} {text!r}: {error}"
        raise InputError(msg, fix=f"{option} 10m") from error
    return given
