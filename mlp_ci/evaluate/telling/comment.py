"""The one comment on a pull request: the verdict, the table against production, the worst slices, pictures, links.

Names of columns, values of slices and messages come from data, so all of them are escaped; and the whole stays below
what GitHub takes, by leaving out first what the report has as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlp_ci.data.words import cut
from mlp_ci.evaluate.telling import tables
from mlp_ci.evaluate.telling.marks import matrix
from mlp_ci.evaluate.telling.mermaid import pictures
from mlp_ci.evaluate.telling.training import spent
from mlp_ci.printable import markdown_code, markdown_text
from mlp_ci.report import SYMBOLS, Outcome, Table, markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlp_ci.evaluate.telling.facts import Facts

MARKER = "mlp-ci:report"
LIMIT = 60_000  # GitHub takes 65,536 characters; the marker and what it counts otherwise need some
MOST_GATES = 10
MOST_METRICS = 15
MOST_SLICES = 5
MOST_CLASSES = 10
MEANS = {
    "block": "The rows do not decide every gate, so no version is registered from this (`on_inconclusive: block`).",
    "ask": "The rows do not decide every gate, so every promotion of this version needs a person's approval.",
    "pass": "The rows do not decide every gate; by `on_inconclusive: pass` that is enough here.",
}


@dataclass(frozen=True, kw_only=True)
class Links:
    """Addresses to go on from; what is empty or no address is left out."""

    report: str = ""
    run: str = ""
    job: str = ""


def comment(facts: Facts, links: Links = Links()) -> str:
    """Markdown that is the same for the same facts, whoever runs the job and when."""
    parts: list[Callable[[Facts], list[str]]] = [_head, _troubles, _compared, _slices, _spent, _every_gate, _pictures]
    means = MEANS.get(facts.on_inconclusive, "") if facts.outcome is Outcome.INCONCLUSIVE else ""
    end = _end(facts, links)
    # What comes last goes first when there is too much.
    for kept in range(len(parts), 0, -1):
        said = [part(facts) for part in parts[:kept]]
        said.insert(1, [means, ""] if means else [])
        left_out = ["The rest is in the report.", ""] if kept < len(parts) else []
        text = "\n".join([*(line for lines in said for line in lines), *left_out, *end]) + "\n"
        if len(text) <= LIMIT:
            return text
    return "\n".join([*_head(facts), *end]) + "\n"


def _head(facts: Facts) -> list[str]:
    return [f"### {SYMBOLS[facts.outcome]} {markdown_text(cut(tables.headline(facts), 300))}", ""]


def _troubles(facts: Facts) -> list[str]:
    """The gates that did not pass, and what the evaluation warns of."""
    found = [*facts.failed, *facts.undecided]
    lines = [
        f"- {SYMBOLS[g.outcome]} {markdown_code(cut(g.gate, 160))}: {markdown_text(tables.why(g))}"
        for g in found[:MOST_GATES]
    ]
    lines += [f"- and {len(found) - MOST_GATES} more"] if len(found) > MOST_GATES else []
    noted = [*([facts.reuse.warning] if facts.reuse and facts.reuse.warning else []), *facts.warnings]
    lines += [f"- {SYMBOLS[Outcome.INCONCLUSIVE]} {markdown_text(cut(w, 400))}" for w in dict.fromkeys(noted)]
    return [*lines, ""] if lines else []


def _compared(facts: Facts) -> list[str]:
    return [markdown_table(tables.comparison(facts, MOST_METRICS)), ""]


def _slices(facts: Facts) -> list[str]:
    found = tables.worst_slices(facts, MOST_SLICES)
    return [markdown_table(tables.slices(facts, found)), ""] if found else []


def _spent(facts: Facts) -> list[str]:
    took = spent(facts)
    lines = []
    if took:
        lines.append("**Training** " + ", ".join(f"{name} {markdown_text(cut(v, 120))}" for name, v in took.items()))
    if facts.reuse and not facts.reuse.warning:
        times = f"{facts.reuse.count} models, this one among them" if facts.reuse.count > 1 else "this model only"
        lines.append(f"**Held-out rows** judged {times}")
    return [*[part for line in lines for part in (line, "")]]


def _every_gate(facts: Facts) -> list[str]:
    table = replace(tables.gates(facts.gates), title="")
    return ["<details><summary>Every gate</summary>", "", markdown_table(table), "", "</details>", ""]


def _pictures(facts: Facts) -> list[str]:
    lines = []
    for legend, block in pictures(facts):
        lines += [block, ""]
        lines += [f"<sub>{markdown_text(legend)}</sub>", ""] if legend else []
    confused = _confusion(facts)
    lines += [markdown_table(confused), ""] if confused else []
    return ["<details><summary>Pictures</summary>", "", *lines, "</details>", ""] if lines else []


def _confusion(facts: Facts) -> Table | None:
    found = matrix(facts)
    if found is None or len(found.classes) > MOST_CLASSES:
        return None
    rows = tuple((name, *(f"{count:,} ({share:.0%})" for count, share in cells)) for name, cells in found.rows)
    columns = ("what was true ↓ / predicted →", *found.classes)
    return Table(title="Confusion", columns=columns, rows=rows)


def _end(facts: Facts, links: Links) -> list[str]:
    pages = [("report", links.report), ("run", links.run), ("job", links.job)]
    said = [f"[{name}]({address})" for name, address in pages if _is_address(address)]
    said += [f"run {markdown_code(facts.run_id[:64])}"] if not _is_address(links.run) and facts.run_id else []
    said += [f"commit {markdown_code(facts.commit[:12])}"] if facts.commit else []
    return [f"<sub>{' · '.join(said)}</sub>"] if said else []


def _is_address(text: str) -> bool:
    return text.startswith(("https://", "http://")) and not set(text) & set(" \n\r\t()<>\"'`|")
