"""The docker target with a real engine: containers behind the gateway, under load, killed, and started anew."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.serve import processes
from mlp_ci.serve import state as states
from mlp_ci.serve.package import naming
from mlp_ci.serve.package.making import made, subject_of
from mlp_ci.serve.state import CANARY, Arm, Place, Server
from mlp_ci.serve.targets import Release, Settings, Why
from mlp_ci.serve.targets.docker import Containers, Docker, name_of
from mlp_ci.spec.serve import DockerServing, Serve
from mlp_ci.tracking import artifact_digest
from tests.conftest import free_port
from tests.serve.engine import BASE
from tests.serving import LOGGED, Load, ask, body, save_model, slowness, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.serve.engine import Daemon

# The first test of a process compiles the packages of an image: 20 seconds on a machine of its own.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker"), pytest.mark.timeout(900)]

NOW = datetime(2013, 4, 1, tzinfo=UTC)
MODEL = "flight-delay"
SERVING = DockerServing.model_validate({"base": BASE})


@pytest.fixture(scope="module")
def releases(daemon: Daemon, layers: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Release]:
    """Two versions, whose images the engine has."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for version in (1, 2):
        artefact = save_model(folder / str(version), far_is_late=version == 1)
        found[version] = Release(version=version, digest=artifact_digest(artefact), artefact=artefact)
        subject = subject_of(artefact, MODEL, version, found[version].digest, {})
        with made(daemon.engine, SERVING, subject, layers / "images"):
            pass
    return found


@pytest.fixture
def target(docker: Daemon) -> Docker:
    return Docker(Containers(SERVING))


@pytest.fixture
def place(tmp_path: Path, target: Docker, docker: Daemon) -> Iterator[Place]:
    made_place = Place(tmp_path / "serve", MODEL, "production")
    try:
        yield made_place
    finally:
        target.stop(made_place)
        children = (states.read_json(made_place.processes_file) or {}).get("children") or {}
        left = [processes.from_json(c["process"]) for c in children.values()]
        assert not [p for p in left if p and p.alive], "a process was left behind"
        assert containers(docker) == [], "a container was left behind"


def settings(place: Place, **serve: object) -> Settings:
    log = {"root": str(place.home / "log"), "columns": LOGGED}
    wanted = {"target": "docker", "resources": {"memory_mb": 512, "cpus": 1}, **serve}
    return Settings(serve=Serve.model_validate(wanted), log=log, labels={"org.opencontainers.image.vendor": "growth"})


def containers(docker: Daemon) -> list[str]:
    return docker.engine.ask("ps", "--all", "--format", "{{.Names}}").out.split()


def go_live(target: Docker, place: Place, release: Release) -> int:
    """Deploy without a rollout; the gateway's port."""
    target.prepare(place, release, settings(place))
    target.settle(place, release, NOW)
    state = states.read(place)
    assert state
    return state.gateway_port


def container_of(docker: Daemon, place: Place, version: int) -> dict[str, object]:
    state = states.read(place)
    assert state
    found = docker.engine.describe("container", name_of(place, state.servers[version]))
    assert found
    return found


def test_live_swapped_and_back_under_load(
    target: Docker, place: Place, releases: dict[int, Release], docker: Daemon
) -> None:
    assert "+ a container of version 1" in target.plan(place, releases[1], settings(place))
    port = go_live(target, place, releases[1])
    assert target.plan(place, releases[1], settings(place)) == ""
    with Load(port, clients=2) as load:
        target.prepare(place, releases[2], settings(place))
        target.shift(place, [Arm(version=1, weight=50), Arm(version=2, weight=50, arm=CANARY)])
        wait_until(lambda: load.versions["2"] > 10)
        target.settle(place, releases[2], NOW)
        began = time.monotonic()
        _, moved = target.turn_back(place, None, Why(reason="it lies", now=NOW))
        took = time.monotonic() - began
        before = load.versions["1"]
        wait_until(lambda: load.versions["1"] > before + 10)
    assert moved
    assert took < 2 * slowness(), f"the rollback took {took:.2f} s"
    assert load.failed == 0, load.statuses
    print(f"rollback of a container: {took:.3f} s; {sum(load.versions.values())} requests, {load.failed} failed")
    fact = target.live(place)
    assert fact
    assert (fact.version, fact.running) == (1, True)
    target.tidy(place)
    assert len(containers(docker)) == 1, "what was rolled back is not kept"
    # What a container may do.
    host = container_of(docker, place, 1)["HostConfig"]
    assert isinstance(host, dict)
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert (host["Memory"], host["NanoCpus"]) == (512 * 2**20, 10**9)
    assert host["PortBindings"]["8080/tcp"][0]["HostIp"] == "127.0.0.1"
    # Everything ended, and started again at the same address.
    target.stop(place)
    assert containers(docker) == []
    stopped = target.live(place)
    assert stopped
    assert not stopped.running
    assert go_live(target, place, releases[1]) == port
    assert ask(port, body())[0] == 200


