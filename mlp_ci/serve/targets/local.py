"""The local target: processes on this machine, under a supervisor that survives the command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.serve import processes, reach
from mlp_ci.serve.state import Place, Server
from mlp_ci.serve.targets.machine import Machine

if TYPE_CHECKING:
    from mlp_ci.serve.targets import Release, Settings
    from mlp_ci.spec import PlatformSpec

_MS = timedelta(milliseconds=1)


class Processes:
    """Servers as processes: the supervisor starts what state.json names and ends what it no longer names."""

    def entry(self, place: Place, release: Release, settings: Settings, port: int) -> Server:
        return Server(
            version=release.version,
            digest=release.digest,
            port=port,
            artefact=str(release.artefact),
            python=processes.lasting_interpreter(),
            options=options_of(settings),
        )

    def usable(self, server: Server) -> bool:
        return not server.image and Path(server.python).exists()

    def start(self, place: Place, server: Server) -> None:
        """Nothing more than to have a supervisor, which every preparation sees to."""

    def started(self, place: Place, server: Server) -> bool:
        return reach.started(place, server)

    def runs(self, place: Place, server: Server) -> bool:
        return reach.runs(place, f"v{server.version}")

    def end(self, place: Place, server: Server) -> None:
        """Nothing more than to take it out of state.json, which was done."""

    def stop(self, place: Place) -> None:
        """Nothing more than to end the supervisor, which was done."""

    def changes(self, server: Server | None, release: Release, settings: Settings) -> str:
        if server is None:
            return f"+ a server of version {release.version} ({release.digest[:19]}) as a process of this machine\n"
        if server.options == options_of(settings):
            return ""
        return f"  version {release.version} runs on with the settings that it was started with\n"


def options_of(settings: Settings) -> dict[str, Any]:
    """Arguments of the model server, by name; only those that differ from its own defaults."""
    serve, own = settings.serve, type(settings.serve).model_validate({})
    wanted = {
        "--workers": (serve.workers, own.workers),
        "--max-rows": (serve.batching.max_rows, own.batching.max_rows),
        "--max-delay-ms": (serve.batching.max_delay / _MS, own.batching.max_delay / _MS),
    }
    return {name: value for name, (value, default) in wanted.items() if value != default}


@dataclass(frozen=True)
class Local(Machine):
    """Processes of this machine, for every model and stage under one folder."""

    def status(self, home: Path) -> list[dict[str, Any]]:
        """One entry per model and stage: address, live version, arms, processes."""
        return [told for place in _places(home) if (told := self.describe(place))]

    def stop_all(self, home: Path) -> list[str]:
        """End everything that runs under ``home``; returns what was stopped, as ``<model> in <stage>``."""
        for place in _places(home):
            self.stop(place)
        return [str(place) for place in _places(home)]


def _places(home: Path) -> list[Place]:
    return [Place(home, f.parent.parent.name, f.parent.name) for f in sorted(home.glob("*/*/state.json"))]


local = Local(Processes())


def target(_platform: PlatformSpec | None) -> Local:
    """The one local target: nothing of platform.yaml concerns it."""
    return local
