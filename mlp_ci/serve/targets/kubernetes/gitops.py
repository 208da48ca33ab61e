"""Manifests in a folder of a git checkout instead of in the cluster: Argo CD or Flux applies what is pushed.

What mlp-ci would apply is written, committed and pushed; what runs is still asked of the cluster, for which reading is
enough. An object counts as applied when the cluster's is what the file says. A push that is refused, since somebody
else was faster, is undone here and done again from what they pushed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci import git
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.serve.targets.kubernetes.api import PLURALS, Api, Changed
from mlp_ci.serve.targets.kubernetes.matching import contains

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.serve.targets.kubernetes.wanted import Manifest
    from mlp_ci.spec.serve import KubernetesServing

# What is asked of the cluster, and never written.
RUNNING = ("Pod", "ReplicaSet", "Gateway")
AUTHOR = ("mlp-ci", "mlp-ci@users.noreply.github.com")
NOT_YET = 2**62  # the generation of what the cluster has not yet


@dataclass(frozen=True)
class Checkout(Api):
    """The API of a cluster that is written to by git alone."""

    folder: Path = Path()

    @classmethod
    def connect(cls, where: KubernetesServing) -> Checkout:
        """The checkout as its upstream has it now; InputError where it is none, or has changes of its own."""
        api = Api.connect(where)
        folder = Path(where.gitops or "").expanduser().resolve()
        fix = "check the repository out there (actions/checkout with `path:`), on the branch that Argo CD or Flux reads"
        if not git.is_repository(folder if folder.is_dir() else folder.parent):
            msg = f"serving.kubernetes.gitops is {where.gitops}, which is in no git checkout"
            raise InputError(msg, why="manifests are committed there, and pushed", fix=fix)
        folder.mkdir(exist_ok=True)
        if git.git(folder, "status", "--porcelain"):
            msg = f"the checkout of {folder} has changes that are not committed"
            raise InputError(msg, why="a push that is refused is undone", fix="commit them, or take a fresh checkout")
        git.git(folder, "pull", "--quiet", "--ff-only")
        return cls(api.client, api.namespace, api.known, folder)

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """What the file says, with the status that the cluster gives it."""
        if kind in RUNNING:
            return super().get(api_version, kind, name, namespace)
        written = self._written(kind, name)
        if written is None:
            return None
        running = super().get(api_version, kind, name) or {}
        applied = contains(running.get("spec"), written["spec"]) and contains(
            running["metadata"].get("annotations") or {}, written["metadata"].get("annotations") or {}
        )
        generation = running["metadata"].get("generation", 0) if applied else NOT_YET
        metadata = {**written["metadata"], "generation": generation, "resourceVersion": self._mark(kind, name)}
        # That of an InferenceService does not say which generation it is about.
        told = running.get("status") or {} if applied or kind != "InferenceService" else {}
        return {**written, "metadata": metadata, "status": told}

    def find(self, api_version: str, kind: str, labels: Mapping[str, str]) -> list[Manifest]:
        if kind in RUNNING:
            return super().find(api_version, kind, labels)
        names = [file.stem.removeprefix(f"{kind.lower()}-") for file in self.folder.glob(f"{kind.lower()}-*.yaml")]
        found = [written for name in sorted(names) if (written := self._written(kind, name))]
        return [one for one in found if labels.items() <= (one["metadata"].get("labels") or {}).items()]

    def apply(self, manifest: Manifest, *, force: bool = True, dry: bool = False) -> Manifest:
        """Write the file. Nobody else manages fields of it, so there is nothing to force."""
        del force
        kind, metadata = str(manifest["kind"]), dict(manifest["metadata"])
        expected = metadata.pop("resourceVersion", None)
        if expected is not None and expected != self._mark(kind, metadata["name"]):
            msg = f"somebody else changed {kind} {metadata['name']} in between"
            raise Changed(msg, fix="run the same command again")
        wanted = {**manifest, "metadata": metadata}
        if not dry:
            self.folder.mkdir(exist_ok=True)
            self._file(kind, metadata["name"]).write_text(_text(wanted), encoding="utf-8")
        return wanted

    def create(self, manifest: Manifest) -> Manifest:
        kind, name = str(manifest["kind"]), str(manifest["metadata"]["name"])
        self.apply(manifest)
        return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": self._mark(kind, name)}}

    def delete(self, api_version: str, kind: str, name: str) -> None:
        self._file(kind, name).unlink(missing_ok=True)

    def publish(self, what: str) -> None:
        """Commit and push what was written; Changed, with the checkout as its upstream is, when somebody was faster."""
        root = Path(
            git.git(self.folder if self.folder.is_dir() else self.folder.parent, "rev-parse", "--show-toplevel")
        )
        before = git.head(root)
        made = git.add_and_commit(root, [str(self.folder)], f"mlp-ci: {what}", author=AUTHOR)
        if made == before:
            return
        try:
            git.git(root, "push", "--quiet")
        except (OutsideError, InputError) as error:
            git.git(root, "reset", "--quiet", "--hard", before)
            git.git(root, "pull", "--quiet", "--ff-only")
            if git.head(root) == before:
                msg = f"what is wanted of the cluster cannot be pushed: {what}"
                fix = "let this job push to the repository of the manifests (a token with contents: write)"
                raise OutsideError(msg, why=f"{error.what} {error.why}".strip()[:600], fix=fix) from error
            msg = f"somebody else pushed in between: {what}"
            raise Changed(msg, fix="run the same command again") from error

    def _written(self, kind: str, name: str) -> Manifest | None:
        import yaml

        file = self._file(kind, name)
        return dict(yaml.safe_load(file.read_text(encoding="utf-8"))) if file.exists() else None

    def _mark(self, kind: str, name: str) -> str:
        file = self._file(kind, name)
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.exists() else ""

    def _file(self, kind: str, name: str) -> Path:
        assert kind in PLURALS
        return self.folder / f"{kind.lower()}-{name}.yaml"


def _text(manifest: Manifest) -> str:
    import yaml

    return yaml.safe_dump(manifest, sort_keys=True, allow_unicode=True, width=120)
