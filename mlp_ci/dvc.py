"""The only user of DVC: which digest git asks for, fetching exactly that, and tracking new data.

DVC takes half a second to start, so it is not asked what its own files already say: digests are read from the
``.dvc`` files, and a file that is there with the right digest is not fetched again.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.progress import doing

# Hashing runs at about 600 MB/s; below this size a note about an unchanged file saves nothing.
NOTE_FROM_BYTES = 64 * 1024 * 1024
PROBE_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """One output that DVC tracks: its path in the repository, its md5, and the file that says so."""

    path: str
    md5: str
    said_in: str

    @property
    def digest(self) -> str:
        return f"md5:{self.md5}"


def tracked_digest(repo: Path, path: str) -> str:
    """The digest that git asks for: ``md5:<hex>``, or ``md5:<hex>.dir`` for a folder and for a file inside one.

    Raises InputError when DVC does not track ``path``.
    """
    return tracked(repo, path).digest


def pull(repo: Path, paths: Sequence[str], *, apart: Collection[str] = ()) -> dict[str, Path]:
    """Bring exactly these files into the working tree, fetching only what is missing; path → absolute path.

    What of them is ``apart`` (held-out data) goes straight to its place and leaves no copy in DVC's cache, where a
    training that comes later could find it.

    Raises InputError for a file that is not tracked, was changed, was never pushed or is empty, and OutsideError
    when the remote does not answer.
    """
    doing(f"looking for {', '.join(paths)}")
    asked = [tracked(repo, path) for path in paths]
    missing = sorted({t.path for t in asked if not _is_here(repo, t)})
    straight = [path for path in missing if path in apart]
    with ThreadPoolExecutor(max_workers=1) as pool:
        fetching = pool.submit(_fetch_straight, repo, straight)
        through_cache = [path for path in missing if path not in apart]
        if through_cache:
            _run_pull(repo, through_cache)
        if left := fetching.result():
            _run_pull(repo, left)
    found = {path: repo / path for path in paths}
    for path, file in found.items():
        if not file.exists():
            msg = f"{path} is not in the data that DVC fetched"
            raise InputError(msg, fix=f"`dvc add {path}`, `dvc push`, and commit {path}.dvc")
        if file.is_file() and file.stat().st_size == 0:
            msg = f"{path} is an empty file"
            why = "there is nothing to check and nothing to train on"
            raise InputError(msg, why=why, fix=f"write the data, then `dvc add {path} && dvc push`")
    return found


def get(repo: Path, path: str, revision: str, destination: Path) -> None:
    """Fetch a tracked file or folder as it was at a git revision to ``destination``, which does not exist yet.

    Raises InputError and OutsideError as :func:`pull` does.
    """
    done = program(repo, "get", ".", path, "--rev", revision, "--out", str(destination))
    if done.returncode != 0:
        raise _transfer_error(repo, "get", [path], said_by(done))


def lies_here(repo: Path, tracked: Tracked) -> bool:
    """Whether the working tree holds these very bytes."""
    return _is_here(repo, tracked)


def add_and_push(repo: Path, paths: Sequence[str]) -> list[str]:
    """Track these files as they are now and push them; returns the ``.dvc`` files that changed, for git.

    Pushes even when nothing changed, so that a run killed between the two steps is finished by the next one.
    """
    for path in paths:
        if not (repo / path).exists():
            msg = f"{path} does not exist"
            raise InputError(msg, fix=f"write {path} first")
    before = {path: _pointer_text(repo, path) for path in paths}
    _check(program(repo, "add", "--quiet", *paths), f"`dvc add {' '.join(paths)}`")
    done = program(repo, "push", *paths)
    if done.returncode != 0:
        raise _transfer_error(repo, "push", list(paths), said_by(done))
    return [f"{path}.dvc" for path in paths if _pointer_text(repo, path) != before[path]]


def imported(repo: Path, path: str) -> bool:
    """Whether ``path`` was made by ``dvc import`` or ``dvc import-url``, so that ``dvc update`` can make it newer."""
    pointer = repo / f"{path}.dvc"
    return pointer.is_file() and bool(_mappings(_read_yaml(pointer, f"{path}.dvc").get("deps")))


def update_imports(repo: Path, paths: Sequence[str]) -> None:
    """Bring imported files up to their source. Raises OutsideError with what DVC said when that fails."""
    _check(program(repo, "update", "--quiet", *(f"{path}.dvc" for path in paths)), f"`dvc update {' '.join(paths)}`")


@dataclass(frozen=True, kw_only=True)
class RemoteState:
    """The default remote, as seen from here.

    ``address`` has no credentials and is empty when there is no remote; ``unreachable`` says why it cannot be
    reached; ``lacking`` are the paths whose data it does not have, None where finding out would take too long.
    """

    address: str = ""
    unreachable: str = ""
    lacking: tuple[str, ...] | None = None


def look_at_remote(repo: Path, paths: Sequence[str], *, seconds: float) -> RemoteState:
    """Where the data is kept and whether it is there; paths that DVC does not track are left out."""
    remote = default_remote(repo)
    if remote is None:
        return RemoteState()
    address, shown = urlsplit(remote), without_credentials(remote)
    folder = repo / (address.path if address.scheme else remote)
    is_folder = address.scheme in ("", "file")
    unreachable = _why_unreachable(str(folder) if is_folder else remote)
    if unreachable:
        return RemoteState(address=shown, unreachable=unreachable)
    asked = [found for path in paths if (found := _in_pointer(repo, path) or _in_lock(repo, path))]
    if is_folder:
        return RemoteState(address=shown, lacking=tuple(t.path for t in asked if _place([folder], t.md5) is None))
    names = [t.path for t in asked]
    try:
        done = program(repo, "status", "--cloud", "--json", *names, timeout=seconds)
        status = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return RemoteState(address=shown)
    return RemoteState(address=shown, lacking=tuple(name for name in names if status.get(name) in ("new", "missing")))


# ---------------------------------------------------------------- what git asks for


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
        found = _in_pointer(repo, str(candidate)) or _in_lock(repo, str(candidate))
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


def _in_pointer(repo: Path, path: str) -> Tracked | None:
    pointer = repo / f"{path}.dvc"
    if not pointer.is_file():
        return None
    value = _read_yaml(pointer, f"{path}.dvc")
    base = PurePosixPath(path).parent / str(value.get("wdir", "."))
    for out in _mappings(value.get("outs")):
        if _joined(base, str(out.get("path", ""))) == path:
            return Tracked(path=path, md5=_md5_of(out, f"{path}.dvc", path), said_in=f"{path}.dvc")
    msg = f"{path}.dvc does not speak of {path}"
    raise InputError(msg, fix=f"run `dvc add {path}` again and commit {path}.dvc", file=f"{path}.dvc")


def _in_lock(repo: Path, path: str) -> Tracked | None:
    """Look for ``path`` among the outputs of the pipelines described beside it or above it."""
    for folder in PurePosixPath(path).parents:
        name = str(folder / "dvc.lock")
        if not (repo / name).is_file():
            continue
        stages = _read_yaml(repo / name, name).get("stages")
        for stage in _mappings(stages.values() if isinstance(stages, Mapping) else None):
            for out in _mappings(stage.get("outs")):
                if _joined(folder, str(out.get("path", ""))) == path:
                    return Tracked(path=path, md5=_md5_of(out, name, path), said_in=name)
    return None


def _read_yaml(file: Path, name: str) -> Mapping[str, Any]:
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


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return []
    return [v for v in value if isinstance(v, Mapping)]


def _joined(base: PurePosixPath, path: str) -> str:
    return os.path.normpath(base / path).replace(os.sep, "/")


def _pointer_text(repo: Path, path: str) -> str:
    pointer = repo / f"{path}.dvc"
    return pointer.read_text(encoding="utf-8") if pointer.is_file() else ""


# ---------------------------------------------------------------- what goes past the cache


def _fetch_straight(repo: Path, paths: Sequence[str]) -> list[str]:
    """Fetch these from the remote to their places; gives back those that DVC's own way must bring (and explain)."""
    top, left = _top(repo), []
    for path in paths:
        place = repo / path
        if top is None or (place.exists() and not _fetched_before(repo, path)):
            left.append(path)  # somebody's own change: DVC knows whether it may be replaced
            continue
        tmp = top / ".dvc" / "tmp"
        tmp.mkdir(exist_ok=True)
        with TemporaryDirectory(prefix="mlp-ci-", dir=tmp) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            if place.exists():  # or DVC would take what lies there for what is asked for
                place.replace(old)
            if program(repo, "get", ".", path, "--out", str(new)).returncode != 0 or not new.exists():
                if old.exists():
                    old.replace(place)
                left.append(path)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            new.replace(place)
        _note_fetched(repo, path)
    return left


