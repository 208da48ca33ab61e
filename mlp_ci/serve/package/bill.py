"""The bill of materials of an image (CycloneDX 1.6): its packages with versions, licences and hashes, base and model.

What the base image itself is made of is its maker's to say; here it is one component with its digest.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import mlp_ci

if TYPE_CHECKING:
    from mlp_ci.serve.package.bases import Base
    from mlp_ci.serve.package.contents import Library
    from mlp_ci.serve.package.image import Subject
    from mlp_ci.serve.package.packages import Package

_NAMESPACE = uuid.UUID("6f5ac0b4-6ce4-5b5a-9f0e-6f3c0d5f2a11")


def bill(subject: Subject, base: Base, library: Library) -> bytes:
    """The bill as JSON; the same for the same image."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    root = Component(
        type=ComponentType.CONTAINER,
        name=subject.model,
        version=f"{subject.version}+{subject.digest}",
        bom_ref="image",
    )
    model = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=subject.model,
        version=str(subject.version),
        bom_ref="model",
        hashes=[_sha256(subject.digest)],
    )
    below = Component(
        type=ComponentType.CONTAINER,
        name=base.name,
        version=base.digest,
        bom_ref="base",
        hashes=[_sha256(base.digest)],
    )
    packages = {p.name: _component(p) for p in library.packages}
    own = Component(type=ComponentType.LIBRARY, name="mlp-ci", version=mlp_ci.__version__, bom_ref="mlp-ci")
    text = f"{subject.digest} {base.digest} {library.lock.text()} {mlp_ci.__version__}"
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, text), components=[model, below, own, *packages.values()])
    bom.metadata.timestamp = datetime.fromisoformat(subject.created)
    bom.metadata.component = root
    bom.register_dependency(root, [model, below, own, *packages.values()])
    for package in library.packages:
        bom.register_dependency(packages[package.name], [packages[n] for n in package.needs if n in packages])
    written: str = JsonV1Dot6(bom).output_as_string(indent=1)
    return written.encode()


def _component(package: Package) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from packageurl import PackageURL

    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        bom_ref=f"{package.name}=={package.version}",
        purl=PackageURL("pypi", None, package.name, package.version),
        licenses=[DisjunctiveLicense(name=package.license)] if package.license else [],
        hashes=[_sha256(package.digest)],
    )


def _sha256(digest: str) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))
