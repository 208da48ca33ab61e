"""Relays a command's output while it runs: to a person or a job's log, and into a file, with secrets masked."""

from __future__ import annotations

import re
import time
from threading import Event, Lock, Thread
from typing import IO, TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
SHORTEST_SECRET = 6  # masking shorter values would garble ordinary text
LONGEST_LINE = 64 * 1024
QUIET_SECONDS = 1.0
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def secrets_in(environ: Mapping[str, str]) -> list[str]:
    """Values that look like secrets by the name of their variable, and passwords inside addresses; longest first."""
    found = {v for k, v in environ.items() if SECRET_NAME.search(k) and len(v) >= SHORTEST_SECRET}
    for value in environ.values():
        found |= {m for m in re.findall(r"://[^/@:\s]*:([^/@\s]+)@", value) if len(m) >= SHORTEST_SECRET}
    return sorted(found, key=lambda v: (-len(v), v))


class Mask:
    """Replaces secrets by ``***``."""

    def __init__(self, secrets: Iterable[str]) -> None:
        joined = "|".join(re.escape(s) for s in secrets)
        self._pattern = re.compile(joined) if joined else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("***", text) if self._pattern else text


class Relay:
    """Copies a stream of bytes, line by line, to ``stream`` and to ``file``, from a thread of its own."""

    def __init__(self, source: IO[bytes], file: Path, stream: TextIO, mask: Mask, limit: float) -> None:
        self._source = source
        self._file = file
        self._stream = stream
        self._mask = mask
        self._status = _Status(stream, limit)
        self._thread = Thread(target=self._copy, name="relay", daemon=True)

    def start(self) -> None:
        self._status.start()
        self._thread.start()

    def finish(self, timeout: float) -> bool:
        """Wait until the stream ends; False when something still holds it open after ``timeout`` seconds."""
        self._thread.join(timeout)
        self._status.stop()
        return not self._thread.is_alive()

    def _copy(self) -> None:
        waiting = b""
        with self._file.open("ab") as log:
            while chunk := self._source.read1(65536):  # type: ignore[attr-defined]
                waiting += chunk
                cut = max(waiting.rfind(b"\n"), waiting.rfind(b"\r")) + 1
                if not cut and len(waiting) > LONGEST_LINE:
                    cut = len(waiting)
                if cut:
                    self._show(waiting[:cut], log)
                    waiting = waiting[cut:]
            if waiting:
                self._show(waiting + b"\n", log)

    def _show(self, raw: bytes, log: IO[bytes]) -> None:
        text = self._mask(raw.decode("utf-8", errors="replace"))
        log.write(text.encode("utf-8", errors="replace"))
        log.flush()
        self._status.write(text)


class _Status:
    """On a terminal, a line with the time that passed, shown while the command says nothing."""

    def __init__(self, stream: TextIO, limit: float) -> None:
        self._stream = stream
        self._limit = limit
        self._lock = Lock()
        self._stopped = Event()
        self._started = self._last = time.monotonic()
        self._shown = False
        self._thread = Thread(target=self._tick, name="status", daemon=True) if stream.isatty() else None

    def start(self) -> None:
        if self._thread:
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread:
            self._thread.join()
        with self._lock:
            self._clear()

    def write(self, text: str) -> None:
        with self._lock:
            self._clear()
            self._stream.write(text)
            self._stream.flush()
            self._last = time.monotonic()

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False

    def _tick(self) -> None:
        step = 0
        while not self._stopped.wait(0.2):
            with self._lock:
                now = time.monotonic()
                if now - self._last < QUIET_SECONDS:
                    continue
                step += 1
                passed = f"{_clock(now - self._started)} of at most {_clock(self._limit)}"
                self._stream.write(f"\r{SPINNER[step % len(SPINNER)]} training, {passed}\x1b[K")
                self._stream.flush()
                self._shown = True


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"


def last_lines(file: Path, count: int) -> list[str]:
    """The last ``count`` lines of a log that hold something."""
    if not file.exists():
        return []
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 64 * 1024))
        text = stream.read().decode("utf-8", errors="replace")
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()][-count:]
