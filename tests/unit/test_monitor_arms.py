"""How good both versions of a rollout are by the labels that have come; the analysis is handed the numbers."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from mlp_ci.monitor.arms import source
from mlp_ci.serve.analysis import Design, analyse
from mlp_ci.serve.measured import Seen
from mlp_ci.serve.rollout.progress import Stratum
from mlp_ci.spec.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

BEGAN = datetime(2013, 7, 30, 12, tzinfo=UTC)
ACCURACY = {"metric": "accuracy", "max_drop": 0.05}


def spec(labels: str | None = "labels.csv", *checks: dict[str, Any]) -> ModelSpec:
    columns = {"id": {"type": "int"}, "late": {"type": "int"}}
    return ModelSpec.model_validate(
        {
            "apiVersion": "mlp-ci/v1",
            "name": "toy",
            "team": "growth",
            "train": {"command": "true"},
            "data": {"train": "a.csv", "test": "b.csv", "key": ["id"], "target": "late", "columns": columns},
            "evaluate": {"gates": [{"metric": "roc_auc", "min": 0.5}]},
            "monitor": {"labels": labels},
            "serve": {"rollout": {"strategy": "canary", "analysis": list(checks or (ACCURACY,))}},
        }
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """2,000 answers of version 3, nine in ten right, 1,000 of version 4, seven in ten; and old ones of 3, all wrong."""
    folder = tmp_path / "log" / "toy" / "stage=production"
    for name, at, many, rule in (
        ("date=2013-07-30/hour=13", "2013-07-30 13:30", 3000, "CASE WHEN i < 2000 THEN i % 10 < 9 ELSE i % 10 < 7 END"),
        ("date=2013-07-30/hour=10", "2013-07-30 10:30", 500, "false"),
    ):
        (folder / name).mkdir(parents=True)
        duckdb.connect().execute(
            f"COPY (SELECT TIMESTAMP '{at}' AS ts, 'r' || i AS request_id, "
            f"CASE WHEN i < 2000 THEN 3 ELSE 4 END::INTEGER AS version, i AS id, "
            f"CASE WHEN {rule} THEN i // 10 % 2 ELSE 1 - i // 10 % 2 END::DOUBLE AS prediction "
            f"FROM range({many}) t(i)) TO '{folder / name / 'part.parquet'}'"
        )
    return tmp_path / "log"


def track(repo: Path, rows: int) -> None:
    """Labels with the pointer that `dvc add` writes."""
    text = "\n".join(["id,late", *(f"{i},{i // 10 % 2}" for i in range(rows))]) + "\n"
    (repo / "labels.csv").write_text(text)
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    (repo / "labels.csv.dvc").write_text(f"outs:\n- md5: {digest}\n  hash: md5\n  path: labels.csv\n")


def test_both_versions_are_measured_since_the_rollout_began(tmp_path: Path, log: Path) -> None:
    track(tmp_path, 3000)
    labels = source(tmp_path, spec(), log)
    assert labels is not None
    found = labels("production", BEGAN, (3, 4))
    assert set(found) == {3, 4}
    rows, value, variance = found[3]["accuracy"]
    assert (rows, value) == (2000, pytest.approx(0.9))
    assert variance == pytest.approx(0.09, rel=0.15)
    assert found[4]["accuracy"][:2] == (1000, pytest.approx(0.7))
    assert found[4]["accuracy"][2] == pytest.approx(0.21, rel=0.15)
    seen = [Seen(requests=1000, means=found[v]) for v in (3, 4)]
    step = Stratum(weight=10, started=BEGAN.isoformat(), stable=seen[0], canary=seen[1])
    (judged,) = analyse(spec().serve.rollout.analysis, [step], Design()).judged
    assert str(judged.verdict) == "fail"
    (tmp_path / "labels.csv").unlink()
    assert labels("production", BEGAN, (3, 4)) == found  # labels are not fetched at every look


def test_what_is_not_known_is_left_out(tmp_path: Path, log: Path) -> None:
    track(tmp_path, 2010)  # ten labels of version 4
    labels = source(tmp_path, spec(), log)
    assert labels is not None
    assert set(labels("production", BEGAN, (3, 4))) == {3}
    assert labels("production", BEGAN + timedelta(hours=5), (3, 4)) == {}
    assert labels("staging", BEGAN, (3, 4)) == {}
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "labels.csv.dvc").unlink()
    again = source(tmp_path, spec(), log)
    assert again is not None
    assert again("production", BEGAN, (3, 4)) == {}


def test_nothing_to_ask_where_nobody_wants_it(tmp_path: Path, log: Path) -> None:
    assert source(tmp_path, spec(None), log) is None
    assert source(tmp_path, spec("labels.csv", {"metric": "error_rate", "max_increase": 0.01}), log) is None
