"""What a file says about itself: types, extremes, levels and repeats of every column, before anybody declared any.

DuckDB measures the whole file: a sample only decides which questions are asked of it, and where the quantiles lie.
Values of columns that look like personal data are measured here and shown nowhere.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engines.duck_sql import ROW, quoted
from mlp_ci.progress import doing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlp_ci.data.engines.duck_file import DuckFile
    from mlp_ci.data.plan import PhysicalColumn

SAMPLE_ROWS = 20_000
SAMPLE_CELLS = 4_000_000
SAMPLE_VALUES = 2_000
COLUMNS_PER_QUERY = 100
MOST_LEVELS = 50
QUANTILES = (0.05, 0.5, 0.95)
EXACT_IN_DOUBLE = 2**53  # beyond it a double does not hold every whole number

_WHOLE = re.compile(r"[+-]?\d+(\.0{0,6})?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Zero, then another digit: a code such as 00501, which a number would lose.
_CODE = re.compile(r"[+-]?0\d+.*")
_DAY = r"\d{4}-\d{2}-\d{2}"
_TIME = _DAY + r"[ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( ?(Z|[+-]\d{2}(:?\d{2})?))?"

# How a text is read as another type, as validation reads it.
_READ = {
    "float": "TRY_CAST({} AS DOUBLE)",
    "int": "TRY_CAST(TRY_CAST({} AS DECIMAL(38, 6)) AS HUGEINT)",
    "bool": "TRY_CAST({} AS BOOLEAN)",
    "timestamp": "TRY_CAST({} AS TIMESTAMPTZ)",
    "date": "TRY_CAST({} AS DATE)",
}
_FITS = {
    "float": "isfinite({value})",
    "int": "TRY_CAST({name} AS DECIMAL(38, 6)) = {value} AND NOT regexp_full_match({name}, '[+-]?0\\d+.*')",
    "bool": "lower({name}) IN ('true', 'false')",
    "timestamp": "regexp_full_match({name}, '" + f"{_DAY}|{_TIME}".replace("{", "{{").replace("}", "}}") + "') "
    "AND {value} IS NOT NULL",
    "date": "regexp_full_match({name}, '" + _DAY.replace("{", "{{").replace("}", "}}") + "') AND {value} IS NOT NULL",
}


@dataclass(frozen=True, kw_only=True)
class Level:
    """One value of a column with few of them; ``first`` is the number of the first row that holds it."""

    value: Any
    rows: int
    first: int


@dataclass(frozen=True, kw_only=True)
class ColumnSurvey:
    """One column. ``type`` is what a model.yaml would call it, empty for nested and binary ones.

    ``nulls`` counts NaN as well. ``smallest`` and ``largest`` are of finite values; times are microseconds since 1970
    in UTC; for strings they are None and ``lengths`` holds their extremes. ``reads_as`` and ``readable`` say what most
    of the values of a text would be. ``levels`` is None where there are many; ``sample`` holds distinct texts.
    """

    name: str
    physical: PhysicalColumn
    type: str
    rows: int
    nulls: int
    nan: int = 0
    infinite: int = 0
    distinct: int = 0
    smallest: int | float | None = None
    largest: int | float | None = None
    whole: bool = False
    quantiles: Mapping[float, float] = field(default_factory=dict)
    lengths: tuple[int, int] | None = None
    levels: tuple[Level, ...] | None = None
    unique: bool = False
    reads_as: str = ""
    readable: int = 0
    sample: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Rows that hold a value."""
        return self.rows - self.nulls

    @property
    def is_time(self) -> bool:
        return self.type in ("timestamp", "date")


@dataclass(frozen=True, kw_only=True)
class Survey:
    """One file. ``of_all``: whether every row was looked at, or a sample of ``rows`` rows."""

    rows: int
    columns: tuple[ColumnSurvey, ...]
    of_all: bool = True

    def column(self, name: str) -> ColumnSurvey | None:
        return next((c for c in self.columns if c.name == name), None)


