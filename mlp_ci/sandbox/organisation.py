"""The sandbox's organisation: its people, its platform.yaml, its repositories, its schedule and its clock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlp_ci import clock, scaffold
from mlp_ci.errors import InputError
from mlp_ci.report import Report, Table
from mlp_ci.sandbox import home as homes
from mlp_ci.sandbox.home import ORG, Home
from mlp_ci.sandbox.people import Person, Refused, person

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.sandbox.forge.access import Forge

ACTIONS_REF = "v1"
NOT_FOUND = 404
PEOPLE = (
    ("alice", "Alice, data scientist", "member"),
    ("bob", "Bob, data scientist", "member"),
    ("carol", "Carol, platform team", "admin"),
    ("dave", "Dave, may only read", "member"),
)
BOT = "mlp-ci[bot]"
TEAM = "growth-ml"
_NAME = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")


def platform_text(home: Home) -> str:
    """The organisation's platform.yaml."""
    return f"""\
# What holds for every model of {ORG}. Changed by pull request, reviewed by the platform team.
apiVersion: mlp-ci/v1
organisation: {ORG}
platform_team: platform # approves changes of this file, of CODEOWNERS and of workflows
tracking: {{uri: "{home.mlflow_url}"}}
stages:
  - {{name: staging}}
  - {{name: production}}
tiers:
  low:      {{approvals: {{staging: 0, production: 0}}, merge: machine}}
  standard: {{approvals: {{staging: 0, production: 1}}}}
  critical: {{approvals: {{staging: 1, production: 2}}}}
runners:
  default:   {{labels: [ubuntu-latest], usd_per_hour: 0.48}}
  gpu-small: {{labels: [self-hosted, gpu-small], usd_per_hour: 1.20, timeout: 8h}}
serving: {{usd_per_hour: 0.10}}
"""


def actions_folder() -> Path:
    """The folder that stands for the repository ``acme/mlp-ci``: this installation's own actions."""
    return scaffold.shipped("actions").parent


def seed(forge: Forge, home: Home) -> None:
    """Make the organisation, or bring it to what this version wants; people's repositories stay as they are."""
    from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedTeam, SeedUser, apply

    users = [
        SeedUser(login, name=name, email=f"{login}@{ORG}.test", role=role, token=home.tokens[login])
        for login, name, role in PEOPLE
    ]
    users.append(
        SeedUser(BOT, name=BOT, email=f"mlp-ci-bot@{ORG}.test", kind="Bot", role="app", token=home.tokens[BOT])
    )
    shared = {"platform.yaml": platform_text(home).encode(), "README.md": f"# {ORG}\n\nThe platform.\n".encode()}
    for file in sorted(scaffold.shipped("workflow-templates").iterdir()):
        text = scaffold.pointed_at(file.read_text(encoding="utf-8"), f"{ORG}/mlp-ci@{ACTIONS_REF}")
        shared[f"workflow-templates/{file.name}"] = text.encode()
    apply(
        forge,
        Seed(
            org=ORG,
            users=tuple(users),
            teams=(SeedTeam(TEAM, members=("alice", "bob")), SeedTeam("platform", members=("carol",))),
            repos=(SeedRepo(".github", private=False, description="What holds for all models.", files=shared),),
            secrets={"MLP_CI_TOKEN": home.tokens[BOT]},
            variables={"MLFLOW_TRACKING_URI": home.mlflow_url, "MLP_CI_DEPLOY_RUNNER": "deploy"},
        ),
    )


def introduce(home: Home) -> Report:
    """Where things are and what to do next."""
    rows = [
        ("forge", home.forge_url, "repositories, pull requests, runs"),
        ("MLflow", home.mlflow_url, "runs and versions"),
        ("DVC remote", str(home.data_remote), "data"),
    ]
    report = Report(command="sandbox up", headline=f"the sandbox is up; its folder is {home.root}")
    report.tables = [Table(title="", columns=("part", "where", "what"), rows=tuple(rows))]
    report.links = [
        (f"log in as {login} (once, within 10 minutes)", login_link(home, login)) for login in ("alice", "bob")
    ]
    report.links.append(("next", f"mlp-ci sandbox create {ORG}/my-model -C my-model"))
    report.data = {"home": str(home.root), "forge": home.forge_url, "mlflow": home.mlflow_url}
    return report


def login_link(home: Home, login: str, target: str = "/") -> str:
    """A link that logs a browser in once."""
    from mlp_ci.sandbox.forge.pages import login_code

    return f"{home.forge_url}/login/{login_code(home.root / 'forge', login)}?next={target}"


def create_repository(root: Path, full_name: str, folder: Path, login: str) -> Report:
    """Make a repository on the forge (with a README, as on GitHub) if it is not there, and clone it to ``folder``."""
    home = homes.read(root)
    _check_name(full_name)
    # A .git alone is a clone that was cut off; this run finishes it.
    if folder.exists() and any(entry.name != ".git" for entry in folder.iterdir()):
        msg = f"{folder} is not empty"
        raise InputError(msg, fix="name another folder with -C; it is made for you")
    worker = person(home, login)
    new = found_repository(home, full_name)
    clone(worker, full_name, folder)
    headline = f"{full_name} is {'made' if new else 'there already'}, and cloned to {folder}"
    report = Report(command="sandbox create", headline=headline)
    report.links = [
        ("page", f"{home.forge_url}/{full_name}"),
        ("next", f"mlp-ci init {folder} --owner {ORG} --team {TEAM} --remote {home.data_remote}"),
        ("and, for a shell as this person", f'eval "$(mlp-ci sandbox env --as {login})"'),
    ]
    return report


