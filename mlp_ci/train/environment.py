"""The environment that a training command runs in: made once per lock digest, and what it may and may not see."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.train.relay import secrets_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlp_ci.spec.train import Environment

COMPLETE = ".mlp-ci-complete"
# A training command is the team's code plus everything it installs. Of what a job knows it may see these; never its
# tokens, nor the files by which a step sets outputs, paths and variables of later steps.
JOB_VARIABLES = frozenset(
    f"GITHUB_{name}"
    for name in ("ACTIONS", "SHA", "REF", "REF_NAME", "REPOSITORY", "RUN_ID", "RUN_NUMBER", "RUN_ATTEMPT", "WORKFLOW")
)
HIDDEN = re.compile(r"^(GITHUB_.*|GH_.*|ACTIONS_.*|INPUT_.*|MLP_.*|RUNNER_TRACKING_ID|.*SECRET.*)$", re.IGNORECASE)


def visible(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of this process that a training command may see."""
    return {k: v for k, v in environ.items() if k in JOB_VARIABLES or not HIDDEN.match(k)}


def for_loading(environ: Mapping[str, str]) -> dict[str, str]:
    """The same for code that only loads a model and predicts: no way to MLflow, and nothing that is a secret.

    Training logs to MLflow and may read the team's stores; a model that is judged has no business with either.
    """
    seen = visible(environ)
    return {k: v for k, v in seen.items() if not k.startswith("MLFLOW_TRACKING_") and not secrets_in({k: v})}


def executables(environment: Environment, digest: str, repo: Path, cache: Path, say: Callable[[str], None]) -> Path:
    """The folder that must come first on PATH; makes the environment if this lock was not seen here before.

    Raises InputError for a kind that this machine cannot make, OutsideError when making it fails.
    """
    if environment.kind == "inherit":
        return Path(sys.executable).parent
    if environment.kind == "image":
        msg = f"train.environment is the image {environment.image}, and this back end runs commands, not containers"
        fix = (
            "run the job in that image (`container:` in the workflow) with `environment: {inherit: true}`, or use uv, "
            "pip or conda"
        )
        raise InputError(msg, fix=fix, file="model.yaml")
    make = {"uv": _uv, "pip": _pip, "conda": _conda}[environment.kind]
    folder = cache / "environments" / hashlib.sha256(f"{digest} {sys.executable}".encode()).hexdigest()[:24]
    with alone(folder):
        if not (folder / COMPLETE).is_file():
            say(f"making the {environment.kind} environment of {environment.file} (once per lock)")
            shutil.rmtree(folder, ignore_errors=True)
            make(repo / (environment.file or ""), folder)
            (folder / COMPLETE).touch()
    return folder / "bin"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a lock beside ``folder``; the system frees it however this process ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _uv(project: Path, folder: Path) -> None:
    uv = _find("uv")
    if uv is None:
        msg = "train.environment asks for uv, and uv is not on this machine"
        raise InputError(msg, fix="pip install uv, or use `environment: {pip: requirements.txt}`", file="model.yaml")
    if (project.parent / "uv.lock").is_file():
        command = [uv, "sync", "--frozen", "--no-dev", "--no-install-project", "--project", str(project.parent)]
        _make([*command, "--python", sys.executable, "--compile-bytecode"], {"UV_PROJECT_ENVIRONMENT": str(folder)})
    else:
        _make([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        _uv_install(uv, folder, project)


def _pip(requirements: Path, folder: Path) -> None:
    uv = _find("uv")
    if uv:
        _make([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        _uv_install(uv, folder, requirements)
    else:
        _make([sys.executable, "-m", "venv", str(folder)])
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        _make([*command, "--requirement", str(requirements)])


def _uv_install(uv: str, folder: Path, requirements: Path) -> None:
    command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(folder / "bin" / "python")]
    _make([*command, "--requirement", str(requirements)])


def _conda(file: Path, folder: Path) -> None:
    conda = next(filter(None, (_find(name) for name in ("micromamba", "mamba", "conda"))), None)
    if conda is None:
        msg = "train.environment asks for conda, and neither conda, mamba nor micromamba is on this machine"
        fix = "install micromamba on the runner, or use `environment: {pip: requirements.txt}`"
        raise InputError(msg, fix=fix, file="model.yaml")
    verb = ["create"] if Path(conda).name == "micromamba" else ["env", "create"]
    _make([conda, *verb, "--yes", "--prefix", str(folder), "--file", str(file)])


def _find(name: str) -> str | None:
    """A program on PATH or beside this interpreter."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _make(command: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
    environ = {k: v for k, v in visible(os.environ).items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        env={**environ, **(extra or {})},
    )
    if done.returncode != 0:
        said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-12:])
        what = f"`{Path(command[0]).name} {command[1]}` could not make the environment:\n{said}"
        raise OutsideError(what, fix="mend the lock or the package index that it names, and run again")
