"""The place where an attack happens: an organisation of its own on a forge, a registry, a clock, people with tokens.

Everything that people do there is a request to GitHub's REST API with their own token, so that no story can do what
its people may not do.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from mlp_ci import clock
from mlp_ci.context import Context, GitHubPlace
from mlp_ci.github import Hub, connect
from mlp_ci.sandbox.forge import repositories, seed
from mlp_ci.sandbox.forge.access import Actor
from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedTeam, SeedUser
from tests.attacks.registry import Registry, Version

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlp_ci.sandbox.forge.access import Forge
    from mlp_ci.sandbox.forge.records import Repo
    from mlp_ci.sandbox.forge.server import ForgeServer
    from tests.attacks.story import Story

MODEL_YAML = """\
apiVersion: mlp-ci/v1
name: {name}
team: growth
tier: {tier}
data:
  train: data/train.parquet
  test: data/test.parquet
  key: [flight_id]
  target: delayed
  columns:
    distance: {{type: float}}
    hour: {{type: int}}
    carrier: {{type: string}}
train: {{command: python train.py}}
evaluate:
  gates:
    - {{metric: roc_auc, min: 0.7}}
serve:
  rollout: {{strategy: canary, steps: [100]}}
"""
# One stage, so that each story tells of its attack and of nothing else; those about stages add one.
PLATFORM: dict[str, Any] = {
    "apiVersion": "mlp-ci/v1",
    "organisation": "acme",
    "platform_team": "platform",
    "stages": [{"name": "production"}],
    "tiers": {
        "low": {"approvals": {"production": 0}, "merge": "machine"},
        "standard": {"approvals": {"production": 1}},
        "critical": {"approvals": {"production": 2}},
    },
}
BEGIN = datetime.fromisoformat("2026-03-02T08:00:00+00:00")
BOT = "mlp-ci[bot]"
# mallory is a member of the team that owns the model, like alice and bob; dave may only read; eve is nobody.
PEOPLE = {"alice": "Ash", "bob": "Birch", "mallory": "Maple", "dave": "Dogwood", "erin": "Elm", "carol": "Cedar"}
MERGED = (200, 201, 202, 204)


class No(AssertionError):
    """GitHub refused what somebody tried."""

    def __init__(self, answer: httpx.Response) -> None:
        request = answer.request
        super().__init__(f"{request.method} {request.url.path}: {answer.status_code} {answer.text[:300]}")
        self.status = answer.status_code


def mail_of(who: str) -> str:
    """Somebody's address by login; what is an address already stays one."""
    return who if "@" in who else f"{who.removesuffix('[bot]')}@acme.test"


def identity(who: str) -> dict[str, str]:
    return {"name": who.partition("@")[0].capitalize(), "email": mail_of(who)}


def token_of(login: str) -> str:
    return f"{login.removesuffix('[bot]')}-token"


@dataclass
class Clock:
    """The clock of everything in this process and in the jobs. A story moves it; else it stands still, or ``runs``."""

    file: Path
    now: datetime = BEGIN
    runs: bool = False

    def __post_init__(self) -> None:
        self.move(timedelta())

    def move(self, by: timedelta) -> None:
        if self.runs:
            self.now = max(self.now, clock.instant_of(self.file.read_text())) if by else self.now
            self.now += by
            clock.set_instant(self.file, self.now)
            return
        self.now += by
        scratch = self.file.with_suffix(".new")
        scratch.write_text(self.now.isoformat())
        scratch.replace(self.file)


