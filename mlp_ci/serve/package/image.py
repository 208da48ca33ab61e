"""The image itself: its configuration, and the archive that engines load (`docker load`, `podman load`, skopeo)."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.serve.package import naming

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlp_ci.serve.package.bases import Base
    from mlp_ci.serve.package.layers import Layer

HEALTH_SECONDS = 30
_HEALTH = (
    f"import urllib.request as u,sys;sys.exit(u.urlopen('http://127.0.0.1:{naming.PORT}/health',timeout=4).status!=200)"
)
NANO = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The version that an image is made of. ``created`` is ISO 8601 in UTC; ``labels`` are its lineage."""

    model: str
    version: int
    digest: str
    folder: Path
    created: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Image:
    """An image as its configuration says it is: ``raw`` is the JSON, ``layers`` are ours, above those of the base."""

    raw: bytes
    layers: tuple[Layer, ...]

    @property
    def name(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def id(self) -> str:
        """The digest of the configuration, which is what engines call the image."""
        return f"sha256:{self.name}"

    @property
    def diff_ids(self) -> list[str]:
        return list(json.loads(self.raw)["rootfs"]["diff_ids"])


def configured(base: Base, subject: Subject, labels: Mapping[str, str], layers: Sequence[tuple[Layer, str]]) -> Image:
    """The image of ``subject`` on ``base`` with our layers, each with what it is; and how it is started."""
    environ = dict(pair.partition("=")[::2] for pair in base.config.get("Env") or ())
    environ |= {
        "PYTHONPATH": naming.LIBRARY,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": "/tmp",
        "OMP_NUM_THREADS": "1",  # a team of threads for a single row costs more than the row
    }
    config = {
        "Env": [f"{name}={value}" for name, value in environ.items()],
        "User": f"{naming.USER}:{naming.USER}",
        "WorkingDir": "/",
        "ExposedPorts": {f"{naming.PORT}/tcp": {}},
        "Entrypoint": [
            *("python3", "-m", "mlp_ci.serve.server", "--model", naming.MODEL, "--digest", subject.digest),
            *("--name", subject.model, "--version", str(subject.version)),
            *("--host", "0.0.0.0", "--port", str(naming.PORT)),
        ],
        "Labels": {**(base.config.get("Labels") or {}), **labels},
        "StopSignal": "SIGTERM",
        "Healthcheck": {
            "Test": ["CMD", "python3", "-I", "-c", _HEALTH],
            "Interval": HEALTH_SECONDS * NANO,
            "Timeout": 5 * NANO,
            "StartPeriod": 60 * NANO,
            "Retries": 3,
        },
    }
    parts = [*(f"FROM {base.name}" for _ in base.diff_ids), *(f"mlp-ci package: {what}" for _, what in layers)]
    described = {
        **base.platform,
        "created": subject.created,
        "config": config,
        "history": [{"created": subject.created, "created_by": part} for part in parts],
        "rootfs": {"type": "layers", "diff_ids": [*base.diff_ids, *(layer.diff_id for layer, _ in layers)]},
    }
    raw = json.dumps(described, sort_keys=True, separators=(",", ":")).encode()
    return Image(raw, tuple(layer for layer, _ in layers))


def write(file: Path, image: Image, layers: Sequence[Layer], reference: str) -> None:
    """The archive of the image, which is called ``reference`` when it is loaded, with these of its layers.

    An engine that has the others finds them by their digests; anybody else needs them all.
    """
    names = {diff_id: f"{diff_id.removeprefix('sha256:')}/layer.tar" for diff_id in image.diff_ids}
    listed = [names[diff_id] for diff_id in image.diff_ids]
    manifest = [{"Config": f"{image.name}.json", "RepoTags": [reference], "Layers": listed}]
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as archive:
        _add(archive, f"{image.name}.json", image.raw)
        for layer in {layer.diff_id: layer for layer in layers}.values():
            about = tarfile.TarInfo(names[layer.diff_id])
            about.size, about.mode = layer.size, 0o644
            with layer.file.open("rb") as stream:
                archive.addfile(about, stream)
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    about = tarfile.TarInfo(path)
    about.size, about.mode = len(content), 0o644
    archive.addfile(about, io.BytesIO(content))