def _fetched_file(repo: Path) -> Path:
    return (_top(repo) or repo) / ".dvc" / "tmp" / "mlp-ci-fetched.json"


def _fetched(repo: Path) -> dict[str, str]:
    try:
        value = json.loads(_fetched_file(repo).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _note_fetched(repo: Path, path: str) -> None:
    scratch = _fetched_file(repo).with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps({**_fetched(repo), str(repo / path): tracked(repo, path).md5}), encoding="utf-8")
    scratch.replace(_fetched_file(repo))


def _fetched_before(repo: Path, path: str) -> bool:
    """Whether what lies there is, byte for byte, an older version that was fetched: it can be replaced."""
    md5 = _fetched(repo).get(str(repo / path))
    return md5 is not None and _is_here(repo, Tracked(path=path, md5=md5, said_in=""))


def lend(repo: Path, clone: Path) -> None:
    """Let a clone of ``repo`` (both by their top folders) use its cache, its remote and the settings git does not have.

    An address of a remote, like the place of the cache, may be relative to where the repository lies.
    """
    top, stores = _top(repo), _stores(repo)
    if top is None or not stores:
        return
    settings = configparser.ConfigParser(interpolation=None)
    settings.read([top / ".dvc" / "config", top / ".dvc" / "config.local"], encoding="utf-8")
    remote = f"'remote \"{settings.get('core', 'remote', fallback='')}\"'"
    for section in ("cache", *([remote] if stores[1:] else [])):
        if not settings.has_section(section):
            settings.add_section(section)
    settings.set("cache", "dir", str(stores[0].resolve()))
    if stores[1:]:
        settings.set(remote, "url", str(stores[1].resolve()))
    file = clone / top.relative_to(repo) / ".dvc" / "config.local"
    if file.parent.is_dir():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            settings.write(stream)


