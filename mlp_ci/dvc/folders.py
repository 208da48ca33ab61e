"""Folders of our own in a corner of the team's DVC remote: saved by digest, fetched by digest, dropped when replaced.

DVC only ever forgets what no file of a repository names, and it must never forget the team's data. So the corner is a
remote of its own (a folder below the team's, with its settings and credentials), used by a small DVC repository of its
own, whose one file names what shall stay.
"""

from __future__ import annotations

import configparser
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci import dvc
from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    import subprocess

CORNER = "mlp-ci"
_MD5 = re.compile(r"^- md5: ([0-9a-f]{32}\.dir)$", re.MULTILINE)


class Corner:
    """What lies below ``<remote>/mlp-ci/<name>``; the folder to save or fetch is ``place/<folder>``."""

    def __init__(self, repo: Path, name: str, place: Path, folder: str) -> None:
        self._repo = repo
        self._name = name
        self._place = place
        self._folder = folder

    @property
    def folder(self) -> Path:
        return self._place / self._folder

    def save(self) -> str:
        """Store the folder as it is now; returns its digest (``md5:….dir``). Only files that changed travel."""
        self._open()
        self._run("keeping", "add", "--quiet", self._folder)
        self._run("storing", "push", "--quiet", self._folder)
        found = _MD5.search(self._pointer.read_text(encoding="utf-8"))
        if found is None:
            msg = f"DVC gave no digest of {self.folder}"
            raise OutsideError(msg, fix="see `dvc doctor`, and run again")
        return f"md5:{found[1]}"

    def fetch(self, digest: str) -> Path:
        """Bring what was stored under this digest; InputError where the remote does not have all of it."""
        self._open()
        text = f"outs:\n- md5: {digest.removeprefix('md5:')}\n  hash: md5\n  path: {self._folder}\n"
        self._pointer.write_text(text, encoding="utf-8")
        done = dvc.program(self._place, "pull", "--quiet", "--force", self._folder)
        if done.returncode != 0:
            said = dvc.without_credentials(dvc.said_by(done))[-400:]
            msg = f"the DVC remote does not give what it kept under {digest}"
            raise InputError(msg, why=said, fix="look into the remote: who removed it?")
        return self.folder

    def forget_others(self) -> None:
        """Drop everything in the corner but what was saved or fetched last."""
        self._run("dropping old sets of", "gc", "--quiet", "--workspace", "--cloud", "--force")

    def clear(self) -> None:
        """Drop everything in the corner."""
        self._open()
        self._pointer.unlink(missing_ok=True)
        self.forget_others()

    @property
    def _pointer(self) -> Path:
        return self._place / f"{self._folder}.dvc"

    def _open(self) -> None:
        """Make the small repository, with the settings that the team's remote has today."""
        name, options = self._team_remote()
        (self._place / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
        config = configparser.ConfigParser(interpolation=None)
        config["core"] = {"no_scm": "true", "remote": name, "analytics": "false"}
        config[f"'remote \"{name}\"'"] = options
        file = self._place / ".dvc" / "config"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            config.write(stream)  # for its owner only: it may hold a password

    def _team_remote(self) -> tuple[str, dict[str, str]]:
        """Name and options of the default remote; DVC itself adds what stands in the user's own settings."""
        top = next((folder for folder in (self._repo, *self._repo.parents) if (folder / ".dvc").is_dir()), None)
        address = dvc.default_remote(self._repo) if top else None
        if top is None or address is None:
            msg = "train.checkpoints.store is dvc, and DVC has no default remote here"
            fix = "dvc remote add -d storage <address>, or take `store: mlflow`"
            raise InputError(msg, fix=fix, file="model.yaml")
        settings = configparser.ConfigParser(interpolation=None)
        settings.read([top / ".dvc" / "config", top / ".dvc" / "config.local"], encoding="utf-8")
        name = settings.get("core", "remote", fallback="storage")
        section = f"'remote \"{name}\"'"
        options = dict(settings[section]) if settings.has_section(section) else {}
        for not_here in ("version_aware", "worktree"):  # they keep files by name, not by digest
            options.pop(not_here, None)
        if "://" not in address:
            address = str(Path(os.path.normpath(top / address)))
        options["url"] = f"{address.rstrip('/')}/{CORNER}/{self._name}"
        return name, options

    def _run(self, doing: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = dvc.program(self._place, *arguments)
        if done.returncode != 0:
            said = dvc.without_credentials(dvc.said_by(done))[-400:]
            msg = f"{doing} {self._folder} with DVC failed: {said}"
            raise OutsideError(msg, fix="check the remote's address and credentials (`dvc remote list`); run again")
        return done
