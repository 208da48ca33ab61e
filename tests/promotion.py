"""A forge with the sandbox's people and one model repository, for tests of GitHub and of promotions."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci import clock
from mlp_ci.context import Context, GitHubPlace
from mlp_ci.github import Hub, connect
from mlp_ci.sandbox.forge import merging, pulls, repositories, reviews, seed
from mlp_ci.sandbox.forge.access import Actor, Forge
from mlp_ci.sandbox.forge.records import Pull, Repo
from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedRule, SeedTeam, SeedUser
from mlp_ci.sandbox.forge.server import ForgeServer
from mlp_ci.spec import PromotionSpec, Quarantined, StageEntry, render_promotion
from mlp_ci.tracking import Tracking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODEL = "arrival-delay"  # other tests use other names in the same MLflow
MODEL_YAML = """\
apiVersion: mlp-ci/v1
name: arrival-delay
team: growth
tier: standard
data:
  train: data/train.parquet
  test: data/test.parquet
  target: delayed
  columns:
    distance: {type: float}
train: {command: python train.py}
evaluate:
  gates:
    - {metric: roc_auc, min: 0.7}
"""
PLATFORM_YAML = """\
apiVersion: mlp-ci/v1
organisation: acme
stages: [{name: staging}, {name: production}]
"""
# The first commit of every world, by fixed bytes at a fixed time: versions are registered once for many worlds.
ROOT = "b97c0d0adb45c8ec4590c9e84cb475a2dfdf89aa"
ROOT_FILES = {"train.py": b"print('trained')\n"}
DIGESTS = {n: f"sha256:{n:064x}" for n in range(1, 10)}


def entry(version: int) -> StageEntry:
    return StageEntry(version=version, digest=DIGESTS[version])


def promotion(quarantine: tuple[Quarantined, ...] = (), **stages: int) -> bytes:
    """The text of promotion.yaml with these versions in these stages."""
    entries = {stage: entry(version) for stage, version in stages.items()}
    spec = PromotionSpec(apiVersion="mlp-ci/v1", model=MODEL, stages=entries, quarantine=quarantine)
    return render_promotion(spec).encode()


def world_seed(*, tier: str = "standard", rules: tuple[SeedRule, ...] = (), stages: str = "") -> Seed:
    files = {
        "model.yaml": MODEL_YAML.replace("tier: standard", f"tier: {tier}").encode(),
        "promotion.yaml": stages.encode() or promotion(),
    }
    return Seed(
        org="acme",
        users=(
            SeedUser("alice", "Alice Ash", "alice@acme.test", token="alice-token"),
            SeedUser("bob", "Bob Birch", "bob@acme.test", token="bob-token"),
            SeedUser("carol", "Carol Cedar", "carol@acme.test", role="admin", token="carol-token"),
            SeedUser("dave", "Dave Dogwood", "dave@acme.test", token="dave-token"),
            SeedUser("mlp-ci[bot]", "mlp-ci[bot]", kind="Bot", token="app-token"),
        ),
        repos=(
            SeedRepo(MODEL, collaborators={"mlp-ci[bot]": "write", "dave": "read"}, files=files, rules=rules),
            SeedRepo(".github", private=False, files={"platform.yaml": PLATFORM_YAML.encode()}),
        ),
        teams=(SeedTeam("growth-ml", ("alice", "bob"), {MODEL: "write"}), SeedTeam("platform", ("carol",))),
    )


REGISTERED = {1: "pass", 2: "pass", 3: "pass", 4: "fail", 5: "pass"}


@cache
def register_versions(tracking_uri: str) -> Tracking:
    """Once per MLflow: versions 1 to 5 of the model, each with a run and evidence; version 4 did not pass its gate."""
    tracking = Tracking(tracking_uri)
    experiment = tracking.experiment(MODEL, create=True)
    assert experiment is not None
    tracking.register_model(MODEL, "", {})
    for number, gate in REGISTERED.items():
        tags = {"mlp.status": "trained", "mlp.train_seconds": "90", "mlp.runner": "default"}
        run = tracking.start_run(experiment, f"run {number}", tags, datetime(2013, 4, number, tzinfo=UTC))
        roc_auc = 0.70 + number / 100
        tracking.log(run, params={"rate": str(number / 10)}, metrics={"roc_auc": roc_auc})
        evidence = {
            "rows": 1234,
            "outcome": gate,
            "champions": {"production": {"version": 1, "digest": DIGESTS[1]}},
            "champion_metrics": {"production": {"roc_auc": {"value": 0.69}}},
            "metrics": {"roc_auc": {"value": roc_auc, "low": roc_auc - 0.01, "high": roc_auc + 0.01}},
            "gates": [{"gate": "roc_auc at least 0.7", "outcome": gate, "message": f"{roc_auc:.2f}"}],
        }
        with TemporaryDirectory() as folder:
            file = Path(folder) / "evidence.json"
            file.write_text(json.dumps(evidence))
            seen = hashlib.sha256(file.read_bytes()).hexdigest()
            tracking.log_file(run, file)
        tracking.set_status(run, "FINISHED", datetime(2013, 4, number, 0, 2, tzinfo=UTC))
        data = json.dumps({"data/train.parquet": f"md5:{number:032x}"})
        made = tracking.create_version(
            MODEL,
            run,
            {
                "mlp.digest": DIGESTS[number],
                "mlp.gate": gate,
                "mlp.evidence": f"sha256:{seen}",
                "mlp.commit": ROOT,
                "mlp.data": data,
            },
            "",
        )
        assert made.number == number
    return tracking


TOKENS = {"alice": "alice-token", "bob": "bob-token", "carol": "carol-token", "dave": "dave-token", "app": "app-token"}


class Faults:
    """ASGI middleware between the client and the forge: counts requests, and fails those that a test names."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.plan: list[tuple[str, int, dict[str, str], bool]] = []
        self.lose: int | None = None  # the answer to the request with this index, from now on, gets lost
        self._app: Any = None

    def fail(self, request: str, status: int, *, times: int = 1, done: bool = False, **headers: str) -> None:
        """Answer requests that contain ``request`` with ``status``; ``done``: only after the forge did the work."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.plan += [(request, status, names, done)] * times

    def __call__(self, app: Any) -> Any:
        self._app = app
        return self._handle

    async def _handle(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = f"{scope['method']} {scope['path']}"
        self.requests.append(name)
        planned = next((p for p in self.plan if p[0] in name), None)
        if self.lose is not None:
            planned = (name, 502, {}, True) if self.lose == 0 else None
            self.plan += [planned] if planned else []
            self.lose = self.lose - 1 if self.lose else None
        if planned is None:
            await self._app(scope, receive, send)
            return
        self.plan.remove(planned)
        _, status, headers, done = planned
        if done:
            await self._app(scope, receive, _swallow)
        body = json.dumps({"message": "the server is on fire"}).encode()
        sent = [(k.encode(), v.encode()) for k, v in {"content-type": "application/json", **headers}.items()]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": body})

    def writes(self) -> list[str]:
        return [r for r in self.requests if not r.startswith("GET ")]


async def _swallow(message: Any) -> None:
    return None


@dataclass
class World:
    """The forge, and shorthands for what people do there."""

    server: ForgeServer
    faults: Faults
    folder: Path
    tracking_uri: str = ""
    registered: dict[int, str] = field(default_factory=dict)

    @property
    def forge(self) -> Forge:
        return self.server.forge

    @property
    def repo(self) -> Repo:
        return seed.repo_of(self.forge, f"acme/{MODEL}")

    def actor(self, login: str) -> Actor:
        user = self.forge.store.user(login)
        assert user is not None
        return Actor(user)

    def place(self, login: str = "app", **changes: Any) -> GitHubPlace:
        known: dict[str, Any] = {
            "owner": "acme",
            "repo": MODEL,
            "api_url": self.forge.api,
            "server_url": self.server.url,
            "token": TOKENS.get(login, login),
        }
        return GitHubPlace(**{**known, **changes})

    def hub(self, login: str = "app", *, patience: float = 20.0) -> Hub:
        return connect(self.place(login), patience=patience)

    def ctx(self, login: str = "app", *, in_job: bool = False, event: Mapping[str, Any] | None = None) -> Context:
        repo = self.folder / "checkout"
        repo.mkdir(exist_ok=True)
        return Context(
            repo=repo,
            work=self.folder / "work",
            serve_home=self.folder / "serve",
            prediction_log=self.folder / "log",
            tracking_uri=self.tracking_uri,
            github=self.place(login, event=event or {}, run_id="1" if in_job else ""),
            in_job=in_job,
        )

    def push(self, login: str, files: Mapping[str, bytes | None], message: str = "Push", branch: str = "main") -> str:
        """A commit straight onto a branch (made from main when it is new)."""
        self.ensure_branch(branch)
        return repositories.commit_files(self.forge, self.repo, self.actor(login), dict(files), message, branch)

    def ensure_branch(self, branch: str) -> None:
        hub = self.hub("carol")
        if hub.trees.head(branch) is None:
            hub.trees.point(branch, hub.head("main"), force=False)

    def open(self, login: str, files: Mapping[str, bytes | None], branch: str, title: str = "Promote") -> int:
        """A branch with one commit and a pull request from it, both by this person; returns the number."""
        self.push(login, files, title, branch)
        ends, text = (branch, "main"), (title, "")
        return pulls.open_pull(self.forge, self.repo, self.actor(login), ends, text, draft=False).number

    def pull_row(self, number: int) -> Pull:
        row = self.forge.store.first(Pull, "repo_id = ? AND number = ?", self.repo.id, number)
        assert row is not None
        return row

    def review(self, login: str, number: int, verdict: str = "APPROVE", commit: str = "") -> Any:
        return reviews.submit(self.forge, self.actor(login), self.pull_row(number), verdict, f"{login} says", commit)

    def merge(self, login: str, number: int, method: str = "merge") -> str:
        row = self.pull_row(number)
        return merging.merge(self.forge, self.repo, self.actor(login), row, merging.Wish(method))

    def main(self) -> str:
        return self.hub("carol").head("main")


@contextmanager
def running_world(folder: Path, described: Seed | None = None, tracking_uri: str = "") -> Iterator[World]:
    faults = Faults()
    with ForgeServer(folder / "forge", wrap=faults) as server:
        plant(server.forge, folder, described or world_seed())
        yield World(server, faults, folder, tracking_uri)


def plant(forge: Forge, folder: Path, described: Seed) -> None:
    """Seed the forge; the model's repository begins with the same commit in every world."""
    files = next(r.files for r in described.repos if r.name == MODEL)
    seed.apply(
        forge, replace(described, repos=tuple(replace(r, files={}) if r.name == MODEL else r for r in described.repos))
    )
    repo, carol = seed.repo_of(forge, f"acme/{MODEL}"), forge.store.user("carol")
    assert carol is not None
    still = folder / "clock"
    still.write_text("2013-01-01T00:00:00+00:00")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.ENV, str(still))
        root = repositories.commit_files(forge, repo, Actor(carol), ROOT_FILES, "Begin")
    assert root == ROOT
    repositories.commit_files(forge, repo, Actor(carol), files, "Initial commit")
