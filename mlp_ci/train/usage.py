"""What a training command uses: processors, memory, GPUs, energy; sampled from its processes while it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from mlp_ci.tracking import Point

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psutil

    from mlp_ci.train.gpus import Gpus, Reading

FIRST_SECONDS, SAMPLE_SECONDS = 0.25, 5.0
POINTS_KEPT = 20_000  # hours of MLflow being away


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The command at one moment: processor seconds so far, bytes of memory now, how many processes, its GPUs."""

    at: float
    cpu_seconds: float
    memory: float
    processes: int
    gpus: tuple[Reading, ...] = ()

    @property
    def gpu_utilisation(self) -> float | None:
        """Percent of the busiest GPU; None where none tells."""
        return max((g.utilisation for g in self.gpus if g.utilisation is not None), default=None)


@dataclass
class Totals:
    """What one attempt used so far. Bytes, seconds, watt-hours, percent."""

    cpu_seconds: float = 0.0
    peak_memory: float = 0.0
    gpu_peak_memory: float = 0.0
    energy_wh: float | None = None
    utilisations: list[float] = field(default_factory=list)  # of all GPUs together, one per sample

    @property
    def gpu_utilisation(self) -> float | None:
        return sum(self.utilisations) / len(self.utilisations) if self.utilisations else None


class Sampler:
    """Samples the trees of ``roots`` from a thread of its own until it is stopped."""

    def __init__(self, gpus: Gpus, work: Path, seconds_before: float, shortest: float = SAMPLE_SECONDS) -> None:
        self._gpus = gpus
        self._work = work
        self._before = seconds_before
        self._pause = shortest
        self._roots: Callable[[], Sequence[int]] = list
        self._stopped = Event()
        self._lock = Lock()
        self._thread = Thread(target=self._loop, name="usage", daemon=True)
        self._points: deque[Point] = deque(maxlen=POINTS_KEPT)
        self._energy_at_start: list[float | None] = []
        self._network: tuple[int, int] | None = None
        self._largest_before = 0.0
        self.latest: Sample | None = None
        self.totals = Totals()

    def begin(self, roots: Callable[[], Sequence[int]]) -> None:
        self._roots = roots
        self._started = time.monotonic()
        self._largest_before = largest_child()
        self._energy_at_start = [r.energy for r in self._gpus.read()]
        self._thread.start()

    def end(self) -> None:
        """A last sample; the processes may be over and must not be reaped yet."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(SAMPLE_SECONDS)
            self._sample()

    def peak_memory(self) -> float:
        """Bytes: the most that all processes together were seen to use, or that one of them is known to have used."""
        largest = largest_child()  # known once it is reaped
        return max(self.totals.peak_memory, largest if largest > self._largest_before else 0.0)

    def points(self) -> list[Point]:
        """What was measured and not yet handed out."""
        with self._lock:
            return list(self._points)

    def written(self, points: Sequence[Point]) -> None:
        """Forget what has been written."""
        done = set(points)
        with self._lock:
            left = [p for p in self._points if p not in done]
            self._points.clear()
            self._points.extend(left)

    def _loop(self) -> None:
        pause = min(FIRST_SECONDS, self._pause)
        while not self._stopped.wait(pause):
            self._sample()
            pause = min(pause * 2, self._pause)

    def _sample(self) -> None:
        before = self.latest
        sample = sampled(self._roots(), tuple(self._gpus.read()))
        if before and sample.cpu_seconds < before.cpu_seconds:  # of processes that nobody waited for
            sample = Sample(**{**vars(sample), "cpu_seconds": before.cpu_seconds})
        self.latest = sample
        self._add_up(sample, before)
        points = self._measured(sample, before)
        with self._lock:
            self._points.extend(points)

    def _add_up(self, sample: Sample, before: Sample | None) -> None:
        totals = self.totals
        totals.cpu_seconds = max(totals.cpu_seconds, sample.cpu_seconds)
        totals.peak_memory = max(totals.peak_memory, sample.memory)
        totals.gpu_peak_memory = max([totals.gpu_peak_memory, *(g.memory for g in sample.gpus if g.memory)])
        told = [g.utilisation for g in sample.gpus if g.utilisation is not None]
        if told:
            totals.utilisations.append(sum(told) / len(told))
        counters = [(g.energy, e) for g, e in zip(sample.gpus, self._energy_at_start, strict=True)]
        if counters and all(now is not None and then is not None for now, then in counters):
            totals.energy_wh = sum((now or 0) - (then or 0) for now, then in counters) / 3600
        elif before and any(g.power is not None for g in sample.gpus):
            watts = sum(g.power or 0.0 for g in sample.gpus)
            totals.energy_wh = (totals.energy_wh or 0.0) + watts * (sample.at - before.at) / 3600

    def _measured(self, sample: Sample, before: Sample | None) -> list[Point]:
        """The sample as MLflow's system metrics, by MLflow's own names; the step is seconds of training."""
        values = _of_processes(sample, before) | _of_machine(self._work, self._traffic())
        for gpu, reading in zip(self._gpus.gpus, sample.gpus, strict=True):
            values |= _of_gpu(f"gpu_{gpu.index}", reading, gpu.memory)
        moment, step = int(time.time() * 1000), int(self._before + sample.at - self._started)
        return [Point(name=f"system/{k}", value=v, moment=moment, step=step) for k, v in values.items()]

    def _traffic(self) -> tuple[int, int]:
        """Bytes received and sent by this machine since the start."""
        import psutil

        now = psutil.net_io_counters()
        self._network = self._network or (now.bytes_recv, now.bytes_sent)
        return now.bytes_recv - self._network[0], now.bytes_sent - self._network[1]


def sampled(roots: Sequence[int], gpus: tuple[Reading, ...] = ()) -> Sample:
    """The processes of these trees and sessions, now.

    A process knows the times of the children that it has waited for, so the sum over those that live is that of all.
    """
    import psutil

    cpu, memory, found = 0.0, 0.0, tree(roots)
    sizes = []
    for process in found:
        with contextlib.suppress(psutil.Error, OSError):
            times = process.cpu_times()
            cpu += times.user + times.system + times.children_user + times.children_system
            sizes.append((process.pid, process.memory_info().rss))
    # Workers that were forked share most of their memory; only the system knows how much.
    shared = len(sizes) > 1
    for pid, resident in sizes:
        memory += (proportional(pid) or resident) if shared else resident
    peak = max((_peak(pid) for pid, _ in sizes), default=0.0)
    return Sample(at=time.monotonic(), cpu_seconds=cpu, memory=max(memory, peak), processes=len(sizes), gpus=gpus)


def tree(roots: Sequence[int]) -> list[psutil.Process]:
    """The processes of these trees, and those that left them but not their session."""
    import psutil

    found: dict[int, psutil.Process] = {}
    for root in roots:
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(root)
            found |= {p.pid: p for p in (top, *top.children(recursive=True))}
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if pid not in found and os.getsid(pid) in roots:
                found[pid] = psutil.Process(pid)
    return list(found.values())


def proportional(pid: int) -> float | None:
    """Bytes of memory, what is shared counted in parts; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1]) * 1024
    return None