@dataclass
class Town:
    """An organisation with one model, for one story."""

    server: ForgeServer
    clock: Clock
    folder: Path
    registry: Registry
    org: str
    model: str
    versions: dict[int, Version] = field(default_factory=dict)
    odd_workflows: bool = False  # whether a pull request brings workflows of its own
    # Connections are given up before the forge does, which may be at the moment of the next request.
    _http: httpx.Client = field(
        default_factory=lambda: httpx.Client(verify=False, timeout=60, limits=httpx.Limits(keepalive_expiry=2))
    )

    @property
    def forge(self) -> Forge:
        return self.server.forge

    @property
    def path(self) -> str:
        return f"/repos/{self.org}/{self.model}"

    @property
    def repo(self) -> Repo:
        return seed.repo_of(self.forge, f"{self.org}/{self.model}")

    # ------------------------------------------------------------ people

    def api(self, who: str, method: str, path: str, body: Any = None) -> Any:
        """A request to GitHub's REST API with somebody's own token; raises :class:`No` when it is refused."""
        url = f"{self.forge.api}{path if path.startswith(('/orgs', '/repos')) else self.path + path}"
        headers = {"Authorization": f"Bearer {token_of(who)}"}
        answer = self._http.request(method, url, json=body, headers=headers)
        if answer.status_code not in MERGED:
            raise No(answer)
        return answer.json() if answer.content else None

    def actor(self, login: str) -> Actor:
        user = self.forge.store.user(login)
        assert user is not None
        return Actor(user)

    # ------------------------------------------------------------ what mlp-ci sees

    def place(self, **changes: Any) -> GitHubPlace:
        known: dict[str, Any] = {
            "owner": self.org,
            "repo": self.model,
            "api_url": self.forge.api,
            "server_url": self.server.url,
            "token": token_of(BOT),
        }
        return GitHubPlace(**{**known, **changes})

    def hub(self) -> Hub:
        return connect(self.place(), patience=20.0)

    def ctx(self, event: Mapping[str, Any] | None = None) -> Context:
        """As in a job that ``event`` started, or else at somebody's desk."""
        checkout = self.folder / "checkout"
        checkout.mkdir(exist_ok=True)
        return Context(
            repo=checkout,
            work=self.folder / "work",
            serve_home=self.folder / "serve",
            prediction_log=self.folder / "log",
            tracking_uri=self.registry.tracking.uri,
            github=self.place(event=event or {}, run_id="1" if event else ""),
            in_job=event is not None,
        )

    # ------------------------------------------------------------ git

    def head(self, branch: str) -> str | None:
        return self.forge.git.refs(self.repo, f"refs/heads/{branch}").get(f"refs/heads/{branch}")

    def main(self) -> str:
        head = self.head("main")
        assert head
        return head

    def read(self, path: str, commit: str = "") -> bytes | None:
        return self.forge.git.read(self.repo, commit or self.main(), path)

    def promotion(self, commit: str = "") -> dict[str, Any]:
        """promotion.yaml as plain values."""
        return dict(yaml.safe_load(self.read("promotion.yaml", commit) or b"{}") or {})

    def render(self, stages: Mapping[str, Any], quarantine: list[dict[str, Any]]) -> str:
        """The text of promotion.yaml, in the order that the values have."""
        values: dict[str, Any] = {"apiVersion": "mlp-ci/v1", "model": self.model, "stages": dict(stages)}
        if quarantine:
            values["quarantine"] = quarantine
        return yaml.safe_dump(values, sort_keys=False)

    def entry(self, version: int, **more: Any) -> dict[str, Any]:
        return {"version": version, "digest": self.versions[version].digest, **more}

    def held(self, version: int) -> dict[str, Any]:
        digest = self.versions[version].digest
        return {"version": version, "digest": digest, "reason": "late at night", "since": BEGIN.isoformat()}

    def filled(self, text: str) -> str:
        """``<<digest 2>>`` and the like in a file's text."""
        text = text.replace("<<model>>", self.model)
        for number, version in self.versions.items():
            text = text.replace(f"<<digest {number}>>", version.digest)
            text = text.replace(f"<<evidence {number}>>", version.evidence)
        return text

    def commit(
        self, who: str, files: Mapping[str, Any], parents: list[str], message: str, people: Mapping[str, str]
    ) -> str:
        """A commit that no branch has yet, with the author and committer that whoever makes it chose to write."""
        items = [self._item(who, path, content) for path, content in files.items()]
        tree = self.api("carol", "GET", f"/git/commits/{parents[0]}")["tree"]["sha"]
        if items:
            tree = self.api(who, "POST", "/git/trees", {"base_tree": tree, "tree": items})["sha"]
        body = {"message": message, "tree": tree, "parents": parents}
        named = {role: identity(people.get(role) or people.get("author") or who) for role in ("author", "committer")}
        return str(self.api(who, "POST", "/git/commits", {**body, **named})["sha"])

    def _item(self, who: str, path: str, content: Any) -> dict[str, Any]:
        if content is None:
            return {"path": path, "mode": "100644", "type": "blob", "sha": None}
        if isinstance(content, dict) and "submodule" in content:
            return {"path": path, "mode": "160000", "type": "commit", "sha": self.main()}
        link = isinstance(content, dict)
        text = content["link"] if isinstance(content, dict) else content
        data = base64.b64encode(self.filled(text).encode()).decode()
        blob = self.api(who, "POST", "/git/blobs", {"content": data, "encoding": "base64"})["sha"]
        return {"path": path, "mode": "120000" if link else "100644", "type": "blob", "sha": blob}

    def point(self, who: str, branch: str, sha: str, *, force: bool = False) -> None:
        """Push: make a branch be at a commit."""
        if self.head(branch) is None:
            self.api(who, "POST", "/git/refs", {"ref": f"refs/heads/{branch}", "sha": sha})
        else:
            self.api(who, "PATCH", f"/git/refs/heads/{branch}", {"sha": sha, "force": force})


