"""The whole machine around a town: a forge, a runner that plays the organisation's own workflows by act, a target."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci import clock, scaffold
from mlp_ci.sandbox import organisation
from mlp_ci.sandbox.execution import Event as Taken
from mlp_ci.sandbox.execution import Place
from mlp_ci.sandbox.forge import runs
from mlp_ci.sandbox.forge.records import Event, Run
from mlp_ci.sandbox.forge.server import ForgeServer
from mlp_ci.sandbox.forge_queue import ForgeQueue
from mlp_ci.sandbox.runner import Runner
from mlp_ci.serve.targets.local import local

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.attacks.town import Town

SECONDS = 240
WORKFLOWS = ("promotion", "deploy", "model-ci")


class Queue(ForgeQueue):
    """The forge's queue of events, held back until a story says that the workflows have had their time."""

    held = True

    def take_events(self) -> Sequence[Taken]:
        return [] if self.held else super().take_events()


@dataclass
class Machine:
    """A forge with a runner. ``environment`` is what every job finds."""

    server: ForgeServer
    folder: Path
    queue: Queue
    runner: Runner
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def serve_home(self) -> Path:
        return self.folder / "serve"

    def forget(self) -> None:
        """What happened so far starts no workflow: it is how the story begins."""
        for event in self.server.forge.store.find(Event, "state = 'new'"):
            self.server.forge.store.update(event, state="done")

    def work(self, town: Town) -> None:
        """Let every workflow run that has been started; of what is superseded only the newest, as GitHub would."""
        self._supersede(town)
        self.queue.held = False
        try:
            deadline = time.monotonic() + SECONDS
            while self.server.forge.store.count(Event, "state != 'done' AND suppressed = 0"):
                assert time.monotonic() < deadline, "the workflows did not end"
                time.sleep(0.05)
        finally:
            self.queue.held = True

    def _supersede(self, town: Town) -> None:
        """The workflow cancels what runs for an older state of the same pull request: start only the last."""
        store = self.server.forge.store
        waiting = store.find(Event, "state = 'new' AND repo_id = ?", town.repo.id)
        last: dict[tuple[int | None, str], int] = {}
        for event in waiting:
            if event.event in ("pull_request", "pull_request_review") and event.action != "closed":
                kind = event.event if town.odd_workflows else ""
                last[event.number, kind] = event.id
        for event in waiting:
            if event.event in ("pull_request", "pull_request_review") and event.id not in last.values():
                store.update(event, state="done")

    def runs(self, town: Town, name: str) -> list[Run]:
        """The runs of a workflow, oldest first."""
        return [r for r in self.server.forge.store.find(Run, "repo_id = ?", town.repo.id) if r.name == name]

    def log(self, run: Run) -> str:
        return runs.read_log(self.server.forge, run)


def templates(*names: str) -> dict[str, bytes]:
    """The organisation's workflows as a model repository takes them up."""
    files = {}
    for name in names:
        text = (scaffold.shipped("workflow-templates") / f"{name}.yml").read_text(encoding="utf-8")
        text = scaffold.pointed_at(text, f"acme/mlp-ci@{organisation.ACTIONS_REF}").replace("$default-branch", "main")
        files[f".github/workflows/{name}.yml"] = text.encode()
    return files


@contextmanager
def running(folder: Path, tracking_uri: str, clock_file: Path) -> Iterator[Machine]:
    """Start it; at the end nothing of it is left."""
    home = folder / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[init]\n\tdefaultBranch = main\n")
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLP_SERVE_HOME": str(folder / "serve"),
        "MLP_PREDICTION_LOG": str(folder / "log"),
        "DVC_NO_ANALYTICS": "1",
        clock.ENV: str(clock_file),
    }
    with ForgeServer(folder / "forge") as server:
        place = Place(
            folder / "runner",
            server.url,
            server.forge.api,
            environment,
            {f"acme/mlp-ci@{organisation.ACTIONS_REF}": organisation.actions_folder()},
        )
        queue = Queue(server.forge)
        made = Machine(server, folder, queue, Runner(queue, place), environment)
        made.runner.start()
        try:
            yield made
        finally:
            made.runner.stop()
            local.stop_all(made.serve_home)
