"""The model card of a version, in the format of Hugging Face: metadata that programs read, then words for people.

The metadata's ``model-index`` follows https://github.com/huggingface/hub-docs/blob/main/modelcard.md; the interval of a
metric lies in its ``args``. The sections are those of Mitchell et al., "Model Cards for Model Reporting" (2019). The
same facts give the same bytes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from mlp_ci.data.words import cut, round_share
from mlp_ci.evaluate.telling import tables
from mlp_ci.evaluate.telling.facts import mapping, text
from mlp_ci.evaluate.telling.page import lineage, method
from mlp_ci.evaluate.telling.training import spent
from mlp_ci.printable import in_one_line, markdown_code, markdown_text
from mlp_ci.report import Outcome, Table, markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.evaluate.telling.facts import Facts, MetricFact
    from mlp_ci.spec import ModelSpec

FILE = "model-card.md"
MOST_SLICES = 30
MOST_INPUTS = 15
LONGEST = 400
# The names under which Hugging Face knows what is predicted; held-out data is always a table here.
TASKS = {
    "binary": "tabular-classification",
    "multiclass": "tabular-classification",
    "multilabel": "tabular-classification",
    "regression": "tabular-regression",
    "forecasting": "time-series-forecasting",
}
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")


def model_card(facts: Facts, spec: ModelSpec) -> str:
    """The whole card. ``spec`` says what the model is for; everything else is what was measured."""
    front = yaml.safe_dump(metadata(facts, spec), sort_keys=False, allow_unicode=True, width=10_000)
    parts = [
        f"# {markdown_text(spec.name)}",
        _intended(spec),
        _data(facts, spec),
        _evaluation(facts),
        _slices(facts),
        _limitations(facts),
        _environment(facts),
        _lineage(facts),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def metadata(facts: Facts, spec: ModelSpec) -> dict[str, Any]:
    """The front matter."""
    licence = spec.metadata.get("license")
    known = isinstance(licence, str) and _LICENCE.fullmatch(licence)
    task = TASKS.get(facts.task)
    measured = [m for m in tables.by_interest(facts) if m.this.value is not None]
    front: dict[str, Any] = {"license": licence} if known else {}
    front |= {"tags": ["mlp-ci", *([facts.task] if facts.task else [])]}
    front |= {"pipeline_tag": task} if task else {}
    front |= {"metrics": [_plain(m.name) for m in measured]} if measured else {}
    test = mapping(facts.evidence.get("test"))
    dataset = {
        "type": _plain(text(test.get("path"))) or "held-out",
        "name": f"Held-out data of {spec.name}",
        "split": "test",
        "revision": _plain(text(test.get("digest"))),
    }
    result = {
        "task": {"type": task or facts.task or "other", "name": facts.task or "other"},
        "dataset": {k: v for k, v in dataset.items() if v},
        "metrics": [_metric(m, facts) for m in measured],
    }
    return front | {"model-index": [{"name": spec.name, "results": [result] if measured else []}]}


def _metric(metric: MetricFact, facts: Facts) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _plain(metric.name), "value": metric.this.value, "name": _plain(metric.name)}
    if metric.this.has_interval:
        found["args"] = {"low": metric.this.low, "high": metric.this.high, "confidence": facts.level}
    return found


def _plain(words: str) -> str:
    return in_one_line(cut(words, LONGEST))


# ---------------------------------------------------------------- sections


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *lines]) if lines else ""


def _intended(spec: ModelSpec) -> str:
    lines = [markdown_text(cut(spec.description, 2000)) if spec.description else "No description in model.yaml.", ""]
    lines.append(f"- team: {markdown_text(spec.team)}; tier: {markdown_text(spec.tier)}")
    lines += [f"- ask: {', '.join(markdown_code(cut(o, 80)) for o in spec.owners[:20])}"] if spec.owners else []
    lines.append(f"- predicts: {markdown_code(cut(spec.data.target, 80))}")
    for name, value in list(spec.metadata.items())[:30]:
        shown = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        lines.append(f"- {markdown_text(cut(str(name), 80))}: {markdown_text(cut(shown, LONGEST))}")
    return _section("Intended use", lines)


def _data(facts: Facts, spec: ModelSpec) -> str:
    held_out = spec.data.test
    lines = [
        f"- {'held out' if path == held_out else 'training'}: {markdown_code(cut(path, 160))}, "
        f"{markdown_code(cut(digest, 120))}"
        for path, digest in sorted(facts.data.items())
    ]
    names = list(mapping(facts.evidence.get("columns")).items())
    if names:
        shown = ", ".join(f"{markdown_code(cut(str(n), 60))} ({markdown_text(cut(str(t), 20))})" for n, t in names[:40])
        lines.append(f"- columns: {shown}" + (f" and {len(names) - 40} more" if len(names) > 40 else ""))
    return _section("Data", lines)


def _evaluation(facts: Facts) -> str:
    lines = [markdown_text(tables.headline(facts)) + ".", "", markdown_table(tables.comparison(facts)), ""]
    lines += [markdown_table(tables.gates(facts.gates))] if facts.gates else []
    made = method(facts)
    lines += ["", f"Intervals: {markdown_text(made)}."] if made else []
    return _section("Evaluation", lines)


def _slices(facts: Facts) -> str:
    found = tables.worst_slices(facts, MOST_SLICES)
    lines = [markdown_table(tables.slices(facts, found)), ""] if found else []
    for gap in facts.fairness:
        lines += [markdown_table(tables.fairness(gap)), ""]
    return _section("Slices and groups", lines[:-1])


def _limitations(facts: Facts) -> str:
    """What the rows speak against, and what they do not tell."""
    lines = [f"- {markdown_code(cut(g.gate, 160))} failed: {markdown_text(tables.why(g))}" for g in facts.failed]
    lines += [
        f"- {markdown_code(cut(g.gate, 160))} is undecided: {markdown_text(tables.why(g))}" for g in facts.undecided
    ]
    for outcome, says in (
        (Outcome.FAIL, "does worse than it has to"),
        (Outcome.INCONCLUSIVE, "has too few rows to tell"),
    ):
        names = [f"{s.where} ({s.rows:,} rows)" for s in facts.slices if s.outcome is outcome]
        if names:
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            shown = ", ".join(markdown_text(cut(n, 100)) for n in names[:20])
            lines.append(f"- Where {shown}{more} it {says}.")
    if facts.reuse and facts.reuse.count > 1:
        said = f"{facts.reuse.count} models were judged on these rows; the best of them may owe a part to luck."
        lines.append(f"- {markdown_text(cut(facts.reuse.warning, LONGEST)) or said}")
    lines.append(f"- Nothing is known beyond the {facts.rows:,} held-out rows and the columns above.")
    if facts.importance:
        shown = ", ".join(
            f"{markdown_code(cut(n, 60))} {round_share(s)}" for n, s in list(facts.importance.items())[:MOST_INPUTS]
        )
        lines.append(f"- The predictions rest on {shown}.")
    return _section("Limitations", lines)


def _environment(facts: Facts) -> str:
    tags: Mapping[str, str] = facts.tags
    rows = [*spent(facts).items(), ("environment", tags.get("mlp.env", "")), ("Python", tags.get("mlp.python", ""))]
    rows += [("command", tags.get("mlp.command", "")), ("seed", tags.get("mlp.seed", ""))]
    kept = tuple((name, cut(value, 200)) for name, value in rows if value)
    table = Table(title="", columns=("what", "value"), rows=kept)
    return _section("Training and environment", [markdown_table(table)] if kept else [])


def _lineage(facts: Facts) -> str:
    made = {name: which for name, which in lineage(facts).items() if name not in ("environment", "seed")}
    table = Table(title="", columns=("what", "which"), rows=tuple(made.items()))
    return _section("Lineage", [markdown_table(table)])
