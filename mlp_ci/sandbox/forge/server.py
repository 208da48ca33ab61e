"""The forge on a port: in a thread (tests, the sandbox) or as a process (``python -m mlp_ci.sandbox.forge.server``)."""

from __future__ import annotations

import argparse
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.routing import BaseRoute

from mlp_ci.errors import OutsideError
from mlp_ci.sandbox.forge.access import Forge, open_forge
from mlp_ci.sandbox.forge.app import app_of

if TYPE_CHECKING:
    from types import TracebackType

HOST = "127.0.0.1"
_START_SECONDS = 20.0
Pages = Callable[[Forge], Sequence[BaseRoute]]


class ForgeServer:
    """A forge on 127.0.0.1 in a thread of this process. ``port`` 0 takes a free one. Use as a context manager.

    ``pages`` makes the web pages' routes from the forge; ``wrap`` goes around the ASGI app (tests record there).
    """

    def __init__(
        self, root: Path, port: int = 0, *, pages: Pages | None = None, wrap: Callable[[Any], Any] | None = None
    ) -> None:
        self._socket = _bind(port)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{HOST}:{self.port}"
        self.forge = open_forge(root, self.url)
        app = app_of(self.forge, pages(self.forge) if pages else ())
        config = uvicorn.Config(
            wrap(app) if wrap else app, log_level="warning", access_log=False, lifespan="on", interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True, name="forge")

    def start(self) -> ForgeServer:
        self._thread.start()
        end = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if time.monotonic() > end or not self._thread.is_alive():
                msg = f"the forge did not start on {self.url}"
                raise OutsideError(msg, fix="look at the lines above for the reason, then try again")
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """Let running requests finish, then close."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def __enter__(self) -> ForgeServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(root: Path, port: int, pages: Pages | None = None, ready: Callable[[str], None] | None = None) -> None:
    """Serve until the process is told to stop; ``ready`` is given the address as soon as connections are taken."""
    with _bind(port) as bound:
        url = f"http://{HOST}:{bound.getsockname()[1]}"
        forge = open_forge(root, url)
        app = app_of(forge, pages(forge) if pages else ())
        if ready:
            ready(url)
        config = uvicorn.Config(app, log_level="warning", access_log=False, interface="asgi3")
        uvicorn.Server(config).run([bound])


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        msg = f"port {port} of this machine is taken"
        raise OutsideError(
            msg,
            why="the forge needs it",
            fix=f"stop what listens there (`ss -ltnp 'sport = :{port}'`) or choose another port",
        ) from error
    bound.listen(128)
    return bound


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a forge on 127.0.0.1.")
    parser.add_argument("--root", type=Path, required=True, help="folder of its state")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options = parser.parse_args()
    serve(options.root, options.port, ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