def found(
    server: ForgeServer, clock: Clock, folder: Path, registry: Registry, story: Story, extra: Mapping[str, bytes]
) -> Town:
    """The town as it is when a story begins: people, a model with its registered versions, the policy."""
    setup = story.setup
    mark = uuid.uuid4().hex[:6]
    town = Town(server, clock, folder, registry, f"acme-{mark}", f"{story.name[:40]}-{mark}".strip("-"))
    _seed(town, setup, extra)
    wanted = setup.get("registered", {1: "a", 2: "b"})
    versions = registry.register(town.model, town.main(), wanted, setup.get("undecided"))
    town.versions = versions
    given = {stage: town.entry(number) for stage, number in setup.get("live", {}).items()}
    held = [town.held(number) for number in setup.get("quarantined", [])]
    text = town.render(given, held) if given or held else ""
    if text:
        # Only the owner of the repository founds it like this; what is live there nobody has approved.
        repositories.commit_files(
            town.forge, town.repo, town.actor("carol"), {"promotion.yaml": text.encode()}, "Begin"
        )
    if setup.get("protection"):
        town.api("carol", "PUT", "/branches/main/protection", _rules(setup["protection"]))
    return town


def _rules(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "required_status_checks": {"strict": False, "contexts": wanted.get("statuses", ["mlp-ci/approvals"])},
        "enforce_admins": wanted.get("admins", False),
        "required_pull_request_reviews": {
            "required_approving_review_count": wanted.get("approvals", 1),
            "dismiss_stale_reviews": wanted.get("dismiss_stale", False),
        },
        "restrictions": None,
    }


def _seed(town: Town, setup: Mapping[str, Any], extra: Mapping[str, bytes]) -> None:
    people = [
        SeedUser(
            login, f"{login.capitalize()} {name}", mail_of(login), role="admin" if login == "carol" else "member",
            token=token_of(login),
        )
        for login, name in PEOPLE.items()
    ]  # fmt: skip
    eve = SeedUser("eve", "Eve", "eve@elsewhere.test", role="", token=token_of("eve"))
    bot = SeedUser(BOT, BOT, "mlp-ci@acme.test", kind="Bot", role="app", token=token_of(BOT))
    files: dict[str, bytes] = {
        "model.yaml": MODEL_YAML.format(name=town.model, tier=setup.get("tier", "standard")).encode(),
        "promotion.yaml": town.render({}, []).encode(),
        "train.py": b"print('trained')\n",
        "CODEOWNERS": b"* @acme/growth-ml\n",
        **{path: text.replace("<<model>>", town.model).encode() for path, text in setup.get("files", {}).items()},
        **extra,
    }
    platform = {**PLATFORM, "organisation": town.org, **setup.get("platform", {})}
    policy = yaml.safe_dump(platform).replace("<<model>>", town.model)
    teams = [
        SeedTeam("growth-ml", ("alice", "bob", "mallory"), {town.model: "write"}),
        SeedTeam("platform", ("carol",)),
    ]
    teams += [SeedTeam(slug, tuple(who), {town.model: "write"}) for slug, who in setup.get("teams", {}).items()]
    seed.apply(
        town.forge,
        Seed(
            org=town.org,
            users=(*people, eve, bot),
            teams=tuple(teams),
            repos=(
                SeedRepo(town.model, files=files, private=not setup.get("public")),
                SeedRepo(".github", private=False, files={"platform.yaml": policy.encode()}),
            ),
            secrets={"MLP_CI_TOKEN": token_of(BOT), **setup.get("secrets", {})},
            variables={"MLFLOW_TRACKING_URI": town.registry.tracking.uri, **setup.get("variables", {})},
        ),
    )
