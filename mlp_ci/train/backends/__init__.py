"""Where a training command runs. A back end is the one thing that differs: contract, run and result are the same.

``runner`` and ``docker`` run the command on this machine. ``kubernetes`` and ``ray`` hand the whole training over: a
job there runs ``mlp-ci train`` itself, on the same commit and with the back end ``runner``, and this process follows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.train.command import Command, Ended, Watch
    from mlp_ci.train.key import TrainKey
    from mlp_ci.train.relay import Mask

NAMES = ("runner", "docker", "kubernetes", "ray")


class Backend(Protocol):
    """Runs a command where its processes can be seen from here: on this machine, in a container or not."""

    def run(self, command: Command, log: TextIO, mask: Mask, watch: Watch) -> Ended:
        """Run it to its end, relaying its output; SIGTERM and SIGINT to this process end it gently."""
        ...


class Elsewhere(Protocol):
    """Hands a training over to a cluster."""

    def train(self, key: TrainKey, log: TextIO) -> None:
        """Start the job of this key, or find the one that runs, and follow it to its end.

        Returns when it ended well; what it made is then with the run in MLflow. Raises InputError, GateError or
        OutsideError as the training there did, KeyboardInterrupt when this process was asked to stop (and the job
        with it).
        """
        ...


def name_of(ctx: Context, spec: ModelSpec) -> str:
    """The back end that holds: what the command line or the environment says, else model.yaml."""
    name = ctx.backend or spec.train.backend
    if name not in NAMES:
        msg = f"there is no back end {name!r}"
        raise InputError(msg, fix=f"--backend (or MLP_CI_BACKEND) is one of {', '.join(NAMES)}")
    return name


def of(ctx: Context, spec: ModelSpec) -> Backend:
    """The back end that runs the command on this machine."""
    if name_of(ctx, spec) == "docker":
        from mlp_ci.train.backends.docker import Docker

        return Docker(ctx, spec)
    from mlp_ci.train.backends.runner import Runner

    return Runner(together=bool(ctx.handed_over and ctx.handed_over.nodes > 1))


def elsewhere(ctx: Context, spec: ModelSpec) -> Elsewhere | None:
    """The cluster to hand the training over to; None where it happens here."""
    match name_of(ctx, spec):
        case "kubernetes":
            from mlp_ci.train.backends.kubernetes import KubernetesJob

            return KubernetesJob(ctx, spec)
        case "ray":
            from mlp_ci.train.backends.ray import RayJob

            return RayJob(ctx, spec)
    return None


def executables(ctx: Context, spec: ModelSpec, digest: str, say: Callable[[str], None]) -> Path:
    """The folder that must come first on PATH; makes the environment where this back end needs one."""
    from mlp_ci.train import environment

    wanted = spec.train.environment
    if name_of(ctx, spec) == "docker":
        from mlp_ci.train.backends.docker import require_image

        require_image(spec)
        return Path("/usr/bin")  # of the image; which PATH holds there, the image says
    if wanted.kind == "image" and ctx.handed_over and ctx.handed_over.image == wanted.image:
        return Path(sys.executable).parent
    return environment.executables(wanted, digest, ctx.repo, ctx.cache_folder, say)


def check_expected(ctx: Context, key: TrainKey) -> None:
    """On the machine that a training was handed over to: raises InputError unless its key is the one that was meant."""
    meant = ctx.handed_over
    if meant is None or meant.key == key.digest:
        return
    changed = key.changed_since(meant.parts)
    here, there = ("; ".join(f"{n}: {parts.get(n, '')}" for n in changed) for parts in (key.parts, meant.parts))
    msg = f"this machine would train something else than was asked for: {', '.join(changed)} differ"
    fix = "mend what differs; for environment: have the same Python, and pin it with uv, pip or an image, not `inherit`"
    raise InputError(msg, why=f"here {here[:600]}; where it was asked for {there[:600]}", fix=fix)


def is_worker(ctx: Context) -> bool:
    """Whether this is one of several machines that train together, and not the first, which alone records."""
    return bool(ctx.handed_over and ctx.handed_over.rank > 0)
