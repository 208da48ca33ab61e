"""The curves and outlines of the report, from stored plot facts, each in units of its own.

The page stretches a drawing and writes the words beside it, so that text keeps its size on a narrow screen. A drawing
whose facts are missing or damaged is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.data.words import cut
from mlp_ci.drawing.axes import Axis, Tick, axis_over, line, steps
from mlp_ci.evaluate.telling.facts import MOST_PLOTTED, listed, mapping, number, points_of, text, whole
from mlp_ci.evaluate.telling.tables import champion_name, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlp_ci.evaluate.telling.facts import Facts

SIDE = 400.0  # of a square drawing
WIDTH, HEIGHT = 400.0, 150.0
MOST_LINES = 5
LABEL = 24
UNIT = Axis(low=0.0, high=1.0, length=SIDE)


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """One line: ``style`` is its class on the page, ``dots`` marks its points."""

    name: str
    style: str
    path: str
    dots: str = ""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawing with two axes. ``size`` is in its own units; ``reference`` the line to hold the others against."""

    title: str
    x_label: str
    y_label: str
    size: tuple[float, float]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    strokes: tuple[Stroke, ...] = ()
    areas: tuple[Stroke, ...] = ()
    reference: str = ""
    reference_name: str = ""
    note: str = ""

    @property
    def square(self) -> bool:
        return self.size[0] == self.size[1]


def plots(facts: Facts) -> list[Plot]:
    """Every drawing that these facts allow, in the order in which they are read."""
    made = [*_curves(facts, "roc", _roc), *_curves(facts, "pr", _pr), *_calibration(facts)]
    made += [p for p in (_scores(facts), _residuals(facts), _predicted(facts), _by_time(facts), _queries(facts)) if p]
    return made


# ---------------------------------------------------------------- curves in the unit square


def _curves(facts: Facts, key: str, of: Callable[[Mapping[str, Any]], _Curve | None]) -> list[Plot]:
    """One line a model where there is one class to be found, else one line a class of this model."""
    drawn: list[tuple[str, _Curve]] = []
    for model, name in named_models(facts):
        found = [c for c in (of(mapping(e)) for e in listed(facts.plots[model].get(key))) if c]
        if model == "this" and len(found) > 1:
            drawn = [(c.label, c) for c in found[:MOST_LINES]]
            break
        drawn += [(name, c) for c in found[:1]]
    if not drawn:
        return []
    first = drawn[0][1]
    strokes = tuple(
        Stroke(name=cut(name, LABEL), style=f"l{i}", path=line(c.points))
        for i, (name, c) in enumerate(drawn[:MOST_LINES])
    )
    return [_square(first.title, (first.x_label, first.y_label), strokes, reference=first.reference)]


@dataclass(frozen=True, kw_only=True)
class _Curve:
    title: str
    x_label: str
    y_label: str
    label: str
    points: tuple[tuple[float, float], ...]
    reference: tuple[str, str]


def _roc(entry: Mapping[str, Any]) -> _Curve | None:
    points = points_of(entry.get("fpr"), entry.get("tpr"))
    labels = ("ROC", "false positive rate", "true positive rate")
    return _curve(entry, labels, points, (line([(0, SIDE), (SIDE, 0)]), "guessing"))


def _pr(entry: Mapping[str, Any]) -> _Curve | None:
    points = points_of(entry.get("recall"), entry.get("precision"))
    share = number(entry.get("share"))
    level = line([(0, _y(share)), (SIDE, _y(share))]) if share is not None else ""
    labels = ("Precision and recall", "recall", "precision")
    return _curve(entry, labels, points, (level, "all positive"))


def _curve(
    entry: Mapping[str, Any],
    labels: tuple[str, str, str],
    points: Sequence[tuple[float, float]],
    reference: tuple[str, str],
) -> _Curve | None:
    if len(points) < 2:
        return None
    title, x_label, y_label = labels
    placed = tuple((UNIT.place(x), _y(y)) for x, y in points)
    label = text(entry.get("class"))
    return _Curve(title=title, x_label=x_label, y_label=y_label, label=label, points=placed, reference=reference)


def _square(
    title: str,
    labels: tuple[str, str],
    strokes: tuple[Stroke, ...],
    *,
    reference: tuple[str, str],
    areas: tuple[Stroke, ...] = (),
    note: str = "",
) -> Plot:
    return Plot(
        title=title,
        x_label=labels[0],
        y_label=labels[1],
        size=(SIDE, SIDE),
        x_ticks=UNIT.ticks(),
        y_ticks=_down(UNIT),
        strokes=strokes,
        areas=areas,
        reference=reference[0],
        reference_name=reference[1] if reference[0] else "",
        note=note,
    )


