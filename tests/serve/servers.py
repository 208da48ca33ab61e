"""Model servers as processes of their own, for as long as a test needs them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

from mlp_ci.tracking import artifact_digest
from tests.conftest import free_port
from tests.serving import ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Running:
    """A server that answers."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log


@contextlib.contextmanager
def serving(model: Path, log: Path, *options: str) -> Iterator[Running]:
    """The server of ``model``, called flights, version 3; killed at the end."""
    port = free_port()
    command = [sys.executable, "-m", "mlp_ci.serve.server", "--model", str(model), "--digest", artifact_digest(model)]
    command += ["--port", str(port), "--name", "flights", "--version", "3", *options]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        wait_until(lambda: is_up(port) or process.poll() is not None, 60)
        assert process.poll() is None, log.read_text()
        yield Running(process, port, log)
    finally:
        process.kill()
        process.wait()


def is_up(port: int) -> bool:
    try:
        return ask(port, path="/health")[0] == 200
    except OSError:
        return False
