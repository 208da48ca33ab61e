"""``mlp-ci monitor`` as the schedule runs it: a real MLflow, a real prediction log, a real process."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from mlp_ci.context import Context
from mlp_ci.data.drift.reference import reference_of
from mlp_ci.data.profiles.profile import profile_values
from mlp_ci.monitor.watch import live_version
from mlp_ci.spec.load import load_model
from mlp_ci.tracking import Tracking, connect

Cli = Callable[..., subprocess.CompletedProcess[str]]
NOW = datetime(2013, 7, 31, tzinfo=UTC)
WEEK = timedelta(days=7)
MODEL = """\
apiVersion: mlp-ci/v1
name: {name}
team: growth
data:
  train: data/train.parquet
  test: data/test.parquet
  key: [id]
  target: late
  columns:
    id: {{type: int}}
    distance: {{type: float}}
    carrier: {{type: string}}
train: {{command: "true"}}
evaluate: {{gates: [{{metric: roc_auc, min: 0.5}}]}}
monitor: {{schedule: daily, window: 7d}}
"""
ROWS = (
    "SELECT i AS id, sin(i * 12.9898) * 10 + {shift} AS distance, ['UA', 'AA', 'DL'][i % 3 + 1] AS carrier, "
    "i % 2 AS late, 0.3 + 0.4 * (i % 2) + 0.25 * cos(i * 78.233) AS prediction FROM range({rows}) t(i)"
)


@dataclass(frozen=True)
class World:
    """A model with version 1 in production, and where its log lies."""

    name: str
    repo: Path
    log: Path
    tracking: Tracking
    run_id: str
    env: dict[str, str]

    def traffic(self, rows: int, *, shift: float = 0.0, at: datetime = NOW - timedelta(hours=2)) -> None:
        hour = self.log / self.name / "stage=production" / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"
        hour.mkdir(parents=True, exist_ok=True)
        stamp = f"TIMESTAMP '{at:%Y-%m-%d %H:%M:%S}' AS ts, 'r' || id AS request_id, 1::INTEGER AS version"
        inputs = f"* EXCLUDE (late) FROM ({ROWS.format(rows=rows, shift=shift)})"
        select = f"SELECT {stamp}, 'stable' AS arm, 2.0 AS latency_ms, {inputs}"
        part = hour / f"part-{uuid.uuid4().hex}.parquet"
        duckdb.connect().execute(f"COPY ({select}) TO '{part}'")

    def clock(self, now: datetime) -> None:
        """Make it this time for every command that follows."""
        Path(self.env["MLP_CLOCK_FILE"]).write_text(now.isoformat())

    def monitor(self, cli: Cli, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return cli("monitor", "-C", self.repo, *arguments, **{**self.env, **env})

    def latest(self) -> dict[str, Any]:
        return self.tracking.read_json(self.run_id, "monitor/production-latest.json")


@pytest.fixture
def world(mlflow_server: str, tmp_path: Path) -> World:
    name = f"toy-{uuid.uuid4().hex[:8]}"
    repo = tmp_path / "repo"
    (repo / "data").mkdir(parents=True)
    (repo / "model.yaml").write_text(MODEL.format(name=name))
    context = Context(
        repo=repo, work=tmp_path, serve_home=tmp_path, prediction_log=tmp_path, tracking_uri=mlflow_server
    )
    tracking = connect(context)
    experiment = tracking.experiment(name, create=True)
    assert experiment
    run_id = tracking.start_run(experiment, "run", {"mlp.train_key": "a" * 64}, NOW)
    file = repo / "data" / "train.parquet"
    duckdb.connect().execute(f"COPY ({ROWS.format(rows=5000, shift=0)}) TO '{file}'")
    predictions = duckdb.connect().execute(f"SELECT prediction FROM '{file}'").fetchnumpy()["prediction"]
    found = reference_of([file], load_model(repo).data, timedelta(days=7))
    profile = found.with_predictions(profile_values(np.asarray(predictions)))
    (tmp_path / "profile.json").write_text(json.dumps(profile.to_json()))
    tracking.log_file(run_id, tmp_path / "profile.json")
    tracking.register_model(name, "", {})
    tracking.create_version(name, run_id, {}, "")
    tracking.set_alias(name, "production", 1)
    (tmp_path / "now").write_text(NOW.isoformat())
    env = {
        "MLFLOW_TRACKING_URI": mlflow_server,
        "MLP_PREDICTION_LOG": str(tmp_path / "log"),
        "MLP_CLOCK_FILE": str(tmp_path / "now"),
        "MLP_SERVE_HOME": str(tmp_path / "serve"),
    }
    return World(name=name, repo=repo, log=tmp_path / "log", tracking=tracking, run_id=run_id, env=env)


def test_steady_traffic_then_drift_then_the_same_look_again(world: World, cli: Cli, tmp_path: Path) -> None:
    world.traffic(1500)
    steady = world.monitor(cli, "--format", "json")
    assert steady.returncode == 0, steady.stderr
    assert json.loads(steady.stdout)["outputs"]["drifted"] == "false"
    assert world.latest()["verdict"] == "pass"

    world.clock(NOW + WEEK)
    world.traffic(3000, shift=8, at=NOW + timedelta(days=2))
    suspected = world.monitor(cli)
    assert "no alarm; distance looked different for the first time (3,000 rows)" in suspected.stdout
    assert world.latest()["verdict"] == "pass"

    world.clock(NOW + 2 * WEEK)
    world.traffic(4500, shift=8, at=NOW + timedelta(days=9))
    output, summary = tmp_path / "output", tmp_path / "summary"
    job = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
    alarm = world.monitor(cli, **job)
    assert alarm.returncode == 0, alarm.stdout + alarm.stderr
    assert "distance drifted (4,500 rows)" in alarm.stdout
    assert "::warning title=drift::distance: PSI" in alarm.stdout
    assert "drifted<<" in output.read_text()
    assert "\ntrue\n" in output.read_text()
    assert "| distance | ✗ fail |" in summary.read_text()
    latest = world.latest()
    assert (latest["verdict"], latest["drifted"], latest["rows"]) == ("alarm", True, 4500)
    assert latest["columns"][0]["column"] == "distance"
    page = world.tracking.read_bytes(world.run_id, latest["report"])
    assert page == (world.repo / ".mlp" / latest["report"]).read_bytes()

    again = world.monitor(cli, "--fail-on-drift", "--report", str(tmp_path / "mine.html"))
    assert again.returncode == 3
    assert "distance drifted" in (tmp_path / "mine.html").read_text()
    assert world.latest() == latest


def test_an_older_window_does_not_overwrite_the_latest_verdict(world: World, cli: Cli) -> None:
    world.traffic(1500, shift=8)
    world.traffic(1500, shift=8, at=NOW - timedelta(days=9))
    world.traffic(1500, at=NOW - timedelta(days=20))
    assert world.monitor(cli).returncode == 0
    assert world.monitor(cli, "--since", "2013-07-10", "--until", "2013-07-12").returncode == 0
    assert world.latest()["verdict"] == "alarm"
    old = world.tracking.read_bytes(world.run_id, "monitor/production-20130712T000000Z.html")
    assert b"no drift in 1,500 rows" in old


def test_windows_that_nobody_looked_at_are_caught_up_on(world: World, cli: Cli) -> None:
    """The schedule stood still for three weeks, in which a drift came and went."""
    world.traffic(1500)
    assert world.monitor(cli).returncode == 0
    for week, shift in enumerate((8, 8, 0), start=1):
        world.traffic(1500, shift=shift, at=NOW + week * WEEK - timedelta(days=3))
    world.clock(NOW + 3 * WEEK)
    back = world.monitor(cli)
    assert back.returncode == 0, back.stderr
    assert world.latest()["verdict"] == "pass"
    assert "distance had drifted from 2013-08-07 00:00 to 2013-08-14 00:00 UTC; no look was taken then" in back.stdout
    windows = world.latest()["timeline"]
    assert [(w["rows"], w["verdict"], w["missed"]) for w in windows] == [
        (1500, "pass", False),
        (1500, "pass", False),
        (1500, "alarm", True),
        (1500, "pass", False),
    ]
    assert windows[1]["suspected"] == ["distance"]
    assert "no look was taken then" not in world.monitor(cli).stdout, "what was told once is no news"


def test_figures_for_prometheus_are_of_the_newest_window(world: World, cli: Cli, tmp_path: Path) -> None:
    world.traffic(1500)
    world.traffic(900, at=NOW - timedelta(days=20))
    file = tmp_path / "toy.prom"
    done = world.monitor(cli, "--metrics", str(file), MLP_CI_PUSHGATEWAY="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "the figures were not pushed to 127.0.0.1:9" in done.stdout
    text = file.read_text()
    assert f'mlp_ci_monitor_rows{{model="{world.name}",stage="production"}} 1500.0\n' in text
    assert (
        world.monitor(cli, "--since", "2013-07-10", "--until", "2013-07-12", MLP_CI_METRICS=str(file)).returncode == 0
    )
    assert file.read_text() == text
    refused = world.monitor(cli, "--pushgateway", "http://jane:s3cret@host:9091")
    assert refused.returncode == 2
    assert "s3cret" not in refused.stdout + refused.stderr


def test_an_empty_log_is_said_and_is_no_failure(world: World, cli: Cli) -> None:
    done = world.monitor(cli, "--format", "json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["outcome"] == "inconclusive"
    assert report["outputs"]["drifted"] == "false"
    assert "0 rows came in" in report["headline"]


def test_no_live_version_is_nothing_to_do(world: World, cli: Cli) -> None:
    done = world.monitor(cli, "--stage", "staging")
    assert done.returncode == 4
    assert "no version of" in done.stderr
    assert "is live in staging" in done.stderr


def test_an_unknown_stage_is_bad_input(world: World, cli: Cli) -> None:
    done = world.monitor(cli, "--stage", "../../etc")
    assert done.returncode == 2
    assert "the stages are staging, production" in done.stderr


def test_a_profile_of_another_format_is_bad_input(world: World, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text('{"format": "mlp-ci/profile/v9"}')
    world.tracking.log_file(world.run_id, tmp_path / "profile.json")
    done = world.monitor(cli)
    assert done.returncode == 2
    assert "mlp-ci/profile/v9" in done.stderr
    assert "Traceback" not in done.stderr


def test_mlflow_out_of_reach_is_an_outside_error(world: World, cli: Cli) -> None:
    done = world.monitor(cli, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 7
    assert "Traceback" not in done.stderr


def test_the_alias_says_what_is_live_where_the_target_does_not(world: World) -> None:
    context = Context(repo=world.repo, work=world.repo, serve_home=world.repo / "none", prediction_log=world.log)
    assert live_version(context, world.tracking, load_model(world.repo), "production") == 1
