"""Whether a new version may get more traffic: sequential tests that may be looked at at any time.

Pure functions of counts; nothing here knows where they come from. The statistics, with their sources and what
simulation says of them, are described in ``docs/explanation/rollout-statistics.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.serve.analysis.verdict import Analysis, Design, Judged, Need, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.measured import Seen
    from mlp_ci.serve.rollout.progress import Stratum
    from mlp_ci.spec.serve import Check

__all__ = ["Analysis", "Design", "Judged", "Need", "Verdict", "analyse", "forecast", "required"]


def analyse(checks: Sequence[Check], strata: Sequence[Stratum], design: Design) -> Analysis:
    """What is known after the steps that were (``strata`` in order, the last of them still going on).

    May be called at any moment and any number of times: that the canary fails although it is no worse, ever in the
    rollout and in any of the checks, happens with probability ``design.false_abort`` at most. A check passes when the
    last step proved that harm is less than the margin, or when that step had the requests that would have shown it
    with probability ``design.power``. No checks: pass.
    """
    from mlp_ci.serve.analysis import analysing

    return analysing.analyse(checks, strata, design)


def required(
    checks: Sequence[Check], weight: int, design: Design, baseline: Seen, *, mirrored: bool = False
) -> tuple[Need, ...]:
    """What each check needs of the new version in a step of ``weight`` per cent; nothing when no other version answers.

    ``baseline`` is what the stable version answered so far; ``mirrored``: the new version gets copies (shadow).
    """
    from mlp_ci.serve.analysis import analysing

    return analysing.required(checks, weight, design, baseline, mirrored=mirrored)


def forecast(
    steps: Sequence[int],
    requests_per_second: float,
    checks: Sequence[Check],
    design: Design,
    baseline: Seen,
    *,
    mirrored: bool = False,
) -> tuple[str, ...]:
    """A line for each step that compares: ``1 % of 10 requests/s: at least 4.4 h (…) to see 1 % → 2 % errors``.

    ``requests_per_second`` are those of all versions; 0 when unknown.
    """
    from mlp_ci.serve.analysis import forecasting

    return forecasting.forecast(steps, requests_per_second, checks, design, baseline, mirrored=mirrored)
