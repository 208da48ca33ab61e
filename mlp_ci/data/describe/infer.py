"""From what a file says about itself to the ``columns:`` block that a careful person would write.

Every line comes with the reason for its bounds. What looks like personal data is marked ``sensitive``, and then
nothing of its values is shown.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlp_ci.data.describe.bounds import bounds, natural_range, round_down, round_up
from mlp_ci.data.describe.patterns import looks_like_key, pattern_of, personal, words_of
from mlp_ci.data.plan import instant
from mlp_ci.printable import in_one_line
from mlp_ci.report import cell_text
from mlp_ci.spec.quantities import show_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from mlp_ci.data.describe.survey import ColumnSurvey, Level, Survey, Surveyor

# With fewer rows, "none is missing" and "no value twice" say little about the next file.
ENOUGH_ROWS = 100
# A level that fewer rows than this hold is rare, and where one is rare another one may be yet to come.
FEWEST_OF_A_LEVEL = 5
FEWEST_PER_LEVEL = 20
MOST_WHOLE_LEVELS = 10
LONGEST_TEXT = 100
FRESH = timedelta(days=90)
_LADDER = [timedelta(days=d) for d in (1, 2, 3, 7, 14, 21, 30, 45, 60, 90, 120, 180)]
_TIME_WORDS = {"time", "timestamp", "ts", "at", "date", "datetime", "day", "when"}
_TARGET_WORDS = {
    *("target", "label", "y", "class", "outcome", "response", "churn", "churned", "default", "defaulted", "fraud"),
    *("delayed", "returned", "converted", "clicked", "cancelled", "canceled", "late", "survived", "died", "sold"),
}
KEY_COLUMNS_TRIED = 6


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the block. ``fields`` are in the order in which they are written; none for a column left out.

    A ``guess`` is written as a comment.
    """

    name: str
    fields: Mapping[str, Any]
    comment: str
    guess: bool = False

    @property
    def left_out(self) -> bool:
        return not self.fields


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What to write under ``data``: columns and checks, and guesses at key, time and target."""

    rows: int
    of_all: bool
    columns: tuple[Line, ...]
    checks: tuple[Line, ...]
    key: tuple[str, ...] = ()
    time: str = ""
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a model.yaml says already: nobody has to guess it, and the data cannot tell the rest."""

    key: tuple[str, ...] = ()
    time: str = ""
    target: str = ""
    sensitive: frozenset[str] = frozenset()
    types: Mapping[str, str] = field(default_factory=dict)


def infer(surveyor: Surveyor, *, margin: float, now: datetime, known: Known | None = None) -> Suggestion:
    """The suggestion for one open file. ``margin`` 0 allows exactly what was seen, 0.1 a tenth of the range more."""
    known = known or Known()
    survey = surveyor.survey()
    secret = {c.name: personal(c.name, c.sample) for c in survey.columns if c.type}
    hidden = {name for name, what in secret.items() if what} | known.sensitive
    time = _time(survey, known)
    target = known.target or _target(survey, hidden)
    keys = [c.name for c in survey.columns if _is_key(c) and c.name != target]
    key = known.key or tuple(keys[:1]) or _joint_key(surveyor, survey, time, {target, *hidden})
    described = []
    for column in survey.columns:
        part = _Column(column, margin, survey.of_all)
        never_null = column.name in (*key, target) and not column.nulls
        if column.name in hidden:
            line = part.hidden(secret.get(column.name, ""), unique=column.name in keys, never_null=never_null)
        else:
            line = part.line(surveyor, unique=column.name in keys, never_null=never_null, is_time=column.name == time)
        described.append(line)
    return Suggestion(
        rows=survey.rows,
        of_all=survey.of_all,
        columns=tuple(described),
        checks=tuple(_checks(surveyor, survey, survey.column(time) if time else None, known, now, margin)),
        key=key,
        time=time,
        target=target,
    )


# ---------------------------------------------------------------- one column


