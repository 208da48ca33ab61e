"""Where a training command runs. A back end is the one thing that differs: contract, run and result are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.train.command import Command, Ended, Watch
    from mlp_ci.train.relay import Mask


class Backend(Protocol):
    """Runs a command where its processes can be seen from here: on this machine, in a container or not."""

    def run(self, command: Command, log: TextIO, mask: Mask, watch: Watch) -> Ended:
        """Run it to its end, relaying its output; SIGTERM and SIGINT to this process end it gently."""
        ...


def of(ctx: Context, spec: ModelSpec) -> Backend:
    """The back end that ``train.backend`` names."""
    from mlp_ci.train.backends.runner import Runner

    return Runner()
