"""The train key: one digest of all that decides what training makes. The same key trained twice is trained once."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mlp_ci import dvc, git
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec

# Files of a model repository that cannot change what training makes. model.yaml is here because its relevant
# fields enter the key by themselves: a new gate must not train the model again.
WITHOUT_EFFECT = (
    "model.yaml",
    "promotion.yaml",
    "*.md",
    "docs/*",
    ".github/*",
    "CODEOWNERS",
    "LICENSE",
    ".gitignore",
    ".gitattributes",
    ".dvcignore",
    ".dvc/*",
    ".copier-answers.yml",
    "*__pycache__/*",
)
_INCLUDES = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)(?:\s+|=)?([^\s#]+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class TrainKey:
    """``digest``: 64 hex digits; ``parts``: what went in, each as a short digest or text, to say what changed."""

    digest: str
    parts: Mapping[str, str]

    def changed_since(self, parts: Mapping[str, str]) -> list[str]:
        """The names of the parts that differ from an earlier key's."""
        return sorted(name for name in self.parts if parts.get(name) != self.parts[name])


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A training that must not be taken for the one of its key, as one that only shows whether it comes out the same.

    ``salt`` tells such trainings apart; ``tags`` say in the run what it is.
    """

    salt: str
    tags: Mapping[str, str]

    def of(self, key: TrainKey) -> TrainKey:
        """The same parts under another digest: nobody who looks for ``key`` finds the run."""
        return TrainKey(digest=_digest({"key": key.digest, "salt": self.salt}), parts=key.parts)


def train_key(ctx: Context, spec: ModelSpec) -> TrainKey:
    """The key of the working tree as it is now.

    Raises InputError when there is no repository, the data is not tracked, or a file that model.yaml names is missing.
    """
    git.require_repository(ctx.repo)
    parts = {
        "code": _digest(code_files(ctx.repo, spec)),
        "data": f"{spec.data.train}={dvc.tracked_digest(ctx.repo, spec.data.train)}",
        "target": spec.data.target,
        "params": _file_digest(ctx.repo, spec.train.params, "train.params") if spec.train.params else "",
        "environment": environment_digest(ctx.repo, spec),
        "command": spec.train.command,
        "seed": str(spec.train.seed),
    }
    if spec.train.sweep:  # jobs only say how many machines share the work
        parts["sweep"] = spec.train.sweep.model_dump_json(exclude={"jobs"})
    if spec.train.nodes > 1:  # how many average their gradients decides what comes out
        parts["nodes"] = str(spec.train.nodes)
    return TrainKey(digest=_digest(parts), parts=parts)


def code_files(repo: Path, spec: ModelSpec) -> dict[str, str]:
    """The files that can change training (path → git's id of their content), as they lie in the working tree."""
    apart = {f"{p}.dvc" for p in (spec.data.train, spec.data.test, spec.monitor.labels) if p}
    apart |= {p for p in (spec.train.params, spec.train.environment.file) if p}  # parts of the key by themselves
    return {
        path: blob for path, blob in git.tracked_blobs(repo).items() if path not in apart and not has_no_effect(path)
    }


def has_no_effect(path: str) -> bool:
    """Whether a file of this name cannot change what training makes."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in WITHOUT_EFFECT)


def uncommitted(repo: Path, spec: ModelSpec) -> list[str]:
    """Files that differ from the commit and can change training: the reason to call a run dirty."""
    pointers = {f"{spec.data.train}.dvc", f"{spec.data.test}.dvc", "model.yaml"}
    return [p for p in git.changed_files(repo) if p in pointers or not has_no_effect(p)]


def environment_digest(repo: Path, spec: ModelSpec) -> str:
    """Kind and content digest of what pins the environment; for ``inherit``, of what is installed here."""
    environment = spec.train.environment
    python = ".".join(platform.python_version_tuple()[:2])
    if environment.kind == "image":
        return f"image {environment.image}"
    if environment.file is None:
        return f"inherit python={platform.python_version()} {_digest(dict.fromkeys(installed(), ''))[:16]}"
    files = {environment.file: _file_digest(repo, environment.file, f"train.environment.{environment.kind}")}
    for path in included(repo, environment.file) if environment.kind == "pip" else ():
        files[path] = _file_digest(repo, path, f"{environment.file}, which train.environment.pip")
    lock = PurePosixPath(environment.file).parent / "uv.lock"
    if environment.kind == "uv" and (repo / lock).is_file():
        files[str(lock)] = _file_digest(repo, str(lock), "uv.lock")
    return f"{environment.kind} python={python} {_digest(files)}"


def included(repo: Path, requirements: str) -> list[str]:
    """The files that a requirements file includes by ``-r`` and ``-c``, and those that they include.

    As pip reads them: relative to the file that includes. What is no path in the repository (an address) is left out.
    """
    found: list[str] = []
    waiting = [requirements]
    while waiting:
        path = waiting.pop()
        file = repo / path
        for name in _INCLUDES.findall(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else ():
            inner = os.path.normpath(PurePosixPath(path).parent / name)
            if "://" not in name and inner not in (requirements, *found):
                found.append(inner)
                waiting.append(inner)
    return sorted(found)


def installed() -> list[str]:
    """Names and versions of the installed distributions, without mlp-ci: updating it must not train models again.

    Read from the names of the metadata folders; parsing all metadata takes a fifth of a second.
    """
    found = set()
    for entry in sys.path:
        folder = Path(entry)
        if entry and folder.is_dir():
            found |= {p.name for p in folder.iterdir() if p.suffix in (".dist-info", ".egg-info")}
    return sorted(name for name in found if not name.startswith("mlp_ci-"))


def work_folder(ctx: Context, key: TrainKey) -> Path:
    """Where this machine keeps what belongs to one key: checkpoints, output, a copy of the model."""
    return ignored(ctx.work) / key.digest[:16]


def ignored(work: Path) -> Path:
    """Make the work folder, invisible to git, and return it."""
    work.mkdir(parents=True, exist_ok=True)
    marker = work / ".gitignore"
    if not marker.exists():
        marker.write_text("*\n")
    return work


def _digest(value: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _file_digest(repo: Path, path: str, named_by: str) -> str:
    file = repo / path
    if not file.is_file():
        msg = f"{path} does not exist, but {named_by} of model.yaml names it"
        raise InputError(msg, fix=f"add {path}, or take {named_by} out of model.yaml", file="model.yaml")
    return hashlib.sha256(file.read_bytes()).hexdigest()
