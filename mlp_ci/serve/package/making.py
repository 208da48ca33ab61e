"""Makes the image of a version on an engine: base, packages, code, model, put together and loaded."""

from __future__ import annotations

import errno
import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import mlp_ci
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.progress import doing
from mlp_ci.serve.model import read_description
from mlp_ci.serve.package import bases, bill, contents, image, naming
from mlp_ci.serve.package.image import Image, Subject
from mlp_ci.serve.package.needs import needs_of
from mlp_ci.tracking import verify_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlp_ci.containers import Engine
    from mlp_ci.serve.package.bases import Base
    from mlp_ci.serve.package.contents import Library
    from mlp_ci.serve.package.lock import Lock
    from mlp_ci.spec.serve import DockerServing

_OCI = "org.opencontainers.image"


@dataclass(frozen=True, kw_only=True)
class Made:
    """An image that the engine has as ``reference``; its parts lie in ``scratch`` until the ``with`` block ends.

    ``loaded`` is what the engine calls it: the image's id, with engines that keep images as registries do another.
    """

    engine: Engine
    reference: str
    loaded: str
    image: Image
    base: Base
    library: Library
    bill: bytes
    scratch: Path

    @property
    def size(self) -> int:
        """Bytes of all layers, unpacked."""
        return self.base.size + sum(layer.size for layer in self.image.layers)

    def export(self, file: Path) -> None:
        """Write the whole image into ``file``, as `docker load`, `podman load` and skopeo read it."""
        doing(f"writing the image to {file}")
        below = bases.layers_of(self.engine, self.base, self.scratch)
        part = file.with_name(f".{file.name}.part")
        try:
            image.write(part, self.image, [*below, *self.image.layers], self.reference)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)


def subject_of(folder: Path, model: str, version: int, digest: str, labels: Mapping[str, str]) -> Subject:
    """The version whose model lies in ``folder``; raises InputError when it is another one.

    The image is as old as its model: the day on which it was packaged would make every image another one.
    """
    verify_digest(folder, digest)
    written = str(read_description(folder).get("utc_time_created") or "")
    try:
        created = datetime.fromisoformat(written).replace(tzinfo=UTC, microsecond=0)
    except ValueError:
        created = datetime(1970, 1, 1, tzinfo=UTC)
    return Subject(
        model=model, version=version, digest=digest, folder=folder, created=created.isoformat(), labels=labels
    )


@contextmanager
def made(
    engine: Engine, docker: DockerServing, subject: Subject, cache: Path, lock: Lock | None = None
) -> Iterator[Made]:
    """Make the image of ``subject``, and have the engine load it. ``cache`` keeps layers between calls.

    Raises InputError for a base or packages that do not fit, OutsideError when the engine or the disk fails.
    """
    if find_spec("cyclonedx") is None or find_spec("packaging") is None:
        msg = "this mlp-ci was installed without what images take"
        fix = "pip install 'mlp-ci[serve,docker]'; in a workflow, set MLP_CI_EXTRAS: train,serve,docker"
        raise InputError(msg, fix=fix)
    cache.mkdir(parents=True, exist_ok=True)
    with _room(cache), tempfile.TemporaryDirectory(prefix=".image-", dir=cache) as folder:
        scratch = Path(folder)
        base = bases.obtain(engine, docker.base)
        library = contents.library(needs_of(subject.folder), base, scratch, lock)
        bill_ = bill.bill(subject, base, library)
        texts = {naming.LOCK: library.lock.text().encode(), naming.SBOM: bill_}
        ours = [
            (contents.library_layer(library, base, cache), f"{len(library.packages)} packages"),
            (contents.code_layer(base, cache), f"mlp-ci {mlp_ci.__version__}"),
            (contents.model_layer(subject.folder, texts, scratch / "model.tar"), f"{subject.model} {subject.version}"),
        ]
        configured = image.configured(base, subject, labels_of(subject, base), ours)
        reference = naming.reference(docker.registry, subject.model, subject.version, subject.digest)
        yield Made(
            engine=engine,
            reference=reference,
            loaded=_load(engine, base, configured, reference, scratch),
            image=configured,
            base=base,
            library=library,
            bill=bill_,
            scratch=scratch,
        )


def labels_of(subject: Subject, base: Base) -> dict[str, str]:
    """What an image says about itself: where it comes from, by the names of the Open Container Initiative and ours."""
    return {
        **subject.labels,
        f"{_OCI}.title": subject.model,
        f"{_OCI}.version": str(subject.version),
        f"{_OCI}.created": subject.created,
        f"{_OCI}.base.name": base.name,
        f"{_OCI}.base.digest": base.digest,
        naming.LABEL_MODEL: subject.model,
        naming.LABEL_VERSION: str(subject.version),
        naming.LABEL_DIGEST: subject.digest,
    }


def _load(engine: Engine, base: Base, made_image: Image, reference: str, scratch: Path) -> str:
    """Have the engine load the image; layers that it has already are not handed over again. What it calls it."""
    doing("loading the image into the engine")
    file = scratch / "image.tar"
    has = _known(engine, made_image.diff_ids)
    lacking = [layer for layer in made_image.layers if layer.diff_id not in has]
    image.write(file, made_image, lacking, reference)
    done = engine.ask("load", "--quiet", "--input", str(file))
    found = engine.describe("image", reference) if done.code == 0 else None
    if found is None or str(found["Id"]) != made_image.id:  # it keeps images otherwise, or just lost one
        below = bases.layers_of(engine, base, scratch)
        image.write(file, made_image, [*below, *made_image.layers], reference)
        done = engine.ask("load", "--quiet", "--input", str(file))
        found = engine.describe("image", reference) if done.code == 0 else None
    file.unlink(missing_ok=True)
    if found is None:
        msg = f"the engine did not load the image {reference}"
        fix = "make room where the engine keeps images (`docker system df`, `docker image prune`), and run it again"
        raise OutsideError(msg, why=done.why, fix=fix)
    return str(found["Id"])


def _known(engine: Engine, diff_ids: list[str]) -> set[str]:
    """The layers that the engine has: those of the image of which it shares the most, from the bottom up."""
    images = engine.ask("image", "ls", "--quiet", "--no-trunc").out.split()
    shown = engine.ask("image", "inspect", "--format", "{{json .RootFS.Layers}}", *dict.fromkeys(images)).out
    shared = 0
    for line in shown.splitlines():
        theirs = json.loads(line) or []
        same = (one == other for one, other in zip(diff_ids, theirs, strict=False))
        shared = max(shared, next((n for n, it in enumerate(same) if not it), min(len(diff_ids), len(theirs))))
    return set(diff_ids[:shared])


@contextmanager
def _room(cache: Path) -> Iterator[None]:
    """A full disk as what it is, wherever in the making it shows."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        msg = f"the disk is full: {error.filename or cache}"
        fix = f"make room there (an image takes about a gigabyte while it is made; {cache} may be deleted)"
        raise OutsideError(msg, why="the image was not made", fix=fix) from error
