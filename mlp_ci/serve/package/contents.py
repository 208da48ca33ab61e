"""What lies in an image above its base: packages, mlp-ci's own code, and the model with its lock and bill of materials.

Packages come from the environment that mlp-ci runs in where that has all that the model asks for and the base can run
it: no network is needed then, and what serves is what was tried. Otherwise they are fetched.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlp_ci
from mlp_ci.progress import doing
from mlp_ci.serve.package import bytecode, layers, lock, naming
from mlp_ci.serve.package.fetched import uv_for
from mlp_ci.serve.package.layers import Layer
from mlp_ci.serve.package.packages import Package, closure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlp_ci.serve.package.bases import Base
    from mlp_ci.serve.package.lock import Lock
    from mlp_ci.serve.package.needs import Needs

FORMAT = 1  # of what is kept between calls: another one makes all layers anew
KEPT_LAYERS = 8
# Tests of packages that nothing imports; half a hundred megabytes.
_LEFT_OUT = {f"{name}/" for name in ("numpy", "scipy", "pandas", "sklearn")}


@dataclass(frozen=True)
class Library:
    """The packages of an image, and the lock that says which they are. ``fetched``: for the image alone."""

    packages: tuple[Package, ...]
    lock: Lock
    fetched: bool


def library(needs: Needs, base: Base, scratch: Path, asked: Lock | None) -> Library:
    """The packages that ``needs`` asks for, installed here or fetched into ``scratch``; those of the lock, if given."""
    found, why = closure(needs)
    why = why or _unfit(found, base)
    if asked is not None and asked.fetchable:
        return _fetch(needs, base, scratch, asked, why="the lock names wheels")
    if why:
        return _fetch(needs, base, scratch, None, why)
    made = lock.of(found, base.minor, base.machine, {})
    if asked is not None:
        asked.require_same(found)
    return Library(tuple(found), made, fetched=False)


def _fetch(needs: Needs, base: Base, scratch: Path, asked: Lock | None, why: str) -> Library:
    uv = uv_for(base, why)
    folder = scratch / "fetched"
    chosen = asked or uv.lock(needs, scratch)
    uv.install(chosen, folder, scratch)
    packages, missing = closure(needs, [str(folder)])
    if missing:
        from mlp_ci.errors import InputError

        msg = f"the lock does not hold all that the image needs: {missing.replace('here', 'by it')}"
        raise InputError(msg, fix="package without --lock, and keep the lock that comes out")
    hashes = {p.name: p.hashes for p in chosen.packages}
    return Library(tuple(packages), lock.of(packages, base.minor, base.machine, hashes), fetched=True)


def _unfit(packages: Sequence[Package], base: Base) -> str:
    """Why what is installed here cannot run in the base; empty when it can."""
    if (sys.version_info[0], sys.version_info[1]) != base.python[:2]:
        return f"here is Python {platform.python_version()}, in {base.name} {base.minor}"
    compiled = [p for p in packages if p.compiled]
    if compiled and platform.machine() != base.machine:
        return f"here is {platform.machine()}, in {base.name} {base.machine}"
    libc = platform.libc_ver()
    own = tuple(int(n) for n in libc[1].split(".")) if libc[0] == "glibc" else ()
    newer = [p.name for p in compiled if not base.libc or (p.glibc or own) > base.libc]
    return f"{newer[0]} needs a newer C library than {base.name} has" if newer else ""


# ---------------------------------------------------------------- layers


def library_layer(held: Library, base: Base, cache: Path) -> Layer:
    """The layer of packages, compiled where this is the base's Python; kept by what is in it."""
    files = {f"{naming.LIBRARY}/{f.path}": f for p in held.packages for f in p.files if not _is_test(f.path)}
    key = "\n".join(f"{path} {file.sha256}" for path, file in sorted(files.items()))
    entries: dict[str, Callable[[], bytes]] = {path: file.verified for path, file in files.items()}
    sources = {path: file.source for path, file in files.items() if path.endswith(".py")}
    return _kept(cache, key, entries, sources if _same_python(base) else {})


def code_layer(base: Base, cache: Path) -> Layer:
    """The layer with mlp-ci itself."""
    top = Path(mlp_ci.__file__).parent
    files = {
        f"{naming.LIBRARY}/mlp_ci/{p.relative_to(top).as_posix()}": p
        for p in sorted(top.rglob("*"))
        if p.is_file() and not {"__pycache__", "_data"} & set(p.relative_to(top).parts)
    }
    contents = {path: file.read_bytes() for path, file in files.items()}
    key = "\n".join(f"{path} {hashlib.sha256(content).hexdigest()}" for path, content in contents.items())
    entries: dict[str, Callable[[], bytes]] = {path: _constant(content) for path, content in contents.items()}
    sources = {path: file for path, file in files.items() if path.endswith(".py")}
    return _kept(cache, key, entries, sources if _same_python(base) else {})


def model_layer(folder: Path, texts: Mapping[str, bytes], file: Path) -> Layer:
    """The layer with the model, and with what is said about the image: path → text."""
    said = {path: _constant(text) for path, text in texts.items()}
    return layers.write(file, {**layers.folder_entries(folder, naming.MODEL), **said})


def _kept(cache: Path, key: str, entries: Mapping[str, Callable[[], bytes]], sources: Mapping[str, Path]) -> Layer:
    """A layer out of the cache, made if it is not there; what was not used for long is cleared away."""
    python = platform.python_version() if sources else ""
    digest = hashlib.sha256(f"{FORMAT} {python} {bytecode.GROUPS}\n{key}".encode()).hexdigest()
    file, note = cache / f"{digest}.tar", cache / f"{digest}.json"
    try:
        layer = Layer(file, str(json.loads(note.read_text(encoding="utf-8"))["diff_id"]))
        file.touch()
        return layer
    except (OSError, ValueError, KeyError, TypeError):
        pass
    cache.mkdir(parents=True, exist_ok=True)
    scratch = cache / f".{digest[:16]}"
    try:
        made = {}
        if sources:
            doing(f"compiling {len(sources)} files for the image")
            made = bytecode.compiled(sources, scratch)
        layer = layers.write(file, {**entries, **{path: pyc.read_bytes for path, pyc in made.items()}})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    note.write_text(json.dumps({"diff_id": layer.diff_id}), encoding="utf-8")
    _forget(cache)
    return layer


def _forget(cache: Path) -> None:
    by_age = sorted(cache.glob("*.tar"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in by_age[KEPT_LAYERS:]:
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink(missing_ok=True)


def _is_test(path: str) -> bool:
    return path.startswith(tuple(_LEFT_OUT)) and "/tests/" in path


def _same_python(base: Base) -> bool:
    return base.python[:2] == (sys.version_info[0], sys.version_info[1])


def _constant(content: bytes) -> Callable[[], bytes]:
    return lambda: content
