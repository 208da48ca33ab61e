"""A forge, and `mlp-ci doctor --github` of its repositories, for the tests of it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from mlp_ci.context import Context, GitHubPlace
from mlp_ci.doctor import examine
from mlp_ci.report import Report
from mlp_ci.sandbox.forge import events, runs, seed
from mlp_ci.sandbox.forge.records import Event
from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedTeam, SeedUser
from mlp_ci.sandbox.forge.server import ForgeServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REPO = "/repos/acme/flight-delay"
OWNED = b"/.github/ @acme/platform\n/model.yaml @acme/platform\n"
PLATFORM = b"apiVersion: mlp-ci/v1\nstages: [{name: staging}, {name: production}]\n"
WORLD = Seed(
    org="acme",
    users=(
        SeedUser("alice", "Alice", "alice@acme.test", token="alice-token"),
        SeedUser("carol", "Carol", "carol@acme.test", role="admin", token="carol-token"),
        SeedUser("mlp-ci[bot]", "mlp-ci[bot]", kind="Bot", role="app", token="app-token"),
    ),
    repos=(
        SeedRepo("flight-delay", files={"README.md": b"#\n", ".github/CODEOWNERS": OWNED}),
        SeedRepo("open-data", private=False, files={"README.md": b"#\n"}),
        SeedRepo(".github", private=False, files={"platform.yaml": PLATFORM}),
    ),
    teams=(
        SeedTeam("growth-ml", ("alice",), {"flight-delay": "write"}),
        SeedTeam("platform", ("carol",), {"flight-delay": "maintain"}),
    ),
)


class World:
    """A forge, and `doctor --github` of a repository on it."""

    def __init__(self, server: ForgeServer, folder: Path) -> None:
        self.forge = server.forge
        self.api = f"{server.url}/api/v3"
        self.folder = folder

    def doctor(self, token: str = "carol-token", repo: str = "flight-delay", *, fix: bool = False) -> Report:
        place = GitHubPlace(owner="acme", repo=repo, api_url=self.api, server_url=self.api, token=token)
        folder = self.folder
        ctx = Context(repo=folder, work=folder, serve_home=folder, prediction_log=folder, github=place)
        return examine(ctx, github=True, fix=fix)

    def ask(self, method: str, path: str, body: Any = None, token: str = "carol-token") -> Any:
        answer = httpx.request(method, self.api + path, json=body, headers={"Authorization": f"token {token}"})
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def ruleset(self, name: str) -> Any:
        found = [r for r in self.ask("GET", REPO + "/rulesets?per_page=100") if r["name"] == name]
        return self.ask("GET", f"{REPO}/rulesets/{found[0]['id']}")

    def run_token(self) -> str:
        row = seed.repo_of(self.forge, "acme/flight-delay")
        events.take_events(self.forge.store)
        event = self.forge.store.find(Event, "repo_id = ?", row.id)[-1]
        run = runs.create_run(self.forge, event, ".github/workflows/ci.yml", "CI")
        return runs.mint_run_token(self.forge, run, {"contents": "write", "statuses": "write", "actions": "write"})

    def propose(self) -> str:
        tip = self.ask("GET", REPO + "/git/ref/heads/main")["object"]["sha"]
        self.ask("POST", REPO + "/git/refs", {"ref": "refs/heads/topic", "sha": tip})
        body = {"message": "m", "content": "", "branch": "topic"}
        sha = self.ask("PUT", REPO + "/contents/new.txt", body)["commit"]["sha"]
        self.ask("POST", REPO + "/pulls", {"title": "T", "head": "topic", "base": "main"})
        return str(sha)

    def set_status(self, sha: str, token: str) -> None:
        self.ask("POST", f"{REPO}/statuses/{sha}", {"state": "success", "context": "mlp-ci/approvals"}, token)


@contextmanager
def running(folder: Path, given: Seed = WORLD, wrap: Callable[[Any], Any] | None = None) -> Iterator[World]:
    """The forge with ``given`` on it, and a folder for a model's clone."""
    (folder / "model").mkdir()
    with ForgeServer(folder / "forge", wrap=wrap) as server:
        seed.apply(server.forge, given)
        yield World(server, folder / "model")


def lines(report: Report) -> dict[str, dict[str, Any]]:
    return {line["setting"]: line for line in report.data["settings"]}


def wrong(report: Report) -> set[str]:
    return {name for name, line in lines(report).items() if line["outcome"] == "fail"}


def loose(world: World) -> dict[str, Any]:
    """All settings of the repository, to see whether they changed."""
    settings = REPO + "/actions/permissions"
    paths = ("/rulesets", "/environments", "/actions/permissions", "/actions/permissions/workflow")
    forks = world.ask("GET", settings + "/fork-pr-workflows-private-repos")
    return {**{path: world.ask("GET", REPO + path) for path in paths}, "forks": forks}
