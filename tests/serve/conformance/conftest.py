"""The targets that this machine can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.serve.conformance.stands import Stand, models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlp_ci.serve.state import Place


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that answers, and a broken one."""
    return models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def local_stand(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    from mlp_ci.serve.targets.local import local

    home = tmp_path_factory.mktemp("local") / "serve"

    def address(place: Place) -> tuple[str, int]:
        fact = local.live(place)
        assert fact is not None
        return "127.0.0.1", int(fact.address.rpartition(":")[2])

    yield Stand("local", local, home, *folders, address)
    local.stop_all(home)


@pytest.fixture(params=["local", "docker"])
def stand(request: pytest.FixtureRequest) -> Stand:
    """Each target in turn; those that cannot run here are skipped, and say why."""
    found: Stand = request.getfixturevalue(f"{request.param}_stand")
    return found
