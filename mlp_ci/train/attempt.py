"""One attempt at a training command: its environment, and what it left behind."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from mlp_ci.errors import MlpError
from mlp_ci.report import commands_stopped
from mlp_ci.tracking import artifact_digest
from mlp_ci.train import any_folder, backends, environment, held_out
from mlp_ci.train.command import GRACE_SECONDS, GRACE_SECONDS_IN_JOB, Command, Ended, Unwatched, Watch
from mlp_ci.train.output import Output, check_output
from mlp_ci.train.relay import Mask, secrets_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.train.job import Folders


class Interrupted(KeyboardInterrupt):
    """This process was asked to stop while training; the run goes on at the next start."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A whole model on this machine, made in ``seconds``."""

    output: Output
    digest: str
    seconds: float


def already_here(folders: Folders) -> Trained | None:
    """A model that an earlier attempt finished and could not hand over; None unless its bytes are the same."""
    try:
        noted = json.loads(folders.marker.read_text())
        output = check_output(folders.output)
        digest = artifact_digest(output.model)
        seconds = float(noted["seconds"])
    except (OSError, ValueError, KeyError, TypeError, MlpError):
        return None
    return Trained(output=output, digest=digest, seconds=seconds) if digest == noted.get("digest") else None


def attempt(
    ctx: Context,
    spec: ModelSpec,
    folders: Folders,
    variables: Mapping[str, str],
    log: TextIO,
    watch: Watch | None = None,
) -> tuple[Ended, Mask]:
    """Run the training command once, with held-out data out of reach; returns how it ended."""
    environ = dict(os.environ)
    first = backends.executables(ctx, spec, variables["MLP_ENVIRONMENT"], lambda text: say(log, text))
    shutil.rmtree(folders.output, ignore_errors=True)
    for folder in (folders.output, folders.checkpoints):
        folder.mkdir(parents=True, exist_ok=True)
    mask = Mask(secrets_in(environ))
    command = Command(
        line=spec.train.command,
        folder=ctx.repo,
        environ=training_environment(environ, variables, first, spec.train.environment.kind),
        timeout=spec.train.timeout.total_seconds(),
        notes=folders.root,
        log=folders.log,
        grace=GRACE_SECONDS_IN_JOB if ctx.in_job else GRACE_SECONDS,
    )
    with ExitStack() as stack:
        place = held_out.Place(repo=ctx.repo, work=ctx.work, held_out=spec.data.test, train=spec.data.train)
        stack.enter_context(held_out.never_seen(place, in_job=ctx.in_job))
        stack.enter_context(commands_stopped(log, in_job=ctx.in_job))
        return backends.of(ctx, spec).run(command, log, mask, watch or Unwatched()), mask


def training_environment(
    environ: Mapping[str, str], variables: Mapping[str, str], first: Path, kind: str
) -> dict[str, str]:
    """The whole environment of the training command: what it may see of ours, the contract's variables, the PATH."""
    ours = environment.visible(environ)
    if kind != "inherit":
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            ours.pop(name, None)
        ours["VIRTUAL_ENV"] = str(first.parent)
    contract = {k: v for k, v in variables.items() if k != "MLP_ENVIRONMENT"}
    return {
        "PYTHONUNBUFFERED": "1",  # or the log arrives in one piece at the end
        "PYTHONHASHSEED": variables["MLP_SEED"],
        **ours,
        **contract,
        "PATH": f"{first}{os.pathsep}{environ.get('PATH', os.defpath)}",
    }


def finished(spec: ModelSpec, folders: Folders, ended: Ended) -> Trained:
    """Check what a command that ended well left behind, and note it, so that it is never trained again."""
    any_folder.made_loadable(folders.model, spec)
    output = check_output(folders.output)
    digest = artifact_digest(output.model)
    scratch = folders.marker.with_suffix(".new")
    scratch.write_text(json.dumps({"digest": digest, "seconds": ended.seconds}))
    scratch.replace(folders.marker)
    return Trained(output=output, digest=digest, seconds=ended.seconds)


def say(log: TextIO, text: str) -> None:
    """One line of our own in the relayed log; that nobody reads the log any more ends no training."""
    with suppress(OSError):
        log.write(f"mlp-ci: {text}\n")
        log.flush()
