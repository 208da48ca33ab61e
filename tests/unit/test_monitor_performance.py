"""Live performance: labels joined with the prediction log, a metric with its interval, and the decision."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pytest
import sklearn.metrics

from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import value_of
from mlp_ci.monitor import performance
from mlp_ci.monitor.performance import PerformanceLook, look_at_performance, measure
from mlp_ci.monitor.windows import Span
from mlp_ci.report import Outcome
from mlp_ci.spec.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2013, 7, 31, tzinfo=UTC)
WEEK = Span(since=NOW - timedelta(days=7), until=NOW)
EVIDENCE = {"metrics": {"roc_auc": {"value": 0.9, "low": 0.88, "high": 0.92}}}


def spec(labels: str | None = "labels.csv", metric: str = "roc_auc", max_drop: float = 0.03) -> ModelSpec:
    columns = {"id": {"type": "int"}, "x": {"type": "float"}, "late": {"type": "int"}}
    return ModelSpec.model_validate(
        {
            "apiVersion": "mlp-ci/v1",
            "name": "toy",
            "team": "growth",
            "train": {"command": "true"},
            "data": {"train": "a.csv", "test": "b.csv", "key": ["id"], "target": "late", "columns": columns},
            "evaluate": {"gates": [{"metric": "roc_auc", "min": 0.5}]},
            "monitor": {"labels": labels, "performance": {"metric": metric, "max_drop": max_drop}},
        }
    )


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """2,000 predictions of version 3 and 500 of version 2; late is id % 2, and most predictions know it."""
    file = tmp_path / "part.parquet"
    prediction = "CASE WHEN hash(i) % 10 < 8 THEN 0.2 + 0.6 * (i % 2) ELSE 0.8 - 0.6 * (i % 2) END"
    duckdb.connect().execute(
        f"COPY (SELECT TIMESTAMP '2013-07-30' AS ts, 'r' || i AS request_id, "
        f"CASE WHEN i < 2000 THEN 3 ELSE 2 END::INTEGER AS version, i AS id, {prediction} AS prediction "
        f"FROM range(2500) t(i)) TO '{file}'"
    )
    return file


def track(repo: Path, text: str) -> None:
    """Labels and the pointer that `dvc add` writes: what is here with the right digest needs no DVC."""
    (repo / "labels.csv").write_text(text)
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    (repo / "labels.csv.dvc").write_text(f"outs:\n- md5: {digest}\n  hash: md5\n  path: labels.csv\n")


def labels(rows: int, key: str = "id", wrong: int = 0) -> str:
    named = (f"{'r' if key == 'request_id' else ''}{i},{(i % 2) ^ (i % 5 < wrong)}" for i in range(rows))
    return f"{key},late\n" + "\n".join(named) + "\n"


def look(repo: Path, part: Path, model: ModelSpec | None = None, evidence: Any = EVIDENCE) -> PerformanceLook:
    found = look_at_performance(repo, model or spec(), [part], WEEK, 3, evidence)
    assert found is not None
    return found


def test_nobody_asked() -> None:
    assert look_at_performance(None, spec(labels=None), [], WEEK, 3, {}) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["id", "request_id"])
def test_labels_are_joined_by_key_or_by_request(tmp_path: Path, part: Path, key: str) -> None:
    track(tmp_path, labels(2500, key))
    found = look(tmp_path, part, evidence={"metrics": {"roc_auc": 0.81}})
    assert found.rows == 2000
    assert found.outcome == "pass"
    assert found.value == pytest.approx(0.8, abs=0.03)
    assert found.low is not None
    assert found.high is not None
    assert found.low < (found.value or 0) < found.high
    assert found.finding().outcome is Outcome.PASS


def test_a_drop_beyond_what_is_accepted_is_an_alarm(tmp_path: Path, part: Path) -> None:
    track(tmp_path, labels(2500, wrong=2))
    found = look(tmp_path, part)
    assert found.outcome == "alarm"
    assert found.sentence.startswith("roc_auc went from 0.900 to 0.")
    assert found.finding().severity == "warning"


def test_the_whole_interval_must_lie_beyond_the_drop(tmp_path: Path, part: Path) -> None:
    track(tmp_path, labels(600))
    seen = look(tmp_path, part)
    assert seen.value is not None
    assert seen.high is not None
    just_inside, just_beyond = seen.high + 0.029, seen.high + 0.031
    assert seen.value < just_inside - 0.03
    assert look(tmp_path, part, evidence={"metrics": {"roc_auc": just_inside}}).outcome == "pass"
    assert look(tmp_path, part, evidence={"metrics": {"roc_auc": just_beyond}}).outcome == "alarm"


@pytest.mark.parametrize(
    ("text", "evidence", "model", "reason"),
    [
        (labels(300), EVIDENCE, None, "300 labelled rows, 500 are needed"),
        (labels(2500), {}, None, "evidence has no roc_auc"),
        (labels(2500), {"metrics": {"f0_5": 1.0}}, spec(metric="f0_5"), "f0_5 cannot be measured on live data"),
        (labels(2500, key="order"), EVIDENCE, None, "cannot be joined: both need request_id or id"),
        ("id,other\n1,2\n", EVIDENCE, None, "has no column late"),
        ("id,late\n" + "\n".join(f"{i},1" for i in range(2500)), EVIDENCE, None, "do not have two classes"),
    ],
)
def test_what_stands_in_the_way_is_said(
    tmp_path: Path, part: Path, text: str, evidence: Any, model: ModelSpec | None, reason: str
) -> None:
    track(tmp_path, text)
    found = look(tmp_path, part, model, evidence)
    assert found.outcome == "insufficient"
    assert reason in found.reason
    assert found.finding().outcome is Outcome.INCONCLUSIVE


def test_labels_that_are_not_there_do_not_blind_the_look(tmp_path: Path, part: Path) -> None:
    assert "DVC does not track it" in look(tmp_path, part).reason


def test_no_traffic(tmp_path: Path) -> None:
    track(tmp_path, labels(100))
    found = look_at_performance(tmp_path, spec(), [], WEEK, 3, EVIDENCE)
    assert found is not None
    assert found.reason == "no predictions in this window"


def value(name: str, labels: Any, predictions: Any) -> float:
    metric = performance.metric_named(name)
    return value_of(metric, performance.predictions_of(metric, labels, predictions))


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_the_evidence_and_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, 500).astype(float)
    p = np.round(np.clip(0.3 * y + random.uniform(0, 0.7, 500), 0, 1), 2)
    assert value("roc_auc", y, p) == pytest.approx(sklearn.metrics.roc_auc_score(y, p))
    assert value("roc_auc", y + 1, 10 * p) == pytest.approx(sklearn.metrics.roc_auc_score(y, p)), (
        "any score has an order"
    )
    assert value("pr_auc", y, p) == pytest.approx(sklearn.metrics.average_precision_score(y, p))
    assert value("accuracy", y, p) == pytest.approx(sklearn.metrics.accuracy_score(y, p >= 0.5))
    assert value("f1", y, p) == pytest.approx(sklearn.metrics.f1_score(y, p >= 0.5))
    assert value("log_loss", y, p) == pytest.approx(sklearn.metrics.log_loss(y, p))
    assert value("brier", y, p) == pytest.approx(sklearn.metrics.brier_score_loss(y, p))
    classes, guesses = random.integers(1, 5, 500).astype(float), random.integers(1, 5, 500).astype(float)
    assert value("accuracy", classes, guesses) == pytest.approx(sklearn.metrics.accuracy_score(classes, guesses))
    z = random.normal(size=500)
    assert value("rmse", z, p) == pytest.approx(sklearn.metrics.root_mean_squared_error(z, p))
    assert value("mae", z, p) == pytest.approx(sklearn.metrics.mean_absolute_error(z, p))


def test_scores_are_no_probabilities() -> None:
    with pytest.raises(InputError, match="brier needs probabilities"):
        value("brier", np.asarray([0.0, 1.0]), np.asarray([-3.0, 7.0]))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    inside = 0
    for _ in range(60):
        y = (random.uniform(size=600) < 0.7).astype(float)
        _, low, high = measure(performance.metric_named("accuracy"), y, np.ones(600), 100)
        inside += low <= 0.7 <= high
    assert inside >= 51


def test_a_metric_where_less_is_better(tmp_path: Path, part: Path) -> None:
    track(tmp_path, labels(2500, wrong=2))
    assert look(tmp_path, part, spec(metric="brier"), {"metrics": {"brier": 0.1}}).outcome == "alarm"
    assert look(tmp_path, part, spec(metric="brier"), {"metrics": {"brier": 0.4}}).outcome == "pass"


def test_evidence_may_be_a_number_or_a_metric_with_its_interval() -> None:
    assert performance.evidence_value({"metrics": {"a": 1}}, "a") == 1.0
    assert performance.evidence_value({"metrics": {"a": {"value": 0.5}}}, "a") == 0.5
    with pytest.raises(InputError):
        performance.evidence_value({"metrics": {"a": {"value": True}}}, "a")
