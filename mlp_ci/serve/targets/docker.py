"""The target ``docker``: each version is a container of this machine's engine; the gateway in front is a process.

The engine keeps containers running, whatever happens to the command, to the gateway, or to the engine itself. They are
reached on loopback ports, have nobody's rights, a root that cannot be written, and the memory that model.yaml gives.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci import containers
from mlp_ci.containers import Engine
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.progress import doing
from mlp_ci.serve import reach
from mlp_ci.serve.package import naming
from mlp_ci.serve.package.contract import CONFINED, last_words
from mlp_ci.serve.state import Place, Server
from mlp_ci.serve.targets.local import options_of
from mlp_ci.serve.targets.machine import Machine
from mlp_ci.spec.serve import DockerServing

if TYPE_CHECKING:
    from mlp_ci.serve.targets import Release, Settings
    from mlp_ci.spec import PlatformSpec

PLACE_LABEL, ENTRY_LABEL = "mlp-ci.place", "mlp-ci.entry"
LOG = ("--log-driver", "local", "--log-opt", "max-size=10m", "--log-opt", "max-file=2")
STOP_SECONDS = 12
RESTARTS = 2  # of a container that never answered, before it is given up
_NO_TRAFFIC = "no traffic was moved"
# What engines say when another program has the port, or another command just started the same container.
_TAKEN = ("already allocated", "already in use", "ports are not available")


@dataclass
class Containers:
    """Servers as containers; see :class:`mlp_ci.serve.targets.machine.Running` for what each function promises."""

    docker: DockerServing
    _engine: Engine | None = field(default=None, repr=False)

    @property
    def engine(self) -> Engine:
        """The engine, looked for when it is needed; InputError when it is not on this machine."""
        if self._engine is None:
            address = self.docker.host or os.environ.get("DOCKER_HOST", "")
            if address and not address.startswith("unix://"):
                msg = f"serve.target is docker, and its engine is at {address}, not on this machine"
                why = "the gateway reaches versions on loopback ports, which only an engine here can give them"
                raise InputError(msg, why=why, fix="run the job on the machine that serves, or use target kubernetes")
            program = containers.program("serve.target is docker")
            self._engine = Engine(program, self.docker.host or "")
        return self._engine

    # ------------------------------------------------------------ starting

    def entry(self, place: Place, release: Release, settings: Settings, port: int) -> Server:
        self.engine.require()
        return Server(
            version=release.version,
            digest=release.digest,
            port=port,
            artefact=str(release.artefact),
            python="",
            image=self._image(place, release, settings),
            options=_options(settings),
        )

    def _image(self, place: Place, release: Release, settings: Settings) -> str:
        """The id of the version's image: the one that is here, else the registry's, else one made now."""
        name = naming.reference(self.docker.registry, place.model, release.version, release.digest)
        found = self._known(name, release)
        if found is None and self.docker.registry:
            doing(f"fetching the image {name}")
            self.engine.ask("pull", "--quiet", name)
            found = self._known(name, release)
        if found is not None:
            return found
        from mlp_ci.serve.package.making import made, subject_of

        subject = subject_of(release.artefact, place.model, release.version, release.digest, settings.labels)
        with made(self.engine, self.docker, subject, place.home / "images") as image:
            return image.loaded

    def _known(self, name: str, release: Release) -> str | None:
        """The id of the image called ``name``, if it says that it holds the release; the server verifies it again."""
        found = self.engine.describe("image", name)
        labels = ((found or {}).get("Config") or {}).get("Labels") or {}
        return str(found["Id"]) if found and labels.get(naming.LABEL_DIGEST) == release.digest else None

    def usable(self, server: Server) -> bool:
        return bool(server.image) and self.engine.describe("image", server.image) is not None

    def start(self, place: Place, server: Server) -> None:
        name = name_of(place, server)
        found = self.engine.describe("container", name)
        if found and found["Config"]["Labels"].get(ENTRY_LABEL) == _entry(server):
            if not found["State"]["Running"]:
                self.engine.ask("start", name)
            return
        self.engine.remove(name)
        done = self.engine.ask(*_run(place, server))
        if done.code and not any(words in done.err for words in _TAKEN):
            self.engine.remove(name)
            msg = f"the engine does not run version {server.version} of {place}"
            raise OutsideError(msg, why=done.why, fix="mend what the engine says, then run `mlp-ci deploy` again")

    def started(self, place: Place, server: Server) -> bool:
        name = name_of(place, server)
        deadline = time.monotonic() + reach.START_TIMEOUT
        looked, before = 0.0, None
        while not reach.answers(server):
            reach.require_wanted(place, server)
            if time.monotonic() - looked > 0.5:
                looked = time.monotonic()
                found = self.engine.describe("container", name)
                state = (found or {}).get("State") or {}
                if any(words in str(state.get("Error")) for words in _TAKEN):
                    self.engine.remove(name)
                    return False
                restarts = int((found or {}).get("RestartCount") or 0)
                before = restarts if before is None else before  # it may have run for years
                failed = found is None or restarts - before >= RESTARTS
                if failed or time.monotonic() > deadline:
                    self._give_up(place, server, ended=failed)
            time.sleep(0.05)
        return True

    def _give_up(self, place: Place, server: Server, *, ended: bool) -> None:
        """Say why a version does not start: InputError when its container ended, OutsideError when it only hangs."""
        name = name_of(place, server)
        said = last_words(self.engine.ask("logs", "--tail", "200", name)) or "it wrote no log"
        msg = f"the container of version {server.version} does not start: {said}"
        fix = "mend it, then run `mlp-ci deploy` again; `mlp-ci package` says what is wrong with an image"
        kind = InputError if ended else OutsideError
        raise kind(msg, why=_NO_TRAFFIC, fix=fix)

    # ------------------------------------------------------------ running and ending

    def runs(self, place: Place, server: Server) -> bool:
        state = (self.engine.describe("container", name_of(place, server)) or {}).get("State") or {}
        return bool(state.get("Running"))

    def end(self, place: Place, server: Server) -> None:
        self._end([name_of(place, server)])

    def stop(self, place: Place) -> None:
        asked = self.engine.ask("ps", "--all", "--quiet", "--filter", f"label={PLACE_LABEL}={_key(place)}")
        if asked.code:
            msg = f"the engine does not say which containers of {place} run"
            raise OutsideError(msg, why=asked.why, fix="start it, and run this again")
        self._end(asked.out.split())

    def _end(self, names: list[str]) -> None:
        if names:
            self.engine.ask("stop", "--time", str(STOP_SECONDS), *names)
            self.engine.remove(*names)

    def changes(self, server: Server | None, release: Release, settings: Settings) -> str:
        if server is None:
            return f"+ a container of version {release.version} ({release.digest[:19]}) on this machine's engine\n"
        if server.options == _options(settings):
            return ""
        return f"  version {release.version} runs on with the settings that it was started with\n"


def name_of(place: Place, server: Server) -> str:
    """The container of a version: a name that people know it by, and that no other place on the engine has."""
    return f"mlp-{place.model}-{place.stage}-v{server.version}-{server.digest[7:13]}-{_key(place)}"


def _key(place: Place) -> str:
    """Tells places apart that share an engine: users' homes, tests."""
    return hashlib.sha256(str(place.folder.resolve()).encode()).hexdigest()[:8]