class _Column:
    """Makes the line of one column."""

    def __init__(self, column: ColumnSurvey, margin: float, of_all: bool) -> None:
        self.column = column
        self.margin = margin
        self.rows = f"in {column.rows:,} {'' if of_all else 'sampled '}row{'s' if column.rows != 1 else ''}"

    def line(self, surveyor: Surveyor, *, unique: bool, never_null: bool, is_time: bool) -> Line:
        column = self.column
        if not column.type:
            return self._made({}, [f"{column.physical.shown} {self.rows}: nested and binary values cannot be checked"])
        fields: dict[str, Any] = {"type": column.type, "nulls": self._nulls(never_null)}
        seen = ""
        more: dict[str, Any] = {}
        if not column.count:
            seen = f"no value at all {self.rows}"
        elif unique:
            more, seen = self._key(surveyor)
        elif column.type in ("int", "float"):
            more, seen = self._number()
        elif column.is_time:
            more, seen = self._time(is_time=is_time)
        elif column.type == "string":
            more, seen = self._text(surveyor)
        elif column.type == "bool":
            seen = self._levels_seen(column.levels or ())
        return self._made({**fields, **more}, [seen, *self._remarks(fields["nulls"])])

    def hidden(self, what: str, *, unique: bool, never_null: bool) -> Line:
        """Nothing of the values: not even how long they are."""
        column = self.column
        fields: dict[str, Any] = {"type": column.type, "nulls": self._nulls(never_null)}
        fields |= {"unique": True} if unique else {}
        fields |= {"severity": {"finite": "warn"}} if column.infinite else {}
        looks = f"looks like {what} {self.rows}" if what else f"sensitive {self.rows}"
        missing = self._missing(fields["nulls"])
        said = [looks, "its values are shown nowhere", *([missing] if missing else [])]
        return self._made({**fields, "sensitive": True}, said)

    def _made(self, fields: Mapping[str, Any], said: list[str]) -> Line:
        return Line(name=self.column.name, fields=fields, comment="; ".join(in_one_line(s) for s in said if s))

    def _nulls(self, never_null: bool) -> float:
        rows, nulls = self.column.rows, self.column.nulls
        if never_null or (not nulls and (rows >= ENOUGH_ROWS or self.margin == 0)):
            return 0.0
        if not rows or nulls == rows:
            return 1.0
        share = nulls / rows
        if self.margin == 0:
            return min(1.0, round_up(share, 4))
        # None in n rows: the share is below 3/n with 95 % confidence. Else two standard deviations of the sampling.
        chance = 2 * math.sqrt(share * (1 - share) / rows) if nulls else 3 / rows
        return min(1.0, round_up(share + max(self.margin * share, chance)))

    def _missing(self, allowed: float) -> str:
        column = self.column
        if column.nulls and column.count:
            nan = f", {column.nan:,} of them NaN" if column.nan and column.nan < column.nulls else ""
            return f"{column.nulls:,} missing{nan}"
        if not column.nulls and allowed:
            return "none missing, but the rows are too few to say never"
        return ""

    def _remarks(self, allowed: float) -> Iterator[str]:
        column = self.column
        yield self._missing(allowed)
        if column.type == "int" and column.physical.kind == "float":
            yield "whole numbers with gaps, stored as floats"
        if column.infinite:
            yield f"{column.infinite:,} infinite: mend them and drop `severity`"
        if column.type == "date" and column.physical.kind == "timestamp" and not column.physical.text:
            yield "no time of day"
        if column.reads_as and column.count:
            yield self._written_as_text()
        if column.count > 1 and (
            len(column.levels or ()) == 1 or (column.smallest is not None and column.smallest == column.largest)
        ):
            yield "a constant tells a model nothing"

    def _written_as_text(self) -> str:
        column = self.column
        what = {"int": "whole numbers", "float": "numbers", "bool": "true and false", "date": "dates"}
        plural = what.get(column.reads_as, "times")
        if column.readable == column.count:
            return f"{plural} written as text: store them as {column.reads_as}"
        wrong = column.count - column.readable
        return f"all but {wrong:,} are {plural}: mend {'it' if wrong == 1 else 'them'} and declare `{column.reads_as}`"

    # ------------------------------------------------------------ what values may be

    def _key(self, surveyor: Surveyor) -> tuple[dict[str, Any], str]:
        column = self.column
        seen = f"no value twice {self.rows}"
        if column.type == "string":
            pattern = self._pattern(surveyor)
            return {"unique": True, **({"regex": pattern} if pattern else {})}, seen
        return {"unique": True}, seen

    def _number(self) -> tuple[dict[str, Any], str]:
        column = self.column
        more: dict[str, Any] = {"severity": {"finite": "warn"}} if column.infinite else {}
        if column.smallest is None or column.largest is None:
            return more, f"no finite value {self.rows}"
        levels = column.levels or ()
        if self._is_code(levels):
            values = sorted(level.value for level in levels)
            return {"in": values, **more}, self._levels_seen(levels)
        seen = f"{_shown(column.smallest)} … {_shown(column.largest)} {self.rows}"
        if column.smallest == column.largest:
            exact = {"min": column.smallest, "max": column.largest} if self.margin == 0 else {}
            return {**exact, **more}, f"always {column.smallest:.6g} {self.rows}"
        lower, upper, why = bounds(column, self.margin)
        return {"min": lower, "max": upper, **more}, f"{seen}, {why}"

    def _is_code(self, levels: tuple[Level, ...]) -> bool:
        """Whether whole numbers are names rather than amounts: two of them, or a few with holes in between."""
        values = [level.value for level in levels]
        if self.column.type != "int" or not self._closed(levels) or natural_range(self.column):
            return False
        holes = max(values) - min(values) + 1 > 2 * len(values)
        return len(values) == 2 or (len(values) <= MOST_WHOLE_LEVELS and holes)

    def _closed(self, levels: tuple[Level, ...]) -> bool:
        """Whether a next value is hardly new: every level is frequent, and all had come by half of the rows."""
        column = self.column
        if len(levels) < 2:
            return False
        if self.margin == 0:
            return True
        rare = min(level.rows for level in levels) < FEWEST_OF_A_LEVEL
        late = max(level.first for level in levels) > column.rows / 2
        return not rare and not late and column.count >= FEWEST_PER_LEVEL * len(levels)

    def _levels_seen(self, levels: tuple[Level, ...]) -> str:
        rarest = min(level.rows for level in levels) if levels else 0
        values = f"{len(levels)} value{'s' if len(levels) != 1 else ''}"
        return f"{values} {self.rows}, the rarest {rarest:,}×" if len(levels) > 1 else f"{values} {self.rows}"

    def _time(self, *, is_time: bool) -> tuple[dict[str, Any], str]:
        column = self.column
        if column.smallest is None or column.largest is None:
            return {}, f"no finite value {self.rows}"
        low, high = instant(int(column.smallest)), instant(int(column.largest))
        seen = f"{low:%Y-%m-%d} … {high:%Y-%m-%d} {self.rows}"
        try:
            start = (low - self.margin * (high - low)).date()
        except OverflowError:
            return {}, seen
        later = "no max: newer rows will come" if is_time else "no max: later ones may come"
        return {"min": start}, f"{seen}; {later}"

    def _text(self, surveyor: Surveyor) -> tuple[dict[str, Any], str]:
        column = self.column
        levels = column.levels or ()
        if self._closed(levels):
            return {"in": sorted(level.value for level in levels)}, self._levels_seen(levels)
        many = f"{column.distinct:,}" if column.levels is not None else f"about {cell_text(float(column.distinct))}"
        seen = f"{many} different {self.rows}"
        if len(levels) > 1:
            rare = sum(level.rows < FEWEST_OF_A_LEVEL for level in levels)
            late = "some came late" if column.count >= FEWEST_PER_LEVEL * len(levels) else "the rows are few"
            seen = f"{self._levels_seen(levels)}; {f'{rare} are rare' if rare else late}, so more may come"
        if len(levels) == 1:
            seen = f"always {_word(levels[0].value)} {self.rows}"
        pattern = self._pattern(surveyor)
        if pattern:
            return {"regex": pattern}, f"{seen}, all of this form"
        if column.lengths is None:
            return {}, seen
        shortest, longest = column.lengths
        if self.margin == 0:
            return {"length": {"min": shortest, "max": longest}}, f"{seen}, {shortest} … {longest} characters"
        if shortest == longest and column.distinct >= FEWEST_OF_A_LEVEL:
            return {"length": {"min": shortest, "max": longest}}, f"{seen}, {longest} characters each"
        if longest > LONGEST_TEXT or len(levels) == 1:
            return ({"length": {"min": 1}} if shortest else {}), f"{seen}, up to {longest:,} characters"
        room = {"min": min(1, shortest), "max": int(round_up(longest * (1 + 5 * self.margin)))}
        return {"length": room}, f"{seen}, {shortest} … {longest} characters"

    def _pattern(self, surveyor: Surveyor) -> str | None:
        column = self.column
        values = column.sample if column.levels is None else tuple(str(level.value) for level in column.levels)
        exact = self.margin == 0
        tried = dict.fromkeys(pattern_of(values, exact=exact, words=words) for words in (True, False))
        return next((p for p in tried if p and surveyor.matches(column.name, p)), None)


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _word(value: str) -> str:
    text = " ".join(value.split())
    return repr(text if len(text) <= 40 else text[:39] + "…")


