"""The soak of ten minutes, in short: every kind of request for a while, and memory stays flat."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent.parent / "bench" / "soak.py"


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed: apt install wrk")
    command = [sys.executable, str(BENCH), "--seconds", "25"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "server" in done.stdout
