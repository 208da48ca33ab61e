"""Where a command runs: its repository, GitHub, MLflow, the machine. The environment is read here, once.

Commands get a frozen :class:`Context`; nothing further down looks at ``os.environ``.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Mapping

GITHUB_API = "https://api.github.com"
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class GitHubPlace:
    """A repository on GitHub (or on the sandbox's forge) and, in a job, the event that started it."""

    owner: str
    repo: str
    api_url: str = GITHUB_API
    server_url: str = "https://github.com"
    token: str = field(default="", repr=False)
    event_name: str = ""
    event: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sha: str = ""
    ref: str = ""
    run_id: str = ""
    actor: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.repo}"

    @property
    def run_url(self) -> str:
        """The page of the workflow run; empty outside a job."""
        return f"{self.server_url}/{self.full_name}/actions/runs/{self.run_id}" if self.run_id else ""


@dataclass(frozen=True, kw_only=True)
class HandedOver:
    """What a mlp-ci that handed a training over to this machine said.

    ``key`` and ``parts`` are of the train key that is meant; ``image`` is the image that this process runs in; of the
    ``nodes`` that train together this one has the number ``rank``.
    """

    key: str
    parts: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    nodes: int = 1
    rank: int = 0


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that a command may know about where it runs.

    ``work`` holds what can be thrown away (downloads, training output); ``serve_home`` is the state of the local
    serving target; ``prediction_log`` the root of the prediction log; ``cache`` what working trees share (environments,
    models by digest), below ``work`` where none is given; ``backend`` wins over ``train.backend``.
    """

    repo: Path
    work: Path
    serve_home: Path
    prediction_log: Path
    platform_file: Path | None = None
    tracking_uri: str = ""
    github: GitHubPlace | None = None
    in_job: bool = False
    cache: Path | None = None
    backend: str = ""
    handed_over: HandedOver | None = None

    @property
    def cache_folder(self) -> Path:
        return self.cache or self.work / "cache"

    def require_github(self, purpose: str) -> GitHubPlace:
        """GitHub with a token; raises InputError that says how to give one."""
        if self.github is None:
            msg = f"{purpose} needs GitHub, and this repository is on none that mlp-ci knows"
            fix = "add a remote named origin, or set GITHUB_REPOSITORY=owner/name and GITHUB_API_URL"
            raise InputError(msg, fix=fix)
        if not self.github.token:
            msg = f"{purpose} needs a GitHub token"
            raise InputError(msg, fix="set GITHUB_TOKEN (in a workflow: the action's `token` input)")
        return self.github


def load_context(path: Path, *, platform_file: Path | None = None, environ: Mapping[str, str] = os.environ) -> Context:
    """Read the environment. ``path`` is the folder of the model repository."""
    repo = path.resolve()
    if not repo.is_dir():
        msg = f"{path} is not a folder"
        raise InputError(msg, fix="pass the folder of the model repository with --path")
    state = Path(environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or "/") / ".local" / "state")
    cache = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "/") / ".cache")
    serve_home = Path(environ.get("MLP_SERVE_HOME") or state / "mlp-ci" / "serve")
    platform = platform_file or (Path(environ["MLP_PLATFORM"]) if environ.get("MLP_PLATFORM") else None)
    return Context(
        repo=repo,
        work=Path(environ.get("MLP_WORK") or repo / ".mlp"),
        serve_home=serve_home,
        prediction_log=Path(environ.get("MLP_PREDICTION_LOG") or serve_home / "log"),
        platform_file=platform,
        tracking_uri=environ.get("MLFLOW_TRACKING_URI", ""),
        github=_github(repo, environ),
        in_job=environ.get("GITHUB_ACTIONS") == "true",
        cache=Path(environ.get("MLP_CACHE") or cache / "mlp-ci"),
        backend=environ.get("MLP_CI_BACKEND", ""),
        handed_over=_handed_over(environ),
    )


def _handed_over(environ: Mapping[str, str]) -> HandedOver | None:
    """From the variables that the back ends kubernetes and ray set; those of torchrun (PET_…) number the machines."""
    key = environ.get("MLP_CI_EXPECTED_KEY", "")
    if not key:
        return None
    try:
        return HandedOver(
            key=key,
            parts={str(k): str(v) for k, v in json.loads(environ.get("MLP_CI_EXPECTED_PARTS") or "{}").items()},
            image=environ.get("MLP_CI_IMAGE", ""),
            nodes=int(environ.get("PET_NNODES") or 1),
            rank=int(environ.get("PET_NODE_RANK") or 0),
        )
    except (ValueError, AttributeError) as error:
        msg = f"the variables of a training that was handed over cannot be read: {error}"
        raise InputError(msg, fix="let `mlp-ci train` set MLP_CI_EXPECTED_* and PET_*; unset them otherwise") from error


def _github(repo: Path, environ: Mapping[str, str]) -> GitHubPlace | None:
    token = environ.get("GITHUB_TOKEN") or environ.get("GH_TOKEN") or ""
    full_name = environ.get("GITHUB_REPOSITORY", "")
    server = environ.get("GITHUB_SERVER_URL", "").rstrip("/")
    if not full_name:
        from mlp_ci.git import origin

        remote = origin(repo)
        if remote is None:
            return None
        server, full_name = server or remote[0], remote[1]
    owner, _, name = full_name.partition("/")
    if not _NAME.fullmatch(owner) or not _NAME.fullmatch(name):
        msg = f"GITHUB_REPOSITORY is {full_name!r}"
        raise InputError(msg, fix="it must be owner/name")
    server = _address("GITHUB_SERVER_URL", server or "https://github.com")
    default_api = GITHUB_API if server == "https://github.com" else f"{server}/api/v3"
    return GitHubPlace(
        owner=owner,
        repo=name,
        api_url=_address("GITHUB_API_URL", (environ.get("GITHUB_API_URL") or default_api).rstrip("/")),
        server_url=server,
        token=token,
        event_name=environ.get("GITHUB_EVENT_NAME", ""),
        event=_event(environ.get("GITHUB_EVENT_PATH", "")),
        sha=environ.get("GITHUB_SHA", ""),
        ref=environ.get("GITHUB_REF", ""),
        run_id=environ.get("GITHUB_RUN_ID", ""),
        actor=environ.get("GITHUB_ACTOR", ""),
    )


def _address(name: str, value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        msg = f"{name} is {value!r}, which is no address"
        raise InputError(msg, fix=f"unset {name} for github.com, or set it to an address such as {GITHUB_API}")
    return value


def _event(path: str) -> Mapping[str, Any]:
    if not path or not Path(path).is_file():
        return {}
    try:
        event = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"the event at {path} cannot be read: {error}"
        raise OutsideError(msg, fix="run the job again") from error
    return event if isinstance(event, dict) else {}
