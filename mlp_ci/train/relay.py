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
    found = {v for k, v in environ.items() if SECRET_NAME.search(k)}
    for value in environ.values():
        found |= set(re.findall(r"://[^/@:\s]*:([^/@\s]+)@", value))
    # The log comes in lines, so a key of several lines is known by each of them.
    lines = {line.strip() for value in found for line in value.splitlines()}
    return sorted((v for v in lines if len(v) >= SHORTEST_SECRET), key=lambda v: (-len(v), v))


class Mask:
    """Replaces secrets by ``***``."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = list(secrets)
        joined = "|".join(re.escape(s) for s in known)
        self._pattern = re.compile(joined) if joined else None
        self.longest = max((len(s.encode()) for s in known), default=0)

    def __call__(self, text: str) -> str:
        return self._pattern.sub("***", text) if self._pattern else text

    def places(self, raw: bytes) -> list[tuple[int, int]]:
        """Where secrets stand in bytes."""
        if self._pattern is None:
            return []
        return [m.span() for m in re.finditer(self._pattern.pattern.encode(), raw)]


class Relay:
    """Copies a stream of bytes, line by line, to ``stream`` and to ``file``, from a thread of its own."""

    def __init__(self, source: IO[bytes], file: Path, stream: TextIO, mask: Mask, limit: float) -> None:
        self._source = source
        self._file = file
        self._stream = stream
        self._mask = mask
        self._status = _Status(stream, limit)
        self._thread = Thread(target=self._copy, name="relay", daemon=True)
        self._gone = False
        self.lost = ""  # why the file has not all of the log
        self._heard = time.monotonic()

    def start(self) -> None:
        self._status.start()
        self._thread.start()

    @property
    def quiet(self) -> float:
        """Seconds since the source said something."""
        return time.monotonic() - self._heard

    def finish(self, timeout: float) -> bool:
        """Wait until the stream ends; False when something still holds it open after ``timeout`` seconds."""
        self._thread.join(timeout)
        self._status.stop()
        return not self._thread.is_alive()

    def _copy(self) -> None:
        waiting = b""
        with self._file.open("ab", buffering=0) as log:
            while chunk := self._source.read1(65536):  # type: ignore[attr-defined]
                self._heard = time.monotonic()
                waiting += chunk
                cut = max(waiting.rfind(b"\n"), waiting.rfind(b"\r")) + 1
                if not cut and len(waiting) > LONGEST_LINE:
                    cut = self._cut_of(waiting)
                if cut:
                    self._show(waiting[:cut], log)
                    waiting = waiting[cut:]
            if waiting:
                self._show(waiting + b"\n", log)

    def _cut_of(self, line: bytes) -> int:
        """Where to cut a line without end: not in a letter, and not where a secret may be half here.

        The end stays that could be the beginning of a secret; a secret that reaches into it stays whole with it.
        """
        cut = max(0, len(line) - max(self._mask.longest, 4))
        for start, end in self._mask.places(line):
            if start < cut < end:
                cut = start
        while cut > 0 and line[cut] & 0xC0 == 0x80:
            cut -= 1
        return cut

    def _show(self, raw: bytes, log: IO[bytes]) -> None:
        """To file and stream; where one of them fails, the command must not: it would wait for its reader for ever."""
        text = self._mask(raw.decode("utf-8", errors="replace"))
        if not self.lost:
            try:
                log.write(text.encode("utf-8", errors="replace"))
            except OSError as error:
                self.lost = error.strerror or str(error)
        if not self._gone:
            try:
                self._status.write(text)
            except (OSError, ValueError):
                self._gone = True


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
