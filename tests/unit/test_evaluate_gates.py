"""How gates are judged by intervals, and what the evidence keeps of it, without a model."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mlp_ci.errors import InputError
from mlp_ci.evaluate.bootstrap import Design, Estimate, Settings, differences, estimates
from mlp_ci.evaluate.custom import Own
from mlp_ci.evaluate.evidence import Judged, evaluation_folder, evidence_bytes, parsed
from mlp_ci.evaluate.gaps import gap_between
from mlp_ci.evaluate.gates import Champion, Measured, Rows, Verdict, describe, judge, overall, rounded
from mlp_ci.evaluate.measuring import Subject, read
from mlp_ci.evaluate.metrics import BINARY, Predictions, metric_called
from mlp_ci.report import Outcome
from mlp_ci.spec import Evaluate, Gate
from mlp_ci.tracking import RunFact

ROWS = 1000
SETTINGS = Settings(replicates=500)


def measured(correct: int, rows: int = ROWS, **metrics: float) -> Measured:
    """A binary model that is right on the first ``correct`` rows; targets alternate."""
    target = np.arange(rows) % 2
    label = np.where(np.arange(rows) < correct, target, 1 - target)
    predictions = Predictions(task=BINARY, target=target, label=label, classes=("0", "1"))
    found = estimates([metric_called("accuracy")], predictions, Design(rows=rows), SETTINGS)
    return Measured(predictions=predictions, metrics={**found, **{k: Estimate(value=v) for k, v in metrics.items()}})


def version(this: Measured, other: Measured) -> Champion:
    """``other`` is version 3, which production has."""
    found = differences(
        [metric_called("accuracy")], this.predictions, other.predictions, Design(rows=len(this.predictions)), SETTINGS
    )
    return Champion(stage="production", version=3, measured=other, differences=found)


def gate(**fields: Any) -> Gate:
    return Gate(**fields)


def judged(
    rule: Gate, this: Measured, champion: Champion | None = None, kinds: list[str] | None = None, least: int = 50
) -> Verdict:
    champions = {champion.stage: champion} if champion else {}
    slices = {"kind": np.asarray(kinds or [])}
    design = Design(rows=len(this.predictions))
    return judge(rule, this, champions, Rows(design=design, settings=SETTINGS, slices=slices, min_slice_rows=least))


def versus(max_drop: float, **fields: Any) -> Gate:
    return gate(metric="accuracy", versus="production", max_drop=max_drop, **fields)


# ---------------------------------------------------------------- limits and champions


def test_a_limit_is_met_missed_or_not_decided() -> None:
    this = measured(800)  # 0.8, the interval is about 0.775 to 0.825
    assert judged(gate(metric="accuracy", min=0.75), this).outcome is Outcome.PASS
    assert judged(gate(metric="accuracy", min=0.85), this).outcome is Outcome.FAIL
    assert judged(gate(metric="accuracy", max=0.75), this).outcome is Outcome.FAIL
    near = judged(gate(metric="accuracy", min=0.79), this)
    assert near.outcome is Outcome.INCONCLUSIVE
    needed = near.details["rows_needed"]
    assert 5_000 < needed < 30_000
    assert f"1,000 rows do not decide it, about {rounded(needed - ROWS)} more would" in near.message
    assert near.details["low"] < 0.79 < near.details["high"]
    assert near.details["p_pass"] > 0.05
    assert near.details["p_fail"] > 0.05


def test_as_many_rows_as_were_asked_for_decide_it() -> None:
    near = judged(gate(metric="accuracy", min=0.79), measured(800))
    more = int(near.details["rows_needed"]) // 10 * 10
    assert judged(gate(metric="accuracy", min=0.79), measured(more * 8 // 10, more)).outcome is Outcome.PASS


def test_rows_are_told_with_two_digits_that_mean_something() -> None:
    assert [rounded(n) for n in (0, 7, 10, 99, 101, 2_284, 98_765)] == ["1", "7", "10", "99", "110", "2,300", "99,000"]


def test_what_is_measured_once_is_compared_as_it_is() -> None:
    this = measured(800, model_size_mb=19.9)
    assert judged(gate(metric="model_size_mb", max=20), this).outcome is Outcome.PASS
    assert judged(gate(metric="model_size_mb", max=19), this).outcome is Outcome.FAIL
    champion = Champion(stage="production", version=3, measured=measured(800, model_size_mb=5.0))
    rule = gate(metric="model_size_mb", versus="production", max_drop=1)
    assert judged(rule, measured(800, model_size_mb=6.1), champion).outcome is Outcome.FAIL
    assert judged(rule, measured(800, model_size_mb=0.1), champion).outcome is Outcome.PASS


def test_what_cannot_be_computed_decides_nothing() -> None:
    verdict = judged(gate(metric="roc_auc", min=0.5), measured(800))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "gives no probabilities" in verdict.message


def test_a_champion_may_be_a_little_better_if_the_rows_show_that_it_is_no_more() -> None:
    this, other = measured(800), measured(804)  # they differ on four rows: -0.004
    champion = version(this, other)
    passing = judged(versus(0.02), this, champion)
    assert passing.outcome is Outcome.PASS
    assert "against production (version 3: 0.804)" in passing.message
    undecided = judged(versus(0.005), this, champion)
    assert undecided.outcome is Outcome.INCONCLUSIVE
    assert undecided.details["difference_low"] < -0.005 < undecided.details["difference_high"]
    assert "rows do not decide it" in undecided.message
    worse = measured(900)
    assert judged(versus(0.02), this, version(this, worse)).outcome is Outcome.FAIL
    assert judged(versus(0.0), worse, version(worse, this)).outcome is Outcome.PASS
    same = measured(800)
    assert judged(versus(0.0), same, version(same, measured(800))).outcome is Outcome.PASS


def test_no_champion_is_skipped_and_a_broken_one_is_undecided() -> None:
    none = Champion(stage="production", why="no version is in production yet")
    assert judged(versus(0.02), measured(800), none).outcome is Outcome.SKIP
    broken = Champion(stage="production", version=3, why="cannot be tried", broken=True)
    assert judged(versus(0.02), measured(800), broken).outcome is Outcome.INCONCLUSIVE
    assert judged(versus(0.02, min=0.5), measured(800), none).outcome is Outcome.PASS


def test_the_whole_is_as_bad_as_its_worst_gate() -> None:
    def of(*outcomes: Outcome) -> Outcome:
        return overall([Verdict(gate="g", metric="m", outcome=o, message="", details={}) for o in outcomes])

    assert of(Outcome.PASS, Outcome.SKIP) is Outcome.PASS
    assert of(Outcome.PASS, Outcome.INCONCLUSIVE) is Outcome.INCONCLUSIVE
    assert of(Outcome.INCONCLUSIVE, Outcome.FAIL) is Outcome.FAIL


def test_a_gate_on_a_metric_of_the_team() -> None:
    own = {"cost": Own(value=3.0, low=2.8, high=3.2, higher_is_better=False)}
    this = measured(800)
    from mlp_ci.evaluate import custom

    with_own = Measured(
        predictions=this.predictions,
        metrics={n: o.estimate() for n, o in own.items()},
        own={n: custom.metric(n, o) for n, o in own.items()},
    )
    assert judged(gate(metric="cost", max=4), with_own).outcome is Outcome.PASS
    assert judged(gate(metric="cost", max=3.05), with_own).outcome is Outcome.INCONCLUSIVE
    assert judged(gate(metric="cost", max=2), with_own).outcome is Outcome.FAIL


# ---------------------------------------------------------------- slices and gaps


def test_each_slice_is_judged_and_small_ones_are_not() -> None:
    kinds = ["good"] * 600 + ["bad"] * 350 + ["rare"] * 50
    rule = gate(metric="accuracy", slice="kind", min=0.9)
    verdict = judged(rule, measured(800), kinds=kinds, least=60)
    assert verdict.outcome is Outcome.FAIL
    assert "1 of 2 slices miss it: bad 0.5714" in verdict.message
    assert "not judged (too few rows, or one class only): rare (50)" in verdict.message
    assert [(s["slice"], s["outcome"]) for s in verdict.details["slices"]] == [
        ("good", "pass"),
        ("bad", "fail"),
        ("rare", "inconclusive"),
    ]
    assert judged(gate(metric="accuracy", slice="kind", min=0.5), measured(800), kinds=kinds, least=60).outcome is (
        Outcome.PASS
    )
    nearly = judged(gate(metric="accuracy", slice="kind", min=0.55), measured(800), kinds=kinds, least=60)
    assert nearly.outcome is Outcome.INCONCLUSIVE
    assert "1 of 2 slices are not decided: bad 0.5714 (about " in nearly.message
    alone = judged(gate(metric="accuracy", slice="kind", min=0.5), measured(800), kinds=kinds, least=900)
    assert alone.outcome is Outcome.INCONCLUSIVE


def test_one_bad_slice_among_many_has_to_be_clearly_bad() -> None:
    """Of 60 slices of a model that is right with chance 0.8, some are below 0.75 by chance; none of that is a fail."""
    chance = np.random.default_rng(3)
    rows = 60 * 100
    target = chance.integers(0, 2, rows)
    label = np.where(chance.random(rows) < 0.8, target, 1 - target)
    this = Measured(predictions=Predictions(task=BINARY, target=target, label=label, classes=("0", "1")), metrics={})
    kinds = [f"k{i % 60}" for i in range(rows)]
    verdict = judged(gate(metric="accuracy", slice="kind", min=0.8), this, kinds=kinds)
    alone = [s for s in verdict.details["slices"] if s["high"] < 0.8]
    assert alone, "some slice would fail if it was looked at alone"
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_a_slice_may_be_compared_with_a_champion() -> None:
    kinds = ["early"] * 500 + ["late"] * 500
    this = measured(800)
    rule = versus(0.1, slice="kind")
    verdict = judged(rule, this, version(this, measured(900)), kinds)
    assert verdict.outcome is Outcome.FAIL
    assert "late 0.6 against 0.8" in verdict.message
    assert judged(rule, this, version(this, measured(805)), kinds).outcome is Outcome.PASS


def test_a_gap_between_groups() -> None:
    kinds = ["a"] * 480 + ["b"] * 480 + ["rare"] * 40
    this = measured(800)  # a: always right, b: two of three
    wide = judged(gate(metric="accuracy", gap="kind", max=0.1), this, kinds=kinds)
    assert wide.outcome is Outcome.FAIL
    assert wide.details["pair"] == ["a", "b"]
    assert wide.details["value"] == pytest.approx(1 / 3)
    assert wide.details["low"] < 1 / 3 < wide.details["high"]
    assert wide.details["groups"]["rare"] == {"rows": 40, "value": None}
    assert "0.3333 (" in wide.message
    assert " between a and b" in wide.message
    assert judged(gate(metric="accuracy", gap="kind", max=0.5), this, kinds=kinds).outcome is Outcome.PASS
    near = judged(gate(metric="accuracy", gap="kind", max=0.35), this, kinds=kinds)
    assert near.outcome is Outcome.INCONCLUSIVE
    assert near.details["rows_needed"] > ROWS
    one = judged(gate(metric="accuracy", gap="kind", max=0.35), this, kinds=["a"] * ROWS)
    assert one.outcome is Outcome.INCONCLUSIVE
    assert "fewer than two groups" in one.message


def test_the_largest_of_many_gaps_fails_rarely_where_there_is_none() -> None:
    """Twelve groups with the same metric: a gap of 0 is missed by at most 5 % of models, not by two thirds of them."""
    chance = np.random.default_rng(11)
    rows = Rows(design=Design(rows=1200), settings=SETTINGS)
    failed, without = 0, 0
    for _ in range(200):
        values = chance.normal(0.8, 0.02, 12)
        draws = values + chance.normal(0, 0.02, (500, 12))
        found = gap_between(dict(zip("abcdefghijkl", values.tolist(), strict=True)), draws, 0.0, rows)
        failed += found.decision.outcome is Outcome.FAIL
        without += found.between.value > 1.96 * 0.02 * 2**0.5
    assert failed / 200 <= 0.09
    assert without / 200 > 0.4


def test_a_slice_of_one_class_and_an_empty_one() -> None:
    this = measured(800)
    score = np.where(this.predictions.target == 1, 0.7, 0.3)
    p = Predictions(
        task=BINARY, target=this.predictions.target, label=this.predictions.label, probability=score, classes=("0", "1")
    )
    kinds = ["even" if i % 2 == 0 else "odd" for i in range(ROWS)]  # every odd row is positive
    verdict = judged(gate(metric="roc_auc", slice="kind", min=0.5), Measured(predictions=p, metrics={}), kinds=kinds)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no slice of kind could be judged; not judged (too few rows, or one class only): even (500)" in (
        verdict.message
    )


# ---------------------------------------------------------------- what model.yaml may ask


def test_gates_are_described_in_the_words_of_model_yaml() -> None:
    rule = gate(metric="roc_auc", slice="carrier", min=0.7, versus="production", max_drop=0.005)
    assert describe(rule) == "roc_auc per carrier ≥ 0.7 versus production, max_drop 0.005"
    assert describe(gate(metric="accuracy", gap="sex", max=0.05)) == "accuracy gap over sex ≤ 0.05"


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ([{"metric": "accuracy", "min": 0.9, "max": 0.8}], "nothing can pass"),
        ([{"metric": "accuracy", "min": 0.9}, {"metric": "accuracy", "max": 0.8}], "nothing can pass"),
        (
            [{"metric": "mae", "max": 2, "slice": "kind"}, {"metric": "mae", "min": 3, "slice": "kind"}],
            "mae per kind is to be at least 3 and at most 2",
        ),
        ([{"metric": "accuracy", "min": float("nan")}], "finite"),
        ([{"metric": "accuracy", "gap": "sex", "max": -0.1}], "a gap is never less than 0"),
        ([{"metric": "accuracy", "gap": "sex", "min": 0.1}], "gap goes with max alone"),
        ([{"metric": "accuracy", "versus": "production"}], "versus and max_drop go together"),
        ([{"metric": "accuracy"}], "a gate needs min, max or versus"),
    ],
)
def test_thresholds_that_contradict(gates: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Evaluate.model_validate({"gates": gates})


def test_thresholds_that_do_not_contradict() -> None:
    gates = [{"metric": "mae", "min": 1}, {"metric": "mae", "max": 2}, {"metric": "mae", "max": 0.5, "slice": "kind"}]
    assert len(Evaluate.model_validate({"gates": gates}).gates) == 3


# ---------------------------------------------------------------- evidence


def test_the_same_inputs_give_the_same_bytes() -> None:
    run = RunFact(run_id="r", status="FINISHED", started=datetime(2026, 1, 1, tzinfo=UTC))

    def made(inputs: dict[str, Any]) -> bytes:
        this = measured(800, odd=float("nan"))
        rows = Rows(design=Design(rows=ROWS), settings=SETTINGS)
        verdicts = [judged(gate(metric="accuracy", min=0.5), this)]
        return evidence_bytes(inputs, run, Judged(this=this, rows=rows, champions={}, verdicts=verdicts))

    one, two = made({"b": 1, "a": (1, 2)}), made({"a": [1, 2], "b": 1})
    assert one == two
    assert b"NaN" not in one
    assert evaluation_folder({"a": 1, "b": 2}) == evaluation_folder({"b": 2, "a": 1}) != evaluation_folder({"a": 1})
    value = json.loads(one)
    assert value["metrics"]["odd"] == {"value": None, "measured": True}
    assert set(value["metrics"]["accuracy"]) >= {"value", "low", "high", "method"}
    assert value["intervals"]["level"] == 0.95


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"pass"'])
def test_evidence_that_is_none(content: bytes) -> None:
    with pytest.raises(InputError, match="the evidence file is not"):
        parsed(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "sha256:2"}, "another model"),
        ({"facts": {"latency_ms": ["fast"]}}, "no numbers"),
        ({"own": 3}, "no numbers"),
    ],
)
def test_measurements_that_were_damaged(change: dict[str, Any], said: str) -> None:
    subject = Subject(model="sha256:1", test="md5:1")
    whole = {
        "format": "mlp-ci/measurements/v1",
        "model": "sha256:1",
        "test": "md5:1",
        "command": "",
        "facts": {"latency_ms": [1.0, 2.0], "model_size_mb": 0.5},
        "own": {},
    }
    found = read(json.dumps(whole).encode(), subject, "x").estimates(0.95)
    assert found["model_size_mb"].value == 0.5
    with pytest.raises(InputError) as refused:
        read(json.dumps({**whole, **change}).encode(), subject, "x")
    assert said in refused.value.why
