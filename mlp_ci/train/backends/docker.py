"""The back end ``docker``: the command runs in the declared image, on this machine.

The repository has the same path inside as outside, so every path of the training contract means the same; what must not
be seen (held-out data, DVC's cache, other trainings) is covered. Without ``train.network`` MLflow is all that the
container reaches.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mlp_ci import containers, git
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.train import command as processes
from mlp_ci.train.backends import inside, way_out
from mlp_ci.train.relay import last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.train.command import Command, Ended, Watch
    from mlp_ci.train.relay import Mask

LABEL = "mlp-ci.work"
NOT_STARTED = 125  # `docker run` itself failed, not the command
PORT = 5000
PLACE = "/mlp-ci"  # what mlp-ci brings into the container
STATE_FILE = "container.json"
# What describes this machine and not the training: inside, the image's own hold.
OF_THIS_MACHINE = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "_", "TMPDIR", "TEMP", "TMP", "HOSTNAME")
)
PREFIXES_OF_THIS_MACHINE = (
    *("LD_", "PYTHONPATH", "PYTHONHOME", "PYENV", "VIRTUAL_ENV", "CONDA", "XDG_", "SSH_", "DOCKER_", "DBUS_"),
    *("RUNNER_", "GIT_", "UV_", "PIP_", "NVIDIA_", "MLFLOW_TRACKING_"),
)
WITHOUT_PYTHON = "mlp-ci: the image has no Python to reach MLflow with: what the command logs there is lost"
# The way to MLflow is opened first; then the command takes the shell's place, so that signals reach it.
START = f"""\
p=$(command -v python3 || command -v python) && "$p" {PLACE}/inside.py {PLACE}/out/{way_out.SOCKET} {PORT} ||
  {{ echo '{WITHOUT_PYTHON}'; unset MLFLOW_TRACKING_URI; }}
