"""Rollouts as they would be seen: simulated answers of two versions, judged by the real analysis, look by look."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from mlp_ci.serve.analysis import Analysis, Design, analyse, forecast
from mlp_ci.serve.measured import Seen, latency_bin, prediction_bin
from mlp_ci.serve.rollout.progress import Look, Phase, Progress, Stratum
from mlp_ci.serve.telling.facts import Facts
from mlp_ci.spec.serve import Rollout

BEGAN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
ROLLOUT = Rollout.model_validate(
    {
        "strategy": "canary",
        "analysis": [
            {"metric": "error_rate", "max_increase": 0.01},
            {"metric": "latency_p99_ms", "max_ratio": 2.0},
            {"metric": "predictions", "max_distance": 0.1},
        ],
    }
)


@dataclass(frozen=True)
class Version:
    """How one version answers: share of errors, median milliseconds, and the mean of its predictions (0 to 1)."""

    errors: float = 0.01
    ms: float = 12.0
    mean: float = 0.3
    texts: bool = False

    def answers(self, requests: int, chance: np.random.Generator) -> Seen:
        failed = int(chance.binomial(requests, self.errors))
        taken = chance.lognormal(np.log(self.ms), 0.35, requests)
        said = chance.beta(6 * self.mean, 6 * (1 - self.mean), requests)
        latency: dict[int, int] = {}
        predictions: dict[str, int] = {}
        for ms, value in zip(taken, said, strict=True):
            latency[latency_bin(float(ms))] = latency.get(latency_bin(float(ms)), 0) + 1
            shown = ("late" if value > 0.5 else "on time") if self.texts else float(value)
            predictions[prediction_bin(shown)] = predictions.get(prediction_bin(shown), 0) + 1
        return Seen(requests=requests, errors=failed, latency=latency, predictions=predictions)


def rolled(
    canary: Version,
    *,
    stable: Version = Version(),
    minutes: tuple[int, ...] = (60, 90),
    rate: float = 10.0,
    looks: int = 12,
    rollout: Rollout = ROLLOUT,
) -> Facts:
    """A rollout under way: so many minutes in each of the first steps, with so many requests a second in all."""
    chance = np.random.default_rng(7)
    now, past = BEGAN, list[Stratum]()
    baseline = stable.answers(20_000, chance)
    progress = Progress(
        version=4,
        digest="sha256:" + "ab" * 32,
        stable=3,
        strategy=rollout.strategy,
        steps=rollout.weights,
        started=BEGAN.isoformat(),
        by="ada",
    )
    current, analysis = Stratum(weight=0, started=""), Analysis(verdict="insufficient")  # type: ignore[arg-type]
    for step, length in enumerate(minutes):
        past = [*past, current] if step else past
        current = Stratum(weight=rollout.weights[step], started=now.isoformat())
        progress = replace(progress, step=step, step_started=now.isoformat(), past=tuple(past))
        for _ in range(looks):
            now += timedelta(minutes=length / looks)
            current = _answered(current, (stable, canary), rate * 60 * length / looks, chance)
            analysis = analyse(rollout.analysis, [*past, current], Design())
            progress = progress.looked(tuple(_look(now, analysis)))
    return Facts(
        model="flight-delay",
        stage="production",
        now=now,
        rollout=rollout,
        address="http://127.0.0.1:43111",
        live=3,
        progress=progress,
        current=current,
        analysis=analysis,
        forecast=forecast(rollout.weights, rate, rollout.analysis, Design(), baseline),
    )


def aborted(facts: Facts, why: str) -> Facts:
    assert facts.progress is not None
    return replace(facts, progress=replace(facts.progress, phase=Phase.ABORTED, why=why))


def _answered(
    current: Stratum, versions: tuple[Version, Version], requests: float, chance: np.random.Generator
) -> Stratum:
    new = int(chance.binomial(int(requests), current.weight / 100))
    old, canary = (v.answers(n, chance) for v, n in zip(versions, (int(requests) - new, new), strict=True))
    return replace(current, stable=current.stable.plus(old), canary=current.canary.plus(canary))


def _look(now: datetime, analysis: Analysis) -> list[Look]:
    return [
        Look(
            at=now.isoformat(),
            metric=j.metric,
            verdict=str(j.verdict),
            seen=j.seen,
            needed=j.needed,
            effect=j.effect,
            low=j.low,
            high=j.high,
        )
        for j in analysis.judged
    ]
