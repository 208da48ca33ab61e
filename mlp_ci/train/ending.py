"""What the end of a training command means, and what to say about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.errors import GateError, InputError, MlpError, OutsideError
from mlp_ci.spec import show_duration
from mlp_ci.train.memory import Kills
from mlp_ci.train.relay import last_lines

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.spec import ModelSpec
    from mlp_ci.train.command import Ended

LOG_LINES = 20
LINES_READ = 200  # of the log's end, where a library says that memory ran out
TAKEN_AWAY = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGPWR")
NEARLY_ALL = 0.9

# What PyTorch, TensorFlow and JAX (XLA), CuPy, RAPIDS, XGBoost, LightGBM and CUDA itself print.
GPU_MEMORY = re.compile(
    r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY"
    r"|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED: Out of memory|OOM when allocating"
    r"|cupy\.cuda\.memory\.OutOfMemoryError|rmm.*out_of_memory|HIP out of memory"
    r"|ResourceExhaustedError.*(GPU|gpu)|RESOURCE_EXHAUSTED.*(GPU|gpu|device)"
)
# Python, numpy, C++ and Java; libc's words for ENOMEM; PyTorch on the processor.
HOST_MEMORY = re.compile(
    r"\bMemoryError\b|std::bad_alloc|Cannot allocate memory|Unable to allocate .* for an array"
    r"|can't allocate memory|not enough memory|OutOfMemoryError: Java heap space"
)


NO_KILLS = Kills(ours=0, machine=0)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured while the command ran, in bytes; 0 for what is not known."""

    peak: float = 0.0
    limit: float = 0.0
    gpu_peak: float = 0.0
    gpu_memory: float = 0.0
    gpu: str = ""
    kills: Kills = NO_KILLS


def failure(spec: ModelSpec, ended: Ended, log: Path, evidence: Evidence | None = None) -> MlpError:
    """What to say about a command that did not end well."""
    lines = last_lines(log, LOG_LINES)
    said = "the end of its log:\n" + "\n".join(f"  {line}" for line in lines) if lines else "it printed nothing"
    after = f"after {ended.seconds:.0f} s"
    if ended.why == "timeout":
        limit = show_duration(spec.train.timeout)
        what = f"the training command was stopped: it ran longer than train.timeout ({limit})"
        fix = (
            "make it faster, or raise `train.timeout` in model.yaml; the same key goes on from its checkpoints if the "
            "command reads $MLP_CHECKPOINTS"
        )
        return GateError(what, why=said, fix=fix, file="model.yaml")
    if ended.why == "watchdog":
        what = f"the training command was stopped {after}: {ended.said}"
        fix = (
            "run `mlp-ci train` again: it resumes the same run from its checkpoints; if it gets stuck again, look "
            "where it waits, or give it more time under `train.watchdog` in model.yaml"
        )
        return OutsideError(what, why=said, fix=fix)
    if ended.why == "exit" and (
        error := _out_of_memory(ended, last_lines(log, LINES_READ), evidence or Evidence(), said)
    ):
        return error
    if ended.signal_name in TAKEN_AWAY:
        what = f"the training command was killed from outside ({ended.signal_name}) {after}"
        why = f"most often the machine is being taken away, or a person or program ended it; {said}"
        fix = "run `mlp-ci train` again: it resumes the same run from its checkpoints; or take a larger `train.runner`"
        return OutsideError(what, why=why, fix=fix)
    how = f"crashed with {ended.signal_name}" if ended.signal_name else f"failed with exit code {ended.code}"
    fix = f"run `{spec.train.command}` by hand with the variables of the training contract, mend it, and push again"
    if ended.code == 127:
        fix = f"the shell does not know the command: check `{spec.train.command}` and train.environment in model.yaml"
    return InputError(f"the training command {how} {after}", why=said, fix=fix)


def _out_of_memory(ended: Ended, lines: list[str], evidence: Evidence, said: str) -> MlpError | None:
    """The error for a command that wanted more memory than there is, None for another end.

    A GateError: the same machine would end it in the same way.
    """
    after = f"after {ended.seconds:.0f} s"
    resumes = "the same key resumes there from its checkpoints"
    if ended.code and (line := _first(GPU_MEMORY, lines)):
        what = f"the training command ran out of GPU memory {after}{_used(evidence.gpu_peak, evidence.gpu_memory)}"
        where = f" on {evidence.gpu}" if evidence.gpu else ""
        fix = (
            f"a smaller batch, lower precision, gradient accumulation; or a `train.runner` with larger GPUs: {resumes}"
        )
        return GateError(what, why=f"it said{where}: {line}\n{said}", fix=fix)
    told = _how_we_know(ended, lines, evidence)
    if not told:
        return None
    what = f"the training command ran out of memory {after}{_used(evidence.peak, evidence.limit)}"
    fix = f"a `train.runner` with more memory ({resumes}); or smaller batches, fewer workers, data read in pieces"
    return GateError(what, why=f"{told}; {said}", fix=fix)


def _how_we_know(ended: Ended, lines: list[str], evidence: Evidence) -> str:
    killed = ended.signal_name == "SIGKILL"
    if ended.oom:
        return "the container's engine says that it was killed for lack of memory"
    if ended.code and evidence.kills.ours:
        return "the kernel killed a process of this job for lack of memory (its cgroup's count of oom_kill went up)"
    if killed and evidence.kills.machine:
        return "the kernel killed a process for lack of memory (oom_kill of /proc/vmstat went up) and it got SIGKILL"
    if killed and evidence.limit and evidence.peak >= NEARLY_ALL * evidence.limit:
        return "it got SIGKILL from nobody known while it used nearly all memory there is"
    line = _first(HOST_MEMORY, lines) if ended.code else ""
    return f"it said: {line}" if line else ""


def _first(pattern: re.Pattern[str], lines: list[str]) -> str:
    return next((line.strip()[:300] for line in lines if pattern.search(line)), "")


def _used(peak: float, limit: float) -> str:
    if not peak:
        return ""
    of = f" of {limit / 1e9:.1f} GB" if limit else ""
    shown = f"{peak / 1e9:.1f} GB" if peak >= 1e9 else f"{peak / 1e6:.0f} MB"
    return f": it was seen to use {shown}{of}"
