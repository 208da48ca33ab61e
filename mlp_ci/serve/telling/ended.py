"""What is written down when a rollout was aborted: the evidence, for the commit or pull request that makes git say so.

Reasons may hold what a server answered, so all of it is escaped; it stays below what GitHub takes in one text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.data.words import cut
from mlp_ci.printable import markdown_code, markdown_text
from mlp_ci.report import SYMBOLS, markdown_table
from mlp_ci.serve.telling.standing import OUTCOMES, outcome_of, sentence
from mlp_ci.serve.telling.status import metrics_table, steps_table
from mlp_ci.serve.telling.words import at_time, title_of

if TYPE_CHECKING:
    from mlp_ci.serve.telling.facts import Facts

LONGEST = 600


def evidence(facts: Facts) -> str:
    """Markdown: what was seen, by how much, and what to do about it. Empty without a rollout."""
    progress = facts.progress
    if progress is None:
        return ""
    lines = [f"### {SYMBOLS[outcome_of(facts)]} {markdown_text(cut(sentence(facts), LONGEST))}", ""]
    judged = facts.analysis.judged if facts.analysis else ()
    lines += [
        f"- {SYMBOLS[OUTCOMES[str(j.verdict)]]} **{markdown_text(title_of(j.metric))}**: "
        f"{markdown_text(cut(j.reason, LONGEST))}"
        for j in judged
    ]
    lines += [""] if judged else []
    for table in (metrics_table(facts), steps_table(facts)):
        lines += [markdown_table(table), ""] if table else []
    began = at_time(progress.started, facts.now)
    by = f", asked for by {markdown_text(progress.by)}" if progress.by else ""
    bytes_of_it = f"Version {progress.version} is {markdown_code(progress.digest)}"
    lines += [
        f"The rollout began at {began}{by}. {bytes_of_it}; it is held back until its `quarantine` is lifted.",
        "",
        f"Once the cause is mended: `mlp-ci rollout retry --stage {facts.stage}`, or promote another version.",
    ]
    return "\n".join(lines) + "\n"
