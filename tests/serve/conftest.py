"""An engine for the tests of a process, and the layers of images, which all engines of a machine may share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.serve.engine import engine_with_base

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.serve.engine import Daemon


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
