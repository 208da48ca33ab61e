"""Live performance: labels joined with the prediction log, a metric with its interval, and the decision."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pytest
import sklearn.metrics

from mlp_ci.data.profiles.outcomes import outcomes_of, probability_edges
from mlp_ci.errors import InputError
from mlp_ci.evaluate.bootstrap import Estimate, Settings, resamples
from mlp_ci.evaluate.metrics import METRICS, value_of
from mlp_ci.monitor import performance
from mlp_ci.monitor.performance import (
    Answers,
    PerformanceLook,
    estimate_performance,
    judged,
    measure,
    performance_by_window,
)
from mlp_ci.monitor.promise import Promise, WindowPerformance, persistent, together, unrest_of
from mlp_ci.monitor.windows import Span
from mlp_ci.report import Outcome
from mlp_ci.spec.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2013, 7, 31, tzinfo=UTC)
WEEK = Span(since=NOW - timedelta(days=7), until=NOW)
EVIDENCE = {"metrics": {"roc_auc": {"value": 0.9, "low": 0.88, "high": 0.92}}}


def spec(
    labels: str | None = "labels.csv", metric: str = "roc_auc", max_drop: float = 0.03, gates: Any = None
) -> ModelSpec:
    columns = {"id": {"type": "int"}, "x": {"type": "float"}, "late": {"type": "int"}}
    return ModelSpec.model_validate(
        {
            "apiVersion": "mlp-ci/v1",
            "name": "toy",
            "team": "growth",
            "train": {"command": "true"},
            "data": {"train": "a.csv", "test": "b.csv", "key": ["id"], "target": "late", "columns": columns},
            "evaluate": {"gates": gates or [{"metric": "roc_auc", "min": 0.5}]},
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


def answers(parts: list[Path], evidence: Any = EVIDENCE) -> Answers:
    return Answers(parts=parts, version=3, evidence=evidence)


def look(repo: Path, part: Path, model: ModelSpec | None = None, evidence: Any = EVIDENCE) -> PerformanceLook:
    found = performance_by_window(repo, model or spec(), answers([part], evidence), WEEK)
    assert found is not None
    return found


def test_nobody_asked(tmp_path: Path) -> None:
    assert performance_by_window(tmp_path, spec(labels=None), answers([], {}), WEEK) is None


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
    found = performance_by_window(tmp_path, spec(), answers([]), WEEK)
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
    assert performance.evidence_estimate({"metrics": {"a": 1}}, "a").value == 1.0
    assert performance.evidence_estimate({"metrics": {"a": {"value": 0.5}}}, "a").value == 0.5
    with pytest.raises(InputError):
        performance.evidence_estimate({"metrics": {"a": {"value": True}}}, "a")


# ---------------------------------------------------------------- over time

DAYS = [Span(since=NOW - timedelta(days=n + 1), until=NOW - timedelta(days=n)) for n in reversed(range(5))]


@pytest.fixture
def week(tmp_path: Path) -> list[Path]:
    """Five days with 600 answers each; from the fourth day on the model is wrong as often as right."""
    parts = []
    for day, span in enumerate(DAYS):
        sure = 8 if day < 3 else 5
        prediction = f"CASE WHEN hash(i) % 10 < {sure} THEN 0.2 + 0.6 * (i % 2) ELSE 0.8 - 0.6 * (i % 2) END"
        file = tmp_path / f"day{day}.parquet"
        duckdb.connect().execute(
            f"COPY (SELECT TIMESTAMP '{span.since:%Y-%m-%d}' + INTERVAL 2 HOUR AS ts, 'r' || i AS request_id, "
            f"CASE WHEN i % 6 < 5 THEN 3 ELSE 2 END::INTEGER AS version, i AS id, {prediction} AS prediction "
            f"FROM range({day * 720}, {day * 720 + 720}) t(i)) TO '{file}'"
        )
        parts.append(file)
    return parts


def over_time(repo: Path, parts: list[Path], span: Span = WEEK, **changes: Any) -> PerformanceLook:
    answers = Answers(parts=parts, version=3, evidence={"metrics": {"roc_auc": {"value": 0.8}}})
    found = performance_by_window(repo, spec(), answers, span, DAYS, **changes)
    assert found is not None
    return found


def test_a_timeline_in_one_read(tmp_path: Path, week: list[Path]) -> None:
    track(tmp_path, labels(3600))
    found = over_time(tmp_path, week)
    assert [(w.since, w.until) for w in found.windows] == [(s.since.isoformat(), s.until.isoformat()) for s in DAYS]
    assert [w.outcome for w in found.windows] == ["pass", "pass", "pass", "alarm", "alarm"]
    assert [(w.answered, w.rows) for w in found.windows] == [(600, 600)] * 5
    for window, right in zip(found.windows, (0.8, 0.8, 0.8, 0.5, 0.5), strict=True):
        assert (window.low or 0) < (window.value or 0) < (window.high or 0)
        assert window.value == pytest.approx(right, abs=0.05)
    assert found.rows == 3000
    assert (found.outcome, found.answered) == ("alarm", 3000)
    json.dumps(asdict(found))


def test_labels_that_are_late_leave_windows_undecided(tmp_path: Path, week: list[Path]) -> None:
    track(tmp_path, labels(2400))
    found = over_time(tmp_path, week)
    assert [w.outcome for w in found.windows] == ["pass", "pass", "pass", "insufficient", "insufficient"]
    assert [(w.answered, w.rows) for w in found.windows[3:]] == [(600, 200), (600, 0)]
    assert found.windows[3].reason == "200 labelled rows, 500 are needed"
    assert (found.outcome, found.rows, found.answered) == ("pass", 2000, 3000)


def test_older_windows_alarm_when_the_newest_has_no_labels_yet(tmp_path: Path, week: list[Path]) -> None:
    track(tmp_path, labels(3600))
    today = Span(since=NOW, until=NOW + timedelta(days=1))
    found = over_time(tmp_path, week, today)
    assert found.outcome == "alarm"
    assert "in 2 windows in a row, the last until 2013-07-31" in found.rule
    assert found.value == found.windows[-1].value
    assert found.rule in found.finding().message


def test_two_labels_for_one_key(tmp_path: Path, part: Path) -> None:
    again = "".join(f"{i},{i % 2}\n" for i in range(100))
    other = "".join(f"{i},{1 - i % 2}\n" for i in range(100, 160))
    empty = "".join(f"{i},\n" for i in range(160, 200))
    track(tmp_path, labels(2500) + again + other + empty)
    found = look(tmp_path, part, evidence={"metrics": {"roc_auc": 0.81}})
    assert found.rows == 1940
    assert "60 answers have labels that contradict each other" in found.finding().message
    assert "500 labelled answers are of other versions than 3" in found.finding().message


def test_the_evidence_has_an_error_too(tmp_path: Path, part: Path) -> None:
    track(tmp_path, labels(2500))
    seen = look(tmp_path, part, evidence={"metrics": {"roc_auc": 0.81}})
    beyond = (seen.high or 0) + 0.035
    sure = {"metrics": {"roc_auc": {"value": beyond, "low": beyond - 0.001, "high": beyond + 0.001}}}
    unsure = {"metrics": {"roc_auc": {"value": beyond, "low": beyond - 0.06, "high": beyond + 0.06}}}
    assert look(tmp_path, part, evidence=sure).outcome == "alarm"
    assert look(tmp_path, part, evidence=unsure).outcome == "pass"


def test_text_labels_and_broken_predictions_are_no_rows(tmp_path: Path, part: Path) -> None:
    track(tmp_path, "id,late\n" + "\n".join(f"{i},{'yes' if i % 2 else 'no'}" for i in range(2500)))
    assert look(tmp_path, part).reason == "0 labelled rows, 500 are needed"


# ---------------------------------------------------------------- the rule


def window(day: int, outcome: str, days: int = 1) -> WindowPerformance:
    until = NOW + timedelta(days=day)
    since = (until - timedelta(days=days)).isoformat()
    value = {"alarm": 0.5, "pass": 0.8}.get(outcome)
    low, high = (None, None) if value is None else (value - 0.01, value + 0.01)
    return WindowPerformance(
        since=since, until=until.isoformat(), answered=9, rows=9, outcome=outcome, value=value, low=low, high=high
    )


@pytest.mark.parametrize(
    ("outcomes", "persistence", "found"),
    [
        (["pass", "alarm", "alarm"], 2, True),
        (["alarm", "alarm", "pass"], 2, False),
        (["alarm", "pass", "alarm"], 2, False),
        (["alarm", "insufficient", "alarm", "insufficient"], 2, True),
        (["insufficient", "alarm"], 2, False),
        (["alarm"], 1, True),
        (["alarm", "alarm"], 3, False),
        ([], 1, False),
    ],
)
def test_windows_in_a_row(outcomes: list[str], persistence: int, found: bool) -> None:
    assert bool(persistent([window(i, o) for i, o in enumerate(outcomes)], persistence)) is found


def test_windows_that_overlap_are_not_two() -> None:
    weekly = [window(i, "alarm", days=7) for i in range(7)]
    assert not persistent(weekly, 2)
    assert len(persistent([*weekly, window(-1, "alarm", days=7)], 2)) == 2


def promise(held_out: Estimate, max_drop: float, alpha: float = 1 / 30.4375) -> Promise:
    return Promise(metric=METRICS["accuracy"], evidence=held_out, max_drop=max_drop, alpha=alpha, persistence=2)


def accuracies(random: Any, rows: int, sets: int, truth: Any) -> list[Estimate]:
    """As :func:`measure` would find them, for many samples at once: the same resamples and their percentiles."""
    right = (random.random((rows, sets)) < truth).astype(float)
    drawn = np.concatenate([weights @ right / rows for weights in resamples(rows, Settings(replicates=500))])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return [Estimate(value=v, low=a, high=b) for v, a, b in zip(right.mean(axis=0), low, high, strict=True)]


def alarms_in_a_month(seed: int, models: int, truth: float, max_drop: float, weather: float = 0.0) -> list[int]:
    """A look a day for thirty days, at the day before and the thirty before that; 600 labelled answers a day.

    Before the month the accuracy is 0.8, in it ``truth``, each day off by what ``weather`` is on average.
    """
    random = np.random.default_rng(seed)
    found = []
    level = np.r_[np.full(30, 0.8), np.full(30, truth)] + weather * random.normal(size=(models, 60))
    every_day = accuracies(random, 600, 60 * models, level.ravel())
    for model, held_out in enumerate(accuracies(random, 2000, models, 0.8)):
        ours = promise(held_out, max_drop)
        days = []
        for number, day in enumerate(every_day[60 * model : 60 * model + 60]):
            until = NOW + timedelta(days=number)
            since = (until - timedelta(days=1)).isoformat()
            days.append(
                WindowPerformance(
                    since=since, until=until.isoformat(), answered=600, rows=600, outcome="pass", **day.facts()
                )
            )
        looks = 0
        for last in range(30, 60):
            past = tuple(days[last - 29 : last + 1])
            known = PerformanceLook(metric="accuracy", outcome="insufficient", rows=0, windows=past)
            looks += judged(replace(ours, unrest=unrest_of(past)), known, past[-1]).outcome == "alarm"
        found.append(looks)
    return found


@pytest.mark.slow
def test_false_alarms_of_models_that_stay_as_they_are() -> None:
    """At most one per model and month even where no drop at all is accepted; far fewer where one is."""
    assert float(np.mean(alarms_in_a_month(1, 200, truth=0.8, max_drop=0.0))) <= 1
    assert float(np.mean(alarms_in_a_month(2, 200, truth=0.8, max_drop=0.03))) <= 0.01


@pytest.mark.parametrize("months", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_days_that_differ_are_no_alarm(months: int) -> None:
    assert float(np.mean(alarms_in_a_month(3, months, truth=0.8, max_drop=0.0, weather=0.04))) <= 1
    assert float(np.mean(alarms_in_a_month(4, months, truth=0.8, max_drop=0.03, weather=0.04))) <= 0.3


def test_a_real_drop_is_found() -> None:
    assert sum(looks > 0 for looks in alarms_in_a_month(5, 50, truth=0.72, max_drop=0.03)) >= 48
    assert sum(looks > 0 for looks in alarms_in_a_month(6, 50, truth=0.68, max_drop=0.03, weather=0.04)) >= 45


def test_unrest_is_what_rows_do_not_explain() -> None:
    def steps(values: list[float]) -> list[WindowPerformance]:
        made = [window(i, "pass") for i in range(len(values))]
        return [replace(w, value=v, low=v - 0.0196, high=v + 0.0196) for w, v in zip(made, values, strict=True)]

    random = np.random.default_rng(0)
    quiet = (0.8 + 0.01 * random.normal(size=400)).tolist()
    assert unrest_of(steps(quiet)) == pytest.approx(1, abs=0.1)
    assert unrest_of(steps((0.8 + 0.03 * random.normal(size=400)).tolist())) == pytest.approx(3, abs=0.4)
    assert unrest_of(steps([*quiet[:30], *(v - 0.2 for v in quiet[30:60])])) < 1.4, "one drop is no unrest"
    assert unrest_of(steps([0.1, 0.9, 0.1, 0.9, 0.1])) == 1, "five windows tell nothing"
    same = [replace(w, low=0.8, high=0.8) for w in steps([0.8] * 9)]
    assert unrest_of(same) == 1
    assert unrest_of([]) == 1


def test_together_windows_know_more() -> None:
    value, low, high = together([window(0, "pass"), window(1, "pass")])
    assert (value, high - low) == (pytest.approx(0.8), pytest.approx(0.02 / 2**0.5))


# ---------------------------------------------------------------- without labels


def test_the_estimate_is_of_the_metric_that_the_team_watches() -> None:
    random = np.random.default_rng(1)
    said = random.uniform(size=2000)
    outcomes = outcomes_of(probability_edges(said), said, (random.uniform(size=2000) < said).astype(int))
    evidence = {"metrics": {"roc_auc": {"value": 0.83}, "brier": 0.17}}
    watched = estimate_performance(spec(metric="brier"), evidence, outcomes, outcomes.rows)
    assert (watched.metric, watched.value) == ("brier", pytest.approx(0.17))
    gated = spec(gates=[{"metric": "latency_p99_ms", "max": 9}, {"metric": "brier", "max": 1}])
    unwatched = gated.model_copy(update={"monitor": gated.monitor.model_copy(update={"performance": None})})
    assert estimate_performance(unwatched, evidence, outcomes, outcomes.rows).metric == "brier"
    assert estimate_performance(spec(), {}, outcomes, outcomes.rows).outcome == "insufficient"
    assert estimate_performance(spec(), evidence, None, ()).outcome == "none"
    other = estimate_performance(spec(), evidence, outcomes, (900,))
    assert (other.outcome, other.rows) == ("insufficient", 900)
    assert "1 bins of predictions" in other.reason
