"""The command line of a gateway that a supervisor or a container starts; people have ``mlp-ci gateway``."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.serve.gateway.core import Gateway, Source, read_state
from mlp_ci.serve.listening import bind

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(gateway: Gateway, listener: socket.socket) -> None:
    """Serve until told to end; on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows
        asyncio.run(gateway.run(listener))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(gateway.run(listener))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve what ``gateway.json`` of a folder says until SIGTERM."""
    parser = argparse.ArgumentParser(prog="mlp_ci.serve.gateway", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder with gateway.json and token")
    parser.add_argument("--fd", type=int, help="a listening socket, inherited")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    listener = socket.socket(fileno=options.fd) if options.fd is not None else bind("127.0.0.1", options.port)
    gateway = Gateway(Source(options.state / "gateway.json", read_state), options.state / "token")
    run(gateway, listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
