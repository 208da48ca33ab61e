"""A profile: the shape of each column in constant size, so that drift needs no data.

Numbers are counted in fixed bins between quantiles of the reference, categories as the counts of the most frequent
values, free text by its length. Counts are exact, profiles with the same bins add up, and no row is kept; columns
marked sensitive are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.data.profiles.shapes import (
    CATEGORIES,
    FEW_VALUES,
    FEWEST,
    TAIL,
    CategoryProfile,
    ColumnProfile,
    NumberProfile,
    bucket,
    column_from_json,
    column_to_json,
    finite,
    merged,
    natural,
)
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlp_ci.spec.data import Column

FORMAT = "mlp-ci/profile/v2"
PREDICTION = "prediction"
# 200 bins: KS from binned counts is exact at every edge and misses at most the mass of one bin in between.
BINS = 200
# Empty bins beyond the reference on either side, together as wide as its range: a shift is seen where it went.
MARGIN = 20


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The profile of some rows: one :data:`ColumnProfile` per watched column.

    The profile of predictions stands under ``prediction``; it may cover other rows than the inputs, so rows are
    counted per column (``count + nulls``).
    """

    rows: int
    columns: Mapping[str, ColumnProfile]

    def with_column(self, name: str, column: ColumnProfile) -> Profile:
        """A copy that also holds ``column``, for example the predictions under ``prediction``."""
        return Profile(rows=self.rows, columns={**self.columns, name: column})

    def merge(self, other: Profile) -> Profile:
        """The profile of both sets of rows together. Raises InputError when the bins differ."""
        if self.columns.keys() != other.columns.keys():
            names = ", ".join(sorted(self.columns.keys() ^ other.columns.keys()))
            msg = f"profiles of different columns do not add up: {names}"
            raise InputError(msg, fix="profile both against the same reference")
        columns = {name: merged(name, column, other.columns[name]) for name, column in self.columns.items()}
        return Profile(rows=self.rows + other.rows, columns=columns)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` reads them back."""
        columns = {name: column_to_json(column) for name, column in self.columns.items()}
        return {"format": FORMAT, "rows": self.rows, "columns": columns}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Profile:
        """Read what :meth:`to_json` wrote; raises InputError for anything else."""
        require_format(value)
        try:
            columns = {str(name): column_from_json(column) for name, column in value["columns"].items()}
            return Profile(rows=natural(value["rows"]), columns=columns)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"the profile is damaged: {error!r}"
            raise InputError(msg, fix="register the version again") from error


def require_format(value: Mapping[str, Any]) -> None:
    """Raise InputError for a profile that another version of mlp-ci wrote in another way."""
    found = value.get("format") if hasattr(value, "get") else None
    if found == FORMAT:
        return
    what = f"the profile has the format {str(found)[:60]!r}, and this mlp-ci reads {FORMAT!r}"
    why = "profiles are compared bin by bin, so both must have been made in the same way"
    raise InputError(what, why=why, fix="use the mlp-ci that registered the version, or register a new version")


# ---------------------------------------------------------------- making profiles


def watched(columns: Mapping[str, Column]) -> dict[str, str]:
    """Column → number or category, for the columns that drift is watched in."""
    kinds = {"float": "number", "int": "number", "string": "category", "bool": "category"}
    return {
        name: kinds[column.type]
        for name, column in columns.items()
        if column.type in kinds and column.monitor and not column.sensitive
    }


def profile_values(values: Iterable[Any], *, like: ColumnProfile | None = None) -> ColumnProfile:
    """The profile of values in memory, such as the predictions for the test data: numbers, or class names."""
    import numpy as np

    array = np.asarray(list(values) if not isinstance(values, np.ndarray) else values)
    if array.dtype.kind in "fiub" and not (isinstance(like, CategoryProfile) or array.dtype.kind == "b"):
        numbers = array.astype(float).ravel()
        there = numbers[np.isfinite(numbers)]
        edges = like.edges if isinstance(like, NumberProfile) else edges_between(there)
        counts = np.bincount(np.searchsorted(np.asarray(edges), there, side="left"), minlength=len(edges) + 1)
        return NumberProfile(
            count=int(there.size),
            nulls=int(numbers.size - there.size),
            mean=_moment(np.mean, there),
            deviation=_moment(np.std, there),
            smallest=float(there.min()) if there.size else None,
            largest=float(there.max()) if there.size else None,
            edges=tuple(edges),
            counts=tuple(int(c) for c in counts),
        )
    texts = [_text(v) for v in array.ravel().tolist() if v is not None and v == v]  # noqa: PLR0124 (NaN)
    found: dict[str, int] = {}
    for text in texts:
        found[text] = found.get(text, 0) + 1
    known = list(like.counts) if isinstance(like, CategoryProfile) else None
    kept = {v: found.get(v, 0) for v in known} if known is not None else frequent(found.items())
    tail = [0] * TAIL
    for value in found.keys() - kept.keys():
        tail[bucket(value)] += found[value]
    return CategoryProfile(
        count=len(texts),
        nulls=int(array.size) - len(texts),
        distinct=len(found),
        counts=kept,
        other=len(texts) - sum(kept.values()),
        tail=tuple(tail),
    )


def _moment(measure: Any, values: Any) -> float | None:
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return finite(float(measure(values))) if values.size else None


def edges_between(values: Any) -> tuple[float, ...]:
    """Edges for the bins of these finite numbers: all values where there are few of them, else quantiles.

    Between two edges lies at most 1/BINS of the values, unless one value alone has more. Beyond them follow MARGIN
    equal bins on either side, empty but for the tails; for a handful of values, which are more like categories, one bin
    below the smallest and one above the largest.
    """
    import numpy as np

    if values.size == 0:
        return ()
    edges = np.unique(values)
    if edges.size > BINS:
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    if edges.size > FEW_VALUES:
        with np.errstate(over="ignore"):
            steps = (edges[-1] - edges[0]) * np.arange(1, MARGIN + 1) / MARGIN
            edges = np.unique(np.concatenate([edges[0] - steps, edges, edges[-1] + steps]))
        edges = edges[np.isfinite(edges)]
    else:
        # One bin for what is smaller than all that the reference holds.
        with np.errstate(over="ignore"):
            below = min(edges[0] - 1e-9 * np.abs(edges).max(), np.nextafter(edges[0], -np.inf))
        edges = np.concatenate([[below], edges]) if np.isfinite(below) else edges
    return tuple(float(v) for v in edges)


def frequent(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The values that enough rows share to stand in a profile, the most frequent first."""
    shared = [(value, n) for value, n in counts if n >= FEWEST]
    return dict(sorted(shared, key=lambda item: (-item[1], item[0]))[:CATEGORIES])


def _text(value: Any) -> str:
    """A value as DuckDB writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
