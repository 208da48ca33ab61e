"""The targets that this machine can run."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from mlp_ci.serve.state import Place
from tests.serve.conformance.stands import Stand, models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlp_ci.serve.targets import Target
    from tests.serve.engine import Daemon


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that answers, and a broken one."""
    return models(tmp_path_factory.mktemp("models"))


def of_live(target: Target) -> Callable[[Place], tuple[str, int]]:
    """Where clients reach a place: the address that the target tells."""

    def address(place: Place) -> tuple[str, int]:
        fact = target.live(place)
        assert fact is not None
        split = urlsplit(fact.address)
        return str(split.hostname), int(split.port or 80)

    return address


@pytest.fixture(scope="session")
def local_stand(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    from mlp_ci.serve.targets.local import local

    home = tmp_path_factory.mktemp("local") / "serve"
    yield Stand("local", local, home, *folders, of_live(local))
    local.stop_all(home)


@pytest.fixture(scope="session")
def docker_stand(
    daemon: Daemon, folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    from mlp_ci.serve.targets.docker import Containers, Docker
    from mlp_ci.spec.serve import DockerServing
    from tests.serve.engine import BASE

    home = tmp_path_factory.mktemp("docker") / "serve"
    target = Docker(Containers(DockerServing.model_validate({"base": BASE, "host": daemon.address})))
    yield Stand("docker", target, home, *folders, of_live(target))
    for file in home.glob("*/*/state.json"):
        target.stop(Place(home, file.parent.parent.name, file.parent.name))


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.xdist_group("docker"))])
def stand(request: pytest.FixtureRequest) -> Stand:
    """Each target in turn; those that cannot run here are skipped, and say why."""
    found: Stand = request.getfixturevalue(f"{request.param}_stand")
    return found
