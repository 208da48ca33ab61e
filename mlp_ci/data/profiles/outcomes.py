"""How often each level of a prediction came true on held-out data: what performance without labels rests on.

Only for models that give the probability of one of two classes. Per bin of that probability: how many held-out rows,
how many of them were positive, and what the model said on average. Counts only, in constant size; no row is kept.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT = "mlp-ci/outcomes/v1"
# A probability of a half or more is a yes, and bins are closed above: the bins must part just below a half.
BELOW_HALF = math.nextafter(0.5, 0.0)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """``rows[i]`` held-out predictions lie in (edges[i-1], edges[i]], and ``positives[i]`` of them came true.

    The first and last bins are open. ``scores[i]`` is the mean prediction of bin i, None where no row lies; an empty
    ``scores`` stands for the middle of each bin.
    """

    edges: tuple[float, ...]
    rows: tuple[int, ...]
    positives: tuple[int, ...]
    scores: tuple[float | None, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` reads them back."""
        return {"format": FORMAT, **asdict(self)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Outcomes:
        """Read what :meth:`to_json` wrote; raises InputError for anything else."""
        fix = "use the mlp-ci that evaluated the version, or evaluate and register again"
        if not hasattr(value, "get") or value.get("format") != FORMAT:
            found = str(value.get("format"))[:60] if hasattr(value, "get") else type(value).__name__
            msg = f"the outcomes have the format {found!r}, and this mlp-ci reads {FORMAT!r}"
            raise InputError(msg, fix=fix)
        try:
            return Outcomes(
                edges=_edges(value["edges"]),
                rows=_counts(value["rows"], len(value["edges"]) + 1),
                positives=_positives(value["positives"], value["rows"]),
                scores=_scores(value["scores"], value["rows"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            msg = f"the outcomes are damaged: {str(error)[:200]}"
            raise InputError(msg, fix=fix) from error


def probability_edges(probabilities: Any) -> tuple[float, ...]:
    """Edges for the bins of predicted probabilities: those of any number, and one just below a half."""
    from mlp_ci.data.profiles.profile import edges_between

    edges = edges_between(probabilities)
    inside = bool(edges) and edges[0] < BELOW_HALF < edges[-1]
    return tuple(sorted({*edges, BELOW_HALF})) if inside else edges


def outcomes_of(edges: Sequence[float], probabilities: Any, positive: Any) -> Outcomes:
    """Held-out rows counted into bins: ``probabilities`` (rows,) of the positive class, ``positive`` (rows,) 0 or 1."""
    import numpy as np

    bins = np.searchsorted(np.asarray(edges, dtype=float), probabilities, side="left")
    count = len(edges) + 1
    rows = np.bincount(bins, minlength=count)
    positives = np.bincount(bins, weights=np.asarray(positive, dtype=float), minlength=count)
    totals = np.bincount(bins, weights=probabilities, minlength=count)
    return Outcomes(
        edges=tuple(float(e) for e in edges),
        rows=tuple(int(n) for n in rows),
        positives=tuple(round(float(n)) for n in positives),
        scores=tuple(float(t / n) if n else None for t, n in zip(totals, rows, strict=True)),
    )


# ---------------------------------------------------------------- reading JSON


def _edges(value: Any) -> tuple[float, ...]:
    edges = tuple(_finite(e) for e in _list(value, "edges"))
    if any(b <= a for a, b in itertools.pairwise(edges)):
        msg = "the edges do not rise"
        raise ValueError(msg)
    return edges


def _counts(value: Any, length: int) -> tuple[int, ...]:
    counts = _list(value, "counts")
    if len(counts) != length:
        msg = f"{len(counts)} counts for {length} bins"
        raise ValueError(msg)
    for count in counts:
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            msg = f"{str(count)[:40]!r} is no count"
            raise ValueError(msg)
    return tuple(counts)


def _positives(value: Any, rows: Any) -> tuple[int, ...]:
    positives = _counts(value, len(rows))
    if any(p > n for p, n in zip(positives, rows, strict=True)):
        msg = "more positives than rows"
        raise ValueError(msg)
    return positives


def _scores(value: Any, rows: Any) -> tuple[float | None, ...]:
    scores = _list(value, "scores")
    if scores and len(scores) != len(rows):
        msg = f"{len(scores)} mean predictions for {len(rows)} bins"
        raise ValueError(msg)
    return tuple(None if s is None else _finite(s) for s in scores)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        msg = f"{name} are no list"
        raise TypeError(msg)
    return list(value)


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        msg = f"{str(value)[:40]!r} is no number"
        raise ValueError(msg)
    return float(value)
