"""A rollout as one HTML file that needs no network: where it stands, what decides it, what comes next.

The layout is ``rollout.html.jinja`` beside this file. The same facts give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.data.words import cut, round_share
from mlp_ci.drawing.template import fill
from mlp_ci.report import Outcome
from mlp_ci.serve.telling import charts, outlines
from mlp_ci.serve.telling.standing import (
    Standing,
    coming,
    commands,
    loose_forecast,
    outcome_of,
    rate_of,
    sentence,
    steps_of,
)
from mlp_ci.serve.telling.words import at_time, lasting, moment, percent

if TYPE_CHECKING:
    from mlp_ci.serve.measured import Seen
    from mlp_ci.serve.rollout.progress import Progress
    from mlp_ci.serve.telling.facts import Facts

TEMPLATE = Path(__file__).parent / "rollout.html.jinja"
VERDICTS = {Outcome.PASS: "harmless", Outcome.FAIL: "harm", Outcome.INCONCLUSIVE: "not decided yet"}
STANDINGS = {
    Standing.OVER: ("pass", "over"),
    Standing.HERE: ("now-chip", "here"),
    Standing.FAILED: ("alarm", "ended here"),
    Standing.AHEAD: ("insufficient", "to come"),
    Standing.LEFT_OUT: ("insufficient", "left out"),
    Standing.UNDECIDED: ("inconclusive", "went on undecided"),
}


def page(facts: Facts) -> str:
    """The whole page."""
    progress = facts.progress
    began = moment(progress.started) if progress else None
    over = progress is not None and not progress.going
    rate = rate_of(facts, facts.current.canary.requests) if facts.current and not over else None
    values = {
        "f": facts,
        "p": progress,
        "sentence": sentence(facts),
        "outcome": outcome_of(facts),
        "phase": progress.phase.value if progress else "no rollout",
        "steps": [(s, *STANDINGS[s.standing]) for s in steps_of(facts)],
        "metrics": charts.narrowings(facts),
        "verdicts": {**VERDICTS, Outcome.INCONCLUSIVE: "not decided"} if over else VERDICTS,
        "outlines": outlines.outlines(facts),
        "bars": outlines.bars(facts),
        "coming": coming(facts),
        "commands": commands(facts),
        "forecast": loose_forecast(facts),
        "lasted": lasting(facts.now - began) if began and facts.now >= began else "",
        "over": over,
        "part": _part(facts, progress) if progress else 0,
        "rate": f"{rate:.2g}" if rate and rate < 100 else f"{rate:,.0f}" if rate else "",
        "sizes": {"metric": (charts.WIDTH, charts.HEIGHT), "outline": (outlines.WIDTH, outlines.HEIGHT)},
        "errors": errors,
        "when": lambda iso: at_time(iso, facts.now),
        "lasting": lasting,
    }
    return fill(TEMPLATE, {"share": round_share, "cut": cut}, values)


def _part(facts: Facts, progress: Progress) -> int:
    """The new version's part of the traffic now, in per cent: it may have lost it, or got it, since the rollout."""
    if progress.going:
        return progress.weight
    return 100 if facts.live == progress.version else 0


def errors(seen: Seen) -> str:
    """Errors of what one version answered, with their share where there are any."""
    if not seen.requests:
        return "no requests"
    return f"{seen.errors:,} errors ({percent(seen.errors / seen.requests)} %)" if seen.errors else "no errors"
