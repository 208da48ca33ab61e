"""The command line of a gateway that a supervisor or a container starts; people have ``mlp-ci gateway``.

Exits: 2 what was given cannot be, 98 the port is taken.
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.errors import MlpError, OutsideError
from mlp_ci.serve.gateway.core import Gateway, Source, read_state, serve
from mlp_ci.serve.listening import bind
from mlp_ci.serve.processes import EXIT_PORT_TAKEN, EXIT_REFUSED

if TYPE_CHECKING:
    from collections.abc import Sequence


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mlp_ci.serve.gateway", description=__doc__)
    parser.add_argument("--state", type=Path, help="folder with gateway.json and token")
    parser.add_argument("--fd", type=int, help="a listening socket, inherited")
    parser.add_argument("--config", type=Path, help="a gateway.yaml")
    parser.add_argument("--upstream", help="the one server to stand in front of, as http://host:port")
    parser.add_argument("--model", default="model")
    parser.add_argument("--stage", default="production")
    parser.add_argument("--version", type=int, default=0)
    parser.add_argument("--arm", default="stable")
    parser.add_argument("--log", type=Path, help="folder of the prediction log")
    parser.add_argument("--sample", type=float, default=1.0)
    parser.add_argument("--columns", default="", help="input columns to log, as name:type,name:type")
    parser.add_argument("--expose-measured", action="store_true", help="answer GET /measured without a token")
    parser.add_argument("--host", default="")
    parser.add_argument("--port", type=int)
    return parser


def _made(options: argparse.Namespace) -> tuple[Gateway, socket.socket]:
    if options.state is not None:
        gateway = Gateway(Source(options.state / "gateway.json", read_state), options.state / "token")
        if options.fd is not None:
            return gateway, socket.socket(fileno=options.fd)
        return gateway, bind(options.host or "127.0.0.1", options.port or 0)
    from mlp_ci.serve.gateway.config import Sidecar, from_file, sidecar

    if options.config is not None:
        return from_file(options.config, options.host, options.port)
    given = Sidecar(
        upstream=options.upstream,
        model=options.model,
        stage=options.stage,
        version=options.version,
        arm=options.arm,
        log=options.log,
        sample=options.sample,
        columns=options.columns,
        measured=options.expose_measured,
    )
    return sidecar(given, options.host or "127.0.0.1", 8080 if options.port is None else options.port)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; the exit code says why it could not."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if sum(o is not None for o in (options.state, options.config, options.upstream)) != 1:
        parser.error("give one of --state, --config and --upstream")
    try:
        gateway, listener = _made(options)
    except (MlpError, OSError) as error:
        print(error.what if isinstance(error, MlpError) else f"the port cannot be used: {error}", file=sys.stderr)
        return EXIT_PORT_TAKEN if isinstance(error, OutsideError | OSError) else EXIT_REFUSED
    serve(gateway, listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
