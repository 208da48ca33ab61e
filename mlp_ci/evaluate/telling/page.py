"""The report of an evaluation as one HTML file that needs no network: the verdict on top, then why, then pictures.

The drawings are made in :mod:`mlp_ci.evaluate.telling.charts` and :mod:`~mlp_ci.evaluate.telling.marks`; the layout is
``model.html.jinja`` beside this file. The same facts give the same bytes: the page tells no time of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.data.words import cut, round_share
from mlp_ci.drawing.template import fill
from mlp_ci.evaluate.telling import charts, marks, tables
from mlp_ci.evaluate.telling.facts import mapping, text
from mlp_ci.evaluate.telling.training import spent
from mlp_ci.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.evaluate.telling.facts import Facts

TEMPLATE = Path(__file__).parent / "model.html.jinja"
MOST_SLICES = 60
MOST_INPUTS = 20
VERDICTS = {
    Outcome.PASS: "passed",
    Outcome.FAIL: "failed",
    Outcome.INCONCLUSIVE: "undecided",
    Outcome.SKIP: "not judged",
}


def render(facts: Facts) -> str:
    """The whole page."""
    found = tables.worst_slices(facts, MOST_SLICES)
    ordered = tables.by_interest(facts)
    inputs = list(facts.importance.items())
    values = {
        "f": facts,
        "sentence": tables.headline(facts),
        "verdicts": VERDICTS,
        "stages": tables.stages_of(facts),
        "table": tables.comparison(facts),
        "gates": [(g, tables.why(g)) for g in facts.gates],
        "forest": marks.forest(facts, ordered),
        "slices": list(zip(found, marks.slice_marks(facts, found), strict=True)),
        "fairness": [tables.fairness(f) for f in facts.fairness],
        "warnings": list(dict.fromkeys([*([facts.reuse.warning] if facts.reuse else []), *facts.warnings])),
        "hidden_slices": len(facts.slices) - len(found),
        "plots": charts.plots(facts),
        "matrix": marks.matrix(facts),
        "inputs": inputs[:MOST_INPUTS],
        "hidden_inputs": len(inputs[MOST_INPUTS:]),
        "training": spent(facts),
        "lineage": lineage(facts),
        "method": method(facts),
    }
    return fill(TEMPLATE, {"share": round_share, "cut": cut, "shown": tables.shown}, values)


def lineage(facts: Facts) -> dict[str, str]:
    """What the model was made from and judged on, by digest."""
    evidence = facts.evidence
    test = mapping(evidence.get("test"))
    found = {
        "commit": facts.commit,
        "run": facts.run_id,
        "train key": text(evidence.get("train_key")),
        "model": text(evidence.get("model_digest")),
        **{cut(path, 80): digest for path, digest in facts.data.items()},
        "environment": facts.tags.get("mlp.env", ""),
        "seed": facts.tags.get("mlp.seed", ""),
        "judged by": f"mlp-ci {text(evidence.get('mlp_ci'))}" if evidence.get("mlp_ci") else "",
    }
    if text(test.get("path")) not in facts.data:
        found[cut(text(test.get("path")), 80)] = text(test.get("digest"))
    return {name: cut(value, 120) for name, value in found.items() if name and value}


def method(facts: Facts) -> str:
    """How the intervals were made, in one line."""
    made: Mapping[str, object] = mapping(facts.evidence.get("intervals"))
    design = mapping(made.get("design"))
    replicates = f"{text(made.get('replicates'))} replicates" if made.get("replicates") else ""
    drawn = "drawn by group" if design.get("clusters") else "drawn in blocks of time" if design.get("block") else ""
    seed = f"seed {text(made.get('seed'))}" if made.get("seed") is not None else ""
    return ", ".join(cut(p, 60) for p in (text(made.get("method")), replicates, drawn, seed) if p)