def named_models(facts: Facts) -> list[tuple[str, str]]:
    """The models that have drawings, this one first."""
    return [("this", "this")] * ("this" in facts.plots) + [
        (stage, champion_name(facts, stage)) for stage in sorted(facts.plots) if stage != "this"
    ]


def _y(share: float) -> float:
    """A share of one, measured from the bottom of a square."""
    return SIDE - UNIT.place(share)


def _down(axis: Axis) -> tuple[Tick, ...]:
    """Marks of an axis that rises, measured from the top."""
    return tuple(Tick(text=t.text, at=100 - t.at) for t in axis.ticks())


# ---------------------------------------------------------------- calibration


def _calibration(facts: Facts) -> list[Plot]:
    """How often predictions of each size came true: a line a model, with intervals for this one; or one a label."""
    entries = [(name, mapping(e)) for model, name in named_models(facts) for e in _entries(facts, model)[:1]]
    ours = _entries(facts, "this")
    if len(ours) > 1:  # one line a label
        entries = [(text(e.get("class")), e) for e in ours]
    known = [(name, e, _bins(e)) for name, e in entries]
    known = [(name, e, bins) for name, e, bins in known if bins][:MOST_LINES]
    if not known:
        return []
    strokes: list[Stroke] = []
    areas: tuple[Stroke, ...] = ()
    note = ""
    for i, (name, _, bins) in enumerate(known):
        points = [(UNIT.place(x), _y(y)) for x, y, _, _ in bins]
        strokes.append(Stroke(name=cut(name, LABEL), style=f"l{i}", path=line(points), dots=_dots(points)))
    if len(ours) == 1 and known[0][1] is ours[0]:
        ends = [(UNIT.place(x), _y(lo), _y(hi)) for x, _, lo, hi in known[0][2] if lo is not None and hi is not None]
        areas = (Stroke(name="", style="whisker", path=_whiskers(ends)),) if ends else ()
        ece = number(ours[0].get("ece"))
        note = f"expected calibration error {shown(ece)}" if ece is not None else ""
    diagonal = (line([(0, SIDE), (SIDE, 0)]), "as predicted")
    labels = ("predicted probability", "came true")
    return [_square("Calibration", labels, tuple(strokes), reference=diagonal, areas=areas, note=note)]


def _entries(facts: Facts, model: str) -> list[Mapping[str, Any]]:
    return [mapping(e) for e in listed(mapping(facts.plots.get(model)).get("calibration"))]


def _bins(entry: Mapping[str, Any]) -> list[tuple[float, float, float | None, float | None]]:
    """(predicted, came true, low, high) of every bin."""
    found = [mapping(b) for b in listed(entry.get("bins"))[:MOST_PLOTTED]]
    rows = [tuple(number(b.get(k)) for k in ("predicted", "observed", "low", "high")) for b in found]
    return [(x, y, low, high) for x, y, low, high in rows if x is not None and y is not None]


def _whiskers(ends: Sequence[tuple[float, float, float]]) -> str:
    return "".join(f"M{x:.1f} {low:.1f}V{high:.1f}" for x, low, high in ends)


# ---------------------------------------------------------------- outlines of numbers


def _scores(facts: Facts) -> Plot | None:
    """The probability that the model gave, by what was true."""
    found = mapping(mapping(facts.plots.get("this")).get("scores"))
    counts = list(mapping(found.get("counts")).items())[:MOST_LINES]
    chosen = [(f"actual {cut(text(name), LABEL)}", found.get("edges"), row) for name, row in counts]
    return _outlines(("Scores", "predicted probability"), chosen)


def _residuals(facts: Facts) -> Plot | None:
    sides = [(name, mapping(facts.plots[model].get("residuals"))) for model, name in named_models(facts)[:MOST_LINES]]
    chosen = [(name, found.get("edges"), found.get("counts")) for name, found in sides]
    return _outlines(("Residuals", "prediction − target"), chosen, zero=True)


def _queries(facts: Facts) -> Plot | None:
    sides = [(name, mapping(facts.plots[model].get("queries"))) for model, name in named_models(facts)[:MOST_LINES]]
    chosen = [(name, found.get("edges"), found.get("counts")) for name, found in sides]
    return _outlines(("Queries", "NDCG of a query"), chosen)


@dataclass(frozen=True, kw_only=True)
class _Histogram:
    """Shares of the rows in cells of equal width between ``low`` and ``high``."""

    name: str
    low: float
    high: float
    shares: tuple[float, ...]

    @property
    def cell(self) -> float:
        return (self.high - self.low) / len(self.shares)


def _histogram(name: str, edges: Any, counts: Any) -> _Histogram | None:
    ends = [v for v in map(number, listed(edges)) if v is not None]
    row = [whole(c) or 0 for c in listed(counts)]
    if len(ends) < 2 or ends[-1] <= ends[0] or len(row) != len(ends) - 1 or not sum(row):
        return None
    return _Histogram(name=name, low=ends[0], high=ends[-1], shares=tuple(c / sum(row) for c in row))


