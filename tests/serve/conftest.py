"""What is started once for many tests: an engine, the layers of images, a model server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlp_ci.serve.targets.kubernetes import manifests
from mlp_ci.serve.targets.kubernetes.api import Api
from mlp_ci.spec.serve import KubernetesServing
from tests import api_server
from tests.serve.engine import engine_with_base
from tests.serve.kube.stand import NAMESPACE, install, real_cluster, stand_in_cluster
from tests.serve.servers import serving
from tests.serving import save_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.serve.engine import Daemon
    from tests.serve.kube.stand import Stand as Cluster
    from tests.serve.servers import Running


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    with engine_with_base() as running:
        yield running


@pytest.fixture
def docker(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """The engine, as ``docker`` finds it."""
    monkeypatch.setenv("DOCKER_HOST", daemon.address)
    return daemon


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where layers of images are kept between the tests of a process: compiling the packages takes 20 seconds."""
    return tmp_path_factory.mktemp("layers")


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of flights, saved by MLflow."""
    return save_model(tmp_path_factory.mktemp("flights") / "model")


@pytest.fixture(scope="session")
def flights_server(flights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Its server, version 3 of flights. Tests that use it say ``xdist_group("model-server")``: one start for all."""
    with serving(flights, tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a real API server that knows the custom resources."""
    if not api_server.there_is_one():
        pytest.skip(api_server.NO_SERVER)
    folder = tmp_path_factory.mktemp("api-server")
    with api_server.api_server(folder) as file, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(file))
        install(Api.connect(KubernetesServing.model_validate({"namespace": NAMESPACE})))
        yield file


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.slow)])
def kube(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster: on an API server that is only a stand-in, and on a real one where there is one."""
    if request.param == "stand-in":
        with stand_in_cluster(tmp_path) as stand:
            yield stand
        return
    with real_cluster(tmp_path, request.getfixturevalue("real_server")) as stand:
        target, place = stand.target(), stand.place()
        yield stand
        target.stop(place)
        stand.api.delete(manifests.GATEWAY_API, "HTTPRoute", "flight-delay-production")
