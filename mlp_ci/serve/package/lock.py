"""The lock of an image: every package in it with its version and hashes, as a requirements file that tools read.

Packages that were fetched for the image have the hashes of their wheels. Of packages that were installed here already
nobody knows the wheel any more; the line above each says what its files are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError
from mlp_ci.serve.package.packages import Package, canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEAD = "# What an image of mlp-ci package holds, for Python {python} on {machine}. `mlp-ci package --lock` reads it.\n"
_FILES = re.compile(r"^# files of (\S+): (sha256:[0-9a-f]{64})$")
_LINE = re.compile(r"^([A-Za-z0-9][\w.-]*)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})*)$")


@dataclass(frozen=True)
class Locked:
    """One line of a lock. ``hashes`` are those of its wheels, ``files`` is that of its files; empty where unknown."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    files: str = ""


@dataclass(frozen=True)
class Lock:
    """What an image holds besides its base and the model."""

    python: str
    machine: str
    packages: tuple[Locked, ...] = field(default=())

    @property
    def fetchable(self) -> bool:
        """Whether it says of every package by which wheels it is known."""
        return bool(self.packages) and all(p.hashes for p in self.packages)

    def text(self) -> str:
        lines = [_HEAD.format(python=self.python, machine=self.machine)]
        for package in self.packages:
            lines += [f"# files of {package.name}: {package.files}\n"] if package.files else []
            hashes = "".join(f" \\\n    --hash={h}" for h in package.hashes)
            lines.append(f"{package.name}=={package.version}{hashes}\n")
        return "".join(lines)

    def require_same(self, packages: Sequence[Package]) -> None:
        """Raises InputError unless these packages are the locked ones, to the byte where that was noted."""
        here = {p.name: p for p in packages}
        for locked in self.packages:
            found = here.pop(locked.name, None)
            version = found.version if found else "none"
            if found is None or version != locked.version:
                msg = f"the lock has {locked.name} {locked.version}, and here is {version}"
                raise InputError(msg, fix="install what the lock says, or package without --lock")
            if locked.files and not locked.hashes and locked.files != found.digest:
                msg = f"{locked.name} {version} has other files here than the lock says"
                raise InputError(msg, fix="install it from the same wheel, or package without --lock")
        if here:
            msg = f"the image needs {', '.join(sorted(here))}, which the lock does not have"
            raise InputError(msg, fix="package without --lock, and keep the lock that comes out")


def of(packages: Sequence[Package], python: str, machine: str, hashes: Mapping[str, tuple[str, ...]]) -> Lock:
    """The lock of these packages; ``hashes`` are those of the wheels, by name, as far as they are known."""
    lines = (Locked(p.name, p.version, hashes.get(p.name, ()), p.digest) for p in packages)
    return Lock(python, machine, tuple(sorted(lines, key=lambda line: line.name)))


def parse(text: str, file: str = "lock") -> Lock:
    """A lock as :meth:`Lock.text` or a package manager writes it; raises InputError for anything else."""
    files: dict[str, str] = {}
    packages = []
    for line in text.replace("\\\n", " ").splitlines():
        noted = _FILES.match(line)
        if noted:
            files[canonical(noted[1])] = noted[2]
            continue
        plain = re.sub(r"\s+#.*", "", line).strip()
        if not plain or plain.startswith("#"):
            continue
        match = _LINE.match(plain)
        if match is None:
            msg = f"a lock names packages as `name==version --hash=sha256:…`, not as {plain[:80]!r}"
            raise InputError(msg, fix="use the lock.txt of an image, or `uv pip compile --generate-hashes`", file=file)
        name = canonical(match[1])
        hashes = tuple(re.findall(r"--hash=(\S+)", match[3]))
        packages.append(Locked(name, match[2], hashes, files.get(name, "")))
    about = re.search(r"for Python (\S+) on (\S+)\. ", text)
    if not packages:
        msg = "the lock names no package"
        raise InputError(msg, fix="use the lock.txt of an image", file=file)
    return Lock(about[1] if about else "", about[2] if about else "", tuple(packages))
