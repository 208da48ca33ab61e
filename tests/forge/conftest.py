"""A forge on a free port with the sandbox's people in it; every answer is held to GitHub's OpenAPI description."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import github
import httpx
import pytest
from starlette.routing import Match

from mlp_ci.sandbox.forge import seed
from mlp_ci.sandbox.forge.records import Event, Repo, User
from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedTeam, SeedUser
from mlp_ci.sandbox.forge.server import ForgeServer
from tests.forge.openapi import check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlp_ci.sandbox.forge.access import Forge

API = "/api/v3"
WORLD = Seed(
    org="acme",
    users=(
        SeedUser("alice", "Alice Ash", "alice@acme.test", token="alice-token"),
        SeedUser("bob", "Bob Birch", "bob@acme.test", token="bob-token"),
        SeedUser("carol", "Carol Cedar", "carol@acme.test", role="admin", token="carol-token"),
        SeedUser("dave", "Dave Dogwood", "dave@acme.test", token="dave-token"),
        SeedUser("eve", "Eve Elm", "eve@outside.test", role="", token="eve-token"),
        SeedUser("mlp-ci[bot]", "mlp-ci[bot]", kind="Bot", token="app-token"),
    ),
    repos=(
        SeedRepo(
            "flight-delay",
            collaborators={"mlp-ci[bot]": "write"},
            secrets={"MLP_CI_TOKEN": "app-token"},
            variables={"STAGE": "test"},
            files={"README.md": b"# flight-delay\n", "promotion.yaml": b"stages: {}\n"},
        ),
        SeedRepo("open-data", private=False, files={"README.md": b"# open\n"}),
    ),
    teams=(SeedTeam("growth-ml", ("alice", "bob"), {"flight-delay": "write"}), SeedTeam("platform", ("carol",))),
)


class Recorder:
    """ASGI middleware that checks every answer of the API against its response model."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.seen: set[tuple[str, str]] = set()
        self._app: Any = None

    def __call__(self, app: Any) -> Any:
        self._app = app
        return self._watch

    async def _watch(self, scope: Any, receive: Any, send: Any) -> None:
        name = self._operation(scope) if scope["type"] == "http" else None
        if name is None:
            await self._app(scope, receive, send)
            return
        status, kind, chunks = 0, b"", []

        async def relay(message: Any) -> None:
            nonlocal status, kind
            status = message.get("status", status)
            kind = dict(message.get("headers", ())).get(b"content-type", kind)
            chunks.append(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, relay)
        method, template = name.split(" ")
        self.seen.add((method, template))
        asked = dict(scope["headers"]).get(b"accept", b"")
        # Asked for as a diff or as raw bytes, an answer has no JSON to check.
        other = status == 200 and b"json" not in kind and any(word in asked for word in (b"raw", b"diff"))
        try:
            problem = "" if other else check(method, template, status, b"".join(chunks))
        except Exception as error:  # a checker that fails must fail the test, not the answer
            problem = f"could not be checked: {error!r}"
        if problem:
            self.problems.append(f"{name} ({scope['path']}) {status} {problem}")
        if status >= 500:
            self.problems.append(f"{name} ({scope['path']}) answered {status}")

    def _operation(self, scope: Any) -> str | None:
        if not scope["path"].startswith(API):
            return None
        mount = next(route for route in self._app.routes if getattr(route, "path", "") == API)
        inner = {**scope, "root_path": API}
        for route in mount.routes:
            if route.matches(inner)[0] == Match.FULL:
                return str(route.name)
        return None


@dataclass
class World:
    """A running forge and shorthands to act on it."""

    server: ForgeServer
    home: Path
    recorder: Recorder
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def forge(self) -> Forge:
        return self.server.forge

    @property
    def api(self) -> str:
        return self.server.url + API

    def repo_row(self, name: str = "acme/flight-delay") -> Repo:
        return seed.repo_of(self.forge, name)

    def org(self) -> User:
        found = self.forge.store.user("acme")
        assert found is not None
        return found

    def hub(self, login: str) -> github.Github:
        """PyGithub as this user."""
        auth = github.Auth.Token(self.tokens[login])
        return github.Github(
            base_url=self.api, auth=auth, retry=None, seconds_between_requests=0, seconds_between_writes=0
        )

    def repo(self, login: str, name: str = "acme/flight-delay") -> Any:
        return self.hub(login).get_repo(name)

    def http(self, login: str | None = "alice") -> httpx.Client:
        """Plain HTTP, for what PyGithub would never send."""
        headers = {"Authorization": f"token {self.tokens[login]}"} if login else {}
        return httpx.Client(base_url=self.api, headers=headers, timeout=60)

    def url(self, login: str, name: str = "acme/flight-delay") -> str:
        return self.server.url.replace("://", f"://{login}:{self.tokens[login]}@") + f"/{name}.git"

    def git(self, folder: Path | str, *args: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "HOME": str(self.home),
        }
        done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0 or not ok, done.stderr
        return done

    def clone(self, login: str, name: str = "acme/flight-delay") -> Path:
        folder = self.home / f"{login}-{len(list(self.home.iterdir()))}"
        self.git(self.home, "clone", "-q", self.url(login, name), str(folder))
        self.git(folder, "config", "user.name", login)
        self.git(folder, "config", "user.email", f"{login}@acme.test")
        return folder

    def commit(self, folder: Path, files: dict[str, str], message: str = "Change", branch: str = "") -> str:
        """Write files, commit them (on a new branch) and give the commit."""
        if branch:
            self.git(folder, "checkout", "-q", "-B", branch)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        self.git(folder, "add", "-A")
        self.git(folder, "commit", "-q", "-m", message)
        return self.git(folder, "rev-parse", "HEAD").stdout.strip()

    def push(self, folder: Path, *refs: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self.git(folder, "push", "-q", "origin", *(refs or ("HEAD",)), ok=ok)

    def events(self, name: str = "") -> list[Event]:
        return [e for e in self.forge.store.find(Event) if name in ("", e.event)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    recorder = Recorder()
    home = tmp_path / "home"
    home.mkdir()
    with ForgeServer(tmp_path / "forge", wrap=recorder) as server:
        tokens = seed.apply(server.forge, WORLD)
        yield World(server, home, recorder, tokens)
    assert recorder.problems == []
