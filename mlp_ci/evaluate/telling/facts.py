"""The stored facts of an evaluation as values: evidence of every format that was ever written, and what lies beside it.

Everything here was written by a job, and read back from a store that others can write to: nothing is trusted to have
the shape that it should have. What has another shape is left out, never an error; a damaged file is told by ``load``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlp_ci.report import Outcome

MOST_METRICS = 200
MOST_SLICES = 1000
MOST_GROUPS = 100
MOST_WARNINGS = 20
MOST_PLOTTED = 500  # points of one line


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number with its interval; all three are None where they are not known."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def has_interval(self) -> bool:
        return self.value is not None and self.low is not None and self.high is not None


@dataclass(frozen=True, kw_only=True)
class MetricFact:
    """One metric of this model; ``champions`` and ``differences`` (this minus the other) are by stage."""

    name: str
    this: Number
    champions: Mapping[str, Number] = field(default_factory=dict)
    differences: Mapping[str, Number] = field(default_factory=dict)
    outcome: Outcome | None = None
    limits: tuple[tuple[str, float], ...] = ()  # ("≥" or "≤", number) of the gates over all rows
    measured: bool = False  # latency, memory and the like, not computed from predictions


@dataclass(frozen=True, kw_only=True)
class GateFact:
    """One gate: what it asked, how it was judged and why; ``rows_needed`` in all would probably decide it."""

    gate: str
    metric: str
    outcome: Outcome
    message: str
    rows_needed: int | None = None
    slices: tuple[SliceFact, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SliceFact:
    """Some of the held-out rows: ``where`` says which."""

    where: str
    rows: int
    metric: str
    this: Number
    outcome: Outcome | None = None
    rest: float | None = None  # the metric over the other rows, where the search held both against each other
    p_value: float | None = None  # corrected for all that the search looked at
    found: bool = False  # by the search, not because it was declared


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """One metric in each group of a column, and the largest difference between two of them."""

    column: str
    metric: str
    gap: Number
    groups: tuple[tuple[str, int, float | None], ...]  # (value, rows, metric)


@dataclass(frozen=True, kw_only=True)
class Reuse:
    """How many models were judged on the same held-out rows, this one among them."""

    count: int
    warning: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that may be told of one evaluation of one run."""

    evidence: Mapping[str, Any]
    outcome: Outcome
    model: str
    task: str
    rows: int
    run_id: str
    commit: str
    metrics: tuple[MetricFact, ...]
    gates: tuple[GateFact, ...]
    slices: tuple[SliceFact, ...]
    champions: Mapping[str, int]  # stage → version
    data: Mapping[str, str] = field(default_factory=dict)  # path → digest
    reuse: Reuse | None = None
    fairness: tuple[Fairness, ...] = ()
    warnings: tuple[str, ...] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    plots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # "this" or a stage → drawings
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def on_inconclusive(self) -> str:
        """What follows where the rows do not decide: block, ask or pass; empty in old evidence."""
        return text(self.evidence.get("on_inconclusive"))

    @property
    def level(self) -> str:
        """Of the intervals, as ``95 %``."""
        level = number(mapping(self.evidence.get("intervals")).get("level"))
        return f"{100 * level:.4g} %" if level else "95 %"

    @property
    def undecided(self) -> tuple[GateFact, ...]:
        return tuple(g for g in self.gates if g.outcome is Outcome.INCONCLUSIVE)

    @property
    def failed(self) -> tuple[GateFact, ...]:
        return tuple(g for g in self.gates if g.outcome is Outcome.FAIL)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What lies beside the evidence; each part may be missing."""

    importance: Mapping[str, Any] = field(default_factory=dict)
    plots: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def facts_of(evidence: Mapping[str, Any], beside: Beside = Beside()) -> Facts:
    """The facts in an evidence file and in what lies beside it."""
    gates = _gates(evidence)
    return Facts(
        evidence=evidence,
        outcome=outcome_of(evidence.get("outcome")) or Outcome.INCONCLUSIVE,
        model=text(evidence.get("model")),
        task=text(evidence.get("decided_task") or evidence.get("task")),
        rows=whole(evidence.get("rows")) or 0,
        run_id=text(evidence.get("run_id")),
        commit=text(evidence.get("commit")),
        metrics=_metrics(evidence, gates),
        gates=gates,
        slices=_slices(evidence, gates),
        champions=_champions(evidence),
        data={text(k): text(v) for k, v in mapping(evidence.get("data")).items()},
        reuse=_reuse(evidence),
        fairness=_fairness(evidence),
        warnings=_warnings(evidence),
        importance=_shares(beside.importance),
        plots={text(k): mapping(v) for k, v in mapping(beside.plots.get("models")).items()},
        tags=beside.tags,
    )


# ---------------------------------------------------------------- values of any shape


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if known and math.isfinite(value) else None


def whole(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and found >= 0 else None


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def text(value: Any) -> str:
    return "" if value is None else str(value)


def outcome_of(value: Any) -> Outcome | None:
    return Outcome(value) if value in [str(o) for o in Outcome] else None


def interval(value: Any) -> Number:
    """``{"value": …, "low": …, "high": …}``, or a plain number."""
    if not isinstance(value, Mapping):
        return Number(value=number(value))
    return Number(value=number(value.get("value")), low=number(value.get("low")), high=number(value.get("high")))


def points_of(xs: Any, ys: Any) -> list[tuple[float, float]]:
    """Points of a line from two lists of numbers; none where the lists do not fit each other."""
    if len(listed(xs)) != len(listed(ys)):
        return []
    pairs = [(number(x), number(y)) for x, y in zip(listed(xs)[:MOST_PLOTTED], listed(ys)[:MOST_PLOTTED], strict=True)]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


# ---------------------------------------------------------------- gates and metrics


def _gates(evidence: Mapping[str, Any]) -> tuple[GateFact, ...]:
    return tuple(
        GateFact(
            gate=text(g.get("gate")),
            metric=text(g.get("metric")),
            outcome=outcome_of(g.get("outcome")) or Outcome.INCONCLUSIVE,
            message=text(g.get("message")),
            rows_needed=whole(g.get("rows_needed")),
            slices=tuple(_slice(s, text(g.get("metric")), _column(evidence, i)) for s in _some(g.get("slices"))),
        )
        for i, g in enumerate(map(mapping, listed(evidence.get("gates"))))
    )


def _some(value: Any) -> list[Mapping[str, Any]]:
    return [s for s in listed(value)[:MOST_SLICES] if isinstance(s, Mapping)]


def _asked(evidence: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """What model.yaml asked for in the gate of this place; the first evidence had it beside the gates only."""
    judged, asked = listed(evidence.get("gates")), listed(evidence.get("gates_spec"))
    beside = mapping(asked[index]) if index < len(asked) == len(judged) else {}
    return {**beside, **mapping(judged[index])}


def _column(evidence: Mapping[str, Any], index: int) -> str:
    return text(_asked(evidence, index).get("slice"))


def _metrics(evidence: Mapping[str, Any], gates: Sequence[GateFact]) -> tuple[MetricFact, ...]:
    theirs = {text(s): mapping(m) for s, m in mapping(evidence.get("champion_metrics")).items()}
    compared = _differences(evidence)
    found = []
    for name, value in list(mapping(evidence.get("metrics")).items())[:MOST_METRICS]:
        this = interval(value)
        champions = {s: interval(m.get(name)) for s, m in theirs.items() if name in m}
        differences = {s: compared.get((s, name)) or _plain_difference(this, c) for s, c in champions.items()}
        found.append(
            MetricFact(
                name=text(name),
                this=this,
                champions=champions,
                differences=differences,
                outcome=_worst([g.outcome for g in gates if g.metric == name]),
                limits=_limits(evidence, text(name)),
                measured=mapping(value).get("measured") is True,
            )
        )
    return tuple(found)


def _plain_difference(this: Number, theirs: Number) -> Number:
    known = this.value is not None and theirs.value is not None
    return Number(value=this.value - theirs.value if known else None)  # type: ignore[operator]


def _differences(evidence: Mapping[str, Any]) -> dict[tuple[str, str], Number]:
    """(stage, metric) → the paired difference with its interval: of all metrics where they are kept, else of gates."""
    found = {
        (text(stage), text(name)): interval(value)
        for stage, differences in mapping(evidence.get("differences")).items()
        for name, value in mapping(differences).items()
    }
    for i, gate in enumerate(map(mapping, listed(evidence.get("gates")))):
        stage, name = text(_asked(evidence, i).get("versus")), text(gate.get("metric"))
        value = number(gate.get("difference"))
        if stage and value is not None and (stage, name) not in found:
            low, high = number(gate.get("difference_low")), number(gate.get("difference_high"))
            found[stage, name] = Number(value=value, low=low, high=high)
    return found


def _limits(evidence: Mapping[str, Any], name: str) -> tuple[tuple[str, float], ...]:
    found = []
    for i, _ in enumerate(listed(evidence.get("gates"))):
        asked = _asked(evidence, i)
        if text(asked.get("metric")) == name and not asked.get("slice") and not asked.get("gap"):
            found += [("≥", number(asked.get("min"))), ("≤", number(asked.get("max")))]
    return tuple((sign, limit) for sign, limit in found if limit is not None)


def _worst(outcomes: Sequence[Outcome]) -> Outcome | None:
    from mlp_ci.report import worst

    return worst(outcomes) if outcomes else None


def _champions(evidence: Mapping[str, Any]) -> dict[str, int]:
    found = {text(s): whole(mapping(c).get("version")) for s, c in mapping(evidence.get("champions")).items()}
    return {stage: number for stage, number in found.items() if number is not None}


# ---------------------------------------------------------------- slices and the rest


def _slices(evidence: Mapping[str, Any], gates: Sequence[GateFact]) -> tuple[SliceFact, ...]:
    """Every slice once: those of gates first, then the declared ones and those that the search found."""
    kept = mapping(evidence.get("slices"))
    search = mapping(kept.get("search"))
    rows = [s for g in gates for s in g.slices]
    rows += [_slice(s, text(s.get("metric")), text(s.get("column"))) for s in _some(kept.get("declared"))]
    rows += [_found(s, text(search.get("loss"))) for s in _some(search.get("found"))]
    once: dict[tuple[str, str], SliceFact] = {}
    for row in rows:
        once.setdefault((row.where, row.metric), row)
    return tuple(once.values())


def _slice(value: Mapping[str, Any], metric: str, column: str) -> SliceFact:
    name = text(value.get("slice"))
    return SliceFact(
        where=f"{column} = {name}" if column else name,
        rows=whole(value.get("rows")) or 0,
        metric=metric,
        this=interval(value),
        outcome=outcome_of(value.get("outcome")),
    )


def _found(value: Mapping[str, Any], loss: str) -> SliceFact:
    """What the search found: by a metric where it names one, else by the loss of its rows against that of the rest."""
    metric, known = text(value.get("metric")), number(value.get("value"))
    by_loss = not metric or known is None
    return SliceFact(
        where=text(value.get("words")) or ", ".join(f"{k} = {v}" for k, v in mapping(value.get("where")).items()),
        rows=whole(value.get("rows")) or 0,
        metric=(loss or "loss") if by_loss else metric,
        this=Number(value=number(value.get("loss")) if by_loss else known),
        rest=number(value.get("loss_rest")) if by_loss else None,
        p_value=number(value.get("p")),
        found=True,
    )


def _reuse(evidence: Mapping[str, Any]) -> Reuse | None:
    kept = mapping(evidence.get("reuse"))
    count = whole(kept.get("models"))
    if count is None:
        return None
    worn = f"{count:,} models were judged on these held-out rows; the best of them may owe a part to luck"
    return Reuse(count=count, warning=f"{worn}: hold out new rows" if kept.get("worn") is True else "")


def _fairness(evidence: Mapping[str, Any]) -> tuple[Fairness, ...]:
    return tuple(
        Fairness(
            column=text(f.get("column")),
            metric=text(f.get("metric")),
            gap=interval({"value": f.get("gap"), "low": f.get("low"), "high": f.get("high")}),
            groups=tuple(
                (text(name), whole(mapping(g).get("rows")) or 0, number(mapping(g).get("value")))
                for name, g in list(mapping(f.get("groups")).items())[:MOST_GROUPS]
            ),
        )
        for f in _some(evidence.get("fairness"))
    )


def _warnings(evidence: Mapping[str, Any]) -> tuple[str, ...]:
    """What the evaluation warned of, and champions that could not be tried."""
    said = [text(w) for w in listed(evidence.get("warnings"))[:MOST_WARNINGS]]
    said += [text(why) for why in list(mapping(evidence.get("champion_trouble")).values())[:MOST_WARNINGS]]
    return tuple(dict.fromkeys(w for w in said if w))


def _shares(importance: Mapping[str, Any]) -> dict[str, float]:
    shares = {text(k): number(v) for k, v in mapping(importance.get("importance")).items()}
    order = sorted(((k, v) for k, v in shares.items() if v is not None), key=lambda item: (-item[1], item[0]))
    return dict(order)
