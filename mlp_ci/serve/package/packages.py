"""Installed packages as lists of files with known contents, ready to be copied into an image.

Whether they were installed for mlp-ci or for this image alone makes no difference: what was installed is written down
beside each package (PEP 376's RECORD, with a SHA-256 per file), and files that differ from it are refused.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlp_ci.serve.package.needs import Needs

# How a package came here differs from machine to machine; what it is does not.
_OF_THIS_MACHINE = {
    "RECORD",
    "INSTALLER",
    "REQUESTED",
    "direct_url.json",
    "uv_cache.json",
    "uv_build.json",
    "RECORD.jws",
    "RECORD.p7s",
}
_GLIBC = re.compile(r"manylinux_(\d+)_(\d+)_(\w+)")
_OLD_GLIBC = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


@dataclass(frozen=True)
class File:
    """A file of a package: its path below the folder of all packages, and what it must contain (SHA-256, hex)."""

    path: str
    source: Path
    sha256: str

    def verified(self) -> bytes:
        """Its contents; raises InputError when they are not what was installed."""
        content = self.source.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            msg = f"{self.source} is not what was installed"
            why = "an image must hold what its packages are known by"
            raise InputError(msg, why=why, fix="install the package again (`pip install --force-reinstall …`)")
        return content


@dataclass(frozen=True)
class Package:
    """One package. ``tags`` say which machines its compiled parts run on; ``needs`` are names of other packages."""

    name: str
    version: str
    files: tuple[File, ...]
    tags: tuple[str, ...]
    needs: tuple[str, ...]
    license: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 over the paths and contents of its files."""
        total = hashlib.sha256()
        for file in self.files:
            total.update(f"{file.path}\0{file.sha256}\n".encode())
        return f"sha256:{total.hexdigest()}"

    @property
    def compiled(self) -> bool:
        return any(not tag.endswith("-any") for tag in self.tags)

    @property
    def glibc(self) -> tuple[int, int] | None:
        """The oldest glibc that its compiled parts run with; None where its tags do not say."""
        found = []
        for tag in self.tags:
            match = _GLIBC.search(tag)
            old = next((v for name, v in _OLD_GLIBC.items() if name in tag), None)
            found += [(int(match[1]), int(match[2]))] if match else [old] if old else []
        return min(found) if found else None


def canonical(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(needs: Needs, folders: Sequence[str] | None = None) -> tuple[list[Package], str]:
    """The packages that ``needs`` asks for, with all that they need in turn, by name; or why that cannot be had.

    ``folders`` are where to look; where this process looks itself, if not given.
    """
    from packaging.requirements import Requirement

    path = sys.path if folders is None else list(folders)
    todo = [Requirement(text) for text in needs.requirements]
    limits = {canonical(r.name): r.specifier for r in map(Requirement, needs.constraints)}
    asked: dict[str, set[str]] = {}
    found: dict[str, tuple[Any, set[str]]] = {}
    while todo:
        wanted = todo.pop()
        name = canonical(wanted.name)
        distribution = next(iter(importlib.metadata.distributions(name=name, path=path)), None)
        if distribution is None:
            return [], f"{name} is not installed here"
        version = distribution.version
        if not all(s.contains(version, prereleases=True) for s in (wanted.specifier, limits.get(name)) if s):
            return [], f"{name} {version} is installed here, and {wanted} is asked for"
        extras = {"", *wanted.extras}
        if name in found and extras <= asked[name]:
            continue
        asked[name] = asked.get(name, set()) | extras
        direct = [r for r in map(Requirement, distribution.requires or ()) if _applies(r, asked[name])]
        found[name] = (distribution, {canonical(r.name) for r in direct})
        todo += direct
    return [_package(found[name][0], found[name][1]) for name in sorted(found)], ""


def _applies(requirement: Any, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def _package(distribution: Any, needs: Iterable[str]) -> Package:
    name = canonical(distribution.metadata["Name"])
    if _editable(distribution) or not distribution.files:
        msg = f"{name} is installed from a working tree, or without a record of its files"
        why = "nobody could say later what was in the image"
        raise InputError(msg, why=why, fix=f"install it from a wheel (`pip install --force-reinstall {name}`)")
    wheel = distribution.read_text("WHEEL") or ""
    about = distribution.metadata
    return Package(
        name=name,
        version=str(distribution.version),
        files=tuple(sorted(_files(distribution), key=lambda f: f.path)),
        tags=tuple(sorted(re.findall(r"^Tag: (\S+)", wheel, re.MULTILINE))),
        needs=tuple(sorted(needs)),
        license=str(about.get("License-Expression") or _short(about.get("License")) or ""),
    )


def _files(distribution: Any) -> Iterable[File]:
    """What the package brought; not programs (they have the path of a Python in them), nor what was made later."""
    for path in distribution.files:
        outside = path.parts[0] in ("..", "bin") or path.is_absolute()
        if outside or path.suffix == ".pyc" or path.name in _OF_THIS_MACHINE:
            continue
        if path.hash is None or path.hash.mode != "sha256":
            msg = f"{distribution.metadata['Name']} says nothing of its files that can be trusted"
            raise InputError(msg, why=f"no SHA-256 of {path} was recorded", fix="install a newer version of it")
        padded = path.hash.value + "=" * (-len(path.hash.value) % 4)
        yield File(path.as_posix(), Path(path.locate()), base64.urlsafe_b64decode(padded).hex())


def _editable(distribution: Any) -> bool:
    try:
        return bool(json.loads(distribution.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"))
    except ValueError:
        return False


def _short(text: str | None) -> str:
    """A licence's name; some packages put its whole text there."""
    return text if text and len(text) <= 60 and "\n" not in text else ""
