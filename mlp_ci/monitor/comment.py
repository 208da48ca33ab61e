"""The short version of a look, for pull requests: the sentence, the worst columns, the link.

While the retraining pull request of a model is open, one comment on it says what the newest look found, so that whoever
reviews it sees whether the reason for it still stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlp_ci.data.words import round_share, show_share
from mlp_ci.errors import MlpError
from mlp_ci.monitor.verdict import ALARM, INSUFFICIENT, PASS
from mlp_ci.printable import markdown_text
from mlp_ci.report import SYMBOLS, Finding, Outcome, Table, markdown_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.context import Context
    from mlp_ci.data.drift.decision import Decision

BRANCH = "mlp-ci/retrain"
MARKER = "mlp-ci monitor"
MOST_COLUMNS = 5
SAYS = {ALARM: Outcome.FAIL, INSUFFICIENT: Outcome.INCONCLUSIVE, PASS: Outcome.PASS}


def tell_pull(context: Context, look: Mapping[str, Any], report: str) -> Finding | None:
    """Write or renew the comment about a look (the JSON of its verdict) on the open retraining pull request.

    Returns None where there is no such pull request or no token. What goes wrong is a finding, not an error: the look
    was taken and is kept.
    """
    from mlp_ci.github import connect

    if context.github is None or not context.github.token:
        return None
    try:
        hub = connect(context.github)
        open_ones = hub.pulls_of_branch(BRANCH)
        if not open_ones:
            return None
        number = int(open_ones[0]["number"])
        hub.sticky_comment(number, f"{MARKER} {look.get('stage')}", comment_text(look, report))
    except MlpError as error:
        message = f"the retraining pull request was not told of this look: {error.what}"
        outcome = Outcome.INCONCLUSIVE
        return Finding(check="comment", outcome=outcome, message=message, fix=error.fix, severity="notice")
    return Finding(check="comment", outcome=Outcome.PASS, message=f"#{number} says what this look found")


def comment_text(look: Mapping[str, Any], report: str) -> str:
    """Markdown from the JSON of a verdict. ``report`` is the address of the page; empty where it has none."""
    outcome = SAYS.get(str(look.get("verdict")), Outcome.INCONCLUSIVE)
    lines = [f"### {SYMBOLS[outcome]} {markdown_text(str(look.get('sentence') or 'no verdict'))}", ""]
    columns = columns_of(look)
    if columns:
        shown = _worst(columns)
        title = "" if len(shown) == len(columns) else f"The worst {len(shown)} of {len(columns)}"
        lines += [markdown_table(short_table(shown, title, decided=True)), ""]
    said = [
        f"Window {markdown_text(window_of(look.get('window')))} UTC",
        f"looked at {_minute(look.get('created'))} UTC",
    ]
    if "://" in report:
        said.append(f"[report]({report})")
    lines.append(" · ".join(said))
    return "\n".join(lines) + "\n"


def _worst(columns: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first ones; segments of a column that stands before them say the same again."""
    shown: list[Mapping[str, Any]] = []
    for c in columns:
        if not (c.get("segment") and any(s.get("column") == c.get("column") and not s.get("segment") for s in shown)):
            shown.append(c)
        if len(shown) == MOST_COLUMNS:
            break
    return shown


def short_table(columns: Sequence[Mapping[str, Any]], title: str, *, decided: bool = False) -> Table:
    """Columns of a verdict's JSON as a table that a pull request has room for; ``decided``: with their decision."""
    rows = [_cells(c) for c in columns]
    head = ("column", "decision", "PSI", "usual", "limit", "importance", "missing then → now")
    # A column of the table that says nothing is left out: not every version has importances.
    kept = [i for i in range(len(head)) if i == 0 or (any(row[i] for row in rows) and (decided or i != 1))]
    return Table(
        title=title, columns=tuple(head[i] for i in kept), rows=tuple(tuple(row[i] for i in kept) for row in rows)
    )


def columns_of(look: Mapping[str, Any], decision: Decision | None = None) -> list[Mapping[str, Any]]:
    """The columns of a verdict's JSON, those with one decision where it is given; nothing for anything else."""
    found = look.get("columns")
    columns = [c for c in (found if isinstance(found, list) else []) if isinstance(c, Mapping)]
    return [c for c in columns if decision is None or c.get("decision") == decision]


def window_of(value: Any) -> str:
    """The window of a verdict's JSON in words."""
    if isinstance(value, Mapping):
        return f"{_minute(value.get('since'))} to {_minute(value.get('until'))}"
    return str(value or "")


def number_of(value: Any) -> int | float | None:
    """A number of the JSON; None for anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _cells(column: Mapping[str, Any]) -> tuple[str, ...]:
    """Text, so that a column of numbers has as many decimals in every row."""
    importance = number_of(column.get("importance"))
    nulls = [number_of(column.get(name)) or 0 for name in ("nulls_then", "nulls_now")]
    return (
        str(column.get("name") or column.get("column")),
        str(column.get("decision") or ""),
        _psi(column),
        *(_decimals(column.get(name)) for name in ("usual", "limit")),
        "" if importance is None else round_share(importance),
        " → ".join(show_share(share) for share in nulls) if any(nulls) else "",
    )


def _psi(column: Mapping[str, Any]) -> str:
    """The PSI that was judged, with the number of windows that it is of where they are several."""
    windows = number_of(column.get("scale")) or 1
    return f"{_decimals(column.get('pooled'))} over {windows} windows" if windows > 1 else _decimals(column.get("psi"))


def _decimals(value: Any) -> str:
    number = number_of(value)
    return "" if number is None else f"{number:.3f}"


def _minute(value: Any) -> str:
    return str(value or "")[:16].replace("T", " ")
