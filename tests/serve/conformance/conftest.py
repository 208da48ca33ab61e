"""The targets that this machine can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlp_ci.serve.smoke import Smoke
from mlp_ci.serve.state import Place
from mlp_ci.serve.targets.kubernetes.api import Api
from mlp_ci.spec.serve import KubernetesServing
from tests import api_server
from tests.serve.conformance.stands import MODEL, Stand, copies, models
from tests.serve.kube.stand import NAMESPACE, OUR_IMAGE, install, real_cluster, stand_in_cluster
from tests.serving import body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlp_ci.serve.targets import Release, Target
    from tests.serve.engine import Daemon
    from tests.serve.kube.stand import Stand as Cluster


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that answers, and a broken one."""
    return models(tmp_path_factory.mktemp("models"))


def of_live(target: Target) -> Callable[[Place], str]:
    """Where clients reach a place: the address that the target tells."""

    def address(place: Place) -> str:
        fact = target.live(place)
        assert fact is not None
        return fact.address

    return address


@pytest.fixture(scope="session")
def local_stand(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Stand:
    from mlp_ci.serve.targets.local import local

    home = tmp_path_factory.mktemp("local") / "serve"
    return Stand("local", local, home, copies(home, *folders), of_live(local))


@pytest.fixture(scope="session")
def docker_stand(daemon: Daemon, folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Stand:
    from mlp_ci.serve.targets.docker import Containers, Docker
    from mlp_ci.spec.serve import DockerServing
    from tests.serve.engine import BASE

    home = tmp_path_factory.mktemp("docker") / "serve"
    target = Docker(Containers(DockerServing.model_validate({"base": BASE, "host": daemon.address})))
    return Stand("docker", target, home, copies(home, *folders), of_live(target))


def cluster_stand(name: str, cluster: Cluster) -> Stand:
    """Versions predict their own numbers; every tenth answer of a broken one is an error."""
    target = cluster.target(image=OUR_IMAGE)
    question = Smoke(line=1, body=body(), predictions=[1.5], tolerance=0.6)  # as versions 1 and 2 do

    def make(version: int, bad: bool) -> Release:
        return cluster.release(version, "bad" if bad else "good", model=MODEL)

    environ = {"KUBECONFIG": str(cluster.kubeconfig)}
    where = (cluster.node.folder, make, of_live(target))
    return Stand(name, target, *where, question, seconds_back=60.0, environ=environ)


@pytest.fixture(scope="session")
def kubernetes_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """The stand-in of an API server, with pods that are processes of this machine."""
    with stand_in_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster_stand("kubernetes", cluster)


@pytest.fixture(scope="session")
def api_server_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A real API server, where there is one; its pods are processes of this machine as well."""
    if not api_server.there_is_one():
        pytest.skip(api_server.NO_SERVER)
    folder = tmp_path_factory.mktemp("api-server")
    with api_server.api_server(folder) as file, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(file))
        install(Api.connect(KubernetesServing.model_validate({"namespace": NAMESPACE})))
        with real_cluster(tmp_path_factory.mktemp("cluster"), file) as cluster:
            yield cluster_stand("api-server", cluster)


TARGETS = ("local", pytest.param("docker", marks=pytest.mark.xdist_group("docker")), "kubernetes", "api_server")


@pytest.fixture(params=TARGETS)
def stand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """Each target in turn; those that cannot run here are skipped, and say why. What a test started ends with it."""
    found: Stand = request.getfixturevalue(f"{request.param}_stand")
    for name, value in found.environ.items():
        monkeypatch.setenv(name, value)
    yield found
    while found.used:
        found.target.stop(found.used.pop())
