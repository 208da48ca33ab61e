"""The back end ``runner``: the command is a process of the job's own machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from mlp_ci.train import command as processes
from mlp_ci.train.backends.node import under_torchrun

if TYPE_CHECKING:
    from mlp_ci.train.command import Command, Ended, Watch
    from mlp_ci.train.relay import Mask


@dataclass(frozen=True)
class Runner:
    """Runs commands as they are; where several machines train together, under torchrun."""

    together: bool = False

    def run(self, command: Command, log: TextIO, mask: Mask, watch: Watch) -> Ended:
        """Run it to its end."""
        return processes.run(under_torchrun(command) if self.together else command, log, mask, watch)
