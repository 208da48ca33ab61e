"""The back end ``runner``: the command is a process of the job's own machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from mlp_ci.train import command as processes

if TYPE_CHECKING:
    from mlp_ci.train.command import Command, Ended, Watch
    from mlp_ci.train.relay import Mask


class Runner:
    """Runs commands as they are."""

    def run(self, command: Command, log: TextIO, mask: Mask, watch: Watch) -> Ended:
        return processes.run(command, log, mask, watch)
