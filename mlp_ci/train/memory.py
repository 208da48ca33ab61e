"""How much memory there is for a training, and whether the kernel has killed something for lack of it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def limit() -> float:
    """Bytes that this process and its children may use: of the machine, or less where a cgroup says so."""
    import psutil

    return float(min([psutil.virtual_memory().total, *_numbers("memory.max", "memory.limit_in_bytes")]))


def free() -> float:
    """Bytes that are free now, for this process and its children."""
    import psutil

    left = [psutil.virtual_memory().available]
    for folder in _cgroups():
        for most, now in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            allowed, used = _number(folder / most), _number(folder / now)
            if allowed is not None and used is not None:
                left.append(max(0, allowed - used + _reclaimable(folder)))
    return float(min(left))


@dataclass(frozen=True, kw_only=True)
class Kills:
    """How many processes the kernel has killed for lack of memory: in our cgroups, and on the whole machine."""

    ours: int
    machine: int


def kills() -> Kills:
    """The kernel's counters as they stand; compare two looks."""
    ours = 0
    for folder in _cgroups():
        for name in ("memory.events", "memory.oom_control"):
            ours += _field(folder / name, "oom_kill")
    return Kills(ours=ours, machine=_field(Path("/proc/vmstat"), "oom_kill"))


def _cgroups() -> list[Path]:
    """Our cgroups that count memory, from our own up; in a container the top one is its own."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = CGROUPS / "memory" if controllers else CGROUPS
            own = top / path.lstrip("/")
            found += [f for f in (own, *own.parents) if f.is_relative_to(top) and f.is_dir()]
    return found


def _numbers(*names: str) -> list[int]:
    found = (_number(folder / name) for folder in _cgroups() for name in names)
    return [n for n in found if n]


def _number(file: Path) -> int | None:
    """None where there is no such file, or it says ``max``."""
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text(encoding="ascii"))
    return None


def _field(file: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text(encoding="ascii").splitlines():
            word, _, value = line.partition(" ")
            if word == name:
                return int(value)
    return 0


def _reclaimable(folder: Path) -> int:
    """Bytes of files that the kernel keeps in memory only because nobody else needs it."""
    return _field(folder / "memory.stat", "inactive_file") or _field(folder / "memory.stat", "total_inactive_file")