def _entry(server: Server) -> str:
    return hashlib.sha256(json.dumps(asdict(server), sort_keys=True).encode()).hexdigest()[:16]


def _options(settings: Settings) -> dict[str, Any]:
    """What the container may use, and arguments of the server in it."""
    resources = settings.serve.resources
    limits = {"memory_mb": resources.memory_mb, "cpus": resources.cpus, "gpus": resources.gpus}
    return {**limits, **options_of(settings)}


def _run(place: Place, server: Server) -> tuple[str, ...]:
    """The arguments of ``docker`` that start the container of a server."""
    memory = f"{server.options['memory_mb']}m"
    gpus = int(server.options["gpus"])
    arguments = [str(part) for name, value in server.options.items() if name.startswith("-") for part in (name, value)]
    return (
        *("run", "--detach", "--name", name_of(place, server), "--pull", "never", "--restart", "unless-stopped"),
        *("--label", f"{PLACE_LABEL}={_key(place)}", "--label", f"{ENTRY_LABEL}={_entry(server)}"),
        *("--publish", f"127.0.0.1:{server.port}:{naming.PORT}", *CONFINED, *LOG),
        *("--memory", memory, "--memory-swap", memory, "--cpus", f"{server.options['cpus']:g}"),
        *(("--gpus", str(gpus)) if gpus else ()),
        *("--stop-timeout", str(STOP_SECONDS), server.image, *arguments),
    )


@dataclass(frozen=True)
class Docker(Machine):
    """Containers of this machine's engine, for every model and stage under one folder."""


def target(platform: PlatformSpec | None) -> Docker:
    """The engine that platform.yaml names; this machine's, where it names none."""
    settings = platform.serving.docker if platform else DockerServing.model_validate({})
    return Docker(Containers(settings))
