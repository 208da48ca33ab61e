"""A Docker engine of the tests' own, with a network: containers are reached on loopback, and no firewall is touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlp_ci.containers import Engine
from tests.conformance_train.image import python_image

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = "mlp-ci-test/base:1"
# What compiled packages of Python are linked with (PEP 600), and every slim image of Debian has.
LIBRARIES = ("libstdc++.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1")
NO_ENGINE = "no Docker engine: apt install docker.io, and run the tests as root"


@dataclass
class Daemon:
    """A running ``dockerd``; everything of it lies in ``folder``."""

    folder: Path
    bridge: str
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @property
    def engine(self) -> Engine:
        return Engine("docker", self.address)

    def start(self, *more: str) -> None:
        """Start it and wait until it answers; skips the test where it cannot run."""
        places = [f"--{name}={self.folder / name}" for name in ("data-root", "exec-root", "pidfile")]
        options = ["--iptables=false", "--ip6tables=false", f"--bridge={self.bridge}", "--host", self.address, *more]
        with (self.folder / "log").open("ab") as log:
            command = ["dockerd", *options, *places]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        for _ in range(600):
            if self.process.poll() is not None:
                break
            if self.engine.ask("version").code == 0:
                return
            time.sleep(0.1)
        said = (self.folder / "log").read_text()[-1000:]
        self.stop()
        pytest.skip(f"the Docker engine does not run on this machine:\n{said}")

    def stop(self) -> None:
        """End it; its containers end with it."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(120)  # killed, it would leave its containers behind
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


@contextmanager
def engine_with_base(*, room: str = "") -> Iterator[Daemon]:
    """An engine that has BASE; nothing of it is left afterwards. ``room`` is all that it may store, as ``120m``."""
    if not (shutil.which("dockerd") and shutil.which("docker") and shutil.which("ip") and os.getuid() == 0):
        pytest.skip(NO_ENGINE)
    folder = Path(tempfile.mkdtemp(prefix="mlp-ci-serve-docker-"))
    number = os.getpid() % 50000 + 10000 * bool(room)
    bridge = f"mlpt{number}"
    address = f"10.{200 + number // 250 % 50}.{number % 250}.1/24"
    for words in (
        ["link", "add", bridge, "type", "bridge"],
        ["addr", "add", address, "dev", bridge],
        ["link", "set", bridge, "up"],
    ):
        if subprocess.run(["ip", *words], capture_output=True, check=False).returncode:
            subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)
            pytest.skip("this machine lets nobody make a network bridge, which containers need")
    daemon = Daemon(folder, bridge)
    try:
        with small_disk(folder / "data-root", room) if room else nullcontext():
            yield from _running(daemon)
    finally:
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _running(daemon: Daemon) -> Iterator[Daemon]:
    try:
        daemon.start()
        done = daemon.engine.ask("import", "--change", "ENV PATH=/usr/bin:/bin", "-", BASE, stdin=base_image())
        assert done.code == 0, done.err
        yield daemon
    finally:
        daemon.engine.remove(*daemon.engine.ask("ps", "--all", "--quiet").out.split())
        daemon.stop()


@contextmanager
def small_disk(folder: Path, room: str) -> Iterator[None]:
    """A disk of that size at ``folder``; skips the test where this machine lets nobody mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def base_image() -> bytes:
    """A tar with this machine's Python and what compiled packages are linked with, for ``docker import``."""
    shown = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    known = {line.split()[0]: line.split("=> ")[1] for line in reversed(shown.splitlines()) if "=> " in line}
    return python_image(*(known[name] for name in LIBRARIES))
