"""Several machines that train together: each runs the command under torchrun, and the first alone records."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from mlp_ci import dvc
from mlp_ci.report import Report

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.train.command import Command
    from mlp_ci.train.key import TrainKey


def under_torchrun(command: Command) -> Command:
    """The same command, started on this machine by torchrun as often as there are GPUs.

    How many machines there are, which one this is and where the first is, torchrun reads from PET_… by itself.
    """
    return replace(command, line=f"exec torchrun --no-python sh -c {shlex.quote(command.line)}")


def work(ctx: Context, spec: ModelSpec, key: TrainKey, log: TextIO) -> Report:
    """Run the command as a machine that is not the first: it has all that the contract promises, and records nothing.

    Raises what a training that fails raises.
    """
    from mlp_ci.train.attempt import attempt
    from mlp_ci.train.command import Unwatched
    from mlp_ci.train.ending import failure
    from mlp_ci.train.job import Folders
    from mlp_ci.train.key import work_folder

    data = dvc.pull(ctx.repo, [spec.data.train])[spec.data.train]
    folders = Folders(root=work_folder(ctx, key))
    folders.root.mkdir(parents=True, exist_ok=True)
    variables = {
        "MLFLOW_TRACKING_URI": (folders.root / "mlruns").as_uri(),  # or autologging would make a second run
        "MLP_DATA_TRAIN": str(data),
        "MLP_PARAMS": str(ctx.repo / spec.train.params) if spec.train.params else "",
        "MLP_SEED": str(spec.train.seed),
        "MLP_OUTPUT": str(folders.output),
        "MLP_CHECKPOINTS": str(folders.checkpoints),
        "MLP_ENVIRONMENT": key.parts["environment"],
    }
    ended, mask = attempt(ctx, spec, folders, variables, log, Unwatched())
    if ended.why != "exit" or ended.code != 0:
        error = failure(spec, ended, folders.log)
        error.why = mask(error.why)
        raise error
    rank = ctx.handed_over.rank if ctx.handed_over else 0
    report = Report(command="train", headline=f"trained {spec.name} as machine {rank} of {spec.train.nodes}")
    report.outputs = {"train-key": key.digest, "trained": "true"}
    return report
