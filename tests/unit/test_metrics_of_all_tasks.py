"""Every metric against scikit-learn with weights, or against its definition where scikit-learn has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import (
    BINARY,
    FORECASTING,
    METRICS,
    MULTICLASS,
    MULTILABEL,
    RANKING,
    REGRESSION,
    Predictions,
    Sums,
    computable,
    metric_called,
    value_of,
    why_undefined,
)

Expected = dict[str, float]


def binary(seed: int = 0, rows: int = 500, digits: int = 2) -> Predictions:
    """Scores rounded to ``digits``, so that there are ties."""
    chance = np.random.default_rng(seed)
    target = chance.integers(0, 2, rows)
    score = np.round(1 / (1 + np.exp(-(2 * target - 1 + chance.normal(size=rows)))), digits)
    label = (score >= 0.5).astype(int)
    return Predictions(task=BINARY, target=target, label=label, probability=score, classes=("0", "1"))


def multiclass(seed: int = 0, rows: int = 400) -> Predictions:
    """Of four classes the last is never the target, and sometimes predicted."""
    chance = np.random.default_rng(seed)
    target = chance.integers(0, 3, rows)
    raw = chance.random((rows, 4)) + 0.6 * np.eye(4)[target]
    likely = raw / raw.sum(axis=1, keepdims=True)
    classes = ("a", "b", "c", "d")
    return Predictions(task=MULTICLASS, target=target, label=likely.argmax(axis=1), probability=likely, classes=classes)


def multilabel(seed: int = 0, rows: int = 300) -> Predictions:
    chance = np.random.default_rng(seed)
    target = (chance.random((rows, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(int)
    likely = np.round(np.clip(target * 0.3 + chance.random((rows, 4)) * 0.7, 0, 1), 3)
    label = (likely >= 0.5).astype(int)
    return Predictions(task=MULTILABEL, target=target, label=label, probability=likely, classes=("a", "b", "c", "d"))


def regression(seed: int = 0, rows: int = 400, task: str = REGRESSION) -> Predictions:
    chance = np.random.default_rng(seed)
    target = chance.normal(1e4, 30, rows)
    label = target + chance.normal(1, 10, size=rows)
    series = np.arange(rows) % 7
    scale = np.where(series == 6, np.nan, 1.0 + series)
    return Predictions(task=task, target=target, label=label, groups=series, scale=scale)


def ranking(seed: int = 0, queries: int = 60, *, ties: bool = False) -> Predictions:
    """Queries of 2 to 15 rows in a mixed order; some have no relevant row."""
    chance = np.random.default_rng(seed)
    groups = np.repeat(np.arange(queries), chance.integers(2, 16, queries))
    chance.shuffle(groups)
    target = chance.integers(0, 4, len(groups)) * (chance.random(len(groups)) < 0.4)
    score = target + chance.normal(0, 2, len(groups))
    return Predictions(task=RANKING, target=target, label=score.round(0) if ties else score, groups=groups)


ALL: dict[str, Predictions] = {
    BINARY: binary(),
    MULTICLASS: multiclass(),
    MULTILABEL: multilabel(),
    REGRESSION: regression(),
    FORECASTING: regression(task=FORECASTING),
    RANKING: ranking(),
}


def found(p: Predictions, w: Any, names: Expected) -> Expected:
    values = {}
    for name in names:
        compute = metric_called(name, p.task).values
        assert compute
        values[name] = float(compute(p, w[None])[0])
    return values


@pytest.mark.parametrize("digits", [1, 2, 8])
def test_two_classes(digits: int) -> None:
    for seed in range(3):
        p = binary(seed, digits=digits)
        w = np.random.default_rng(seed).integers(0, 4, len(p)).astype(float)
        t, y, s = p.target, p.label, p.probability
        fpr, tpr, _ = sk.roc_curve(t, s, sample_weight=w, drop_intermediate=False)
        expected: Expected = {
            "roc_auc": sk.roc_auc_score(t, s, sample_weight=w),
            "pr_auc": sk.average_precision_score(t, s, sample_weight=w),
            "log_loss": sk.log_loss(t, s, sample_weight=w),
            "brier": sk.brier_score_loss(t, s, sample_weight=w),
            "brier_skill": sk.d2_brier_score(t, s, sample_weight=w),
            "gini": 2 * sk.roc_auc_score(t, s, sample_weight=w) - 1,
            "ks": np.abs(tpr - fpr).max(),
            "recall_at_fpr_0.1": tpr[fpr <= 0.1].max(),
            "accuracy": sk.accuracy_score(t, y, sample_weight=w),
            "balanced_accuracy": sk.balanced_accuracy_score(t, y, sample_weight=w),
            "f1": sk.f1_score(t, y, sample_weight=w),
            "f2": sk.fbeta_score(t, y, beta=2, sample_weight=w),
            "f0.5": sk.fbeta_score(t, y, beta=0.5, sample_weight=w),
            "precision": sk.precision_score(t, y, sample_weight=w),
            "recall": sk.recall_score(t, y, sample_weight=w),
            "specificity": sk.recall_score(t, y, pos_label=0, sample_weight=w),
            "negative_predictive_value": sk.precision_score(t, y, pos_label=0, sample_weight=w),
            "false_positive_rate": 1 - sk.recall_score(t, y, pos_label=0, sample_weight=w),
            "false_negative_rate": 1 - sk.recall_score(t, y, sample_weight=w),
            "selection_rate": np.average(y, weights=w),
            "mcc": sk.matthews_corrcoef(t, y, sample_weight=w),
            "cohen_kappa": sk.cohen_kappa_score(t, y, sample_weight=w),
        }
        assert found(p, w, expected) == pytest.approx(expected, rel=1e-9)


def test_more_classes() -> None:
    p = multiclass()
    w = np.random.default_rng(1).integers(0, 4, len(p)).astype(float)
    t, y, s = p.target, p.label, p.probability
    assert s is not None
    known = s[:, :3] / s[:, :3].sum(axis=1, keepdims=True)
    three = Predictions(task=MULTICLASS, target=t, label=y, probability=known, classes=("a", "b", "c"))
    expected: Expected = {
        "accuracy": sk.accuracy_score(t, y, sample_weight=w),
        "balanced_accuracy": np.average(sk.recall_score(t, y, labels=[0, 1, 2], average=None, sample_weight=w)),
        "mcc": sk.matthews_corrcoef(t, y, sample_weight=w),
        "cohen_kappa": sk.cohen_kappa_score(t, y, sample_weight=w),
        "quadratic_kappa": sk.cohen_kappa_score(t, y, weights="quadratic", sample_weight=w),
        "log_loss": sk.log_loss(t, s, labels=[0, 1, 2, 3], sample_weight=w),
        "brier": sk.brier_score_loss(t, s, labels=[0, 1, 2, 3], sample_weight=w),
        "top_2_accuracy": sk.top_k_accuracy_score(t, s, k=2, labels=[0, 1, 2, 3], sample_weight=w),
        "recall_of_b": sk.recall_score(t, y, labels=[1], average=None, sample_weight=w)[0],
        "f1_of_c": sk.f1_score(t, y, labels=[2], average=None, sample_weight=w)[0],
    }
    for average in ("macro", "weighted"):
        for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            expected[f"{average}_{name}"] = score(t, y, average=average, zero_division=0, sample_weight=w)
    assert found(p, w, expected) == pytest.approx(expected, rel=1e-9)
    curves: Expected = {
        "macro_roc_auc": sk.roc_auc_score(t, known, multi_class="ovr", sample_weight=w),
        "macro_pr_auc": sk.average_precision_score(np.eye(3)[t], known, sample_weight=w),
    }
    assert found(three, w, curves) == pytest.approx(curves, rel=1e-9)


def test_several_labels() -> None:
    p = multilabel()
    w = np.random.default_rng(1).integers(0, 4, len(p)).astype(float)
    t, y, s = p.target, p.label, p.probability
    assert s is not None
    expected: Expected = {
        "subset_accuracy": sk.accuracy_score(t, y, sample_weight=w),
        "hamming_loss": sk.hamming_loss(t, y, sample_weight=w),
        "samples_jaccard": sk.jaccard_score(t, y, average="samples", zero_division=1, sample_weight=w),
        "samples_f1": sk.f1_score(t, y, average="samples", zero_division=1, sample_weight=w),
        "label_ranking": sk.label_ranking_average_precision_score(t, s, sample_weight=w),
        "macro_roc_auc": sk.roc_auc_score(t, s, sample_weight=w),
        "macro_pr_auc": sk.average_precision_score(t, s, sample_weight=w),
        "log_loss": np.mean([sk.log_loss(t[:, i], s[:, i], sample_weight=w) for i in range(4)]),
        "brier": np.mean([sk.brier_score_loss(t[:, i], s[:, i], sample_weight=w) for i in range(4)]),
        "recall_of_d": sk.recall_score(t[:, 3], y[:, 3], sample_weight=w),
    }
    for average in ("macro", "weighted", "micro"):
        for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            expected[f"{average}_{name}"] = score(t, y, average=average, zero_division=0, sample_weight=w)
    assert found(p, w, expected) == pytest.approx(expected, rel=1e-9)
    first = np.asarray([[1, 0, 0], [0, 1, 1]])
    said = Predictions(
        task=MULTILABEL, target=first, label=first, probability=np.asarray([[0.9, 0.5, 0], [0.9, 0.5, 0]])
    )
    assert value_of(metric_called("precision_at_1"), said) == 0.5
    assert value_of(metric_called("recall_at_2"), said) == 0.75


@pytest.mark.parametrize("task", [REGRESSION, FORECASTING])
def test_numbers(task: str) -> None:
    p = regression(task=task)
    w = np.random.default_rng(1).integers(0, 4, len(p)).astype(float)
    t, y = p.target, p.label
    expected: Expected = {
        "rmse": sk.root_mean_squared_error(t, y, sample_weight=w),
        "mse": sk.mean_squared_error(t, y, sample_weight=w),
        "mae": sk.mean_absolute_error(t, y, sample_weight=w),
        "r2": sk.r2_score(t, y, sample_weight=w),
        "mape": sk.mean_absolute_percentage_error(t, y, sample_weight=w),
        "rmsle": sk.root_mean_squared_log_error(t, y, sample_weight=w),
        "explained_variance": sk.explained_variance_score(t, y, sample_weight=w),
        "pinball_at_0.9": sk.mean_pinball_loss(t, y, alpha=0.9, sample_weight=w),
        "correlation": np.cov(t, y, aweights=w)[0, 1] / np.sqrt(np.prod(np.diag(np.cov(t, y, aweights=w)))),
        "bias": np.average(y - t, weights=w),
        "abs_bias": abs(np.average(y - t, weights=w)),
        "wape": np.sum(w * np.abs(y - t)) / np.sum(w * np.abs(t)),
    }
    if task == REGRESSION:
        expected["median_ae"] = sk.median_absolute_error(np.repeat(t, w.astype(int)), np.repeat(y, w.astype(int)))
    else:
        expected["smape"] = np.average(2 * np.abs(y - t) / (np.abs(t) + np.abs(y)), weights=w)
        assert p.scale is not None
        known = np.isfinite(p.scale)
        expected["mase"] = np.average((np.abs(y - t) / p.scale)[known], weights=w[known])
    assert found(p, w, expected) == pytest.approx(expected, rel=1e-7)


def _queries(p: Predictions, least: int = 1) -> list[tuple[Any, Any]]:
    assert p.groups is not None
    apart = [(p.target[p.groups == q], p.label[p.groups == q]) for q in np.unique(p.groups)]
    return [(t, s) for t, s in apart if t.any() and len(t) >= least]


@pytest.mark.parametrize("ties", [False, True])
def test_orders(ties: bool) -> None:
    p = ranking(ties=ties)
    queries = _queries(p)
    assert 20 < len(queries) < 60
    expected: Expected = {
        "ndcg": float(np.mean([sk.ndcg_score([t], [s]) for t, s in queries])),
        "ndcg_at_3": np.mean([sk.ndcg_score([t], [s], k=3) for t, s in queries]),
        "map": np.mean([sk.average_precision_score(t > 0, s) for t, s in queries]),
    }
    if not ties:
        tops = [(t > 0)[np.argsort(-s)] for t, s in queries]
        expected |= {
            "mrr": float(np.mean([1 / (1 + np.argmax(top)) for top in tops])),
            "precision_at_3": np.mean([top[:3].sum() / 3 for top in tops]),
            "recall_at_3": np.mean([top[:3].sum() / top.sum() for top in tops]),
            "hit_rate_at_3": np.mean([top[:3].any() for top in tops]),
        }
    assert found(p, np.ones(len(p)), expected) == pytest.approx(expected, rel=1e-9)


def test_a_constant_score_is_never_lucky() -> None:
    """Whatever the order of the rows: what is linear gets the mean of all orders, the rest the last place."""
    target = np.asarray([1, 0, 0, 0])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        p = Predictions(task=RANKING, target=target[order], label=np.zeros(4), groups=np.zeros(4, dtype=int))
        values = {n: value_of(metric_called(n), p) for n in ("precision_at_2", "mrr", "map", "hit_rate_at_2")}
        assert values == {"precision_at_2": 0.25, "mrr": 0.25, "map": 0.25, "hit_rate_at_2": 0}


def test_the_calibration_error_is_the_distance_of_said_and_came_true() -> None:
    said = np.repeat([0.05, 0.5, 0.95], [100, 100, 200])
    true = np.r_[np.arange(100) < 5, np.arange(100) < 70, np.arange(200) < 170].astype(int)
    p = Predictions(task=BINARY, target=true, label=(said >= 0.5).astype(int), probability=said, classes=("0", "1"))
    assert value_of(METRICS["ece"], p) == pytest.approx(0.25 * 0.0 + 0.25 * 0.2 + 0.5 * 0.1)


@pytest.mark.parametrize("task", ALL)
def test_a_weighted_value_is_the_value_of_the_repeated_rows(task: str) -> None:
    p = ALL[task]
    names = ["f2", "ks", "gini", "recall_at_fpr_0.2", "top_2_accuracy", "pinball_at_0.1", "recall_at_3", "f1_of_a"]
    names += ["ndcg_at_3", "hit_rate_at_3"]
    metrics = computable(p, [*METRICS, *names])
    assert len(metrics) > 8
    drawn = np.random.default_rng(3).integers(0, 3, (3, len(p) if p.task != RANKING else 60)).astype(float)
    weights = drawn[:, p.groups] if p.task == RANKING else drawn
    for metric in metrics:
        assert metric.values
        together = metric.values(p, weights)
        assert together.shape == (3,)
        for i in range(3):
            assert together[i] == pytest.approx(value_of(metric, _repeated(p, weights[i])), rel=1e-6), metric.name


def _repeated(p: Predictions, weights: Any) -> Predictions:
    rows = np.repeat(np.arange(len(p)), weights.astype(int))
    again = p.take(rows)
    if p.task != RANKING:
        return again
    assert p.groups is not None
    # A query that is drawn twice is two queries.
    copy = np.concatenate([np.arange(int(w)) for w in weights])
    return Predictions(task=RANKING, target=again.target, label=again.label, groups=p.groups[rows] * 10 + copy)


def test_most_metrics_are_sums() -> None:
    slow = {n for n, m in METRICS.items() if m.values and not isinstance(m.values, Sums)}
    assert slow == {"roc_auc", "pr_auc", "gini", "ks", "macro_roc_auc", "macro_pr_auc", "median_ae"}


@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL])
def test_one_class_only_and_no_row_at_all_are_no_crash(task: str) -> None:
    p = ALL[task]
    nothing = p.take(np.zeros(len(p), dtype=bool))
    one = p.take(np.flatnonzero(p.target == 1) if p.target.ndim == 1 else np.flatnonzero(p.target.sum(axis=1) == 0))
    for metric in computable(p, METRICS):
        assert np.isnan(value_of(metric, nothing)), metric.name
        assert not np.isinf(value_of(metric, one)), metric.name
    if task == BINARY:
        assert all(np.isnan(value_of(METRICS[n], one)) for n in ("roc_auc", "specificity", "balanced_accuracy", "mcc"))


@pytest.mark.parametrize(
    ("name", "task", "said"),
    [
        ("ndcg_at_0", RANKING, "there is no metric 'ndcg_at_0'"),
        ("pinball_at_1.5", REGRESSION, "there is no metric"),
        ("ndgc_at_10", RANKING, "there is no metric 'ndgc_at_10'"),
        ("ndcg_at_10", BINARY, "ndcg_at_10 is no metric of a binary model"),
        ("recall_of_fraud", BINARY, "recall_of_fraud is no metric of a binary model"),
    ],
)
def test_names_that_make_no_metric(name: str, task: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        metric_called(name, task)
    assert said in caught.value.what
    assert caught.value.fix


def test_a_rate_has_no_champion() -> None:
    assert metric_called("bias", REGRESSION).name == "bias"
    with pytest.raises(InputError, match="bias has no better and worse"):
        metric_called("bias", REGRESSION, versus=True)
    with pytest.raises(InputError, match="robustness_noise is measured of the new model alone"):
        metric_called("robustness_noise", REGRESSION, versus=True)


def test_why_a_metric_is_not_defined() -> None:
    p = multiclass()
    assert "no row and no prediction has the class fraud; there are a, b, c, d" in why_undefined(
        metric_called("recall_of_fraud"), p
    )
    labels = Predictions(task=BINARY, target=np.asarray([0, 1]), label=np.asarray([0, 1]))
    assert why_undefined(METRICS["roc_auc"], labels) == "the model gives no probabilities"
    assert np.isnan(value_of(METRICS["roc_auc"], labels))
    short = Predictions(task=FORECASTING, target=np.ones(2), label=np.ones(2), scale=np.full(2, np.nan))
    assert "too short" in why_undefined(METRICS["mase"], short)
    assert [m.name for m in computable(short) if m.name == "mase"] == []
