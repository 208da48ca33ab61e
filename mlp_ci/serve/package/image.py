"""The image itself: its configuration, and the archive that engines load (`docker load`, `podman load`, skopeo)."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.package import naming

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

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
    """An image that was written to ``file``; ``id`` is the digest of its configuration."""

    id: str
    file: Path
    config: Mapping[str, Any]


def configured(
    base: Mapping[str, Any], subject: Subject, labels: Mapping[str, str], layers: Sequence[tuple[Layer, str]]
) -> dict[str, Any]:
    """The configuration of the image: the base's, with our layers (each with what it is), and how it is started."""
    before = dict(base.get("config") or {})
    environ = dict(pair.partition("=")[::2] for pair in before.get("Env") or ())
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
        "Labels": {**(before.get("Labels") or {}), **labels},
        "StopSignal": "SIGTERM",
        "Healthcheck": {
            "Test": ["CMD", "python3", "-I", "-c", _HEALTH],
            "Interval": HEALTH_SECONDS * NANO,
            "Timeout": 5 * NANO,
            "StartPeriod": 60 * NANO,
            "Retries": 3,
        },
    }
    history = [{"created": subject.created, "created_by": f"mlp-ci package: {what}"} for _, what in layers]
    diff_ids = [*base["rootfs"]["diff_ids"], *(layer.diff_id for layer, _ in layers)]
    kept = {k: base[k] for k in ("architecture", "os", "variant", "os.version") if k in base}
    return {
        **kept,
        "created": subject.created,
        "config": config,
        "history": [*(base.get("history") or ()), *history],
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }


def write(file: Path, config: Mapping[str, Any], layers: Sequence[Layer], reference: str) -> Image:
    """The archive with all layers, the base's first; loaded, it is called ``reference``."""
    raw = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    name = hashlib.sha256(raw).hexdigest()
    names = [f"{layer.diff_id.removeprefix('sha256:')}/layer.tar" for layer in layers]
    manifest = [{"Config": f"{name}.json", "RepoTags": [reference], "Layers": names}]
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as archive:
        _add(archive, f"{name}.json", raw)
        for path, layer in dict(zip(names, layers, strict=True)).items():
            about = tarfile.TarInfo(path)
            about.size, about.mode = layer.size, 0o644
            with layer.file.open("rb") as stream:
                archive.addfile(about, stream)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    return Image(f"sha256:{name}", file, config)


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    about = tarfile.TarInfo(path)
    about.size, about.mode = len(content), 0o644
    archive.addfile(about, io.BytesIO(content))
