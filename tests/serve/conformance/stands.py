"""Where strategies are tried: a target, small real models as its versions, and people who ask without pause."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlp_ci.serve.artefacts import folder_of
from mlp_ci.serve.rollout.driving import Plan
from mlp_ci.serve.smoke import Smoke
from mlp_ci.serve.state import Place
from mlp_ci.serve.targets import Release, Settings
from mlp_ci.spec.serve import Serve
from mlp_ci.tracking import artifact_digest
from tests.serving import body, save_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlp_ci.serve.targets import Target

MODEL = "flights"
CHECKS = [{"metric": "error_rate", "max_increase": 0.05}]
ROLLOUTS: Mapping[str, Mapping[str, Any]] = {
    "canary": {"steps": [20, 100], "analysis": CHECKS},
    "ab": {"steps": [50, 100], "analysis": CHECKS, "sticky": "header:X-User"},
    "shadow": {"analysis": CHECKS},
    "blue-green": {},
    "all-at-once": {},
}
# What the broken model does not know; its input example does not ask for it.
QUESTION = Smoke(line=1, body=body(), predictions=None)


@dataclass
class Stand:
    """A target and its versions. ``address`` says where clients reach a place.

    ``make`` gives a version, a good one or a broken one. ``question`` is what a broken one does not answer as it
    should. ``seconds_back`` is how long a rollback may take.
    """

    name: str
    target: Target
    home: Path
    make: Callable[[int, bool], Release]
    address: Callable[[Place], str]
    question: Smoke = QUESTION
    seconds_back: float = 2.0
    environ: Mapping[str, str] = field(default_factory=dict)
    used: list[Place] = field(default_factory=list)

    def place(self, stage: str) -> Place:
        self.used.append(Place(self.home, MODEL, stage))
        return self.used[-1]

    def release(self, version: int, *, broken: bool = False) -> Release:
        return self.make(version, broken)

    def plan(self, release: Release, strategy: str, *, seconds: float = 0.0, ask: bool = False) -> Plan:
        # A step that compares is long enough to be met by a second controller.
        least = "3s" if "analysis" in ROLLOUTS[strategy] else "0s"
        rollout = {"strategy": strategy, **ROLLOUTS[strategy], "wait": "10m", "min_step": least}
        settings = Settings(serve=Serve.model_validate({"rollout": rollout, "resources": {"memory_mb": 512}}))
        return Plan(
            release=release,
            settings=settings,
            smoke=(self.question,) if ask else (),
            watch=timedelta(seconds=seconds),
        )


def copies(home: Path, good: Path, broken: Path) -> Callable[[int, bool], Release]:
    """Versions with bytes of their own, kept where a machine keeps its artefacts."""

    def make(version: int, bad: bool) -> Release:
        folder = home.parent / "versions" / f"{version}{'b' if bad else ''}"
        if not folder.exists():
            shutil.copytree(broken if bad else good, folder)
            (folder / "version.txt").write_text(f"{version}")
        digest = artifact_digest(folder)
        kept = folder_of(home, digest)
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.symlink_to(folder)
        return Release(version=version, digest=digest, artefact=kept)

    return make


def models(folder: Path) -> tuple[Path, Path]:
    """One that answers, and one that answers its input example and fails people."""
    return save_rule(folder / "good"), save_rule(folder / "broken", fails=True)


@dataclass
class People:
    """Users who ask without pause while the ``with`` block runs. Who was answered by which version, and how."""

    address: str
    users: int = 6
    statuses: Counter[Any] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    failed_at: Counter[str] = field(default_factory=Counter)
    changes: dict[str, list[str]] = field(default_factory=dict)  # user → versions, each time it was another one
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> People:
        self._threads = [threading.Thread(target=self._ask, args=(f"u{i}",), daemon=True) for i in range(self.users)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, user: str) -> None:
        split = urlsplit(self.address)
        connection = http.client.HTTPConnection(str(split.hostname), split.port, timeout=30)
        content, met = body(), self.changes.setdefault(user, [])
        headers = {"Content-Type": "application/json", "X-User": user}
        while not self._stop.is_set():
            try:
                connection.request("POST", f"{split.path}/invocations", content, headers)
                answer = connection.getresponse()
                told = answer.read()
                # Our gateway says which version it was. In a cluster the tests' model predicts its own number: the
                # tests' Gateway does not know it (0) while something behind it splits the traffic.
                version = answer.headers.get("x-model-version", "0")
                version = version if version != "0" else str(json.loads(told)["predictions"][0])
                self.statuses[answer.status] += 1
                self.versions[version] += 1
                self.failed_at[version] += answer.status != 200
                if met[-1:] != [version]:
                    met.append(version)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.statuses[type(error).__name__] += 1
                connection.close()
                time.sleep(0.01)
        connection.close()

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(n for status, n in self.statuses.items() if status != 200)


class Killed(BaseException):
    """The controller is no more."""


@dataclass
class Mortal:
    """A target on which a controller dies: just before, or just after, the call with this number that changes it."""

    target: Any
    dies_at: int
    after: bool = False
    calls: int = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.target, name)
        if name not in ("shift", "keep", "settle", "prepare"):
            return real

        def call(*given: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self.dies_at and not self.after:
                raise Killed
            result = real(*given, **named)
            if self.calls == self.dies_at:
                raise Killed
            return result

        return call
