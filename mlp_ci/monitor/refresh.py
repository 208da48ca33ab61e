"""Brings a model's data up to date: by the team's own command, or by updating what DVC imported."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from mlp_ci import dvc
from mlp_ci.errors import InputError, NothingToDo
from mlp_ci.report import commands_stopped

if TYPE_CHECKING:
    from datetime import datetime

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec

# What the command needs to reach the team's data stays; what would let it act on GitHub or MLflow goes.
OURS = re.compile(r"^(MLFLOW_.*|DVC_STUDIO_.*|.*GITHUB.*TOKEN.*)$", re.IGNORECASE)


def bring_up_to_date(ctx: Context, model: ModelSpec, now: datetime) -> list[str]:
    """Refresh the data, track it and push it; returns the paths that now may differ from git.

    Raises NothingToDo when model.yaml does not say how to get newer data, InputError when the team's command fails,
    writes nothing or runs into its timeout.
    """
    paths = [model.data.train, model.data.test]
    if model.data.refresh:
        _run_command(ctx, model, now)
        dvc.add_and_push(ctx.repo, paths)
        return paths
    imports = [path for path in paths if dvc.imported(ctx.repo, path)]
    if not imports:
        msg = "nothing says how to get newer data"
        fix = "add `refresh: {command: …}` to `data` in model.yaml, or import the data with `dvc import-url`"
        raise NothingToDo(msg, fix=fix)
    dvc.update_imports(ctx.repo, imports)
    return imports


def refresh_environment(environ: dict[str, str], now: datetime, first: str, kind: str) -> dict[str, str]:
    """What the refresh command sees: no token of the job's, the clock as MLP_NOW, its programs first on PATH."""
    from mlp_ci.train.environment import visible

    seen = {k: v for k, v in visible(environ).items() if not OURS.match(k)}
    if kind != "inherit":
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            seen.pop(name, None)
    return {**seen, "MLP_NOW": now.isoformat(), "PATH": f"{first}{os.pathsep}{seen.get('PATH', '')}"}


def _run_command(ctx: Context, model: ModelSpec, now: datetime) -> None:
    from mlp_ci.train.command import Command, run, stop_left_over
    from mlp_ci.train.environment import executables
    from mlp_ci.train.key import environment_digest
    from mlp_ci.train.relay import Mask, last_lines, secrets_in

    refresh = model.data.refresh
    if refresh is None:
        return
    wanted = model.train.environment
    log = sys.stderr  # stdout belongs to the report
    digest = environment_digest(ctx.repo, model)
    first = executables(wanted, digest, ctx.repo, ctx.cache_folder, lambda text: print(f"mlp-ci: {text}", file=log))
    environ = dict(os.environ)
    # One level deeper than the notes of trainings: `mlp-ci train` ends the commands that it finds noted there.
    notes = ctx.work / "refresh" / "command"
    notes.mkdir(parents=True, exist_ok=True)
    stop_left_over(notes)
    log_file = notes / "refresh.log"
    log_file.unlink(missing_ok=True)
    command = Command(
        line=refresh.command,
        folder=ctx.repo,
        environ=refresh_environment(environ, now, str(first), wanted.kind),
        timeout=refresh.timeout.total_seconds(),
        notes=notes,
        log=log_file,
    )
    with commands_stopped(log, in_job=ctx.in_job):
        ended = run(command, log, Mask(secrets_in(environ)))
    if ended.why == "interrupted":
        raise KeyboardInterrupt
    if ended.why == "exit" and ended.code == 0:
        return
    how = "ran into its timeout" if ended.why == "timeout" else f"ended with exit code {ended.code}"
    said = "\n".join(last_lines(log_file, 10))
    what = f"`{refresh.command}` {how}" + (f":\n{said}" if said else "")
    fix = f"run `MLP_NOW={now.isoformat()} {refresh.command}` here and mend it; data.refresh in model.yaml names it"
    raise InputError(what, why="there is no newer data to train on", fix=fix, file="model.yaml")