exec sh -c "$0"
"""


class Docker:
    """Runs commands in containers of one image."""

    def __init__(self, ctx: Context, spec: ModelSpec) -> None:
        self._ctx = ctx
        self._spec = spec

    def run(self, command: Command, log: TextIO, mask: Mask, watch: Watch) -> Ended:
        """Run it; raises InputError or OutsideError when no container can be started."""
        engine = Engine(program())
        engine.require()
        end_left_over(self._ctx.work)
        image = engine.image(str(self._spec.train.environment.image), lambda text: _say(log, text))
        address = command.environ.get("MLFLOW_TRACKING_URI", "")
        name = f"mlp-ci-{uuid.uuid4().hex[:12]}"
        with ExitStack() as stack:
            out = None
            if address.startswith(("http://", "https://")):
                out = stack.enter_context(way_out.to_mlflow(address, command.environ))
            else:
                _say(log, "MLflow is a file here, which a container does not see: what the command logs there is lost")
            given = variables(command.environ, reaches_mlflow=out is not None)
            container = Container(name=name, spec=self._spec, ctx=self._ctx, out=out, image=image)
            wrapped = replace(
                command,
                argv=(engine.program, *container.arguments(command, given)),
                sweep=engine.sweep(name, command.notes / STATE_FILE),
                environ={**_of_the_client(), **given},
            )
            ended = processes.run(wrapped, log, mask, watch, engine.roots(name))
        if ended.code == NOT_STARTED and ended.why == "exit":
            raise _not_started(command.log)
        killed = engine.killed_for_memory(command.notes / STATE_FILE)
        return replace(ended, oom=killed, tags={"mlp.image": image})


@dataclass(frozen=True, kw_only=True)
class Container:
    """How the container of one training is started; ``out`` is the folder with the way to MLflow."""

    name: str
    spec: ModelSpec
    ctx: Context
    out: Path | None
    image: str

    def arguments(self, command: Command, given: Mapping[str, str]) -> list[str]:
        """What comes after ``docker``; no values of variables, because every user of a machine sees command lines."""
        passed = [word for variable in sorted(given) for word in ("--env", variable)]
        start = ["sh", "-c", START, command.line] if self.out else ["sh", "-c", command.line]
        return [
            *("run", "--name", self.name, "--label", f"{LABEL}={self.ctx.work}", "--init", "--pull", "never"),
            *("--log-driver", "none", "--stop-timeout", f"{command.grace:.0f}"),
            *("--user", f"{os.getuid()}:{os.getgid()}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *(() if self.spec.train.network else ("--network", "none")),
            *self._limits(),
            *self._mounts(command.environ),
            *("--workdir", str(command.folder), *passed, "--entrypoint", start[0]),
            *(self.image, *start[1:]),
        ]

    def _limits(self) -> list[str]:
        wanted = self.spec.train.resources
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limits = []
        if wanted.memory_gb:
            memory = int(wanted.memory_gb * 1e9)
            limits += ["--memory", str(memory), "--memory-swap", str(memory)]
        if wanted.cpus:
            limits += ["--cpus", f"{wanted.cpus:g}"]
        # PyTorch's loaders hand batches over in /dev/shm, of which a container has 64 MB unless told otherwise.
        limits += ["--shm-size", str(memory // 2)]
        if wanted.gpus or (wanted.gpus is None and shutil.which("nvidia-smi")):
            chosen = "all" if os.environ.get("CUDA_VISIBLE_DEVICES") or not wanted.gpus else str(wanted.gpus)
            limits += ["--gpus", chosen]
        return limits

    def _mounts(self, environ: Mapping[str, str]) -> list[str]:
        """The repository, without what training must not see or change, and the folders of the contract."""
        top = Path(git.git(self.ctx.repo, "rev-parse", "--show-toplevel"))
        mounts = [_bind(top)]
        if (top / ".git").exists():
            mounts.append(_bind(top / ".git", read_only=True))  # a hook in it would run outside
        covered = (self.ctx.work, top / ".dvc" / "cache", top / ".dvc" / "tmp", self.ctx.repo / ".dvc" / "cache")
        there = (p for p in dict.fromkeys(covered) if p.is_dir() and p.is_relative_to(top))
        mounts += [f"type=tmpfs,destination={p}" for p in there]
        # Where checkouts and DVC keep credentials; git does without its file.
        secret = (top / ".git" / "config", top / ".dvc" / "config.local", self.ctx.repo / ".dvc" / "config.local")
        mounts += [_nothing_at(p) for p in dict.fromkeys(secret) if p.is_file()]
        data = Path(environ["MLP_DATA_TRAIN"])
        mounts += [_bind(p, read_only=True) for p in dict.fromkeys((data.resolve(), data)) if not p.is_symlink()]
        # The folders and files of the contract lie in the work folder, which is covered.
        contract = {name: Path(value) for name, value in sorted(environ.items()) if name.startswith("MLP_") and value}
        for name, path in contract.items():
            if name != "MLP_DATA_TRAIN" and path.is_relative_to(self.ctx.work) and path.exists():
                mounts.append(_bind(path, read_only=name == "MLP_PARAMS"))
        if self.out:
            mounts.append(f"type=bind,source={self.out},destination={PLACE}/out")
            mounts.append(f"type=bind,source={inside.__file__},destination={PLACE}/inside.py,readonly")
        return [word for mount in mounts for word in ("--mount", mount)]


class Engine(containers.Engine):
    """The Docker engine of this machine, as a training uses it."""

    def image(self, name: str, say: Callable[[str], None]) -> str:
        """The digest (or id) that ``name`` means now; the image is fetched if it is not here."""
        found = self.describe("image", name)
        if found is None:
            say(f"fetching the image {name}")
            done = self.ask("pull", "--quiet", name)
            found = self.describe("image", name) if done.code == 0 else None
            if found is None:
                why = done.why
                fix = "check train.environment.image in model.yaml, and that this machine may pull it (`docker login`)"
                msg = f"the image {name} cannot be had"
                raise OutsideError(msg, why=why, fix=fix)
        digest = next(iter(found.get("RepoDigests") or ()), "") or str(found["Id"])
        if "@sha256:" not in name:
            advice = f"; write `image: {digest}`" if "@" in digest else ""
            say(f"warning: {name} is no digest, so the same train key may mean another image tomorrow{advice}")
        return digest

    def sweep(self, name: str, state: Path) -> tuple[str, ...]:
        """A command line that notes how the container ended and removes it, whether it still runs or not."""
        docker = shlex.quote(self.program)
        note = f"{docker} inspect --format '{{{{json .State}}}}' {name} > {shlex.quote(str(state))} 2>/dev/null"
        return ("sh", "-c", f"{note}; {docker} rm --force {name} >/dev/null 2>&1; exit 0")

    def killed_for_memory(self, state: Path) -> bool:
        try:
            return bool(json.loads(state.read_text())["OOMKilled"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        finally:
            state.unlink(missing_ok=True)

    def roots(self, name: str) -> Callable[[], Sequence[int]]:
        """The container's first process as this machine numbers it, asked for until it is known."""
        known: list[int] = []
        asked = [0.0]

        def find() -> Sequence[int]:
            if not known and time.monotonic() - asked[0] > 1.0:
                asked[0] = time.monotonic()
                pid = self.ask("inspect", "--format", "{{.State.Pid}}", name).out.strip()
                known.extend([int(pid)] if pid.isdigit() and pid != "0" else [])
            return known

        return find


