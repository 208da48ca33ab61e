"""What the end of a training command means, and what to say about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.errors import GateError, InputError, MlpError, OutsideError
from mlp_ci.spec import show_duration
from mlp_ci.train.relay import last_lines

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.spec import ModelSpec
    from mlp_ci.train.command import Ended

LOG_LINES = 20
TAKEN_AWAY = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGPWR")


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
    if ended.why == "watchdog":
        what = f"the training command was stopped after {ended.seconds:.0f} s: {ended.said}"
        fix = (
            "run `mlp-ci train` again: it resumes the same run from its checkpoints; if it gets stuck again, look "
            "where it waits, or give it more time under `train.watchdog` in model.yaml"
        )
        return OutsideError(what, why=said, fix=fix)
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
