"""Which process is meant by a number: numbers are used again, so a process is known by its number and its start."""

from __future__ import annotations

import subprocess
from pathlib import Path


def start_time(pid: int) -> str | None:
    """When the process ``pid`` started, in whatever unit the system tells; None when there is none, or a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The 22nd field; the second one, the name, may hold spaces and parentheses.
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(
        ["ps", "-o", "lstart=,stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return None if not shown or shown.split()[-1].startswith("Z") else " ".join(shown.split()[:-1])
