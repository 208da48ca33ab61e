"""How the demo is told: its people, its work tree, its steps as they happen and as the last screen shows them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlp_ci.context import load_context
from mlp_ci.errors import OutsideError
from mlp_ci.sandbox import organisation
from mlp_ci.sandbox.home import ORG, Home
from mlp_ci.sandbox.people import Person, person
from mlp_ci.spec import parse_platform
from mlp_ci.tracking import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlp_ci.tracking import Tracking, VersionFact

MODEL = "flight-delay"
REPO = f"{ORG}/{MODEL}"


@dataclass(frozen=True)
class Told:
    """One step as the last screen shows it."""

    title: str
    result: str
    seconds: float
    where: str


class Chapter:
    """What a step says of itself while it runs."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.result = "done"
        self.where = ""

    def note(self, text: str) -> None:
        self._say(f"   [dim]·[/dim] {text}")


@dataclass
class Story:
    """The demo as it goes: its people, its work tree, and what was told so far."""

    home: Home
    work: Path
    every: int
    say: Callable[[str], None]
    told: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alice: Person = person(self.home, "alice")
        self.bob: Person = person(self.home, "bob")
        self.carol: Person = person(self.home, "carol")

    @property
    def tree(self) -> Path:
        """Alice's work tree of the model repository."""
        return self.work / MODEL

    @contextmanager
    def step(self, title: str) -> Iterator[Chapter]:
        """Tell a step: its title now, what came of it and how long it took when it is over."""
        self.say(f"[bold cyan]{len(self.told) + 1:>2}[/] [bold]{title}[/bold]")
        chapter = Chapter(self.say)
        start = time.monotonic()
        yield chapter
        seconds = time.monotonic() - start
        self.told.append(Told(title, chapter.result, seconds, chapter.where))
        self.say(f"   [green]✓[/] {chapter.result} [dim]({seconds:.1f} s)[/dim]")
        if chapter.where:
            self.say(f"     [dim]look:[/dim] [cyan]{chapter.where}[/cyan]")

    def page(self, path: str = "") -> str:
        return f"{self.home.forge_url}/{REPO}{path}"

    def mlp(self, worker: Person, *arguments: str, cwd: Path | None = None, fine: tuple[int, ...] = (0,)) -> str:
        """Run the command line as ``worker`` and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "mlp_ci", *arguments],
            cwd=cwd or self.tree,
            env=worker.environment(),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode not in fine:
            msg = f"`mlp-ci {' '.join(arguments)}` exited with {done.returncode}:\n{done.stdout}{done.stderr}"
            raise OutsideError(msg, fix=f"look at {self.work}")
        return done.stdout

    def run(self, *command: str, **env: str) -> str:
        """Run any other command in Alice's work tree, as she would."""
        environment = self.alice.environment(**env)
        binary = shutil.which(command[0], path=environment["PATH"]) or command[0]
        done = subprocess.run(
            [binary, *command[1:]], cwd=self.tree, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            msg = f"`{' '.join(command)}` exited with {done.returncode}:\n{done.stdout}{done.stderr}"
            raise OutsideError(msg, fix=f"look at {self.tree}")
        return done.stdout

    def carol_protects_main(self) -> None:
        """From now on a merge needs the verdict of the promotion workflow."""
        organisation.protect(self.home, REPO)

    @cached_property
    def tracking(self) -> Tracking:
        """MLflow, as a team's script would ask it."""
        context = load_context(self.tree, environ=self.alice.environment())
        return connect(context, parse_platform(organisation.platform_text(self.home).encode()))

    def version(self, number: int) -> VersionFact:
        """What MLflow knows of a version."""
        return self.tracking.version(MODEL, number)

    def evidence(self, version: int) -> dict[str, Any]:
        """The evidence of a version, from MLflow."""
        return dict(self.tracking.read_json(self.version(version).run_id, self.version(version).evidence_file))

    def drift_report(self, version: int) -> str:
        """The page in MLflow that shows the newest drift report of a version in production."""
        run_id = self.version(version).run_id
        newest = self.tracking.read_json(run_id, "monitor/production-latest.json")
        return f"{self.tracking.run_page(run_id)}/artifacts/{newest['report']}"

    def run_of(
        self, workflow: str, *, sha: str = "", event: str = "", conclusion: str | None = "success"
    ) -> dict[str, Any]:
        """Wait for the run of a workflow on a commit; raises unless it ended with ``conclusion``."""

        def wanted(run: dict[str, Any]) -> bool:
            named = run["path"].endswith(f"/{workflow}.yml")
            return named and (not sha or run["head_sha"] == sha) and (not event or run["event"] == event)

        run = self.alice.wait_for_run(REPO, wanted)
        if conclusion and run["conclusion"] != conclusion:
            msg = f"{workflow} ended with {run['conclusion']}, not {conclusion}"
            raise OutsideError(msg, fix=f"read its log: {run['html_url']}")
        return run
