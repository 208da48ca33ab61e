"""How long each step will take, said before a rollout starts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlp_ci.serve.analysis.analysing import required

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.analysis.verdict import Design, Need
    from mlp_ci.serve.measured import Seen
    from mlp_ci.spec.serve import Check

_UNITS = ((86400 * 2, 86400, "days"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))


def forecast(
    steps: Sequence[int],
    requests_per_second: float,
    checks: Sequence[Check],
    design: Design,
    baseline: Seen,
    *,
    mirrored: bool = False,
) -> tuple[str, ...]:
    """See :func:`mlp_ci.serve.analysis.forecast`."""
    return tuple(
        _line(weight, requests_per_second, required(checks, weight, design, baseline, mirrored=mirrored))
        for weight in steps
        if weight < 100 or mirrored
    )


def _line(weight: int, rate: float, needs: Sequence[Need]) -> str:
    known = [n for n in needs if n.requests is not None]
    where = f"{weight} % of {rate:.3g} requests/s" if rate > 0 else f"{weight} % of the requests"
    if not needs:
        return f"{where}: nothing is compared"
    unknown = [n for n in needs if n.requests is None]
    later = "".join(f"; {n.metric}: {n.why}" for n in unknown)
    if not known:
        return f"{where}: how long is not known{later}"
    most = max(known, key=lambda n: n.requests or 0)
    assert most.requests is not None
    amount = f"{most.requests:,} {most.unit} of the new version"
    if rate <= 0:
        return f"{where}: at least {amount} to see {most.why}{later}"
    return f"{where}: at least {_time(most.requests / (rate * weight / 100))} ({amount}) to see {most.why}{later}"


def _time(seconds: float) -> str:
    least, size, unit = next(u for u in _UNITS if seconds >= u[0])
    del least
    count = seconds / size
    return f"{math.ceil(count) if count >= 10 or size == 1 else math.ceil(10 * count) / 10:g} {unit}"
