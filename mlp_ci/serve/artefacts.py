"""The artefacts of served versions on this machine, by digest: what a rollback starts from without asking MLflow."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.errors import GateError, InputError
from mlp_ci.serve import state as states
from mlp_ci.serve.state import Place
from mlp_ci.serve.targets import Release
from mlp_ci.spec import PROMOTION_FILE

if TYPE_CHECKING:
    from mlp_ci.serve.state import State
    from mlp_ci.spec import StageEntry
    from mlp_ci.tracking import Tracking

KEPT = 5  # versions of each place whose files stay, the newest first
FRESH = 3600.0  # seconds


def folder_of(home: Path, digest: str) -> Path:
    """Where the artefact with ``digest`` lies, if it is here."""
    return home / "artifacts" / digest.removeprefix("sha256:")


def obtain(home: Path, tracking: Tracking, model: str, stage: str, entry: StageEntry) -> Release:
    """The release that the entry of a stage names: registered, gated, with the same bytes, on this machine."""
    version = tracking.version(model, entry.version)
    name = f"version {entry.version} of {model}"
    if version.gate not in ("pass", "inconclusive"):  # whether a person approved the latter was judged before
        msg = f"{name} did not pass its gate (it says {version.gate or 'nothing'})"
        raise GateError(msg, fix="promote a version that passed")
    if version.digest != entry.digest:
        msg = f"{name} has the digest {version.digest or 'none'}, {PROMOTION_FILE} asks for {entry.digest}"
        why = f"what was approved for {stage} is other bytes"
        raise InputError(msg, why=why, fix="run `mlp-ci promote` again, and find out who changed the tag")
    found = hashlib.sha256(tracking.read_bytes(version.run_id, version.evidence_file)).hexdigest()
    if found != version.evidence.removeprefix("sha256:"):
        msg = f"the evidence of {name} is not the evidence that it was registered with"
        why = "its gate may never have passed"
        raise GateError(msg, why=why, fix="evaluate and register the model again")
    folder = fetch(home, tracking, version.run_id, entry.digest)
    return Release(entry.version, entry.digest, folder, f"sha256:{found}", version.run_id)


def fetch(home: Path, tracking: Tracking, run_id: str, digest: str) -> Path:
    """The verified artefact folder, downloaded unless it is here; raises InputError when the bytes differ."""
    from mlp_ci.tracking import artifact_digest

    folder = folder_of(home, digest)
    if folder.is_dir():
        if artifact_digest(folder) == digest:
            os.utime(folder)  # it is wanted: nobody clears it away just now
            return folder
        shutil.rmtree(folder)
    scratch = folder.with_name(f".{folder.name[:16]}-{os.getpid()}")
    try:
        fetched = tracking.download(run_id, "model", scratch)
        found = artifact_digest(fetched)
        if found != digest:
            msg = f"the artefact of run {run_id} has the digest {found}, promotion.yaml asks for {digest}"
            why = "what was approved is other bytes; they were not loaded"
            raise InputError(msg, why=why, fix="find out who changed the artefact; register the model again")
        fetched.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def clear(home: Path) -> list[str]:
    """Delete what no place of this machine will want again; the names of what is gone.

    Kept is what runs, what the last versions of each place were made of (a rollback may want them) unless they were
    rolled back, and whatever was fetched within the hour: another command may be about to start it.
    """
    wanted = set[str]()
    for file in home.glob("*/*/state.json"):
        state = states.read(Place(home, file.parent.parent.name, file.parent.name))
        wanted |= _wanted(state) if state else set()
    gone = []
    for folder in sorted((home / "artifacts").glob("*")):
        if folder.name not in wanted and time.time() - folder.stat().st_mtime > FRESH:
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder.name)
    return gone


def _wanted(state: State) -> set[str]:
    bad = {h.digest for h in state.held}
    ran = dict.fromkeys(str(h["digest"]) for h in reversed(state.history) if h["digest"] not in bad)
    digests = [*list(ran)[:KEPT], *(s.digest for s in state.servers.values())]
    digests += [state.progress.digest] if state.progress and state.progress.going else []
    return {folder_of(Path(), d).name for d in digests}


def example_body(folder: Path) -> bytes | None:
    """A request body made of the model's own input example; None when it was saved without one."""
    ready = folder / "serving_input_example.json"
    if ready.is_file():
        return ready.read_bytes()
    example = folder / "input_example.json"
    if not example.is_file():
        return None
    try:
        value = json.loads(example.read_text(encoding="utf-8"))
    except ValueError:
        return None
    split = isinstance(value, dict) and {"columns", "data"} <= set(value)
    return json.dumps({"dataframe_split" if split else "inputs": value}).encode()