# ---------------------------------------------------------------- guesses


def _is_key(column: ColumnSurvey) -> bool:
    """Whether a column identifies a row: no value twice, and a name or a form that keys have."""
    if not column.unique or column.nulls or column.type not in ("string", "int") or column.rows < 2:
        return False
    if looks_like_key(column.name):
        return True
    if column.rows < ENOUGH_ROWS:
        return False
    if column.type == "int":
        return column.largest is not None and column.largest - (column.smallest or 0) + 1 == column.rows
    return pattern_of(column.sample) is not None


def _time(survey: Survey, known: Known) -> str:
    if known.time:
        return known.time
    times = [c for c in survey.columns if c.is_time and c.count]
    times.sort(key=lambda c: (c.nulls > 0, not set(words_of(c.name)) & _TIME_WORDS, c.type == "date", -c.distinct))
    return times[0].name if times else ""


def _target(survey: Survey, hidden: Collection[str]) -> str:
    named = [c.name for c in survey.columns if set(words_of(c.name)) & _TARGET_WORDS and c.type and not c.nulls]
    if named:
        return named[-1]
    last = survey.columns[-1] if survey.columns else None
    two = last is not None and last.levels is not None and len(last.levels) == 2 and not last.nulls
    return last.name if last and two and last.name not in hidden else ""


