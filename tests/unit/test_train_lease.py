"""The lease of a run: renewed while somebody trains or uploads, and never written over what comes after."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime

import pytest

from mlp_ci.tracking import Tracking
from mlp_ci.train import lease

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def run(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Tracking, str]:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    tracking = Tracking(mlflow_server)
    experiment = tracking.experiment(f"leased-{uuid.uuid4().hex[:8]}", create=True)
    assert experiment
    return tracking, tracking.start_run(experiment, "one", {"mlp.train_seconds": "7.000"}, NOW)


def test_an_upload_keeps_the_lease_and_leaves_the_seconds_alone(run: tuple[Tracking, str]) -> None:
    tracking, run_id = run
    with lease.Heartbeat(tracking, run_id, lease.Leases(tracking, "here:/work")):
        time.sleep(0.3)
        held = tracking.run(run_id)
    assert lease.Leases(tracking, "elsewhere:/work").held_by_another(held)
    assert not lease.Leases(tracking, "here:/work").held_by_another(held)
    assert held.tags["mlp.train_seconds"] == "7.000"


@pytest.mark.parametrize("wait", [0.0, 0.01, 0.02, 0.03])
def test_after_the_block_nothing_is_renewed(run: tuple[Tracking, str], wait: float) -> None:
    tracking, run_id = run

    def tell() -> None:
        tracking.log(run_id, tags={"mlp.train_seconds": "8.000"})

    with lease.Heartbeat(tracking, run_id, lease.Leases(tracking, "here:/work"), tell):
        time.sleep(0.05 + wait)
    tracking.log(run_id, tags={lease.TAG: "", "mlp.train_seconds": "9.000"})
    time.sleep(0.1)
    tags = tracking.run(run_id).tags
    assert (tags[lease.TAG], tags["mlp.train_seconds"]) == ("", "9.000")
