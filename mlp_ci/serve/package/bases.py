"""The image that versions' images begin with: what it is, whether it will do, and its layers."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.progress import doing
from mlp_ci.serve.package.layers import Layer, copied

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlp_ci.containers import Engine

_LOOK = "import json,platform,sys;print(json.dumps([sys.version_info[:3],platform.machine(),platform.libc_ver()]))"


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base image. ``digest`` is what the registry knows it by, or its id; ``libc`` is empty where it is not glibc.

    ``config`` is how its containers are started, ``diff_ids`` name its layers, ``platform`` is what it runs on.
    """

    name: str
    id: str
    digest: str
    python: tuple[int, int, int]
    machine: str
    libc: tuple[int, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    diff_ids: tuple[str, ...] = ()
    platform: Mapping[str, str] = field(default_factory=dict)
    size: int = 0

    @property
    def minor(self) -> str:
        return f"{self.python[0]}.{self.python[1]}"


def obtain(engine: Engine, name: str) -> Base:
    """The base called ``name``, fetched if it is not here; raises InputError when no version can run in it."""
    found = engine.describe("image", name)
    if found is None:
        doing(f"fetching the image {name}")
        done = engine.ask("pull", "--quiet", name)
        found = engine.describe("image", name) if done.code == 0 else None
        if found is None:
            fix = "name one that this engine may pull: `serving.docker.base` in platform.yaml, or --base"
            msg = f"the base image {name} cannot be had"
            raise OutsideError(msg, why=done.why, fix=f"{fix}; for a private one, `docker login` first")
    id_ = str(found["Id"])
    python, machine, libc = _look(engine, name, id_)
    return Base(
        name=name,
        id=id_,
        digest=next((str(d).rpartition("@")[2] for d in found.get("RepoDigests") or ()), id_),
        python=python,
        machine=machine,
        libc=libc,
        config=dict(found.get("Config") or {}),
        diff_ids=tuple(found["RootFS"]["Layers"]),
        platform={k.lower(): found[k] for k in ("Architecture", "Os", "Variant") if found.get(k)},
        size=int(found.get("Size") or 0),
    )


def _look(engine: Engine, name: str, id_: str) -> tuple[tuple[int, int, int], str, tuple[int, ...]]:
    done = engine.ask(
        *("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--user", "10001:10001"),
        *("--entrypoint", "python3", id_, "-I", "-c", _LOOK),
    )
    try:
        version, machine, libc = json.loads(done.out if done.code == 0 else "")
    except ValueError:
        msg = f"the base image {name} has no python3 that an ordinary user can run"
        fix = "name one that has, such as python:3.11-slim: `serving.docker.base` in platform.yaml, or --base"
        raise InputError(msg, why=done.why, fix=fix) from None
    numbers = tuple(int(n) for n in libc[1].split(".")) if libc[0] == "glibc" else ()
    return (version[0], version[1], version[2]), str(machine), numbers


def layers_of(engine: Engine, base: Base, folder: Path) -> list[Layer]:
    """The layers of the base as files in ``folder``."""
    doing(f"reading the layers of {base.name}")
    file = folder / "base.tar"
    done = engine.save(base.id, file)
    if done.code:
        msg = f"the base image {base.name} could not be read from the engine"
        raise OutsideError(msg, why=done.why, fix="make room on the disk, and run it again")
    try:
        with tarfile.open(file) as archive:
            [manifest] = json.loads(_member(archive, "manifest.json").read())
            copies = [
                copied(folder / f"base-{number}.tar", _member(archive, name))
                for number, name in enumerate(manifest["Layers"])
            ]
    except (tarfile.TarError, ValueError, KeyError) as error:
        msg = f"what the engine says of the base image {base.name} cannot be read: {error!r}"
        raise OutsideError(msg, fix="pull it again, or name another base") from error
    finally:
        file.unlink(missing_ok=True)
    # An engine may hand layers out compressed; an image names them by what is inside.
    return [Layer(copy, diff_id) for copy, diff_id in zip(copies, base.diff_ids, strict=True)]


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = archive.extractfile(name)
    if stream is None:
        msg = f"{name} is no file"
        raise ValueError(msg)
    return stream