def objects_of(repo: Path, path: str) -> set[str]:
    """The md5 of every file behind ``path`` (and of the list that names them), as far as this machine can tell."""
    found = find_tracked(repo, path)
    if found is None:
        return set()
    if not found.md5.endswith(".dir"):
        return {found.md5}
    listed = {str(item.get("relpath")): str(item.get("md5")) for item in _listed(_stores(repo), found.md5)}
    inside = PurePosixPath(path).relative_to(found.path).as_posix()
    if inside == ".":
        return {found.md5, *listed.values()}
    return {md5 for name, md5 in listed.items() if name == inside or name.startswith(f"{inside}/")}


def in_cache(repo: Path, md5: str) -> list[Path]:
    """Where this object lies in DVC's cache, and in the one of its own that a repository had before it shared one."""
    top = _top(repo)
    caches = dict.fromkeys([*_stores(repo)[:1], *([top / ".dvc" / "cache"] if top else [])])
    return [place for cache in caches if (place := _place([cache], md5)) is not None]


def remote_holds(repo: Path, path: str, md5s: Collection[str], *, seconds: float = 60.0) -> bool:
    """Whether the default remote surely has these objects, all of which belong to ``path``."""
    folders = _stores(repo)[1:]
    if folders:
        return all(_place(folders, md5) is not None for md5 in md5s)
    lacking = look_at_remote(repo, [path], seconds=seconds).lacking
    return lacking is not None and path not in lacking


# ---------------------------------------------------------------- what is here


def _is_here(repo: Path, tracked: Tracked) -> bool:
    place = repo / tracked.path
    if tracked.md5.endswith(".dir"):
        return place.is_dir() and _md5_of_folder(place) == tracked.md5
    return place.is_file() and _md5_of_file(repo, place) == tracked.md5


