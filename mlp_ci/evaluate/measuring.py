"""What is measured of a model rather than computed from its predictions: latency, memory, size, a team's own metrics.

Measured again it comes out differently. So it is measured once per model, held-out data and command, and stored with
the run: evidence takes it from there, and is the same bytes for the same inputs.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError
from mlp_ci.evaluate.custom import Own
from mlp_ci.evaluate.measured import estimates_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.evaluate.bootstrap import Estimate
    from mlp_ci.evaluate.job import Job

FORMAT = "mlp-ci/measurements/v1"
FOLDER = "measurements"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What measurements are about: a model by its digest, held-out data by its digest, the command of model.yaml."""

    model: str
    test: str
    command: str = ""

    @property
    def file(self) -> str:
        """The name of the file in the run."""
        text = json.dumps([self.model, self.test, self.command])
        return f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What was measured of one subject; ``digest`` is the one of the stored bytes.

    ``facts`` as :func:`mlp_ci.evaluate.measured.facts` gives them; ``own`` are a team's own metrics by name.
    """

    facts: Mapping[str, Any]
    own: Mapping[str, Own]
    digest: str

    def estimates(self, confidence: float) -> dict[str, Estimate]:
        """All of it as metrics."""
        return {**estimates_of(self.facts, confidence), **{name: one.estimate() for name, one in self.own.items()}}


def kept(job: Job, subject: Subject) -> Measurements | None:
    """What was measured earlier; InputError when the file is damaged."""
    path = f"{FOLDER}/{subject.file}"
    if not job.tracking.has_artifact(job.run.run_id, path):
        return None
    content = job.tracking.read_bytes(job.run.run_id, path)
    return read(content, subject, f"{path} of run {job.run.run_id}")


def keep(job: Job, subject: Subject, facts: Mapping[str, Any], own: Mapping[str, Own]) -> Measurements:
    """Store what was measured with the run; returns it as it will be read again."""
    about = {"format": FORMAT, "model": subject.model, "test": subject.test, "command": subject.command}
    value = {**about, "facts": dict(facts), "own": {name: one.to_json() for name, one in own.items()}}
    content = (json.dumps(value, sort_keys=True) + "\n").encode()
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        file = Path(scratch) / subject.file
        file.write_bytes(content)
        job.tracking.log_file(job.run.run_id, file, FOLDER)
    return read(content, subject, subject.file)


def read(content: bytes, subject: Subject, where: str) -> Measurements:
    """Measurements from their file; InputError when it is damaged or about something else."""
    damaged = f"the measurements {where} are damaged"
    fix = "delete that artefact and run `mlp-ci evaluate` again: it is measured anew"
    try:
        value: Any = json.loads(content)
    except ValueError as error:
        raise InputError(damaged, why="the file is not JSON", fix=fix) from error
    told = value if isinstance(value, dict) else {}
    about = [told.get(name) for name in ("format", "model", "test", "command")]
    if about != [FORMAT, subject.model, subject.test, subject.command]:
        raise InputError(damaged, why="they are about another model, or other data", fix=fix)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    try:
        own = {str(name): Own.from_json(one) for name, one in told["own"].items()}
        found = Measurements(facts=told["facts"], own=own, digest=digest)
        found.estimates(0.95)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(damaged, why="its values are no numbers", fix=fix) from error
    return found
