"""Where rivals live and how everybody is measured; not a benchmark itself.

A rival is installed on first use, with its own versions of everything, under ``.cache/bench/<name>``, and never
becomes a dependency. What cannot be installed on this machine says so in one line and is left out.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import resource

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"
REPEATS = 3
# What takes longer than this is measured once: its third run would tell nothing that matters for the comparison.
SLOW = 30.0
LIMIT = 1800.0

# Exact versions of what decides speed and results; the rest as these allow.
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "pandera": ("pandera[polars,pandas]==0.35.0", "polars==2.1.0", "pandas==3.1.1", "pyarrow==26.0.1"),
    "pandera-ibis": ("pandera[ibis]==0.35.0", "ibis-framework[duckdb]==12.0.0"),
    "great-expectations": ("great-expectations==1.24.1", "pandas==3.1.1", "pyarrow==26.0.1"),
    "evidently": ("evidently==0.7.23", "pandas==2.3.3", "numpy==2.4.6", "pyarrow==26.0.1"),
    "nannyml": ("nannyml==0.13.1", "pandas==2.3.3", "numpy==2.4.6", "pyarrow==26.0.1", "statsmodels==0.15.0"),
    "whylogs": (
        "whylogs[viz]==1.6.4",
        "whylogs-sketching==3.4.1.dev3",
        "pandas==2.3.3",
        "numpy==1.26.4",
        "scipy==1.17.1",
        "pyarrow==21.0.0",
    ),
    "datasketches": ("datasketches==5.2.0", "numpy==2.4.6", "duckdb>=1.3", "pyarrow==26.0.1"),
}
# Rivals send usage statistics unless told; a benchmark talks to nobody.
QUIET = {
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "NML_DISABLE_USAGE_LOGGING": "1",
    "WHYLOGS_NO_ANALYTICS": "True",
    "DISABLE_PANDERA_IMPORT_WARNING": "True",
    "PYTHONWARNINGS": "ignore",
    "TQDM_DISABLE": "1",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Whole processes: median wall and processor seconds, largest resident memory in MB, what the last one printed."""

    seconds: float
    processor: float
    megabytes: float
    said: str
    runs: int

    def line(self, name: str, rest: str = "") -> str:
        """One row of a table of results."""
        once = "  (1 run)" if self.runs == 1 else ""
        spent = f"{self.seconds:7.2f} s {self.processor:7.2f} s of CPU {self.megabytes:6.0f} MB"
        return f"  {name:34}{spent}  {rest}{once}".rstrip()


def python_of(name: str) -> Path | None:
    """The Python that has the rival ``name``; made on first use. None, after one line why, where that fails."""
    folder = CACHE / name
    python, wanted, have = folder / "bin" / "python", "\n".join(REQUIREMENTS[name]), folder / "requirements.txt"
    if have.is_file() and have.read_text(encoding="utf-8") == wanted:
        return python
    print(f"  installing {name} into {folder.relative_to(ROOT)} (once)", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    uv = str(Path(sys.executable).parent / "uv")
    steps = (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *REQUIREMENTS[name]],
    )
    for step in steps:
        done = subprocess.run(step, check=False, capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            print(f"  {name} cannot be installed here and is left out: {_reason(done.stderr)}", flush=True)
            return None
    have.write_text(wanted, encoding="utf-8")
    return python


def measure(command: list[str], *, repeats: int = REPEATS, folder: Path | None = None) -> Measured:
    """Run a whole process several times, one slow process once. Raises RuntimeError when it fails.

    The memory is that of the largest process of the command. It starts from the memory of this very process, as
    Linux counts it, so whoever measures stays small: data is generated and read in processes of their own.
    """
    seconds: list[float] = []
    processor: list[float] = []
    memory, said = 0.0, ""
    while len(seconds) < repeats and not (seconds and seconds[0] > SLOW):
        took, usage, said = _once(command, folder)
        seconds.append(took)
        processor.append(usage.ru_utime + usage.ru_stime)
        memory = max(memory, usage.ru_maxrss / 1024)
    return Measured(
        seconds=statistics.median(seconds),
        processor=statistics.median(processor),
        megabytes=memory,
        said=said,
        runs=len(seconds),
    )


def attempt(name: str, command: list[str], *, repeats: int = REPEATS) -> Measured | None:
    """Measure a rival; one that breaks says so in one line and is left out."""
    try:
        return measure(command, repeats=repeats)
    except (RuntimeError, OSError) as error:
        print(f"  {name} is left out: {_reason(str(error))}", flush=True)
        return None


def child(file: str, call: str) -> str:
    """What ``call``, an expression on a benchmark's own functions, prints in a process of its own."""
    module = Path(file).stem
    code = f"import sys; sys.path.insert(0, {str(Path(file).parent)!r}); import {module}; {module}.{call}"
    return _once([sys.executable, "-c", code], None)[2]


def setting() -> str:
    """The machine, for the headline of a result."""
    return f"{os.cpu_count()} cores, whole processes, median of {REPEATS}"


def _once(command: list[str], folder: Path | None) -> tuple[float, resource.struct_rusage, str]:
    home = CACHE / "home"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=out, stderr=err, cwd=folder, env={**os.environ, **QUIET, "HOME": str(home)}
        )
        status, usage = _ended(process, start + LIMIT)
        seconds = time.perf_counter() - start
        out.seek(0)
        err.seek(0)
        said, complaint = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    if status:
        raise RuntimeError(complaint or said or f"it ended with {status}")
    return seconds, usage, said.strip()


def _ended(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, resource.struct_rusage]:
    """Exit status of a process once it ends, and what it and its children used; killed at the deadline."""
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage
        if time.perf_counter() > deadline:
            process.kill()
            deadline = float("inf")
        time.sleep(0.002)


def _reason(text: str) -> str:
    """The last line of a complaint that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no reason given")[:200]
