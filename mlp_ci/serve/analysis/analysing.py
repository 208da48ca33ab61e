"""Every check at one look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.serve.analysis import errors, labelled, latency, predictions
from mlp_ci.serve.analysis.level import Level
from mlp_ci.serve.analysis.verdict import Analysis, Design, Judged, Need, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from mlp_ci.serve.measured import Seen
    from mlp_ci.serve.rollout.progress import Stratum
    from mlp_ci.spec.serve import Check


def analyse(checks: Sequence[Check], strata: Sequence[Stratum], design: Design) -> Analysis:
    """See :func:`mlp_ci.serve.analysis.analyse`."""
    if not checks:
        return Analysis(verdict=Verdict.PASS)
    level = Level(design.false_abort / len(checks), design.power)
    judged = tuple(_judged(check, strata, level) for check in checks)
    verdicts = {j.verdict for j in judged}
    worst = next(v for v in (Verdict.FAIL, Verdict.INSUFFICIENT, Verdict.PASS) if v in verdicts)
    return Analysis(verdict=worst, judged=judged)


def _judged(check: Check, strata: Sequence[Stratum], level: Level) -> Judged:
    if not strata:
        return Judged(metric=check.metric, verdict=Verdict.INSUFFICIENT, reason="no step has begun", margin=0.0)
    judged: Judged = _module(check).judge(check, strata, level)
    return judged


def required(
    checks: Sequence[Check], weight: int, design: Design, baseline: Seen, *, mirrored: bool = False
) -> tuple[Need, ...]:
    """See :func:`mlp_ci.serve.analysis.required`."""
    level = Level(design.false_abort / max(1, len(checks)), design.power)
    others = (100 if mirrored else 100 - weight) / weight
    if not others:
        return ()
    return tuple(_module(check).need(check, baseline, others, level) for check in checks)


def _module(check: Check) -> ModuleType:
    if check.metric in errors.RATES:
        return errors
    if check.metric == "predictions":
        return predictions
    return latency if check.metric.startswith("latency_") else labelled
