"""What git asks for: digests as the ``.dvc`` files and ``dvc.lock`` say them, read without starting DVC."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlp_ci.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """One output that DVC tracks: its path in the repository, its md5, and the file that says so."""

    path: str
    md5: str
    said_in: str

    @property
    def digest(self) -> str:
        return f"md5:{self.md5}"


def tracked(repo: Path, path: str) -> Tracked:
    """What git asks for at ``path``. Raises InputError when DVC does not track it."""
    found = find_tracked(repo, path)
    if found is None:
        raise _not_tracked(repo, path)
    return found


def find_tracked(repo: Path, path: str) -> Tracked | None:
    """What git asks for at ``path``; None when DVC does not track it."""
    relative = PurePosixPath(path)
    # The file itself first, then the folders it lies in: DVC may track a folder as one.
    for candidate in (relative, *relative.parents):
        if candidate == PurePosixPath("."):
            break
        found = in_pointer(repo, str(candidate)) or in_lock(repo, str(candidate))
        if found:
            return found
    return None


def _not_tracked(repo: Path, path: str) -> InputError:
    why = "every run is tied to the digest of its data, and DVC is what keeps data by digest"
    init = "" if (repo / ".dvc").is_dir() else "dvc init && "
    fix = f"{init}dvc add {path} && dvc push && git add {path}.dvc && git commit -m 'Track {path}'"
    if (repo / path).exists():
        return InputError(f"{path} is not tracked by DVC", why=why, fix=fix)
    what = f"{path} is not here and {path}.dvc does not exist: DVC does not track it"
    return InputError(what, why=why, fix=f"correct the path in model.yaml, or write the file and: {fix}")


def in_pointer(repo: Path, path: str) -> Tracked | None:
    pointer = repo / f"{path}.dvc"
    if not pointer.is_file():
        return None
    value = read_yaml(pointer, f"{path}.dvc")
    base = PurePosixPath(path).parent / str(value.get("wdir", "."))
    for out in mappings(value.get("outs")):
        if _joined(base, str(out.get("path", ""))) == path:
            return Tracked(path=path, md5=_md5_of(out, f"{path}.dvc", path), said_in=f"{path}.dvc")
    msg = f"{path}.dvc does not speak of {path}"
    raise InputError(msg, fix=f"run `dvc add {path}` again and commit {path}.dvc", file=f"{path}.dvc")


def in_lock(repo: Path, path: str) -> Tracked | None:
    """Look for ``path`` among the outputs of the pipelines described beside it or above it."""
    for folder in PurePosixPath(path).parents:
        name = str(folder / "dvc.lock")
        if not (repo / name).is_file():
            continue
        stages = read_yaml(repo / name, name).get("stages")
        for stage in mappings(stages.values() if isinstance(stages, Mapping) else None):
            for out in mappings(stage.get("outs")):
                if _joined(folder, str(out.get("path", ""))) == path:
                    return Tracked(path=path, md5=_md5_of(out, name, path), said_in=name)
    return None


def read_yaml(file: Path, name: str) -> Mapping[str, Any]:
    import yaml

    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        conflict = re.search(r"^(<<<<<<<|>>>>>>>)", text, re.MULTILINE)
        what = f"{name} holds merge-conflict markers" if conflict else f"{name} is not valid YAML"
        fix = f"keep one side: `git checkout --ours {name}` or `--theirs`" if conflict else "run `dvc add` again"
        raise InputError(what, fix=fix, file=name, line=mark.line + 1 if mark else 0) from None
    if not isinstance(value, Mapping):
        msg = f"{name} is not a file of DVC: it must hold keys and values"
        raise InputError(msg, fix="restore it from git, or run `dvc add` again", file=name)
    return value


def _md5_of(out: Mapping[str, Any], name: str, path: str) -> str:
    md5 = out.get("md5")
    if not isinstance(md5, str) or not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5):
        msg = f"{name} has no md5 for {path}"
        raise InputError(msg, why="the digest ties runs to data", fix=f"run `dvc commit {path}` and commit", file=name)
    return md5


def mappings(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return []
    return [v for v in value if isinstance(v, Mapping)]


def _joined(base: PurePosixPath, path: str) -> str:
    return os.path.normpath(base / path).replace(os.sep, "/")


def pointer_text(repo: Path, path: str) -> str:
    pointer = repo / f"{path}.dvc"
    return pointer.read_text(encoding="utf-8") if pointer.is_file() else ""