def program() -> str:
    """Docker's command line program."""
    fix = "install Docker Engine on the runner, or write `backend: runner` in model.yaml"
    return containers.program("train.backend is docker", fix)


def require_image(spec: ModelSpec) -> None:
    """Raises InputError unless model.yaml names the image that the command is to run in."""
    kind = spec.train.environment.kind
    if kind != "image":
        msg = f"train.backend is docker, and train.environment says {kind}, which is no image"
        why = "a container sees nothing of the environments that this machine makes"
        fix = "write `environment: {image: NAME@sha256:…}`, an image that holds all that the command needs"
        raise InputError(msg, why=why, fix=f"{fix}; or `backend: runner`", file="model.yaml")


def end_left_over(work: Path) -> list[str]:
    """Remove the containers that a killed mlp-ci left (only one at a time trains in a work folder); their ids."""
    docker = shutil.which("docker")
    if docker is None:
        return []
    engine = Engine(docker)
    names = engine.ask("ps", "--all", "--quiet", "--filter", f"label={LABEL}={work}").out.split()
    engine.remove(*names)
    return names


def variables(environ: Mapping[str, str], *, reaches_mlflow: bool) -> dict[str, str]:
    """What the command sees in its container: the contract and the job's variables, not this machine's."""
    kept = {
        k: v
        for k, v in environ.items()
        if k not in OF_THIS_MACHINE and not k.startswith(PREFIXES_OF_THIS_MACHINE) and "=" not in k
    }
    address = f"http://127.0.0.1:{PORT}" if reaches_mlflow else "file:///tmp/mlruns"
    return {**kept, "HOME": "/tmp", "MLFLOW_TRACKING_URI": address, "TINI_KILL_PROCESS_GROUP": "1"}


def _of_the_client() -> dict[str, str]:
    """What docker's own program needs of this machine: where its settings and its engine are."""
    return {k: v for k, v in os.environ.items() if k in ("PATH", "HOME") or k.startswith(("DOCKER_", "XDG_", "SSH_"))}


def _bind(path: Path, *, read_only: bool = False) -> str:
    if any(c in str(path) for c in ',"\n'):
        msg = f"a path with a comma or a quote cannot be mounted: {path}"
        raise InputError(msg, fix="move the working tree to a folder with a plain name")
    return f"type=bind,source={path},destination={path}" + (",readonly" if read_only else "")


def _nothing_at(file: Path) -> str:
    """A mount that hides a file behind an empty one."""
    return _bind(file).replace(f"source={file}", "source=/dev/null", 1) + ",readonly"


def _not_started(log: Path) -> OutsideError:
    said = "; ".join(line for line in last_lines(log, 4) if "--help" not in line)
    fix = "mend what Docker says, and run again"
    if "device driver" in said or "nvidia" in said.lower():
        fix = "install the NVIDIA Container Toolkit on this machine, or ask for no GPUs (`train.resources.gpus: 0`)"
    return OutsideError("the container could not be started", why=said[:800], fix=fix)


def _say(log: TextIO, text: str) -> None:
    log.write(f"mlp-ci: {text}\n")
    log.flush()
