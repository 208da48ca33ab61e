"""The demo is what a newcomer sees first: it must hold, and leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_loop_goes_round(tmp_path: Path) -> None:
    root = tmp_path / "sandbox"
    done = subprocess.run(
        [sys.executable, "-m", "mlp_ci", "sandbox", "demo", "--fast", "--home", root, "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    results = [step["result"] for step in report["data"]["steps"]]
    assert "Model CI passed" in results[0]
    assert results[1].startswith("version 1 registered")
    assert results[2] == "version 1 answers in staging"
    assert results[3] == "version 1 answers in production"
    assert "no alarm" in results[4]
    assert "drift; the bot opened" in results[5]
    assert "version 2 beats version 1" in results[6]
    assert results[7] == "version 2 answers in production"
    assert "deploy refused the unapproved change; production still runs version 2" in results[8]
    assert "version 1 serves again" in results[9]
    assert not _processes_of(root)
    assert "sandbox_" not in (root / "logs" / "forge.log").read_text(encoding="utf-8"), "a token reached a log"


def _processes_of(root: Path) -> list[str]:
    """Command lines of the processes that name ``root``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(root) in line and int(folder.name) != os.getpid():
            found.append(line)
    return found
