"""The process behind ``sandbox up``: the forge with its pages, and the runner that works for it."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from mlp_ci.errors import MlpError
from mlp_ci.sandbox import home as homes
from mlp_ci.sandbox.execution import Place
from mlp_ci.sandbox.forge.pages import pages
from mlp_ci.sandbox.forge.server import ForgeServer
from mlp_ci.sandbox.forge_queue import ForgeQueue
from mlp_ci.sandbox.home import ORG, Home
from mlp_ci.sandbox.organisation import ACTIONS_REF, actions_folder, seed
from mlp_ci.sandbox.runner import Runner
from mlp_ci.sandbox.schedule import Scheduler


def serve(home: Home) -> None:
    """Serve until the process is told to stop; then end every run and leave nothing behind."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = ForgeServer(home.root / "forge", home.forge_port, pages=pages)
    seed(server.forge, home)
    runner = Runner(ForgeQueue(server.forge), place_of(home))
    with server:
        runner.start()
        threading.Thread(target=Scheduler(server.forge).run, args=(stop,), name="schedules", daemon=True).start()
        stop.wait()
        runner.stop()


def place_of(home: Home) -> Place:
    """The machine that all runs of this sandbox share."""
    return Place(
        root=home.root / "runner",
        server_url=home.forge_url,
        api_url=home.api_url,
        environment=homes.job_environment(home),
        repositories={f"{ORG}/mlp-ci@{ACTIONS_REF}": actions_folder()},
    )


def main() -> int:
    try:
        serve(homes.read(Path(sys.argv[1])))
    except MlpError as error:
        print(f"{error.what}\n{error.fix}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