def found_repository(home: Home, full_name: str, description: str = "") -> bool:
    """What the platform team does for a new model: a repository, and the team's right to write to it.

    False if the repository is there already; then only the team's right is seen to.
    """
    carol = person(home, "carol")
    missing = not exists(carol, full_name)
    if missing:
        name = full_name.split("/")[1]
        wanted = {"name": name, "private": True, "auto_init": True, "description": description}
        carol.api("POST", f"/orgs/{ORG}/repos", wanted)
    carol.api("PUT", f"/orgs/{ORG}/teams/{TEAM}/repos/{full_name}", {"permission": "push"})
    return missing


def exists(worker: Person, full_name: str) -> bool:
    """Whether ``worker`` can see a repository."""
    try:
        worker.api("GET", f"/repos/{full_name}")
    except Refused as refused:
        if refused.status == NOT_FOUND:
            return False
        raise
    return True


def protect(home: Home, full_name: str) -> None:
    """Let nothing be merged that the policy has not approved, and set what else `mlp-ci doctor --github` asks for.

    Admins may still push to main, as on most real repositories: ``deploy`` can be seen to refuse what they push.
    """
    from mlp_ci.context import GitHubPlace
    from mlp_ci.doctor.github_fix import set_all
    from mlp_ci.github import connect
    from mlp_ci.spec import parse_platform

    rule = {
        "required_status_checks": {"strict": False, "contexts": ["mlp-ci/approvals"]},
        "enforce_admins": False,
        "required_pull_request_reviews": None,
        "restrictions": None,
    }
    person(home, "carol").api("PUT", f"/repos/{full_name}/branches/main/protection", rule)
    owner, _, name = full_name.partition("/")
    place = GitHubPlace(
        owner=owner, repo=name, api_url=home.api_url, server_url=home.forge_url, token=home.tokens["carol"]
    )
    set_all(connect(place), parse_platform(platform_text(home).encode()), but={"main"})


def clone(worker: Person, full_name: str, folder: Path) -> None:
    """Clone a repository as ``worker``, with credentials that git finds again."""
    folder.mkdir(parents=True, exist_ok=True)
    worker.git(folder, "init", "-q", "-b", "main")
    worker.remember_credentials(folder)
    worker.git(folder, "config", "user.name", worker.login.capitalize())
    worker.git(folder, "config", "user.email", f"{worker.login}@{ORG}.test")
    worker.git(folder, "config", "remote.origin.url", f"{worker.home.forge_url}/{full_name}.git")
    worker.git(folder, "config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
    worker.git(folder, "fetch", "-q", "origin")
    worker.git(folder, "checkout", "-q", "-B", "main", "--track", "origin/main")


def tick(root: Path, full_name: str) -> Report:
    """Let every scheduled workflow of a repository run now."""
    from mlp_ci.sandbox.forge import events
    from mlp_ci.sandbox.forge.access import open_forge
    from mlp_ci.sandbox.forge.seed import repo_of
    from mlp_ci.sandbox.schedule import crons_of

    home = homes.read(root)
    _check_name(full_name)
    forge = open_forge(home.root / "forge", home.forge_url)
    try:
        repo = repo_of(forge, full_name)
        crons = crons_of(forge, repo)
        for cron in crons:
            events.scheduled(forge, repo, cron)
    except KeyError as error:
        msg = f"there is no repository {full_name}"
        raise InputError(msg, fix=f"see {home.forge_url}") from error
    finally:
        forge.store.close()
    headline = f"{len(crons)} schedule(s) of {full_name} came due" if crons else f"{full_name} has no schedule"
    report = Report(command="sandbox tick", headline=headline, data={"crons": crons})
    report.links = [("runs", f"{home.forge_url}/{full_name}/actions")]
    return report


def set_clock(root: Path, instant: str | None) -> Report:
    """Show or move the sandbox's clock."""
    home = homes.read(root)
    if instant is not None:
        if not home.clock_file.exists():
            msg = "this sandbox follows the real clock"
            fix = "start another with `mlp-ci sandbox up --home FOLDER --clock 2013-04-01`"
            raise InputError(msg, fix=fix)
        clock.set_instant(home.clock_file, clock.parse_instant(instant))
    own = home.clock_file.exists()
    now = clock.instant_of(home.clock_file.read_text(encoding="utf-8")) if own else clock.now()
    text = now.isoformat(timespec="seconds")
    return Report(command="sandbox clock", headline=f"it is {text}", data={"now": text})


def _check_name(full_name: str) -> None:
    if not _NAME.fullmatch(full_name):
        msg = f"{full_name!r} is not the name of a repository"
        raise InputError(msg, fix=f"write it as {ORG}/my-model")
