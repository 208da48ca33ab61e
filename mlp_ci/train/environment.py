"""The environment that a training command runs in: made once per lock digest, and what it may and may not see."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.train.relay import Mask, secrets_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlp_ci.spec.train import Environment

COMPLETE = ".mlp-ci-complete"  # its time says when the environment was last used
UNUSED_DAYS = 30
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
        msg = f"train.environment is the image {environment.image}, and `backend: runner` runs commands, not containers"
        fix = (
            "write `backend: docker` in model.yaml; or run the job in that image (`container:` in the workflow) with "
            "`environment: {inherit: true}`; or use uv, pip or conda"
        )
        raise InputError(msg, fix=fix, file="model.yaml")
    make = {"uv": _uv, "pip": _pip, "conda": _conda}[environment.kind]
    folder = cache / "environments" / hashlib.sha256(f"{digest} {sys.executable}".encode()).hexdigest()[:24]
    with alone(folder):
        if not (folder / COMPLETE).is_file():
            say(f"making the {environment.kind} environment of {environment.file} (once per lock)")
            forget_unused(folder.parent)
            shutil.rmtree(folder, ignore_errors=True)
            make(_Recipe(repo=repo, file=environment.file or "", folder=folder))
        (folder / COMPLETE).touch()
    return folder / "bin"


def forget_unused(environments: Path, days: float = UNUSED_DAYS) -> list[Path]:
    """Delete the environments that no training has used for so long; one that is being made is left alone."""
    gone = []
    for folder in sorted(p for p in environments.iterdir() if p.is_dir()):
        with suppress(OSError), folder.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            marker = folder / COMPLETE
            used = (marker if marker.exists() else folder).stat().st_mtime
            if time.time() - used > days * 86_400:
                shutil.rmtree(folder)
                gone.append(folder)
    return gone


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a lock beside ``folder``; the system frees it however this process ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """What to make: ``file`` of the repository says what goes into ``folder``."""

    repo: Path
    file: str
    folder: Path

    @property
    def source(self) -> Path:
        return self.repo / self.file

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def run(self, command: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
        """Run one program that makes it, in the repository, where relative paths of the file lead from."""
        environ = {k: v for k, v in visible(os.environ).items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
        environ |= dict(extra or {})
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=self.repo,
            env=environ,
        )
        if done.returncode != 0:
            raise _cannot_make(self, command, masked(done.stderr.strip() or done.stdout.strip(), environ))


def _uv(recipe: _Recipe) -> None:
    uv = find_program("uv")
    if uv is None:
        msg = "train.environment asks for uv, and uv is not on this machine"
        raise InputError(msg, fix="pip install uv, or use `environment: {pip: requirements.txt}`", file="model.yaml")
    project = str(recipe.source.parent)
    if (recipe.source.parent / "uv.lock").is_file():
        command = [uv, "sync", "--frozen", "--no-dev", "--no-install-project", "--project", project]
        where = {"UV_PROJECT_ENVIRONMENT": str(recipe.folder)}
        recipe.run([*command, "--python", sys.executable, "--compile-bytecode"], where)
    else:
        recipe.run([uv, "venv", "--quiet", "--python", sys.executable, str(recipe.folder)])
        _uv_install(uv, recipe)


def _pip(recipe: _Recipe) -> None:
    uv = find_program("uv")
    if uv:
        recipe.run([uv, "venv", "--quiet", "--python", sys.executable, str(recipe.folder)])
        _uv_install(uv, recipe)
    else:
        recipe.run([sys.executable, "-m", "venv", str(recipe.folder)])
        command = [recipe.python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        recipe.run([*command, "--requirement", str(recipe.source)])


def _uv_install(uv: str, recipe: _Recipe) -> None:
    command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", recipe.python]
    recipe.run([*command, "--requirement", str(recipe.source)])


def _conda(recipe: _Recipe) -> None:
    conda = next(filter(None, (find_program(name) for name in ("micromamba", "mamba", "conda"))), None)
    if conda is None:
        msg = "train.environment asks for conda, and neither conda, mamba nor micromamba is on this machine"
        fix = "install micromamba on the runner, or use `environment: {pip: requirements.txt}`"
        raise InputError(msg, fix=fix, file="model.yaml")
    verb = ["create"] if Path(conda).name == "micromamba" else ["env", "create"]
    recipe.run([conda, *verb, "--yes", "--prefix", str(recipe.folder), "--file", str(recipe.source)])


def find_program(name: str) -> str | None:
    """A program on PATH or beside this interpreter."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


# ---------------------------------------------------------------- what to say when it fails


IN_AN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+(?=@)")
# What no second try mends: the file itself, or what it asks for. In the words of uv, pip, conda and micromamba.
OF_THE_FILE = re.compile(
    r"failed to parse|couldn't parse|could not parse|invalid requirement|no solution found|resolutionimpossible"
    r"|hash mismatch|hashes are required|do not match the hashes|nothing provides|could not solve|packagesnotfound"
    r"|no matching distribution|resolvepackagenotfound|error parsing|not a valid|unsatisfiable",
    re.IGNORECASE,
)
OUT_OF_REACH = re.compile(
    r"timed out|connect|dns|resolve host|network|temporary failure|\b(50[0234]|429)\b", re.IGNORECASE
)


def masked(text: str, environ: Mapping[str, str]) -> str:
    """What a program said, without secrets: those of its variables, and the credentials in addresses of indexes."""
    return IN_AN_ADDRESS.sub("***", Mask(secrets_in(environ))(text))


def _cannot_make(recipe: _Recipe, command: Sequence[str], said: str) -> InputError | OutsideError:
    """An error of the file (which must be mended) or of what lies outside (where another try may help)."""
    name = Path(command[0]).name
    last = "\n".join(said.splitlines()[-12:])
    what = f"`{name} {command[1]}` could not make the environment of {recipe.file}"
    if OF_THE_FILE.search(said) and not OUT_OF_REACH.search(said):
        lock = f"{recipe.file} or its lock"
        fix = f"mend {lock}: what it names must exist, fit together and have the hashes it says; then commit it"
        return InputError(what, why=f"{name} said:\n{last}", fix=fix, file=recipe.file)
    fix = f"see that this machine reaches the package index, mend {recipe.file} if it is at fault, and run again"
    return OutsideError(what, why=f"{name} said:\n{last}", fix=fix)
