"""What an engine measures: the seam between checks and whatever holds the data.

One engine is built in, DuckDB (:mod:`mlp_ci.data.engines.duck`). Another one implements :class:`Engine` and gives the
same numbers for the same plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.data.plan import ColumnPlan, PhysicalColumn, Plan


class Fault(StrEnum):
    """A way in which one value can be wrong."""

    NULL = "null"
    UNREADABLE = "unreadable"
    NOT_WHOLE = "not whole"
    NOT_MIDNIGHT = "not midnight"
    INFINITE = "infinite"
    BELOW = "below"
    ABOVE = "above"
    OUTSIDE_SET = "outside set"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    NO_MATCH = "no match"


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """One column of one file. ``nulls`` counts NaN as well, ``nan`` says how many of them; bounds leave out infinities.

    ``smallest`` and ``largest`` are numbers (times as microseconds since 1970), None for text and when all is null.
    ``faults`` says how many rows are wrong in which way; only what the plan asks for is counted. ``mean`` and
    ``quantiles`` (by position, 0…1) are of the finite values, and only measured where the plan asks for them. A
    quantile is one of the values: the smallest whose rank is at least the asked share of the values (SQL's
    ``percentile_disc``, numpy's ``inverted_cdf``), so that engines agree on it exactly.
    """

    nulls: int
    nan: int
    smallest: int | float | None
    largest: int | float | None
    faults: dict[Fault, int]
    mean: float | None = None
    quantiles: dict[float, int | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One file."""

    rows: int
    columns: dict[str, ColumnFacts]


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Values outside the allowed set: how many rows hold one, how many values they are, the five most frequent."""

    rows: int
    distinct: int
    distinct_outside: int
    values: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Rows that repeat an earlier row in some columns; ``examples`` are (first row, values, how often).

    The most frequent first. The first row is None where rows have no order.
    """

    rows: int
    examples: tuple[tuple[int | None, tuple[str, ...], int], ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One wrong row: its number from 1 (the header is not counted), its key, and the value.

    The number is None where rows have no order, as in a warehouse's table.
    """

    row: int | None
    key: tuple[str, ...]
    value: str | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """Wrong rows of some kind: how many, and up to five of them as (row number, its values as text).

    The row number is None where rows have no order, as in a warehouse's table.
    """

    rows: int
    columns: tuple[str, ...] = ()
    examples: tuple[tuple[int | None, tuple[str | None, ...]], ...] = ()


class Engine(Protocol):
    """Measures one open file. Every method is at most a few passes over the columns it names.

    A file may be opened together with other ones, each under a name (see ``others`` of the openers): checks between
    files name them. Values are compared as what the plan declares, whatever the file's own types are.
    """

    def schema(self) -> tuple[PhysicalColumn, ...]:
        """The columns of the file, in order."""
        ...

    def facts(self, plan: Plan) -> Facts:
        """Rows, nulls, extremes and faults of all columns of the plan."""
        ...

    def membership(self, column: ColumnPlan) -> Membership:
        """What lies outside ``column.allowed``."""
        ...

    def repeats(self, columns: Sequence[str]) -> Repeats:
        """Rows that repeat another in these columns; rows with a null among them are left out. () is whole rows."""
        ...

    def examples(self, column: ColumnPlan, fault: Fault, key: Sequence[str]) -> tuple[Example, ...]:
        """The first five rows with this fault."""
        ...

    def counts(self, column: str, most: int) -> tuple[tuple[str, int], ...]:
        """The ``most`` most frequent values as text, with how many rows hold each; nulls are left out.

        Equally frequent ones in the order of their text.
        """
        ...

    def backwards(self, time: ColumnPlan) -> Found:
        """Rows whose time is before that of the row above; rows without a time are skipped. Examples show the time.

        Raises InputError where rows have no order: the flows do not ask there, and say so.
        """
        ...

    def absent(self, columns: Sequence[str], other: str, other_columns: Sequence[str]) -> Found:
        """Rows whose values in ``columns`` occur in no row of ``other``; rows with a null among them are left out.

        Compared as text, examples show the values.
        """
        ...

    def shared(self, columns: Sequence[str], other: str) -> Found:
        """Rows whose values in ``columns`` also occur in a row of ``other``, as text; () is whole rows.

        Rows with a null among named columns are left out; for whole rows a null equals a null.
        """
        ...

    def crossed(self, column: ColumnPlan, target: str, groups: int) -> tuple[tuple[int, str, int], ...]:
        """How many rows fall into each pair of a group of ``column`` and a value of ``target`` (as text).

        Numbers and times are cut into at most ``groups`` groups of about equal size in rising order; other values are
        groups of their own, the rarest together in the last. Rows with a null in either are left out. A sample of at
        least 100,000 rows may stand for more than twice as many.
        """
        ...

    def query(self, sql: str) -> Found:
        """What a query finds; it reads the open file as ``data`` and the others by their names.

        Where rows have an order, ``numbered`` is ``data`` with the number of each row as ``row_number``; the examples
        of a query that selects it have that number. Raises InputError, naming the place in the query, when the engine
        refuses it.
        """
        ...