@dataclass(frozen=True)
class _Asked:
    """What is asked about one column: which type its values are taken for."""

    physical: PhysicalColumn
    type: str
    text: bool
    sample: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        name = quoted(self.physical.name)
        return _READ[self.type].format(name) if self.text and self.type in _READ else name


class Surveyor:
    """Looks at one open file (opened with no declared types); asks more where it is wanted."""

    def __init__(self, file: DuckFile, sample: int | None = None) -> None:
        self.file = file
        self.connection = file.connection
        self.schema = file.schema()
        self.source = "data"
        if sample is not None:
            self.source = "chosen"
            self.connection.execute(
                f"CREATE TEMP TABLE chosen AS SELECT * FROM data USING SAMPLE reservoir({int(sample)} ROWS) "
                "REPEATABLE (17)"
            )

    def survey(self) -> Survey:
        """Every column, in a few passes over the file."""
        plain = [c for c in self.schema if c.kind != "other"]
        self._take_sample(plain)
        asked = [self._ask(c) for c in plain]
        rows = int(self._row("SELECT count(*) FROM {source}")[0])
        found: dict[str, ColumnSurvey] = {}
        for start in range(0, len(asked), COLUMNS_PER_QUERY):
            doing(f"looking at columns {start + 1} to {min(start + COLUMNS_PER_QUERY, len(asked))} of {len(asked)}")
            found |= self._measure(asked[start : start + COLUMNS_PER_QUERY], rows)
        found = {name: self._levels(column) for name, column in found.items()}
        other = {c.name: ColumnSurvey(name=c.name, physical=c, type="", rows=rows, nulls=0) for c in self.schema}
        return Survey(
            rows=rows,
            columns=tuple(found.get(c.name, other[c.name]) for c in self.schema),
            of_all=self.source == "data",
        )

    def no_value_twice(self, columns: Sequence[str]) -> bool:
        """Whether no two rows agree in these columns, none of which is missing anywhere.

        Two rows agree when a 64-bit hash of the values does, so that memory stays small; by chance it never does.
        """
        names = [quoted(c) for c in columns]
        missing = " OR ".join(f"{n} IS NULL" for n in names)
        sql = (
            f"SELECT coalesce(bool_or({missing}), false), "
            f"count(*) = count(DISTINCT hash({', '.join(names)})) FROM {{source}}"
        )
        some_missing, distinct = self._row(sql)
        return bool(distinct) and not some_missing

    def matches(self, column: str, pattern: str) -> bool:
        """Whether every value matches the regular expression as a whole."""
        name = quoted(column)
        sql = f"SELECT count(*) FROM {{source}} WHERE {name} IS NOT NULL AND NOT regexp_full_match({name}, $pattern)"
        return int(self._row(sql, {"pattern": pattern})[0]) == 0

    def never_back(self, time: ColumnSurvey) -> bool:
        """Whether the column never goes back from one row to the next; rows without a time are skipped."""
        value = _Asked(time.physical, time.type, time.physical.text).value
        sql = (
            f"SELECT count(*) FROM (SELECT {value} AS t, lag({value}) OVER (ORDER BY {quoted(ROW)}) AS before "
            f"FROM {{source}} WHERE {value} IS NOT NULL) WHERE t < before"
        )
        return int(self._row(sql)[0]) == 0

    def repeated_rows(self) -> int:
        """How many rows repeat an earlier one exactly."""
        return self.file.repeats(()).rows

    # ---------------------------------------------------------------- what to ask

    def _take_sample(self, columns: Sequence[PhysicalColumn]) -> None:
        """A sample decides what the values are taken for; the whole file is then asked whether that is so."""
        if not columns:
            return
        most = max(1_000, min(SAMPLE_ROWS, SAMPLE_CELLS // len(columns)))
        names = ", ".join(quoted(c.name) for c in columns)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE sampled AS SELECT {names} FROM {self.source} "
            f"USING SAMPLE reservoir({most} ROWS) REPEATABLE (17)"
        )

    def _ask(self, column: PhysicalColumn) -> _Asked:
        if column.kind != "string":
            return _Asked(column, column.kind, text=False)
        name = quoted(column.name)
        sql = f"SELECT DISTINCT CAST({name} AS VARCHAR) FROM sampled WHERE {name} IS NOT NULL LIMIT {SAMPLE_VALUES}"
        sample = tuple(str(value) for (value,) in self.connection.execute(sql).fetchall())
        return _Asked(column, reads_as(sample), text=True, sample=sample)

    # ---------------------------------------------------------------- measuring

    def _measure(self, asked: Sequence[_Asked], rows: int) -> dict[str, ColumnSurvey]:
        measures = list(itertools.chain.from_iterable(_measures(a) for a in asked))
        values = iter(self._row(f"SELECT {', '.join(measures)} FROM {{source}}"))
        found = {}
        for one in asked:
            column = _column(one, rows, [next(values) for _ in range(MEASURES)])
            if one.text and column.type == "string" and one.type != "string":
                # Not all of it is what the sample looked like: it stays text, and its lengths count.
                plain = _Asked(one.physical, "string", text=True, sample=one.sample)
                lengths = self._row(f"SELECT {', '.join(_measures(plain))} FROM {{source}}")
                column = replace(_column(plain, rows, list(lengths)), reads_as=one.type, readable=column.readable)
            found[column.name] = column
        return self._with_quantiles(found)

    def _with_quantiles(self, found: dict[str, ColumnSurvey]) -> dict[str, ColumnSurvey]:
        numbers = [c for c in found.values() if c.type in ("float", "int") and c.smallest is not None]
        if not numbers:
            return found
        at = ", ".join(str(q) for q in QUANTILES)
        parts = []
        for column in numbers:
            value = f"CAST({_Asked(column.physical, column.type, column.physical.text).value} AS DOUBLE)"
            parts.append(f"quantile_disc({value}, [{at}]) FILTER (WHERE isfinite({value}))")
        row = self.connection.execute(f"SELECT {', '.join(parts)} FROM sampled").fetchone()
        quantiles = {c.name: dict(zip(QUANTILES, q, strict=True)) for c, q in zip(numbers, row, strict=True) if q}
        return {name: replace(c, quantiles=quantiles.get(name, {})) for name, c in found.items()}

    def _levels(self, column: ColumnSurvey) -> ColumnSurvey:
        """The values themselves where they are few; whether none occurs twice where they are many."""
        if not column.count or column.type not in ("string", "int", "bool"):
            return column
        if column.distinct <= MOST_LEVELS + 10:  # the count so far is an estimate
            value = _Asked(column.physical, column.type, column.physical.text).value
            there = f"isfinite({value})" if column.physical.nan else f"{value} IS NOT NULL"
            found = self.connection.execute(
                f"SELECT {value} AS v, count(*) AS n, min({quoted(ROW)}) FROM {self.source} "
                f"WHERE {there} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MOST_LEVELS + 1}"
            ).fetchall()
            if len(found) <= MOST_LEVELS:
                kind = {"int": int, "bool": bool}.get(column.type, str)
                levels = tuple(Level(value=kind(v), rows=int(n), first=int(first)) for v, n, first in found)
                return replace(column, levels=levels, distinct=len(levels), unique=len(levels) == column.count)
        if column.type != "bool" and column.distinct >= 0.9 * column.count:  # an estimate: within a few per cent
            name = quoted(column.name)
            sql = f"SELECT count(DISTINCT hash({name})), count({name}) FROM {{source}}"
            distinct, count = self._row(sql)
            return replace(column, distinct=int(distinct), unique=distinct == count)
        return column

    def _row(self, sql: str, parameters: Any = None) -> tuple[Any, ...]:
        row = self.connection.execute(sql.replace("{source}", self.source), parameters).fetchone()
        return tuple(row)


def reads_as(values: Sequence[str]) -> str:
    """What these texts would be as plain values; ``string`` where they are none of it."""
    if not values:
        return "string"
    share = 0.9  # a few that cannot be read are worth a remark, and the whole file decides

    def most(pattern: re.Pattern[str] | str) -> bool:
        return sum(bool(re.fullmatch(pattern, v)) for v in values) >= share * len(values)

    if all(v.lower() in ("true", "false") for v in values):
        return "bool"
    if any(_CODE.fullmatch(v) and "." not in v for v in values):
        return "string"
    if most(_WHOLE):
        return "int" if all(len(v) < 19 for v in values) else "string"
    if most(_NUMBER):
        return "float"
    if most(_DAY):
        return "date"
    return "timestamp" if most(f"{_DAY}|{_TIME}") else "string"


MEASURES = 8


def _measures(asked: _Asked) -> Iterator[str]:
    """MEASURES aggregates of one column: count, distinct, NaN, infinite, smallest, largest, not whole, fitting."""
    name, value = quoted(asked.physical.name), asked.value
    yield f"count({name})"
    yield f"approx_count_distinct({name})"
    nan = asked.physical.nan
    yield f"count(*) FILTER (WHERE isnan({name}))" if nan else "0"
    yield f"count(*) FILTER (WHERE isinf({name}))" if nan else "0"
    finite = f"FILTER (WHERE isfinite({value}))" if nan or asked.type in ("timestamp", "date") or asked.text else ""
    match asked.type:
        case "string":
            yield f"min(length({name}))"
            yield f"max(length({name}))"
            yield "0"
        case "timestamp" | "date":
            yield f"epoch_us(min({value}) {finite})"
            yield f"epoch_us(max({value}) {finite})"
            yield f"count(*) FILTER (WHERE isfinite({value}) AND epoch_us({value}) % 86400000000 <> 0)"
        case "float":
            yield f"min({value}) {finite}"
            yield f"max({value}) {finite}"
            yield f"count(*) FILTER (WHERE isfinite({value}) AND {value} <> trunc({value}))"
        case "int":
            yield f"min({value})"
            yield f"max({value})"
            yield "0"
        case _:
            yield "NULL"
            yield "NULL"
            yield "0"
    fits = _FITS.get(asked.type, "true").format(name=name, value=value)
    yield f"count(*) FILTER (WHERE {name} IS NOT NULL AND {fits})" if asked.text else "0"


def _column(asked: _Asked, rows: int, measured: list[Any]) -> ColumnSurvey:
    count, distinct, nan, infinite, low, high, odd, fits = measured
    kind = asked.type
    if asked.text and kind != "string" and int(fits) < int(count):
        kind = "string"
    reads = ""
    if asked.text and kind != "string" and not asked.physical.text:
        kind, reads = "string", kind  # a Parquet file whose text holds numbers: what validation sees is text
    whole = not odd and low is not None
    column = ColumnSurvey(
        name=asked.physical.name,
        physical=asked.physical,
        type=kind,
        rows=rows,
        nulls=rows - int(count) + int(nan),
        nan=int(nan),
        infinite=int(infinite),
        distinct=min(int(distinct), int(count)),
        whole=whole,
        reads_as=reads or (asked.type if kind == "string" and asked.type != "string" else ""),
        readable=int(fits),
        sample=asked.sample,
    )
    if asked.type == "string":
        return replace(column, lengths=None if low is None else (int(low), int(high)))
    if kind == "string":
        return column
    column = replace(column, smallest=_number(low), largest=_number(high))
    return replace(column, type=_refined(column))


def _refined(column: ColumnSurvey) -> str:
    """Whole numbers with gaps are stored as floats by pandas, days as times at midnight."""
    if column.type == "float" and column.whole and column.nulls and not column.infinite:
        fits = max(abs(column.smallest or 0), abs(column.largest or 0)) < EXACT_IN_DOUBLE
        return "int" if fits and column.distinct > 1 else "float"
    if column.type == "timestamp" and column.whole and column.distinct > 1:
        return "date"
    return column.type


def _number(value: Any) -> int | float | None:
    if value is None or isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
