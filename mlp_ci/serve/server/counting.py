"""What a model server counts, in Prometheus' text format; shared by its workers, so that any of them tells it all.

The counts are numbers in memory that the processes share, one row for each: nobody waits for a lock, and a worker that
dies takes nothing along.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
STATUSES = (200, 400, 404, 405, 413, 415, 429, 500, 503, 0)  # 0: any other
PROTOCOLS = ("mlflow", "v2")

_REQUESTS = 0
_LATENCY = _REQUESTS + len(STATUSES) * len(PROTOCOLS)
_ROWS = _LATENCY + len(SECONDS) + 2  # bins, one for what is above, and the sum
_PREDICTION = _ROWS + len(ROWS) + 2
_IN_FLIGHT = _PREDICTION + len(SECONDS) + 2
_WIDTH = _IN_FLIGHT + 1


class Board:
    """The counts of all workers. Made before they are forked."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._cells = memoryview(mmap.mmap(-1, 8 * _WIDTH * workers)).cast("d")

    def of(self, worker: int) -> Counts:
        """The row that ``worker`` counts in; nothing is under way in it yet."""
        counts = Counts(self._cells[worker * _WIDTH : (worker + 1) * _WIDTH])
        counts.cells[_IN_FLIGHT] = 0
        return counts

    def total(self) -> list[float]:
        cells = self._cells
        return [sum(cells[w * _WIDTH + i] for w in range(self.workers)) for i in range(_WIDTH)]


class Counts:
    """What one worker counts."""

    def __init__(self, cells: Any) -> None:
        self.cells = cells

    def begin(self) -> None:
        self.cells[_IN_FLIGHT] += 1

    def end(self, protocol: int, status: int, seconds: float) -> None:
        """A request of PROTOCOLS[protocol] was answered with ``status`` after ``seconds``."""
        cells = self.cells
        cells[_IN_FLIGHT] -= 1
        place = _PLACES.get(status, len(STATUSES) - 1)
        cells[_REQUESTS + protocol * len(STATUSES) + place] += 1
        _add(cells, _LATENCY, SECONDS, seconds)

    def gone(self) -> None:
        """A client left before it was answered."""
        self.cells[_IN_FLIGHT] -= 1

    def batch(self, rows: int, seconds: float) -> None:
        """One prediction of ``rows`` took ``seconds``."""
        _add(self.cells, _ROWS, ROWS, rows)
        _add(self.cells, _PREDICTION, SECONDS, seconds)


_PLACES = {status: place for place, status in enumerate(STATUSES)}


def _add(cells: Any, start: int, bounds: Sequence[float], value: float) -> None:
    cells[start + bisect_left(bounds, value)] += 1
    cells[start + len(bounds) + 1] += value


def exposition(board: Board, labels: dict[str, str], *, ready: bool) -> str:
    """The counts of all workers in Prometheus' text format."""
    cells = board.total()
    shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    lines = ["# HELP mlp_server_requests_total Requests answered.", "# TYPE mlp_server_requests_total counter"]
    failed = 0.0
    for p, protocol in enumerate(PROTOCOLS):
        for s, status in enumerate(STATUSES):
            count = cells[_REQUESTS + p * len(STATUSES) + s]
            failed += count if status >= 500 else 0
            if count:
                code = status or "other"
                lines.append(f'mlp_server_requests_total{{{shown},protocol="{protocol}",code="{code}"}} {count:.0f}')
    lines += _single("errors_total", "counter", "Requests that the model or the server failed.", shown, failed)
    told = ("request_seconds", "From the request's last header to its answer.", _LATENCY, SECONDS)
    lines += _histogram(told, shown, cells)
    lines += _histogram(("batch_rows", "Rows predicted together.", _ROWS, ROWS), shown, cells)
    lines += _histogram(("prediction_seconds", "One call of the model.", _PREDICTION, SECONDS), shown, cells)
    lines += _single("in_flight", "gauge", "Requests under way.", shown, cells[_IN_FLIGHT])
    lines += _single("ready", "gauge", "Whether it takes requests.", shown, float(ready))
    lines += _single("workers", "gauge", "Processes that answer.", shown, float(board.workers))
    return "\n".join(lines) + "\n"


def _single(name: str, kind: str, text: str, labels: str, value: float) -> list[str]:
    full = f"mlp_server_{name}"
    return [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full}{{{labels}}} {value:.0f}"]


def _histogram(what: tuple[str, str, int, Sequence[float]], labels: str, cells: Sequence[float]) -> list[str]:
    name, text, start, bounds = what
    full = f"mlp_server_{name}"
    lines = [f"# HELP {full} {text}", f"# TYPE {full} histogram"]
    below = 0.0
    for bound, count in zip((*map(str, bounds), "+Inf"), cells[start : start + len(bounds) + 1], strict=True):
        below += count
        lines.append(f'{full}_bucket{{{labels},le="{bound}"}} {below:.0f}')
    lines.append(f"{full}_sum{{{labels}}} {cells[start + len(bounds) + 1]:.6f}")
    lines.append(f"{full}_count{{{labels}}} {below:.0f}")
    return lines


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
