"""One attempt at a training command: its folders, its environment, and what its end means."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from mlp_ci.errors import GateError, InputError, MlpError, OutsideError
from mlp_ci.report import commands_stopped
from mlp_ci.spec import show_duration
from mlp_ci.tracking import artifact_digest
from mlp_ci.train import backends, environment, held_out
from mlp_ci.train.command import GRACE_SECONDS, GRACE_SECONDS_IN_JOB, Command, Ended, Unwatched, Watch
from mlp_ci.train.output import Output, check_output
from mlp_ci.train.relay import Mask, last_lines, secrets_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec

LOG_LINES = 20
TAKEN_AWAY = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGPWR")


class Interrupted(KeyboardInterrupt):
    """This process was asked to stop while training; the run goes on at the next start."""


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where one train key lives on this machine."""

    root: Path

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def model(self) -> Path:
        return self.output / "model"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def log(self) -> Path:
        return self.root / "train.log"

    @property
    def marker(self) -> Path:
        return self.root / "trained.json"


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
    first = environment.executables(
        spec.train.environment, variables["MLP_ENVIRONMENT"], ctx.repo, ctx.cache_folder, lambda text: say(log, text)
    )
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
        stack.enter_context(held_out.out_of_reach(ctx.repo, ctx.work, [spec.data.test]))
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


def finished(folders: Folders, ended: Ended) -> Trained:
    """Check what a command that ended well left behind, and note it, so that it is never trained again."""
    output = check_output(folders.output)
    digest = artifact_digest(output.model)
    scratch = folders.marker.with_suffix(".new")
    scratch.write_text(json.dumps({"digest": digest, "seconds": ended.seconds}))
    scratch.replace(folders.marker)
    return Trained(output=output, digest=digest, seconds=ended.seconds)


def failure(spec: ModelSpec, ended: Ended, log: Path) -> MlpError:
    """What to say about a command that did not end well."""
    lines = last_lines(log, LOG_LINES)
    said = "the end of its log:\n" + "\n".join(f"  {line}" for line in lines) if lines else "it printed nothing"
    if ended.why == "timeout":
        limit = show_duration(spec.train.timeout)
        what = f"the training command was stopped: it ran longer than train.timeout ({limit})"
        fix = (
            "make it faster, or raise `train.timeout` in model.yaml; the same key goes on from its checkpoints if the "
            "command reads $MLP_CHECKPOINTS"
        )
        return GateError(what, why=said, fix=fix, file="model.yaml")
    if ended.signal_name in TAKEN_AWAY:
        what = f"the training command was killed from outside ({ended.signal_name}) after {ended.seconds:.0f} s"
        why = f"most often the machine ran out of memory or is being taken away; {said}"
        fix = "run `mlp-ci train` again: it resumes the same run from its checkpoints; or take a larger `train.runner`"
        return OutsideError(what, why=why, fix=fix)
    how = f"crashed with {ended.signal_name}" if ended.signal_name else f"failed with exit code {ended.code}"
    fix = f"run `{spec.train.command}` by hand with the variables of the training contract, mend it, and push again"
    if ended.code == 127:
        fix = f"the shell does not know the command: check `{spec.train.command}` and train.environment in model.yaml"
    return InputError(f"the training command {how} after {ended.seconds:.0f} s", why=said, fix=fix)


def say(log: TextIO, text: str) -> None:
    """One line of our own in the relayed log; that nobody reads the log any more ends no training."""
    with suppress(OSError):
        log.write(f"mlp-ci: {text}\n")
        log.flush()