def _peak(pid: int) -> float:
    """The most bytes that a process ever had, as Linux tells; 0 elsewhere."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    return 0.0


def largest_child() -> float:
    """The most bytes of any process that this one has waited for, and of what those had waited for."""
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * unit


def processors() -> float:
    """How many processors this process may use."""
    return float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _of_processes(sample: Sample, before: Sample | None) -> dict[str, float]:
    from mlp_ci.train.memory import limit

    values = {
        "system_memory_usage_megabytes": sample.memory / 1e6,
        "system_memory_usage_percentage": 100 * sample.memory / limit(),
    }
    if before and sample.at > before.at:
        used = (sample.cpu_seconds - before.cpu_seconds) / (sample.at - before.at)
        values["cpu_utilization_percentage"] = min(100.0, 100 * used / processors())
    return values


def _of_machine(work: Path, traffic: tuple[int, int]) -> dict[str, float]:
    values = {"network_receive_megabytes": traffic[0] / 1e6, "network_transmit_megabytes": traffic[1] / 1e6}
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(work)
        values |= {
            "disk_usage_percentage": 100 * disk.used / disk.total,
            "disk_usage_megabytes": disk.used / 1e6,
            "disk_available_megabytes": disk.free / 1e6,
        }
    return values


def _of_gpu(name: str, reading: Reading, memory: int) -> dict[str, float]:
    values: dict[str, float | None] = {
        "utilization_percentage": reading.utilisation,
        "memory_usage_megabytes": reading.memory / 1e6 if reading.memory is not None else None,
        "memory_usage_percentage": 100 * reading.memory / memory if reading.memory is not None and memory else None,
        "power_usage_watts": reading.power,
    }
    if reading.power is not None and reading.power_limit:
        values["power_usage_percentage"] = 100 * reading.power / reading.power_limit
    return {f"{name}_{k}": v for k, v in values.items() if v is not None}
