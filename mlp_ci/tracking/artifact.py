"""The content digest of a model artefact: what approvals are bound to."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def artifact_digest(folder: Path) -> str:
    """``sha256:<hex>`` over the relative paths and contents of all files below ``folder``.

    The same files give the same digest on every file system. Links are refused: what they point to is not part of
    the artefact. Raises InputError for a missing or empty folder and for links.
    """
    total = hashlib.sha256()
    files = sorted((p.relative_to(folder).as_posix(), p) for p in folder.rglob("*") if p.is_symlink() or p.is_file())
    if not files:
        msg = f"{folder} holds no files"
        raise InputError(msg, why="a digest of nothing proves nothing")
    for name, path in files:
        if path.is_symlink():
            msg = f"{name} in the model folder is a link"
            raise InputError(msg, why="a link's target is not stored with the model", fix="write the file itself there")
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{name}\0{content}\n".encode())
    return f"sha256:{total.hexdigest()}"


def verify_digest(folder: Path, expected: str) -> None:
    """Raise InputError with both digests unless the files below ``folder`` have the digest ``expected``."""
    found = artifact_digest(folder)
    if found != expected:
        msg = f"the model artefact has digest {found}, not {expected}"
        raise InputError(
            msg,
            why="somebody or something changed the files after they were recorded; approvals are bound to bytes",
            fix="train and register again; find out who can write to MLflow's artefact store",
        )