def _outlines(titles: tuple[str, str], chosen: Sequence[tuple[str, Any, Any]], *, zero: bool = False) -> Plot | None:
    """Histograms on one axis, each as a share of its own rows; wider cells hold more, and are drawn lower for it."""
    found = [h for h in (_histogram(*one) for one in chosen) if h]
    if not found:
        return None
    axis = Axis(low=min(h.low for h in found), high=max(h.high for h in found), length=WIDTH)
    heights = [[s * found[0].cell / h.cell for s in h.shares] for h in found]
    top = max(max(row) for row in heights)
    shares = Axis(low=0.0, high=100 * top, length=HEIGHT)
    middle = zero and axis.low < 0 < axis.high
    places = [(axis.place(h.low), axis.place(h.high)) for h in found]
    return Plot(
        title=titles[0],
        x_label=titles[1],
        y_label="% of rows",
        size=(WIDTH, HEIGHT),
        x_ticks=axis.ticks(),
        y_ticks=tuple(Tick(text=t.text, at=100 - t.at * (HEIGHT - 4) / HEIGHT) for t in shares.ticks(3)),
        areas=tuple(
            Stroke(name=h.name, style=f"l{i}", path=steps(row, top, (WIDTH, HEIGHT), place))
            for i, (h, row, place) in enumerate(zip(found, heights, places, strict=True))
        ),
        reference=line([(axis.place(0.0), 0), (axis.place(0.0), HEIGHT)]) if middle else "",
        reference_name="no error" if middle else "",
    )


def _predicted(facts: Facts) -> Plot | None:
    """What was true where the model said so much: the middle, and between which tenths the most of it lay."""
    bins = [mapping(b) for b in listed(mapping(facts.plots.get("this")).get("predicted"))[:MOST_PLOTTED]]
    rows = [tuple(number(b.get(k)) for k in ("predicted", "low", "middle", "high")) for b in bins]
    known = [(x, lo, mid, hi) for x, lo, mid, hi in rows if None not in (x, lo, mid, hi)]
    if len(known) < 2:
        return None
    axis = axis_over([v for row in known for v in row if v is not None], SIDE)
    placed = [[axis.place(v or 0.0) for v in row] for row in known]
    middle = [(x, SIDE - mid) for x, _, mid, _ in placed]
    band = [(x, SIDE - hi) for x, _, _, hi in placed] + [(x, SIDE - lo) for x, lo, _, _ in reversed(placed)]
    return Plot(
        title="Predicted and actual",
        x_label="prediction",
        y_label="target",
        size=(SIDE, SIDE),
        x_ticks=axis.ticks(),
        y_ticks=_down(axis),
        strokes=(Stroke(name="middle of the targets", style="l0", path=line(middle), dots=_dots(middle)),),
        areas=(Stroke(name="8 of 10 targets", style="band", path=line(band) + "Z"),),
        reference=line([(0, SIDE), (SIDE, 0)]),
        reference_name="as predicted",
    )


def _dots(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)


def _by_time(facts: Facts) -> Plot | None:
    """Means of targets and predictions along the time of a forecast."""
    bins = [mapping(b) for b in listed(mapping(facts.plots.get("this")).get("by_time"))[:MOST_PLOTTED]]
    known = [(text(b.get("start")), number(b.get("actual")), number(b.get("predicted"))) for b in bins]
    rows = [(start, a, p) for start, a, p in known if a is not None and p is not None]
    if len(rows) < 2:
        return None
    axis = axis_over([v for _, a, p in rows for v in (a, p)], HEIGHT)
    xs = [WIDTH * i / (len(rows) - 1) for i in range(len(rows))]
    actual = [(x, HEIGHT - axis.place(value)) for x, (_, value, _) in zip(xs, rows, strict=True)]
    predicted = [(x, HEIGHT - axis.place(value)) for x, (_, _, value) in zip(xs, rows, strict=True)]
    ends = ((0, 0.0), (len(rows) - 1, 100.0))
    return Plot(
        title="Along the time",
        x_label="",
        y_label="mean",
        size=(WIDTH, HEIGHT),
        x_ticks=tuple(Tick(text=_moment(rows[i][0]), at=at) for i, at in ends),
        y_ticks=_down(axis),
        strokes=(
            Stroke(name="predicted", style="l0", path=line(predicted)),
            Stroke(name="actual", style="l1", path=line(actual)),
        ),
    )


def _moment(iso: str) -> str:
    """``2026-01-31 06:00`` of an ISO instant; of midnight, the day."""
    day, _, time = iso[:16].partition("T")
    return cut(day if time in ("", "00:00") else f"{day} {time}", 16)
