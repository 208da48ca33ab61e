"""Which machines a model may ask for, for how long, at which price, and when nothing has to be trained."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from mlp_ci.plan import (
    HOSTED,
    Machine,
    Past,
    decide,
    default_machine,
    job_minutes,
    judging_machine,
    limits,
    machine_for,
    price,
)
from mlp_ci.spec import ModelSpec, PlatformSpec, RunnerClass, parse_model, parse_platform
from mlp_ci.tracking import RunFact
from mlp_ci.train.key import TrainKey

PLATFORM = parse_platform(b"""
apiVersion: mlp-ci/v1
runners:
  default:   {labels: [ubuntu-24.04], usd_per_hour: 0.48}
  gpu-small: {labels: [self-hosted, gpu-small], usd_per_hour: 1.20, gpus: 1, timeout: 8h}
  gpu-spot:  {labels: [gpu-spot], usd_per_hour: 0.40, gpus: 1, spot: true}
""")
NOBODY = parse_platform(b"apiVersion: mlp-ci/v1\n")
KEY = TrainKey(digest="ab" * 32, parts={"code": "1", "data": "2", "environment": "pip x"})
GITHUB = Machine(name="default", about=RunnerClass(labels=HOSTED))  # type: ignore[call-arg]


def model(evaluate: dict[str, Any] | None = None, **train: Any) -> ModelSpec:
    value = {
        "apiVersion": "mlp-ci/v1",
        "name": "flight-delay",
        "team": "growth",
        "data": {"train": "a.csv", "test": "b.csv", "target": "y", "columns": {"x": {"type": "float"}}},
        "train": {
            "command": "python train.py",
            "params": "params.yaml",
            "environment": {"pip": "requirements.txt"},
            **train,
        },
        "evaluate": {"gates": [{"metric": "accuracy", "min": 0.5}], **(evaluate or {})},
    }
    return parse_model(yaml.safe_dump(value).encode())


def run(seconds: float = 60, runner: str = "gpu-small", *, trained: bool = True, parts: Any = None) -> RunFact:
    status = {"mlp.status": "trained", "mlp.digest": "sha256:1"} if trained else {"mlp.status": "training"}
    status["mlp.key_parts"] = json.dumps(parts)
    return RunFact(
        run_id="r1",
        status="FINISHED" if trained else "RUNNING",
        tags={
            "mlp.runner": runner,
            "mlp.train_seconds": f"{seconds:.3f}",
            **status,
            "mlp.key_parts": json.dumps(parts),
        },
        started=datetime(2026, 1, 1, tzinfo=UTC),
    )


# ---------------------------------------------------------------- machines


@pytest.mark.parametrize("wanted", ["gpu-small", ("self-hosted", "gpu-small"), ("gpu-small", "self-hosted")])
def test_a_class_is_called_by_its_name_or_by_all_of_its_labels(wanted: str | tuple[str, ...]) -> None:
    machine, findings = machine_for(wanted, PLATFORM, GITHUB, "train.runner")
    assert (machine.name, machine.about.labels, findings) == ("gpu-small", ("self-hosted", "gpu-small"), [])


@pytest.mark.parametrize(
    "wanted", ["gpu-huge", ("self-hosted",), ("self-hosted", "gpu-small", "prod"), ("production-deployer",)]
)
@pytest.mark.parametrize("platform", [PLATFORM, NOBODY], ids=["platform", "nobody"])
def test_labels_that_the_platform_does_not_know_choose_no_machine(
    wanted: str | tuple[str, ...], platform: PlatformSpec
) -> None:
    fallback = default_machine(platform, "")
    machine, [finding] = machine_for(wanted, platform, fallback, "train.runner")
    assert machine is fallback
    assert (finding.check, finding.severity) == ("runner", "warning")
    assert f"the default runs it: {', '.join(fallback.about.labels)}" in finding.message
    assert "platform.yaml" in finding.fix


def test_the_default_is_the_platforms_then_the_repositorys_variable_then_githubs_own() -> None:
    assert default_machine(PLATFORM, "self-hosted").about.labels == ("ubuntu-24.04",)
    fallback = default_machine(NOBODY, "self-hosted, gpu")
    assert fallback.about.labels == ("self-hosted", "gpu")
    assert machine_for(("gpu", "self-hosted"), NOBODY, fallback, "train.runner") == (fallback, [])
    assert default_machine(NOBODY, "").about.labels == HOSTED


def test_what_was_trained_in_an_inherited_environment_is_judged_where_it_was_trained() -> None:
    training, _ = machine_for("gpu-small", PLATFORM, GITHUB, "train.runner")
    judged = [
        judging_machine(spec, PLATFORM, GITHUB, training)[0].name
        for spec in (
            model(),
            model(environment={"inherit": True}),
            model({"runner": "gpu-spot"}, environment={"inherit": True}),
        )
    ]
    assert judged == ["default", "gpu-small", "gpu-spot"]


def test_a_job_ends_after_the_command_may_and_not_later_than_its_class_allows() -> None:
    small = Machine(name="gpu-small", about=PLATFORM.runners["gpu-small"])
    assert job_minutes(model(timeout="2h"), small) == 150
    assert job_minutes(model(timeout="8h"), small) == 480
    assert not limits(model(timeout="8h"), small)
    [finding] = limits(model(timeout="9h"), small)
    assert finding.message == "train.timeout is 9h, and class gpu-small ends every job after 8h"
    [finding] = limits(model(resources={"gpus": 2}), small)
    assert finding.message == "the model asks for 2 GPUs, and class gpu-small has 1"
    assert not limits(model(resources={"gpus": 2}, backend="ray"), small)
    sweep = {"parameters": {"c": {"float": [1, 2]}}, "metric": "loss", "trials": 10, "jobs": 4}
    spot = Machine(name="gpu-spot", about=PLATFORM.runners["gpu-spot"])
    assert job_minutes(model(timeout="1h", sweep=sweep), spot) == 60 + 3 * 60 + 30
    assert job_minutes(model(timeout="1h", sweep={**sweep, "time": "1h"}), spot) == 60 + 60 + 30


# ---------------------------------------------------------------- what is to be done


def test_the_same_key_is_not_trained_again_unless_another_machine_would_have_another_key() -> None:
    spec, trained = model(runner="gpu-small"), run()
    said = decide(spec, KEY, Past(run=trained), lambda: None)
    assert (said.train, said.judge, said.run) == (False, True, trained)
    assert "trained already (run r1)" in said.reason
    inherits = model(runner="gpu-small", environment={"inherit": True})
    assert not decide(inherits, KEY, Past(run=trained), lambda: None).train
    other = decide(inherits, KEY, Past(run=run(runner="gpu-big")), lambda: None)
    assert other.train
    assert "another runner class" in other.reason


def test_a_change_of_documents_trains_nothing_unless_nobody_else_would() -> None:
    docs = ("README.md", "docs/more.md", ".github/workflows/x.yml")
    said = decide(model(), KEY, Past(), lambda: ("pull_request", docs))
    assert (said.train, said.judge) == (False, False)
    assert said.reason == f"nothing that makes or judges a model changed, only {', '.join(docs)}"
    for changed in (("README.md", "train.py"), ("model.yaml",), ("data/test.csv.dvc",), ()):
        assert decide(model(), KEY, Past(), lambda c=changed: ("pull_request", c)).train, changed  # type: ignore[misc]
    assert decide(model(), KEY, Past(), lambda: ("push", docs)).train, "somebody has to, after a push"
    held = Past(run=run(trained=False), busy=True)
    assert not decide(model(), KEY, held, lambda: ("push", docs)).train
    assert decide(model(), KEY, held, lambda: ("push", ("train.py",))).train


def test_the_reason_says_what_is_new() -> None:
    assert decide(model(), KEY, Past(), lambda: None).reason == "the first training of this model"
    before = run(parts={**KEY.parts, "code": "0"})
    said = decide(model(), KEY, Past(earlier=[before]), lambda: None)
    assert said.reason == "since the newest run these changed: code"
    assert "it goes on" in decide(model(), KEY, Past(run=run(trained=False), earlier=[before]), lambda: None).reason


# ---------------------------------------------------------------- money


def test_the_price_goes_by_earlier_trainings_on_the_same_class() -> None:
    small = Machine(name="gpu-small", about=PLATFORM.runners["gpu-small"])
    spec = model(runner="gpu-small", timeout="2h")
    runs = [run(600), run(1800), run(1200), run(9, "default"), run(7, trained=False)]
    usd, words = price(spec, small, runs)
    assert usd == pytest.approx(0.40)
    assert words == "about $0.4000: 20m (median of 3 earlier trainings) at $1.20 an hour"
    assert price(spec, small, []) == (None, "no earlier training on gpu-small to go by; at most $2.40 (train.timeout)")
    assert price(spec, GITHUB, runs) == (None, "class default has no price")
    sweep = {"parameters": {"c": {"float": [1, 2]}}, "metric": "loss"}
    assert price(model(sweep=sweep), small, runs)[0] is None
    assert price(model(sweep={**sweep, "budget_usd": 9}), small, runs)[0] == 9
