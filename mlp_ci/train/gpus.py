"""What NVIDIA's driver tells of this machine's GPUs, through NVML. The only user of NVML.

Not every driver tells everything: a MIG slice has no utilisation, an old card no energy. What is not told is None.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU: its number on this machine, its unique name, its type, its memory in bytes."""

    index: int
    uuid: str
    name: str
    memory: int


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one GPU does now: percent, bytes, watts, the most watts it may use, joules since its driver was loaded."""

    utilisation: float | None
    memory: float | None
    power: float | None
    power_limit: float | None
    energy: float | None


class Gpus:
    """The GPUs that a command started with ``environ`` may use; none where there is no driver."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.gpus: tuple[Gpu, ...] = ()
        self.driver = ""  # its version
        self.cuda = (0, 0)  # the newest CUDA (major, minor) that the driver supports; (0, 0): not told
        self._nvml = _opened()
        if self._nvml is None:
            return
        self.driver = _told(self._nvml.nvmlSystemGetDriverVersion) or ""
        cuda = _told(self._nvml.nvmlSystemGetCudaDriverVersion_v2) or 0
        self.cuda = cuda // 1000, cuda % 1000 // 10
        count = _told(self._nvml.nvmlDeviceGetCount) or 0
        found = [gpu for gpu in map(self._gpu, range(count)) if gpu]
        self.gpus = tuple(visible(found, environ.get("CUDA_VISIBLE_DEVICES")))

    def _gpu(self, index: int) -> Gpu | None:
        """None for one that has fallen off the bus."""
        nvml: Any = self._nvml
        handle = _told(lambda: nvml.nvmlDeviceGetHandleByIndex(index))
        name = _told(lambda: nvml.nvmlDeviceGetName(handle))
        if handle is None or name is None:
            return None
        memory = _told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total) or 0
        return Gpu(index=index, uuid=_told(lambda: nvml.nvmlDeviceGetUUID(handle)) or "", name=name, memory=int(memory))

    def read(self) -> list[Reading]:
        """One reading per GPU, in the order of ``gpus``."""
        return [self._read(gpu) for gpu in self.gpus]

    def _read(self, gpu: Gpu) -> Reading:
        nvml: Any = self._nvml
        handle = _told(lambda: nvml.nvmlDeviceGetHandleByIndex(gpu.index))
        return Reading(
            utilisation=_told(lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            memory=_told(lambda: float(nvml.nvmlDeviceGetMemoryInfo(handle).used)),
            power=_told(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            power_limit=_told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
            energy=_told(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000),
        )

    def shown(self) -> str:
        """All of them in a few words; ``none`` without any."""
        return "; ".join(f"{g.name}, {g.memory / 2**20:.0f} MiB, {self.driver}" for g in self.gpus) or "none"


def visible(found: list[Gpu], chosen: str | None) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves: numbers or beginnings of unique names, up to the first unknown one."""
    if chosen is None:
        return found
    left: list[Gpu] = []
    for word in filter(None, (w.strip() for w in chosen.split(","))):
        gpu = next((g for g in found if word == str(g.index) or (g.uuid.startswith(word) and not word.isdigit())), None)
        if gpu is None:
            break
        left.append(gpu)
    return left


def _opened() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, a driver that does not answer
        return None
    return pynvml


def _told(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception:
        return None