def _md5_of_file(repo: Path, file: Path) -> str:
    """The md5 of a file's bytes; for large files noted by (inode, size, times) under ``.dvc/tmp``."""
    stat = file.stat()
    if stat.st_size < NOTE_FROM_BYTES:
        return _hash(file)
    notes_file = repo / ".dvc" / "tmp" / "mlp-ci-digests.json"
    key = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
    try:
        notes = json.loads(notes_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        notes = {}
    name = str(file.relative_to(repo))
    known = notes.get(name) if isinstance(notes, dict) else None
    if isinstance(known, list) and len(known) == 2 and known[0] == key:
        return str(known[1])
    md5 = _hash(file)
    if notes_file.parent.is_dir():
        scratch = notes_file.with_name(f"{notes_file.name}.{os.getpid()}")
        scratch.write_text(json.dumps({**(notes if isinstance(notes, dict) else {}), name: [key, md5]}))
        scratch.replace(notes_file)
    return md5


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _md5_of_folder(folder: Path) -> str:
    """DVC's digest of a folder: md5 of the JSON list of its files and their md5, sorted by path."""
    files = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    listed = [{"md5": _hash(folder / name), "relpath": name} for name in files]
    text = json.dumps(sorted(listed, key=lambda item: item["relpath"]), sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def stored(repo: Path, md5: str, name: str) -> tuple[tuple[str, Path], ...]:
    """The files (name, place of the bytes) of the output with this md5, as far as this machine holds them all.

    Looks into DVC's cache and into the default remote where that is a folder; fetches nothing. Empty when a file is
    not there.
    """
    stores = _stores(repo)
    place = _place(stores, md5)
    if place is None or not md5.endswith(".dir"):
        return ((name, place),) if place else ()
    listed = _listed(stores, md5)
    found = [(str(item.get("relpath")), _place(stores, str(item.get("md5")))) for item in listed]
    files = tuple((relative, at) for relative, at in found if at)
    return files if files and len(files) == len(found) else ()


def _listed(stores: Sequence[Path], md5: str) -> list[Mapping[str, Any]]:
    """The files of a folder, from the list that DVC keeps of them; none where that list is not here."""
    place = _place(stores, md5)
    try:
        return _mappings(json.loads(place.read_text(encoding="utf-8"))) if place else []
    except (OSError, ValueError):
        return []


def _place(stores: Sequence[Path], md5: str) -> Path | None:
    # The layout of DVC 3, and the one before it.
    places = [store / top / md5[:2] / md5[2:] for store in stores for top in ("files/md5", "")]
    return next((place for place in places if place.is_file()), None)


def _stores(repo: Path) -> list[Path]:
    """DVC's cache, and then a remote that is a folder, as DVC's configuration says; DVC itself need not be started."""
    top = _top(repo)
    if top is None:
        return []
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read([*_shared_settings(), top / ".dvc" / "config", top / ".dvc" / "config.local"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return [top / ".dvc" / "cache"]
    cache = settings.get("cache", "dir", fallback="cache")
    remote = settings.get("core", "remote", fallback="")
    url = settings.get(f"'remote \"{remote}\"'", "url", fallback="").removeprefix("file://")
    return [top / ".dvc" / place for place in (cache, url) if place and "://" not in place]


def _top(repo: Path) -> Path | None:
    """The folder of DVC's repository, which may be above ours."""
    return next((folder for folder in (repo, *repo.resolve().parents) if (folder / ".dvc").is_dir()), None)


def _shared_settings() -> list[Path]:
    """DVC's settings of the machine and of the user, the weaker first."""
    environ = os.environ
    user = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "/") / ".config") / "dvc"
    machine = environ.get("DVC_SYSTEM_CONFIG_DIR") or "/etc/xdg/dvc"
    return [Path(folder) / "config" for folder in (machine, environ.get("DVC_GLOBAL_CONFIG_DIR") or user)]


# ---------------------------------------------------------------- DVC itself


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


def _run_pull(repo: Path, paths: list[str]) -> None:
    done = program(repo, "pull", *paths)
    if done.returncode != 0:
        raise _transfer_error(repo, "pull", paths, said_by(done))


def said_by(done: subprocess.CompletedProcess[str]) -> str:
    return f"{done.stderr.strip()}\n{done.stdout.strip()}".strip()


def _check(done: subprocess.CompletedProcess[str], what: str) -> None:
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


def _transfer_error(repo: Path, verb: str, paths: list[str], said: str) -> InputError | OutsideError:
    """What went wrong between the repository and the remote, from what DVC said and what can be seen."""
    if "not inside of a DVC repository" in said:
        return InputError("DVC is not set up in this repository", fix="dvc init && git commit -m 'Set up DVC'")
    unsaved = [p for p in paths if str(repo / p) in said] if "unsaved files" in said else []
    if unsaved:
        names = ", ".join(unsaved)
        what = f"{names} was changed since `dvc add`"
        why = f"git asks for {tracked_digest(repo, unsaved[0])}, and that is not what lies here"
        fix = f"keep the change: `dvc add {names} && dvc push` and commit; drop it: `dvc checkout --force {names}`"
        return InputError(what, why=why, fix=fix)
    remote = default_remote(repo)
    if remote is None or "no remote specified" in said.lower():
        what = "DVC has no default remote, so the data cannot be fetched or kept"
        fix = "dvc remote add -d storage <s3://…, gs://…, azure://…, ssh://… or a folder>, and commit .dvc/config"
        return InputError(what, fix=fix)
    unreachable = _why_unreachable(remote)
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


def _why_unreachable(remote: str) -> str:
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
