"""A whole scene for deploy and rollback: a forge, a real MLflow with three versions, and a place to serve."""

from __future__ import annotations

import hashlib
import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mlp_ci.promote import records
from mlp_ci.serve import processes
from mlp_ci.serve import state as states
from mlp_ci.serve.state import Place
from mlp_ci.serve.targets.local import local
from mlp_ci.spec import PromotionSpec, StageEntry, parse_promotion, render_promotion
from mlp_ci.tracking import Tracking, artifact_digest
from tests import promotion
from tests.serving import save_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlp_ci.context import Context
    from tests.promotion import World

MODEL_YAML = """\
apiVersion: mlp-ci/v1
name: {name}
team: growth
tier: {tier}
data:
  train: data/train.parquet
  test: data/test.parquet
  key: [flight_id]
  target: delayed
  columns:
    distance: {{type: float}}
    hour: {{type: int, sensitive: true}}
    carrier: {{type: string}}
train: {{command: python train.py}}
evaluate:
  gates:
    - {{metric: roc_auc, min: 0.7}}
serve:
  rollout: {rollout}
"""
# Nobody asks anything in most of these scenes: a step that cannot be decided goes on at once.
_CANARY = "strategy: canary, stages: [staging, production], steps: [10, 50, 100]"
UNASKED = f"{{{_CANARY}, wait: 0s, on_insufficient: advance, trust: 0s}}"
DECIDED = f"{{{_CANARY}, wait: 1h, on_insufficient: pause}}"
GOOD, BETTER, BROKEN, UNGATED = 1, 2, 3, 4
if TYPE_CHECKING:
    Models = Callable[[str], dict[int, tuple[str, dict[str, str]]]]


@cache
def trained(tracking_uri: str) -> dict[int, tuple[str, dict[str, str]]]:
    """Once per MLflow: a run per version with its artefact and evidence; run id and version tags by number."""
    tracking = Tracking(tracking_uri)
    experiment = tracking.experiment("served", create=True)
    assert experiment is not None
    made = {}
    with TemporaryDirectory(prefix="mlp-served-") as folder:
        for number in (GOOD, BETTER, BROKEN):
            made[number] = _train(tracking, experiment, Path(folder), number)
    made[UNGATED] = (made[GOOD][0], {**made[GOOD][1], "mlp.gate": "fail"})
    return made


def _train(tracking: Tracking, experiment: str, folder: Path, number: int) -> tuple[str, dict[str, str]]:
    model = save_rule(folder / str(number) / "model", far_is_late=number == GOOD, fails=number == BROKEN)
    return _store(tracking, experiment, model, number)


def _store(tracking: Tracking, experiment: str, model: Path, number: int) -> tuple[str, dict[str, str]]:
    run = tracking.start_run(experiment, f"run {number}", {}, datetime(2013, 4, number, tzinfo=UTC))
    tracking.log_folder(run, model, "model")
    evidence = model.parent / "evidence.json"
    evidence.write_text(json.dumps({"outcome": "pass", "metrics": {"roc_auc": {"value": 0.8}}, "version": number}))
    tracking.log_file(run, evidence)
    return (
        run,
        {
            "mlp.digest": artifact_digest(model),
            "mlp.gate": "pass",
            "mlp.evidence": f"sha256:{hashlib.sha256(evidence.read_bytes()).hexdigest()}",
            "mlp.data": json.dumps({"data/train.parquet": f"md5:{number:032x}"}),
        },
    )


@cache
def written(tracking_uri: str) -> dict[int, tuple[str, dict[str, str]]]:
    """As :func:`trained`, with a few bytes in place of each model: enough for a target that runs nothing."""
    tracking = Tracking(tracking_uri)
    experiment = tracking.experiment("written", create=True)
    assert experiment is not None
    with TemporaryDirectory(prefix="mlp-served-") as folder:
        made = {}
        for number in (GOOD, BETTER, BROKEN):
            model = Path(folder) / str(number) / "model"
            model.mkdir(parents=True)
            (model / "MLmodel").write_text(f"version: {number}\n")
            made[number] = _store(tracking, experiment, model, number)
    return made


def messages(report: Any) -> str:
    """All that a report's findings say."""
    return "\n".join(f"{f.outcome} {f.subject} {f.check}: {f.message} → {f.fix}" for f in report.findings)


@dataclass
class Scene:
    """One model on the forge, in MLflow and on this machine."""

    world: World
    name: str
    tracking: Tracking
    digests: dict[int, str]

    @property
    def ctx(self) -> Context:
        return self.world.ctx("app")

    @property
    def alone(self) -> Context:
        """The same without GitHub."""
        return replace(self.ctx, github=None)

    def place(self, stage: str) -> Place:
        return Place(self.ctx.serve_home, self.name, stage)

    def entries(self, **stages: int) -> bytes:
        entries = {s: StageEntry(version=v, digest=self.digests[v]) for s, v in stages.items()}
        return _text(self.name, entries)

    def promote(self, *, approve: bool = True, **stages: int) -> str:
        """A merged promotion pull request; the merge commit."""
        branch = f"promote-{uuid.uuid4().hex[:8]}"
        number = self.world.open("alice", {"promotion.yaml": self.entries(**stages)}, branch)
        if approve:
            self.world.review("bob", number)
        return self.world.merge("alice", number)

    def asked(self) -> PromotionSpec:
        """What git asks for on the default branch."""
        raw = self.world.hub().read_file("promotion.yaml", "main")
        assert raw
        return parse_promotion(raw)

    def records(self) -> list[tuple[str, int, str]]:
        """Stage, version and kind of every deployment record, oldest first."""
        return [(r.stage, r.version, r.kind) for r in records.read(self.world.hub())]

    def port(self, stage: str) -> int:
        state = states.read(self.place(stage))
        assert state
        return state.gateway_port

    def live(self, stage: str) -> int | None:
        fact = local.live(self.place(stage))
        return fact.version if fact else None


@contextmanager
def scene(
    folder: Path, tracking_uri: str, *, tier: str = "standard", models: Models = trained, rollout: str = UNASKED
) -> Iterator[Scene]:
    """Start it; at the end stop what it serves, and see that nothing is left."""
    name = f"flights-{uuid.uuid4().hex[:10]}"
    runs = models(tracking_uri)
    tracking = Tracking(tracking_uri)
    model_yaml = MODEL_YAML.format(name=name, tier=tier, rollout=rollout)
    known = promotion.world_seed()
    files: dict[str, Any] = {"model.yaml": model_yaml.encode(), "promotion.yaml": _text(name, {})}
    repos = (replace(known.repos[0], files=files), *known.repos[1:])
    with promotion.running_world(folder, replace(known, repos=repos), tracking_uri) as world:
        tracking.register_model(name, "", {})
        for number, (run, tags) in runs.items():
            known_commit = {**tags, "mlp.commit": world.main()}
            assert tracking.create_version(name, run, known_commit, "").number == number
        made = Scene(world, name, tracking, {n: tags["mlp.digest"] for n, (_, tags) in runs.items()})
        (made.ctx.repo / "model.yaml").write_text(model_yaml)
        try:
            yield made
        finally:
            local.stop_all(made.ctx.serve_home)
    for file in made.ctx.serve_home.glob("*/*/processes.json"):
        told = states.read_json(file)
        left = [told["supervisor"], *(c["process"] for c in told["children"].values())]
        assert not [p for p in map(processes.from_json, left) if p and p.alive]


def _text(name: str, entries: dict[str, StageEntry]) -> bytes:
    return render_promotion(PromotionSpec(apiVersion="mlp-ci/v1", model=name, stages=entries)).encode()