def test_killed_removed_and_an_engine_that_starts_again(
    target: Docker, place: Place, releases: dict[int, Release], docker: Daemon
) -> None:
    port = go_live(target, place, releases[1])
    target.prepare(place, releases[2], settings(place))
    target.shift(place, [Arm(version=1, weight=50), Arm(version=2, weight=50, arm=CANARY)])
    # Killed: the engine starts it again.
    state = container_of(docker, place, 2)["State"]
    assert isinstance(state, dict)
    os.kill(int(state["Pid"]), signal.SIGKILL)
    wait_until(lambda: container_of(docker, place, 2)["RestartCount"] == 1)
    wait_until(lambda: target.healthy(place, 2))
    # Removed by hand: the other arm answers, and the next deploy brings it back.
    docker.engine.remove(str(container_of(docker, place, 2)["Name"]).lstrip("/"))
    assert not target.healthy(place, 2)
    assert [ask(port, body())[0] for _ in range(20)] == [200] * 20
    target.prepare(place, releases[2], settings(place))
    assert target.healthy(place, 2)
    # The engine starts again, as after a reboot: nobody has to call us.
    docker.stop()
    assert ask(port, body())[0] in (502, 503, 504)
    docker.start()
    wait_until(lambda: target.healthy(place, 1) and target.healthy(place, 2))
    wait_until(lambda: ask(port, body())[0] == 200)


def test_what_does_not_start_moves_nothing(
    target: Docker, place: Place, releases: dict[int, Release], docker: Daemon
) -> None:
    port = go_live(target, place, releases[1])
    broken = Release(version=3, digest="sha256:" + "3" * 64, artefact=releases[2].artefact)
    with pytest.raises(InputError, match="has digest"):
        target.prepare(place, broken, settings(place))
    # An image of that name, whose program ends at once.
    changes = (
        f'LABEL {naming.LABEL_DIGEST}="{broken.digest}"',
        """ENTRYPOINT ["python3", "-c", "raise SystemExit('refused: the model is a sonnet')"]""",
    )
    options = [word for change in changes for word in ("--change", change)]
    exported = docker.engine.ask("create", BASE, "true").out.strip()
    with subprocess.Popen(docker.engine.command("export", exported), stdout=subprocess.PIPE) as tar:
        name = naming.reference(None, MODEL, 3, broken.digest)
        done = subprocess.run(
            docker.engine.command("import", *options, "-", name), stdin=tar.stdout, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    docker.engine.remove(exported)
    with pytest.raises(InputError, match="version 3 does not start: the model is a sonnet"):
        target.prepare(place, broken, settings(place))
    state = states.read(place)
    assert state
    assert list(state.servers) == [1]
    assert len(containers(docker)) == 1
    assert ask(port, body())[1]["x-model-version"] == "1"


def test_a_port_that_is_taken_and_limits_that_are_too_small(
    place: Place, releases: dict[int, Release], docker: Daemon
) -> None:
    running = Containers(SERVING)
    with ExitStack() as stack:
        other = stack.enter_context(socket.socket())
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = running.entry(place, releases[1], settings(place), other.getsockname()[1])
        with states.changing(place) as state:
            state.servers[1] = server
        running.start(place, server)
        assert running.started(place, server) is False
        assert containers(docker) == []
        assert not running.runs(place, server)
    with pytest.raises(OutsideError, match="the engine does not run version 1"):
        running.start(
            place, Server(**{**vars(server), "port": free_port(), "options": {**server.options, "cpus": 9999}})
        )
    assert containers(docker) == []
    far = Containers(DockerServing.model_validate({"host": "ssh://serving.example"}))
    with pytest.raises(InputError, match="not on this machine"):
        far.entry(place, releases[1], settings(place), 1)
    gone = Containers(DockerServing.model_validate({"host": f"unix://{place.home}/none.sock"}))
    with pytest.raises(OutsideError, match="the Docker engine does not answer"):
        gone.entry(place, releases[1], settings(place), 1)


PREPARE = """\
import json, sys
from pathlib import Path
from mlp_ci.serve.state import Place
from mlp_ci.serve.targets import Release, Settings, target_of
from mlp_ci.spec.serve import Serve
home, release, serve, log = json.loads(sys.argv[1])
serve = Serve.model_validate(serve)
version, digest, artefact = release
target = target_of(serve, None)
place = Place(Path(home), "flight-delay", "production")
target.prepare(place, Release(version, digest, Path(artefact)), Settings(serve=serve, log=log))
"""


def test_a_command_that_is_killed_while_it_prepares(
    target: Docker, place: Place, releases: dict[int, Release], docker: Daemon
) -> None:
    port = go_live(target, place, releases[1])
    wanted, new = settings(place), releases[2]
    given = json.dumps(
        [
            str(place.home),
            [new.version, new.digest, str(new.artefact)],
            wanted.serve.model_dump(mode="json"),
            dict(wanted.log),
        ]
    )
    with subprocess.Popen([sys.executable, "-c", PREPARE, given]) as command:
        wait_until(lambda: len(containers(docker)) == 2)
        command.kill()
    before = containers(docker)
    target.prepare(place, new, wanted)
    assert containers(docker) == before, "the container of the killed command is the one that goes live"
    target.settle(place, new, NOW)
    assert ask(port, body())[1]["x-model-version"] == "2"
