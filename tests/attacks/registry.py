"""A model's versions in MLflow: registered truthfully, and what somebody with write access to MLflow can do to them."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx

from mlp_ci.tracking import Tracking, artifact_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

TRAINED = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Version:
    """A registered version. ``bytes_of``: the letter that stands for its artefact; same letter, same bytes."""

    number: int
    run: str
    digest: str
    evidence: str
    bytes_of: str


def evidence_of(roc_auc: float, outcome: str = "pass", on_inconclusive: str = "ask") -> dict[str, Any]:
    """What an evaluation found, in the words of the evidence file."""
    metrics = {"roc_auc": {"value": roc_auc}}
    return {"outcome": outcome, "on_inconclusive": on_inconclusive, "metrics": metrics, "gates": []}


@dataclass
class Registry:
    """MLflow. ``models``: a folder of real models by letter; without them a digest is all there is of a version."""

    tracking: Tracking
    experiment: str
    models: Path | None = None

    def register(
        self, model: str, commit: str, wanted: Mapping[int, str], undecided: Mapping[int, str] | None = None
    ) -> dict[int, Version]:
        """Versions with these numbers (from 1) and bytes, all trained from ``commit``, all past their gate.

        ``undecided``: the versions whose gates the rows did not decide, and what their model.yaml said that means.
        """
        self.tracking.register_model(model, "", {})
        care = undecided or {}
        return {int(n): self.add(model, commit, int(n), letter, care.get(n, "")) for n, letter in wanted.items()}

    def add(self, model: str, commit: str, number: int, letter: str, undecided: str = "") -> Version:
        """One truthful version: a run, the artefact in it, and evidence whose digest the version carries."""
        tags = {"mlp.status": "trained", "mlp.train_seconds": "90", "mlp.runner": "default"}
        run = self.tracking.start_run(self.experiment, f"{model} {number}", tags, TRAINED)
        digest = self._artefact(run, letter)
        outcome = "inconclusive" if undecided else "pass"
        evidence = self.put_evidence(run, evidence_of(0.8 + number / 100, outcome, undecided or "ask"))
        self.tracking.set_status(run, "FINISHED", TRAINED)
        described = {
            "mlp.digest": digest,
            "mlp.gate": "pass" if undecided == "pass" else outcome,
            "mlp.evidence": evidence,
            "mlp.commit": commit,
            "mlp.data": json.dumps({"data/train.parquet": f"md5:{number:032x}"}),
        }
        made = self.tracking.create_version(model, run, described, "")
        assert made.number == number, f"MLflow numbered it {made.number}"
        return Version(number, run, digest, evidence, letter)

    def _artefact(self, run: str, letter: str) -> str:
        if self.models is None:
            return f"sha256:{hashlib.sha256(letter.encode()).hexdigest()}"
        self.tracking.log_folder(run, self.models / letter, "model")
        return artifact_digest(self.models / letter)

    def digest(self, letter: str) -> str:
        if self.models is None:
            return f"sha256:{hashlib.sha256(letter.encode()).hexdigest()}"
        return artifact_digest(self.models / letter)

    def put_artefact(self, run: str, letter: str) -> str:
        """Other bytes in the place of a run's model."""
        return self._artefact(run, letter)

    def put_evidence(self, run: str, evidence: Mapping[str, Any]) -> str:
        """Write evidence.json of a run; returns its digest."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / "evidence.json"
            file.write_text(json.dumps(evidence))
            self.tracking.log_file(run, file)
            return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"

    def forget(self, model: str) -> None:
        """Delete the registered model with all its versions, so that MLflow counts from 1 again."""
        address = f"{self.tracking.uri}/api/2.0/mlflow/registered-models/delete"
        httpx.request("DELETE", address, json={"name": model}, timeout=60).raise_for_status()


def real_models(folder: Path, letters: str = "abcde") -> Path:
    """A folder with a real, servable model by letter, each of other bytes.

    Graphs: their server starts in an eighth of the processor time that one of scikit-learn takes.
    """
    from tests.serve.models import save_onnx

    first = save_onnx(folder / letters[0], columns=False)
    for letter in letters[1:]:
        shutil.copytree(first, folder / letter)
        (folder / letter / "NOTES").write_text(letter)
    return folder


def open_registry(uri: str, models: Path | None = None) -> Registry:
    tracking = Tracking(uri)
    experiment = tracking.experiment("attacks", create=True)
    assert experiment is not None
    return Registry(tracking, experiment, models)
