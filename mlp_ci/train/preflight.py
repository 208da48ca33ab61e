"""Whether this machine can train the model, looked at before anything is downloaded.

What is compared is what model.yaml asks for (``train.resources``; for GPUs, without that, the runner class) with what
the machine has. Whether the driver fits is only known where the environment names a CUDA: in a lock or a list of
requirements, or among the installed packages for ``inherit``; inside of an image nobody looks.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from mlp_ci.errors import OutsideError
from mlp_ci.report import Finding, Outcome
from mlp_ci.train import memory
from mlp_ci.train.gpus import Gpus
from mlp_ci.train.key import ignored, installed
from mlp_ci.train.usage import processors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.train.job import Job

GB = 1e9
LEAST_DISK_GB = 0.2  # a log, a model and a snapshot need something, whatever model.yaml says
# Machines that are sold with 64 GB show a little less: the kernel and the firmware keep some.
SHORT_OF_NOMINAL = 0.95

_PIN = re.compile(r"^\s*(?:-\s*)?([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*={1,3}\s*([A-Za-z0-9.+]+)", re.MULTILINE)
_LOCKED = re.compile(r'^name = "([^"]+)"\nversion = "([^"]+)"', re.MULTILINE)
_INSTALLED = re.compile(r"^(.+?)-([0-9][^-]*)\.(?:dist|egg)-info$")
_RUNTIME = re.compile(r"nvidia-cuda-runtime(-cu\d+)?|cudatoolkit|cuda-version|cuda-cudart|pytorch-cuda")
_IN_NAME = re.compile(r"(?:cupy-cuda|jax-cuda|jaxlib-cuda|paddlepaddle-gpu-cu|onnxruntime-gpu-cu)(\d\d)")
_IN_VERSION = re.compile(r"\+cu(?:da)?(\d\d)(\d?)")


def require(job: Job) -> None:
    """Raise OutsideError, with one line and a fix for each thing that is missing, when this machine cannot train."""
    missing = [f for f in look(job.ctx, job.spec, job.gpus) if f.outcome is Outcome.FAIL and f.severity == "error"]
    if not missing:
        return
    if len(missing) == 1:
        raise OutsideError(missing[0].message, why="nothing was downloaded or trained", fix=missing[0].fix)
    what = f"this machine cannot train {job.spec.name}: {len(missing)} things are missing"
    lines = "\n".join(f"  {f.message}\n    fix: {f.fix}" for f in missing)
    raise OutsideError(
        what, why=f"nothing was downloaded or trained:\n{lines}", fix="mend these, or change train.runner"
    )


def look(ctx: Context, spec: ModelSpec, gpus: int) -> list[Finding]:
    """Every thing that was looked at; ``gpus`` is how many the training asks for."""
    asked = spec.train.resources
    found = [_disk(ignored(ctx.work), asked.disk_gb)]
    if asked.memory_gb is not None:
        found.append(_memory(asked.memory_gb))
    if asked.cpus is not None:
        found.append(_processors(asked.cpus))
    if gpus:
        here = Gpus()
        found.append(_gpus(gpus, here))
        needed = cuda_needed(ctx.repo, spec)
        if here.gpus and needed:
            found.append(_driver(needed, here))
    return found


def _gpus(asked: int, here: Gpus) -> Finding:
    count = len(here.gpus)
    has = f"{count} GPU{'s' if count != 1 else ''} ({here.shown()})" if count else "no GPU that NVIDIA's driver shows"
    fix = (
        "check `train.runner` and the runner's labels; on the machine, `nvidia-smi` must list them (and in a container "
        "the NVIDIA container toolkit must pass them through); see CUDA_VISIBLE_DEVICES"
    )
    return _finding("gpus", asked <= count, f"train asks for {asked} GPU{'s' if asked != 1 else ''}, here: {has}", fix)


def _driver(needed: tuple[int, int, str], here: Gpus) -> Finding:
    """Within a major version, CUDA runs on any driver of that version (NVIDIA: minor version compatibility)."""
    major, minor, named = needed
    has = f"driver {here.driver} supports CUDA {here.cuda[0]}.{here.cuda[1]}"
    fix = f"install a driver for CUDA {major} on the machine, or pin a build for CUDA {here.cuda[0]} in the environment"
    fits = here.cuda == (0, 0) or major <= here.cuda[0]
    return _finding("driver", fits, f"{named} needs CUDA {major}.{minor}, here: {has}", fix)


def _memory(asked: float) -> Finding:
    free, limit = memory.free() / GB, memory.limit() / GB
    message = f"train asks for {asked:g} GB of memory, here: {free:.1f} GB free of {limit:.1f} GB"
    fix = "end what else runs on the machine, take a larger `train.runner`, or lower train.resources.memory_gb"
    return _finding("memory", free >= asked * SHORT_OF_NOMINAL, message, fix)


def _processors(asked: float) -> Finding:
    message = f"train asks for {asked:g} processors, here: {processors():g}"
    fix = "take a larger `train.runner`, or lower train.resources.cpus"
    return _finding("processors", processors() >= asked, message, fix, severity="warning")


def _disk(work: Path, asked: float | None) -> Finding:
    free = shutil.disk_usage(work).free / GB
    wanted = f"train asks for {asked:g} GB of free disk" if asked else f"a training needs {LEAST_DISK_GB:g} GB of disk"
    fix = f"make room on the disk of {work}, or put MLP_WORK on a larger one"
    return _finding("disk", free >= (asked or LEAST_DISK_GB), f"{wanted}, here: {free:.1f} GB", fix)


def _finding(check: str, good: bool, message: str, fix: str, severity: str = "error") -> Finding:
    return Finding(
        check=check, outcome=Outcome.PASS if good else Outcome.FAIL, message=message, fix=fix, severity=severity
    )


# ---------------------------------------------------------------- which CUDA the environment needs


def cuda_needed(repo: Path, spec: ModelSpec) -> tuple[int, int, str] | None:
    """Major, minor and the package that says so, of the newest CUDA that the environment names; None for none."""
    said = ((cuda_of(name, version), f"{name} {version}") for name, version in _packages(repo, spec))
    return max(((*cuda, named) for cuda, named in said if cuda), default=None)


def cuda_of(name: str, version: str) -> tuple[int, int] | None:
    """The CUDA (major, minor) that a package stands for: by its version, its name or its version's local part."""
    name = name.lower().replace("_", "-")
    if _RUNTIME.fullmatch(name):
        numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
        return (numbers[0], numbers[1] if len(numbers) > 1 else 0) if numbers else None
    if said := _IN_NAME.match(name):
        return int(said[1]), 0
    if said := _IN_VERSION.search(version):
        return int(said[1]), int(said[2] or 0)
    return None


def _packages(repo: Path, spec: ModelSpec) -> Iterable[tuple[str, str]]:
    environment = spec.train.environment
    if environment.kind == "inherit":
        return [(m[1], m[2]) for entry in installed() if (m := _INSTALLED.match(entry))]
    if environment.file is None:
        return []
    files = [repo / environment.file]
    if environment.kind == "uv":
        files.append(files[0].with_name("uv.lock"))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
    return [pair for text in texts for pattern in (_PIN, _LOCKED) for pair in pattern.findall(text)]
