"""What the image of a version is called, and where things lie in it."""

from __future__ import annotations

PLACE = "/opt/mlp-ci"
LIBRARY = f"{PLACE}/lib"
MODEL = f"{PLACE}/model"
LOCK = f"{PLACE}/lock.txt"
SBOM = f"{PLACE}/sbom.cdx.json"
PORT = 8080
USER = 10001  # nobody's number on any distribution, so that files of the image belong to somebody else
LOCAL = "mlp-ci"  # where there is no registry
# Labels of ours; the others are those of the Open Container Initiative.
LABEL_MODEL, LABEL_VERSION, LABEL_DIGEST = "mlp-ci.model", "mlp-ci.version", "mlp-ci.digest"


def reference(registry: str | None, model: str, version: int, digest: str) -> str:
    """The image of a version: ``<registry>/<model>:v<version>-<first 12 of the digest>``.

    It can be told without asking anybody, and other bytes under the same number are another image.
    """
    return f"{registry or LOCAL}/{model}:v{version}-{digest.removeprefix('sha256:')[:12]}".lower()
