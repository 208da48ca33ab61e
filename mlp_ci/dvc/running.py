"""Starts DVC, and says in our words what it says when something fails."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from mlp_ci.dvc.pointers import tracked
from mlp_ci.errors import InputError, OutsideError

PROBE_SECONDS = 3.0


def program(repo: Path, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program ``dvc`` in ``repo``; how it ended is the caller's to judge."""
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=repo,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        # CI=1 keeps DVC from asking the network for a newer DVC; COLUMNS from breaking its lines.
        env={**os.environ, "DVC_NO_ANALYTICS": "1", "CI": os.environ.get("CI") or "1", "COLUMNS": "1000"},
    )


def run_pull(repo: Path, paths: list[str]) -> None:
    done = program(repo, "pull", *paths)
    if done.returncode != 0:
        raise transfer_error(repo, "pull", paths, said_by(done))


def said_by(done: subprocess.CompletedProcess[str]) -> str:
    return f"{done.stderr.strip()}\n{done.stdout.strip()}".strip()


def check(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode == 0:
        return
    said = said_by(done)
    if "not inside of a DVC repository" in said:
        msg = "DVC is not set up in this repository"
        raise InputError(msg, fix="dvc init && git commit -m 'Set up DVC'")
    msg = f"{what} failed: {_errors_in(said)}"
    raise OutsideError(msg, fix="mend what DVC says and run again")


def _errors_in(said: str) -> str:
    lines = [line.removeprefix("ERROR:").strip() for line in said.splitlines() if line.startswith("ERROR:")]
    return without_credentials("; ".join(lines) or said[-500:])


def without_credentials(text: str) -> str:
    return re.sub(r"(\w://)[^/@\s]+@", r"\1", text)


def transfer_error(repo: Path, verb: str, paths: list[str], said: str) -> InputError | OutsideError:
    """What went wrong between the repository and the remote, from what DVC said and what can be seen."""
    if "not inside of a DVC repository" in said:
        return InputError("DVC is not set up in this repository", fix="dvc init && git commit -m 'Set up DVC'")
    unsaved = [p for p in paths if str(repo / p) in said] if "unsaved files" in said else []
    if unsaved:
        names = ", ".join(unsaved)
        what = f"{names} was changed since `dvc add`"
        why = f"git asks for {tracked(repo, unsaved[0]).digest}, and that is not what lies here"
        fix = f"keep the change: `dvc add {names} && dvc push` and commit; drop it: `dvc checkout --force {names}`"
        return InputError(what, why=why, fix=fix)
    remote = default_remote(repo)
    if remote is None or "no remote specified" in said.lower():
        what = "DVC has no default remote, so the data cannot be fetched or kept"
        fix = "dvc remote add -d storage <s3://…, gs://…, azure://…, ssh://… or a folder>, and commit .dvc/config"
        return InputError(what, fix=fix)
    unreachable = why_unreachable(remote)
    if unreachable:
        what = f"the DVC remote {without_credentials(remote)} cannot be reached: {unreachable}"
        return OutsideError(what, fix="check the network, the address in .dvc/config and the permissions; run again")
    lacking = [p for p in paths if verb == "pull" and re.search(rf"^{re.escape(p)}/?$", said, re.MULTILINE)]
    if lacking or (verb == "pull" and "do not exist neither locally nor on remote" in said):
        names = ", ".join(lacking or paths)
        what = f"{names}: the DVC remote {without_credentials(remote)} does not have the data that git asks for"
        why = f"{lacking[0] if lacking else paths[0]}.dvc was committed, the data behind it was not pushed"
        return InputError(what, why=why, fix="where the data is, run `dvc push`; then run this again")
    fix = "check the remote's address and credentials (`dvc remote list`, `dvc doctor`); run again"
    return OutsideError(f"`dvc {verb}` failed: {_errors_in(said)}", fix=fix)


def default_remote(repo: Path) -> str | None:
    """Address of the default remote; None when there is none."""
    done = program(repo, "remote", "list")
    for line in done.stdout.splitlines():
        parts = line.rsplit("(default)", 1)
        if len(parts) == 2:
            return parts[0].split(None, 1)[1].strip()
    return None


def why_unreachable(remote: str) -> str:
    """Why the remote cannot be reached, as far as a look from here can tell; DVC itself often says "missing"."""
    address = urlsplit(remote)
    if address.scheme in ("", "file"):
        folder = Path(address.path if address.scheme else remote)
        if not folder.is_dir():
            return "the folder does not exist"
        return "" if os.access(folder, os.R_OK | os.X_OK) else "the folder may not be read"
    if address.scheme in ("http", "https", "ssh", "webdav", "webdavs"):
        default = {"http": 80, "webdav": 80, "ssh": 22}.get(address.scheme, 443)
        try:
            with socket.create_connection((address.hostname or "", address.port or default), timeout=PROBE_SECONDS):
                return ""
        except OSError as error:
            return str(error)
    return ""
