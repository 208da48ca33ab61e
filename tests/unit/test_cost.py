"""What training and serving cost, and what the budget says."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from mlp_ci.context import load_context
from mlp_ci.errors import InputError
from mlp_ci.monitor.cost import Item, bill, price_of, serving_items, span_of, training_items
from mlp_ci.report import Outcome
from mlp_ci.serve import Interval
from mlp_ci.spec import parse_model, parse_platform
from mlp_ci.tracking import RunFact, connect

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

NOW = datetime(2013, 7, 16, 12, tzinfo=UTC)
PLATFORM = parse_platform(
    b"""
apiVersion: mlp-ci/v1
runners:
  gpu-small: {labels: [self-hosted, gpu], usd_per_hour: 2.0}
  free: {labels: [ubuntu-latest]}
serving: {usd_per_hour: 0.5}
"""
)
MODEL = """
apiVersion: mlp-ci/v1
name: NAME
team: growth
data: {train: train.csv, test: test.csv, target: y, columns: {x: {type: float}}}
train: {command: "true"}
evaluate: {gates: [{metric: accuracy, min: 0.5}]}
cost: {budget_usd_per_month: 100}
"""


def run(runner: str, seconds: str) -> RunFact:
    return RunFact(run_id="r", status="FAILED", started=NOW, tags={"mlp.runner": runner, "mlp.train_seconds": seconds})


def interval(stage: str, version: int, first: int, last: int | None) -> Interval:
    day = datetime(2013, 7, 1, tzinfo=UTC)
    ended = None if last is None else day + timedelta(days=last)
    return Interval(stage=stage, version=version, digest="", started=day + timedelta(days=first), ended=ended)


def total(usd: float, since: str | None = None, until: str | None = None) -> tuple[Outcome, str, str]:
    item = Item(what="serving", stage="production", count=1, hours=usd, usd_per_hour=1.0)
    report = bill(parse_model(MODEL.replace("NAME", "m").encode()), span_of(since, until, NOW), [item], [])
    return report.outcome, report.findings[0].severity, report.findings[0].message


def test_hours_are_added_up_per_runner_with_failed_attempts() -> None:
    runs = [
        run("gpu-small", "3600"),
        run("gpu-small", "1800"),
        run("free", "60"),
        run("mystery", "60"),
        run("free", "x"),
    ]
    items, unpriced = training_items(runs, PLATFORM)
    assert [(i.what, i.count, i.usd) for i in items] == [
        ("training on free", 2, 0.0),
        ("training on gpu-small", 2, pytest.approx(3.0)),
        ("training on mystery", 1, 0.0),
    ]
    assert unpriced == ["mystery"]


def test_labels_have_the_price_of_the_class_with_these_labels() -> None:
    assert price_of("gpu,self-hosted", PLATFORM) == 2.0
    assert price_of("gpu", PLATFORM) is None


def test_only_serving_within_the_window_counts() -> None:
    span = span_of("2013-07-10", "2013-07-12", NOW)
    found = serving_items(
        [interval("production", 1, 0, 10), interval("production", 2, 10, None), interval("staging", 3, 0, 5)], span, 0.5
    )
    assert [(i.stage, i.count, i.hours, i.usd) for i in found] == [("production", 2, 48, 24)]


def test_the_window_is_this_month_unless_given() -> None:
    assert span_of(None, None, NOW).since == datetime(2013, 7, 1, tzinfo=UTC)
    assert span_of("2013-06-01", None, NOW).until == NOW
    with pytest.raises(InputError, match="before it starts"):
        span_of("2013-08-01", "2013-07-01", NOW)
    first = datetime(2013, 7, 1, tzinfo=UTC)
    assert span_of(None, None, first).until > first


def test_the_running_month_has_the_whole_budget() -> None:
    assert total(40)[:2] == (Outcome.PASS, "error")
    outcome, severity, message = total(60)
    assert (outcome, severity) == (Outcome.PASS, "warning")
    assert "$60.00 of $100.00 (60 %); $120.00 a month at this rate" in message
    assert total(100.01)[:2] == (Outcome.FAIL, "error")


def test_a_given_window_has_its_share_of_the_budget() -> None:
    assert total(20, "2013-07-01", "2013-07-08")[0] is Outcome.PASS
    outcome, _, message = total(25, "2013-07-01", "2013-07-08")
    assert outcome is Outcome.FAIL
    assert "of $23.00" in message


def test_cost_of_recorded_runs(
    cli: Callable[..., subprocess.CompletedProcess[str]], mlflow_server: str, tmp_path: Path
) -> None:
    name = f"m-{uuid.uuid4().hex[:8]}"
    (tmp_path / "model.yaml").write_text(MODEL.replace("NAME", name))
    (tmp_path / "platform.yaml").write_text(
        "apiVersion: mlp-ci/v1\nrunners:\n  gpu-small: {labels: [gpu], usd_per_hour: 2.0}\n"
    )
    tracking = connect(load_context(tmp_path, environ={"MLFLOW_TRACKING_URI": mlflow_server}))
    experiment = tracking.experiment(name, create=True) or ""
    for day, seconds in ((3, "7200"), (20, "180000")):
        tags = {"mlp.runner": "gpu-small", "mlp.train_seconds": seconds}
        tracking.start_run(experiment, "run", tags, datetime(2013, 7, day, tzinfo=UTC))

    def call(until: str) -> tuple[int, str]:
        done = cli(
            *("cost", "--path", tmp_path, "--platform", tmp_path / "platform.yaml", "--format", "json"),
            *("--since", "2013-07-01", "--until", until),
            MLFLOW_TRACKING_URI=mlflow_server,
        )
        return done.returncode, json.loads(done.stdout)["outputs"]["total-usd"]

    assert call("2013-07-10") == (0, "4.00")
    assert call("2013-08-01") == (3, "104.00")