def _joint_key(surveyor: Surveyor, survey: Survey, time: str, apart: Collection[str]) -> tuple[str, ...]:
    """Two columns that identify a row together: an id and a time, or two ids."""
    if survey.rows < ENOUGH_ROWS:
        return ()
    ids = [c.name for c in survey.columns if c.type in ("string", "int") and looks_like_key(c.name)]
    parts = [name for name in (*ids, time) if name and name not in apart and name != ""]
    pairs = list(itertools.combinations(dict.fromkeys(parts), 2))[:KEY_COLUMNS_TRIED]
    return next((pair for pair in pairs if surveyor.no_value_twice(pair)), ())


# ---------------------------------------------------------------- whole file


def _checks(
    surveyor: Surveyor, survey: Survey, time: ColumnSurvey | None, known: Known, now: datetime, margin: float
) -> Iterator[Line]:
    rows = survey.rows
    if survey.of_all:
        yield _row_count(rows, margin)
        repeated = surveyor.repeated_rows()
        why = (
            f"{repeated:,} of {rows:,} rows repeat another exactly" if repeated else f"none of {rows:,} repeats another"
        )
        yield Line(name="duplicates", fields={"": math.ceil(repeated * (1 + margin))}, comment=why)
    if time is None or time.largest is None:
        return
    # Both need `data.time`: as long as that is a guess, so are they.
    guess = not known.time
    age = now - instant(int(time.largest))
    if timedelta(0) <= age <= FRESH:
        limit = next(step for step in _LADDER if step >= 2 * age)
        why = in_one_line(f"the newest {time.name} is {_days(age)} old; twice that, rounded up")
        yield Line(name="freshness", fields={"": show_duration(limit)}, comment=why, guess=guess)
    if survey.of_all and rows >= ENOUGH_ROWS and surveyor.never_back(time):
        why = in_one_line(f"{time.name} never goes back in {rows:,} rows")
        yield Line(name="monotonic", fields={"": True}, comment=why, guess=guess)


def _row_count(rows: int, margin: float) -> Line:
    if margin == 0:
        return Line(name="rows", fields={"min": rows}, comment="as many as here")
    why = f"a tenth of the {rows:,} here, since the held-out file counts too" if rows >= 10 else "the file has few"
    return Line(name="rows", fields={"min": max(1, round_down(rows // 10))}, comment=why)


def _days(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
