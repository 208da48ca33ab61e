"""From the false alarms that a team accepts to the risk that a single look may run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlp_ci.spec.model import Monitor

LOOKS_PER_DAY = {"hourly": 24.0, "daily": 1.0, "weekly": 1 / 7}
# However many false alarms a team accepts, one look never runs a larger risk than this.
LARGEST_RISK = 0.05


def risk_of_a_look(monitor: Monitor) -> float:
    """The chance of a false alarm that one look may run, so that all looks together keep to ``drift.false_alarms``.

    With L looks a day, each with at most this chance, the expected number of false alarms a day is at most the rate,
    whether or not the looks are independent. Where performance is watched as well, it gets the half of the risk.
    """
    risk = monitor.drift.false_alarms / LOOKS_PER_DAY[monitor.schedule]
    return min(LARGEST_RISK, risk / 2 if monitor.performance else risk)
