"""A forge with its pages and a few people, and a browser without a screen."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING

import httpx

from mlp_ci.sandbox.forge import pulls, pushes, repositories, runs, seed
from mlp_ci.sandbox.forge.access import Actor, Forge
from mlp_ci.sandbox.forge.pages import login_code, pages
from mlp_ci.sandbox.forge.records import Event, Pull, Repo, Run
from mlp_ci.sandbox.forge.repos import ZERO
from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedTeam, SeedUser
from mlp_ci.sandbox.forge.server import ForgeServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOME = "/acme/flight-delay"
FLOW = b"""\
name: Rollback
on:
  workflow_dispatch:
    inputs:
      stage: {type: choice, options: [staging, production], required: true, default: production}
      reason: {description: Why, required: true}
      dry: {type: boolean, default: true}
jobs: {}
"""
FILES = {
    "README.md": b"# Flights\n\n[code](src/train.py) ![plot](docs/plot.png)\n",
    "promotion.yaml": b"production: 1\n",
    "src/train.py": b'def main():\n    """<script>alert(1)</script>"""\n',
    "docs/plot.png": b"\x89PNG\r\n\x1a\n\0",
    "page.html": b"<script>alert(1)</script>",
    ".github/workflows/rollback.yml": FLOW,
    ".github/workflows/broken.yml": b"on: [push\n",
}
WORLD = Seed(
    org="acme",
    users=(
        SeedUser("alice", "Alice", "alice@acme.test", token="alice-token"),
        SeedUser("bob", "Bob", "bob@acme.test", token="bob-token"),
        SeedUser("dave", "Dave", "dave@acme.test", token="dave-token"),
        SeedUser("eve", "Eve", "eve@outside.test", role="", token="eve-token"),
        SeedUser("mlp-ci[bot]", kind="Bot", token="app-token"),
    ),
    repos=(SeedRepo("flight-delay", collaborators={"mlp-ci[bot]": "write"}, files=FILES),),
    teams=(SeedTeam("growth-ml", ("alice", "bob"), {"flight-delay": "write"}),),
)


@dataclass
class Site:
    """A forge with its pages, and shorthands."""

    server: ForgeServer

    @property
    def forge(self) -> Forge:
        return self.server.forge

    @property
    def repo(self) -> Repo:
        return seed.repo_of(self.forge, "acme/flight-delay")

    def actor(self, login: str) -> Actor:
        user = self.forge.store.user(login)
        assert user is not None
        return Actor(user)

    def visitor(self, login: str | None = None) -> Visitor:
        visitor = Visitor(httpx.Client(base_url=self.server.url, timeout=60))
        if login:
            answer = visitor.http.get(f"/login/{login_code(self.forge.root, login)}")
            assert answer.status_code == 303
        return visitor

    def pull(self, title: str = "Promote version 2", body: str = "why", author: str = "alice") -> Pull:
        """An open pull request of ``author`` from branch ``topic``."""
        repo, actor = self.repo, self.actor(author)
        tip = self.forge.git.resolve(repo, "main") or ""
        pushes.move(self.forge, repo, actor, "refs/heads/topic", tip, ZERO)
        repositories.commit_files(self.forge, repo, actor, {"promotion.yaml": b"production: 2\n"}, "Promote", "topic")
        return pulls.open_pull(self.forge, repo, actor, ("topic", "main"), (title, body), draft=False)

    def run(self) -> Run:
        event = self.forge.store.find(Event, "event = 'push'")[-1]
        return runs.create_run(self.forge, event, ".github/workflows/ci.yml", "CI")


@dataclass
class Visitor:
    """A browser without a screen: keeps cookies, fills in forms."""

    http: httpx.Client

    def read(self, path: str) -> str:
        answer = self.http.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.headers.get("location"))
        return answer.text

    def send(self, page: str, action: str, **fields: str) -> httpx.Response:
        """Post the form of ``page`` with this action, its hidden fields as they are."""
        html = self.read(page)
        form = re.search(rf'<form method="post" action="{re.escape(action)}"(.*?)</form>', html, re.S)
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form[1] if form else html))
        outside = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)" form=', html))
        return self.http.post(action, data={**outside, **hidden, **fields})


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    with ForgeServer(folder, pages=pages) as server:
        seed.apply(server.forge, WORLD)
        yield Site(server)


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
