"""What is started once for many tests: an engine, the layers of images, a model server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.serve.engine import engine_with_base
from tests.serve.servers import serving
from tests.serving import save_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.serve.engine import Daemon
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
